//! Reads the expiry date of a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// DER tags (X.690).
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
/// Fields of a `TBSCertificate` between the version and the validity: serial number, algorithm, issuer (RFC 5280,
/// section 4.1).
const FIELDS_BEFORE_VALIDITY: usize = 3;

/// Returns `notAfter` of a certificate that TLS has verified, so that its form is known to be valid.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let certificate = Elements(certificate).next()?.1;
    let to_be_signed = Elements(certificate).next()?.1;
    let mut fields = Elements(to_be_signed).skip_while(|(tag, _)| *tag == VERSION);
    let validity = fields.nth(FIELDS_BEFORE_VALIDITY)?.1;
    let (tag, text) = Elements(validity).nth(1)?;
    unix_time(tag, std::str::from_utf8(text).ok()?)
}

/// The elements of a DER sequence: tag and contents.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, length], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(length);
        if length >= 0x80 {
            let digits;
            (digits, rest) = rest.split_at_checked(length - 0x80)?;
            length = digits.iter().try_fold(0_usize, |sum, digit| {
                sum.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
        }
        let contents;
        (contents, self.0) = rest.split_at_checked(length)?;
        Some((tag, contents))
    }
}

/// `YYMMDDHHMMSSZ`, or `YYYYMMDDHHMMSSZ` from the year 2050 on.
fn unix_time(tag: u8, text: &str) -> Option<SystemTime> {
    let year_digits = if tag == UTC_TIME { 2 } else { 4 };
    let number = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<u8>().ok();
    let year = text.get(..year_digits)?.parse::<i32>().ok()?;
    let year = match (tag, year) {
        (UTC_TIME, 50..) => 1900 + year,
        (UTC_TIME, _) => 2000 + year,
        _ => year,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(year_digits + at, 2));
    let date = time::Date::from_calendar_date(year, month?.try_into().ok()?, day?).ok()?;
    let moment = date.with_hms(hour?, minute?, second?).ok()?.assume_utc();
    let seconds = u64::try_from(moment.unix_timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
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
                assert_eq!(not_after(&certificate.der()[..cut]), None, "{cut}");
            }
        }
    }
}
