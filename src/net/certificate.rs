//! Reads the expiry date of a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// Returns `notAfter`. webpki has no accessor for it, but names it for a time after it, before any other check.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
    match certificate.verify_for_usage(&[], &[], &[], end_of_time, KeyUsage::server_auth(), None, None) {
        Err(Error::CertExpired { not_after, .. }) => UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_read_in_both_time_formats() {
        for (year, seconds) in [(2026, 1_772_323_200), (2049, 2_498_169_600), (2050, 2_529_705_600)] {
            let mut params = rcgen::CertificateParams::new(["a".to_owned()]).expect("a name");
            params.not_after = rcgen::date_time_ymd(year, 3, 1);
            let key = rcgen::KeyPair::generate().expect("randomness");
            let certificate = params.self_signed(&key).expect("complete");
            let expires = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(not_after(certificate.der()), Some(expires), "{year}");
            for cut in 0..120 {
                let cut = CertificateDer::from(&certificate.der()[..cut]);
                assert_eq!(not_after(&cut), None);
            }
        }
    }
}
