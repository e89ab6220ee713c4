//! The certificates that https nodes are verified against: the built-in roots, and those of `SSL_CERT_FILE`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::util::files;

/// Longest `SSL_CERT_FILE`. The bundles of distributions have 200 to 500 KiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why `SSL_CERT_FILE` is unusable.
#[derive(Debug)]
pub(crate) enum CertError {
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
