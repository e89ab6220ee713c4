//! The certificates that https nodes are verified against: the built-in roots, and those of `SSL_CERT_FILE`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::util::polled::Polled;
use crate::util::threads::{Alarm, Joined};
use crate::util::watched_file::{self, Outcome, WatchedFile};

/// Longest `SSL_CERT_FILE`. The bundles of distributions have 200 to 500 KiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Reads `SSL_CERT_FILE` once.
pub(super) fn read(path: &Path, polled: &Polled<ClientConfig>) {
    let result = watched_file::read_once(path, MAX_CERT_FILE_BYTES, parse);
    if let Some(Err(reason)) = watched_file::apply(polled, result, false) {
        warn(path, &reason);
    }
}

/// Follows the changes of `SSL_CERT_FILE`, which was read once, until `stop` closes. A message on `reload` has it read
/// immediately.
///
/// # Errors
/// The system has no room for a thread.
pub(super) fn watch(
    path: &Path,
    polled: &Arc<Polled<ClientConfig>>,
    [reload, stop]: [Receiver<()>; 2],
    alarm: &Alarm,
) -> io::Result<Joined> {
    let file = WatchedFile::new(path, MAX_CERT_FILE_BYTES, parse, polled);
    let (path, mut is_first) = (path.to_owned(), true);
    let report = move |outcome: Outcome<ClientConfig>| match outcome {
        _ if std::mem::take(&mut is_first) => {}
        Ok(_) => log::info!(file:% = path.display(); "roots loaded: SSL_CERT_FILE read again"),
        Err(reason) => warn(&path, &reason),
    };
    watched_file::watch(file, report, reload, stop, alarm)
}

fn warn(path: &Path, reason: &str) {
    log::warn!(file:% = path.display(), reason; "roots rejected: last accepted roots stay in effect");
}

/// Returns the TLS configuration that trusts the built-in roots and those in the file.
fn parse(text: &[u8], _: Option<&ClientConfig>) -> Result<ClientConfig, String> {
    let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let own = own.unwrap_or_default();
    match RootCertStore::empty().add_parsable_certificates(own.iter().cloned()) {
        (0, _) => Err("expected certificates in PEM form".to_owned()),
        _ => Ok(with_own(own)),
    }
}

/// The TLS configuration that trusts the built-in roots and `own`.
pub(super) fn with_own(own: Vec<CertificateDer<'static>>) -> ClientConfig {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(own);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session skips the certificate check, so that a certificate could expire unnoticed.
    config.resumption = Resumption::disabled();
    config
}
