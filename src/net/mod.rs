//! One bounded `GET`: host name, addresses, TLS, deadline, redirects, reasons. The callers decide which URL to request
//! and what the response means.

mod certificate;
mod connection;
mod reason;
mod redirect;
mod resolver;
mod roots;
mod system;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crossbeam_channel::Receiver;
use rustls::ClientConfig;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderName, LOCATION};

use crate::config::Config;
use crate::util::polled::Polled;
use crate::util::text;
use crate::util::threads::{Alarm, Joined};
use connection::Dial;
pub(crate) use connection::Peer;
pub(crate) use resolver::HostResolver;

pub(crate) use reason::{Family, FetchError};

/// A node has this long for one request: name resolution, connect, TLS, header section and body.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest header section of a response. Nodes send some 200 bytes, an Explorer at a content network a few KiB.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Redirects that a node of ips.txt may send. An Explorer node may send none: a party that registers a node must not
/// choose what the router calls.
pub(crate) const MAX_REDIRECTS: u32 = 3;
/// The body of a 400 is read up to this length.
const MAX_ERROR_BYTES: u64 = 4 * 1024;
/// What nginx and Go respond to plain HTTP on a TLS port.
const TLS_PORT_ERRORS: [&str; 2] = [
    "The plain HTTP request was sent to HTTPS port",
    "Client sent an HTTP request to an HTTPS server",
];
/// Characters of a page for a browser in a reason.
const MAX_PAGE_CHARS: usize = 40;

/// Sends requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    agent: ureq::config::Config,
    tls: Arc<Polled<ClientConfig>>,
    resolver: HostResolver,
    /// Set by the shutdown.
    is_closed: Arc<AtomicBool>,
}

impl Fetcher {
    /// A fetcher that trusts the built-in roots, for nodes that are probed once per interval.
    #[expect(clippy::disallowed_methods, reason = "the built-in roots are as old as the fetcher")]
    pub(crate) fn new(interval: Duration) -> Self {
        let tls = Polled::new("SSL_CERT_FILE");
        tls.accept(Arc::new(roots::with_own(Vec::new())), Instant::now());
        Self {
            agent: agent_config(),
            tls: Arc::new(tls),
            resolver: HostResolver::new(interval, Box::new(system::look_up)),
            is_closed: Arc::default(),
        }
    }

    /// A fetcher as the settings want it. Many images set `SSL_CERT_FILE` for all programs, so an unusable file must
    /// not keep the router from starting.
    pub(crate) fn of_config(config: &Config) -> Self {
        let fetcher = Self::new(config.refresh_interval);
        if let Some(path) = &config.ssl_cert_file {
            roots::read(path, &fetcher.tls);
        }
        fetcher
    }

    /// Reads `SSL_CERT_FILE` again after a change and at each message of `reload`, until `stop` closes. If the file is
    /// unusable, the last roots stay in effect.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub(crate) fn watch_roots(&self, path: &Path, channels: [Receiver<()>; 2], alarm: &Alarm) -> io::Result<Joined> {
        roots::watch(path, &self.tls, channels, alarm)
    }

    pub(crate) fn resolver(&self) -> &HostResolver {
        &self.resolver
    }

    /// Sends one `GET`, and follows redirects as far as `bounds` and [`redirect`] allow it.
    ///
    /// # Errors
    /// There is no complete response within the bounds.
    pub(crate) fn get(&self, url: &str, bounds: Bounds) -> Result<Response, FetchError> {
        self.get_as(None, url, bounds)
    }

    /// Sends one `GET` with Basic authentication: `credentials` is `user:password` (RFC 7617).
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub(crate) fn get_as(&self, credentials: Option<&[u8]>, url: &str, bounds: Bounds) -> Result<Response, FetchError> {
        #[expect(clippy::disallowed_methods, reason = "one deadline over all hops")]
        let deadline = Instant::now() + bounds.timeout;
        let parsed = redirect::parse(url).ok_or_else(|| FetchError::of_peer("not a URL"))?;
        let mut dial = Dial {
            // All hops use these addresses, so that a name server cannot send the second hop elsewhere.
            addrs: self.resolver.addresses(&parsed.origin.host(), bounds.timeout)?,
            deadline,
            is_closed: Arc::clone(&self.is_closed),
            tls: self.tls.value().expect("the built-in roots were accepted"),
            peer: Arc::default(),
        };
        let mut target = url.to_owned();
        for hop in 0..=bounds.max_redirects {
            dial.peer = Arc::default();
            let mut response = self.send(&target, &dial, credentials, bounds)?;
            response.redirected_to = (hop > 0).then(|| reason::escaped(&target));
            match &response.location {
                Some(location) if bounds.max_redirects > 0 => {
                    target = redirect::follow(&target, location, response.status)?;
                }
                _ => return Ok(response),
            }
        }
        let reason = format!("more than {} redirects", bounds.max_redirects);
        Err(FetchError::of_peer(reason))
    }

    fn send(&self, url: &str, dial: &Dial, credentials: Option<&[u8]>, bounds: Bounds) -> Result<Response, FetchError> {
        // An agent for each request, because ureq passes no data of a request to its resolver and connector.
        let agent = Agent::with_parts(self.agent.clone(), dial.clone(), dial.clone());
        let mut request = agent.get(url);
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(credentials)));
        }
        let mut response = request.call()?;
        let status = response.status();
        let headers = response.headers();
        let location = header(headers, LOCATION).filter(|_| status.is_redirection());
        let encoding =
            header(headers, CONTENT_ENCODING).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let body = response.body_mut().with_config();
        let body = match status.as_u16() {
            200 => body.limit(bounds.max_body_bytes).read_to_vec()?,
            400 => body.limit(MAX_ERROR_BYTES).read_to_vec().unwrap_or_default(),
            _ => Vec::new(),
        };
        Ok(Response {
            status: status.as_u16(),
            body,
            redirected_to: None,
            peer: dial.peer.get().copied(),
            location,
            encoding,
        })
    }

    /// Aborts the requests in flight within half a second, as far as that is possible: a connect is not.
    pub(crate) fn shutdown(&self) {
        self.resolver.close();
        self.is_closed.store(true, Relaxed);
    }
}

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For everything: name resolution, connect, TLS, header section and body.
    pub(crate) timeout: Duration,
    pub(crate) max_body_bytes: u64,
    /// How many redirects on the same host are followed. 0: none.
    pub(crate) max_redirects: u32,
}

/// A response with complete header section and body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Empty unless the status is 200 or 400.
    pub(crate) body: Vec<u8>,
    /// The last URL, if redirects were followed. Escaped for the log.
    pub(crate) redirected_to: Option<String>,
    /// The server. Set with each response.
    pub(crate) peer: Option<Peer>,
    /// `Location` of a redirect: untrusted text.
    location: Option<String>,
    /// `Content-Encoding` other than identity: untrusted text.
    encoding: Option<String>,
}

impl Response {
    /// Returns the body of a readable 200, to be parsed as JSON.
    ///
    /// # Errors
    /// Another status, a content encoding that was not requested, or a page for a browser.
    pub(crate) fn into_body(self) -> Result<Vec<u8>, FetchError> {
        let reason = match (self.status, self.location, self.encoding) {
            (200, _, None) if self.body.trim_ascii_start().starts_with(b"<") => {
                let page = String::from_utf8_lossy(self.body.trim_ascii_start());
                let begin = text::quote(&page, MAX_PAGE_CHARS);
                format!("not JSON but a page for a browser, as another service or a proxy sends it: {begin}")
            }
            (200, _, None) => return Ok(self.body),
            (200, _, Some(encoding)) => format!(
                "Content-Encoding {} though none was requested: turn it off at the node or its proxy",
                reason::quoted(&encoding)
            ),
            (status, Some(location), _) => format!("status {status}: redirect to {}", redirect::shown(&location)),
            (400, ..) if is_tls_port(&self.body) => "TLS port: list the node with https://".to_owned(),
            (status, None, _) => format!("status {status}"),
        };
        Err(FetchError::of_peer(reason))
    }
}

fn is_tls_port(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    TLS_PORT_ERRORS.iter().any(|error| body.contains(error))
}

fn agent_config() -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_redirects(0)
        .user_agent(concat!("infernet-router/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .accept_encoding("identity")
        .build()
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}
