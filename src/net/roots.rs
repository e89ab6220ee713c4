//! The certificates that https nodes are verified against: the built-in roots, and those of `SSL_CERT_FILE`.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, select_biased};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::util::files;

/// Longest `SSL_CERT_FILE`. The bundles of distributions have 200 to 500 KiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Time between two looks at the file. A change is read when the file has stayed the same from one look to the next.
const LOOK: Duration = Duration::from_secs(1);

/// Why `SSL_CERT_FILE` is unusable.
#[derive(Debug)]
pub(super) enum CertError {
    Unreadable(std::io::Error),
    NoCertificate,
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertError::Unreadable(error) => error.fmt(f),
            CertError::NoCertificate => f.write_str("expected certificates in PEM form"),
        }
    }
}

impl std::error::Error for CertError {}

/// The TLS configuration that trusts the built-in roots alone.
pub(super) fn built_in() -> Arc<ClientConfig> {
    with_own(Vec::new())
}

/// Reads `SSL_CERT_FILE`, and returns the TLS configuration that trusts the built-in roots and those in the file.
///
/// # Errors
/// The file is unreadable, or contains no usable certificate, or a malformed one.
pub(super) fn with_file(path: &Path) -> Result<Arc<ClientConfig>, CertError> {
    let text = files::read_regular(path, MAX_CERT_FILE_BYTES).map_err(CertError::Unreadable)?;
    let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let own = own.map_err(|_| CertError::NoCertificate)?;
    if RootCertStore::empty().add_parsable_certificates(own.iter().cloned()).0 == 0 {
        return Err(CertError::NoCertificate);
    }
    Ok(with_own(own))
}

fn with_own(own: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(own);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session skips the certificate check, so that a certificate could expire unnoticed.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Calls `read` when the file has changed and settled, and at each message of `reread`, until `stop` closes. `read`
/// returns whether it accepted the file.
pub(super) fn follow(path: &Path, reread: &Receiver<()>, stop: &Receiver<()>, read: impl Fn() -> bool) {
    let mut last_read = stamp(path);
    let mut last_seen = last_read;
    loop {
        let is_requested = select_biased! {
            recv(stop) -> _ => return,
            recv(reread) -> message => message.is_ok(),
            default(LOOK) => false,
        };
        let now = stamp(path);
        if is_requested || (now == last_seen && now != last_read) {
            last_read = now;
            if read() {
                log::info!(file:% = path.display(); "roots loaded: SSL_CERT_FILE read again");
            }
        }
        last_seen = now;
    }
}

/// What changes when a file is written or replaced. `None`: it cannot be examined.
fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}
