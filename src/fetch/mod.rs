//! One bounded `GET`: agents, roots, deadlines, buffers, reasons in words. Whom to ask and what an answer means
//! is decided by the callers: `probe` and `resources` ask nodes, `lists` the Explorer, `commands` the router itself.

mod reason;
mod redirect;
mod resolver;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use crate::config::Config;
use crate::util::files;
pub(crate) use reason::FetchError;
use reason::{certificate_error, short};
use redirect::{Target, shown};
pub(crate) use resolver::HostResolver;
use rustls::{CertificateError, RootCertStore};
use ureq::http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, LOCATION};

/// A node has this long for everything that one request takes: name look-up, connect, TLS, head and body.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest head of an answer. Nodes send some 200 bytes, an Explorer behind a content network a few KiB.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Buffers of a connection. ureq's 128 KiB each way are the difference between 50 and 21 MiB for 128 probes. What comes
/// in has to have room for the whole head and a byte more, by which a longer one is told.
const INPUT_BUFFER_BYTES: usize = MAX_HEAD_BYTES + 1;
const OUTPUT_BUFFER_BYTES: usize = 4 * 1024;
/// Longest `SSL_CERT_FILE`. The bundles of distributions have 200 to 500 KiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// What is wanted of `SSL_CERT_FILE`: ureq takes what can't be read in it for nothing, without a word.
const EXPECTED_CERTIFICATES: &str = "expected certificates in PEM form";
/// Redirects that a node of ips.txt may send. One that only the Explorer named may send none: whoever registers a
/// node must not choose what the router calls.
pub(crate) const MAX_REDIRECTS: u32 = 3;

/// For connect and TLS of any request. They can't be cut short, and the router has to end within 5 s.
const CONNECT_TIMEOUT: Duration = NODE_TIMEOUT;

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

    /// One `GET`, and what it is redirected to, as far as `bounds` and [`redirect`] allow it.
    ///
    /// # Errors
    /// When there is no whole answer within the bounds.
    #[expect(clippy::disallowed_methods, reason = "one deadline over all hops")]
    pub(crate) fn get(&self, url: &str, bounds: Bounds) -> Result<Answer, FetchError> {
        let begin = Instant::now();
        let (mut url, mut timeout, mut hops) = (url.to_owned(), bounds.timeout, 0);
        loop {
            let mut answer = self.get_once(&url, Bounds { timeout, ..bounds })?;
            timeout = bounds.timeout.saturating_sub(begin.elapsed());
            answer.redirected_to = (hops > 0).then(|| short(&url));
            let Some(location) = answer.location.as_deref().filter(|_| bounds.max_redirects > 0) else {
                return Ok(answer);
            };
            url = follow(&url, location, answer.status)?.url();
            hops += 1;
            if hops > bounds.max_redirects {
                return Err(FetchError::of_peer(format!("more than {MAX_REDIRECTS} redirects")));
            }
        }
    }

    /// Asks with the roots of `SSL_CERT_FILE`, then, where those do not vouch for a certificate, with the built-in ones.
    #[expect(clippy::disallowed_methods, reason = "one deadline over all agents")]
    fn get_once(&self, url: &str, bounds: Bounds) -> Result<Answer, FetchError> {
        let begin = Instant::now();
        let (mut timeout, mut refused) = (bounds.timeout, None);
        for agent in self.agents.iter() {
            let error = match ask(agent, url, Bounds { timeout, ..bounds }) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            timeout = bounds.timeout.saturating_sub(begin.elapsed());
            match certificate_error(&error) {
                None => return Err(error.into()),
                // Roots that don't know an issuer have nothing to say of its certificate: what others said is better.
                Some(CertificateError::UnknownIssuer) if refused.is_some() => {}
                Some(_) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(ureq::Error::ConnectionFailed).into())
    }

    /// Cuts the requests under way short, as far as that is possible: not connects.
    pub(crate) fn shutdown(&self) {
        self.resolver.close();
        self.agents.iter().for_each(|agent| agent.clone().shutdown());
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty unless the status is 200.
    pub(crate) body: Vec<u8>,
    /// Where redirects led, if any were followed; fit for the log.
    pub(crate) redirected_to: Option<String>,
    /// `Location` of a redirect: foreign text.
    location: Option<String>,
    /// `Content-Encoding`, if that is any: foreign text.
    encoding: Option<String>,
}

impl Answer {
    /// The body of a 200 that can be read.
    ///
    /// # Errors
    /// What was answered instead, in words for the log.
    pub(crate) fn into_body(self) -> Result<Vec<u8>, String> {
        match (self.status, self.location, self.encoding) {
            (200, _, None) => Ok(self.body),
            (200, _, Some(encoding)) => Err(format!(
                "answered with \"Content-Encoding: {}\" though asked for none; turn that off there, or in the proxy in \
                 front of it",
                short(&encoding)
            )),
            (status, Some(location), _) => Err(format!("answered {status}, a redirect to {}", shown(&location))),
            (status, None, _) => Err(format!("answered {status}")),
        }
    }
}

/// The place that a redirect from `url` leads to.
fn follow(url: &str, location: &str, status: u16) -> Result<Target, FetchError> {
    let from = Target::parse(url);
    let to = from.as_ref().and_then(|from| from.join(location));
    let denied = match (&from, &to) {
        (Some(from), Some(to)) => from.deny_reason(to),
        _ => Some("no address"),
    };
    match (to, denied) {
        (Some(to), None) => Ok(to),
        (_, why) => Err(FetchError::of_peer(format!(
            "answered {status}, a redirect to {}, which is not followed: {}",
            shown(location),
            why.unwrap_or_default()
        ))),
    }
}

/// What one request may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For everything: name look-up, connect, TLS, head and body.
    pub(crate) timeout: Duration,
    pub(crate) max_body_bytes: u64,
    /// How many redirects on the same host are followed; 0: none.
    pub(crate) max_redirects: u32,
}

fn agent(roots: RootCerts, resolver: &HostResolver) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(NODE_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD_BYTES)
        .input_buffer_size(INPUT_BUFFER_BYTES)
        .output_buffer_size(OUTPUT_BUFFER_BYTES)
        .max_redirects(0)
        .user_agent(concat!("infernet-router/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .accept_encoding("identity")
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    Agent::with_parts(config, DefaultConnector::default(), resolver.clone())
}

fn read_roots(path: &Path) -> Result<RootCerts, CertError> {
    let wrong = |what: &dyn fmt::Display| CertError(format!("SSL_CERT_FILE={path:?}: {what}"));
    let text = files::read_regular(path, MAX_CERT_FILE_BYTES).map_err(|error| wrong(&error))?;
    let items = parse_pem(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong(&EXPECTED_CERTIFICATES))?;
    let certificates: Vec<Certificate<'static>> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    let usable = certificates.iter().map(|certificate| certificate.der().into());
    if RootCertStore::empty().add_parsable_certificates(usable).0 == 0 {
        return Err(wrong(&EXPECTED_CERTIFICATES));
    }
    Ok(RootCerts::from(certificates))
}

fn ask(agent: &Agent, url: &str, bounds: Bounds) -> Result<Answer, ureq::Error> {
    let request = agent.get(url);
    // A request with settings of its own can't fill ureq's cache of the TLS configuration, though it uses it. So the
    // agents are set up for what nodes are asked with; what is left of a deadline is of the same few seconds.
    let request = match bounds.timeout {
        NODE_TIMEOUT => request,
        timeout => request.config().timeout_global(Some(timeout)).build(),
    };
    let mut response = request.call()?;
    let status = response.status().as_u16();
    let headers = response.headers();
    let location = text(headers, LOCATION).filter(|_| response.status().is_redirection());
    let encoding =
        text(headers, CONTENT_ENCODING).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
    let body = match status {
        200 => response
            .body_mut()
            .with_config()
            .limit(bounds.max_body_bytes)
            .read_to_vec()?,
        _ => Vec::new(),
    };
    Ok(Answer {
        status,
        body,
        redirected_to: None,
        location,
        encoding,
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}
