//! One bounded `GET`: agents, roots, deadlines, buffers, reasons in words. Whom to ask and what an answer means is for
//! others: `probe` asks nodes, `lists` the Explorer, `commands` the router itself.

mod reason;
mod resolver;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use crate::config::Config;
pub(crate) use reason::{is_local, reason};
pub(crate) use resolver::HostResolver;

/// For everything that one probe does: name look-up, connect, TLS, head and body.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest head of an answer. Nodes send some 200 bytes, an Explorer behind a content network a few KiB.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Buffers of a connection. ureq's 128 KiB each way are the difference between 50 and 21 MiB for 128 probes. What comes
/// in has to have room for the whole head and a byte more, by which a longer one is told.
const INPUT_BUFFER_BYTES: usize = MAX_HEAD_BYTES + 1;
const OUTPUT_BUFFER_BYTES: usize = 4 * 1024;
/// Redirects that a node of ips.txt may send. One that only the Explorer named may send none: whoever registers a
/// node must not choose what the router calls.
pub(crate) const MAX_REDIRECTS: u32 = 3;

/// For connect and TLS of any request. They can't be cut short, and the router has to end within 5 s.
const CONNECT_TIMEOUT: Duration = PROBE_TIMEOUT;

/// Fetches; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    /// Tried in this order, the next one only when this one does not trust a certificate.
    agents: Arc<[Agent]>,
    resolver: HostResolver,
}

/// Why `SSL_CERT_FILE` is of no use.
#[derive(Debug)]
pub(crate) struct CertError(String);

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertError {}

impl Default for Fetcher {
    /// Trusts the built-in roots.
    fn default() -> Self {
        Self::with_roots([RootCerts::WebPki])
    }
}

impl Fetcher {
    /// A fetcher that trusts the built-in roots and those in `cert_file`.
    ///
    /// # Errors
    /// When the file can't be read or has no certificate in it.
    pub(crate) fn new(cert_file: Option<&Path>) -> Result<Self, CertError> {
        let own = cert_file.map(read_roots).transpose()?;
        Ok(Self::with_roots(own.into_iter().chain([RootCerts::WebPki])))
    }

    /// A fetcher as the settings want it. Many images set `SSL_CERT_FILE` for everyone, so one that is of no use must
    /// not keep the router from starting.
    pub(crate) fn of_config(config: &Config) -> Self {
        Self::new(config.ssl_cert_file.as_deref()).unwrap_or_else(|error| {
            log::warn!("{error}; https nodes are checked against the built-in roots alone");
            Self::default()
        })
    }

    fn with_roots(roots: impl IntoIterator<Item = RootCerts>) -> Self {
        let resolver = HostResolver::default();
        Self {
            agents: roots.into_iter().map(|roots| agent(roots, &resolver)).collect(),
            resolver,
        }
    }

    pub(crate) fn resolver(&self) -> &HostResolver {
        &self.resolver
    }

    /// One `GET`: the status, and the body where that is 200.
    #[expect(clippy::disallowed_methods, reason = "one deadline over all agents")]
    pub(crate) fn get(&self, url: &str, bounds: Bounds) -> Result<(u16, Vec<u8>), ureq::Error> {
        let deadline = Instant::now() + bounds.timeout;
        let (mut answer, mut timeout) = (Err(ureq::Error::ConnectionFailed), bounds.timeout);
        for agent in self.agents.iter() {
            answer = ask(agent, url, Bounds { timeout, ..bounds });
            timeout = deadline.saturating_duration_since(Instant::now());
            if !answer.as_ref().is_err_and(is_untrusted) {
                break;
            }
        }
        answer
    }

    /// Cuts the requests under way short, as far as that is possible: not connects.
    pub(crate) fn shutdown(&self) {
        self.resolver.close();
        self.agents.iter().for_each(|agent| agent.clone().shutdown());
    }
}

/// What one request may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For everything: name look-up, connect, TLS, head and body.
    pub(crate) timeout: Duration,
    pub(crate) max_body_bytes: u64,
    pub(crate) max_redirects: u32,
}

fn agent(roots: RootCerts, resolver: &HostResolver) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(PROBE_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD_BYTES)
        .input_buffer_size(INPUT_BUFFER_BYTES)
        .output_buffer_size(OUTPUT_BUFFER_BYTES)
        .max_redirects(MAX_REDIRECTS)
        .user_agent(concat!("infernet-router/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    Agent::with_parts(config, DefaultConnector::default(), resolver.clone())
}

fn read_roots(path: &Path) -> Result<RootCerts, CertError> {
    let wrong = |what: &dyn fmt::Display| CertError(format!("SSL_CERT_FILE={path:?}: {what}"));
    let text = std::fs::read(path).map_err(|error| wrong(&error))?;
    let items = parse_pem(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&error))?;
    let certificates: Vec<Certificate<'static>> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(wrong(&"expected certificates in PEM form"));
    }
    Ok(RootCerts::from(certificates))
}

fn ask(agent: &Agent, url: &str, bounds: Bounds) -> Result<(u16, Vec<u8>), ureq::Error> {
    let request = agent.get(url);
    // A request with settings of its own can't fill ureq's cache of the TLS configuration, though it uses it. So the
    // agents are set up for what https nodes are asked with: those of the Explorer are plain http.
    let request = match (bounds.timeout, bounds.max_redirects) {
        (PROBE_TIMEOUT, MAX_REDIRECTS) => request,
        (timeout, redirects) => {
            let config = request.config().timeout_global(Some(timeout));
            config.max_redirects(redirects).build()
        }
    };
    let mut response = request.call()?;
    let status = response.status().as_u16();
    let body = match status {
        200 => response
            .body_mut()
            .with_config()
            .limit(bounds.max_body_bytes)
            .read_to_vec()?,
        _ => Vec::new(),
    };
    Ok((status, body))
}

/// Whether a certificate was refused, which with other roots it may not be. A handshake fails as an error of I/O with
/// rustls' own inside, whose type is not a dependency of ours; its name is stable enough for a second try.
fn is_untrusted(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(_) | ureq::Error::Rustls(_)) && format!("{error:?}").contains("InvalidCertificate")
}
