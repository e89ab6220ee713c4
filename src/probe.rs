//! Asks one node how it is: a single `GET /info`, bounded in time and size, on a pool of threads.
//! Neither logs nor decides who is "up": the poller does.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::io::Errno;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use crate::config::Config;
use crate::names::Names;
use crate::node::{NodeAddr, NodeInfo};
use crate::registry::NodeId;
use crate::threads::{self, Joined};

/// For everything: name look-up, connect, TLS, head and body.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest `/info` body read. Real ones are a few KiB; 128 probes stay below 32 MiB.
pub const MAX_INFO_BYTES: u64 = 256 * 1024;
/// Longest head of an answer. Nodes send some 200 bytes, an Explorer behind a content network a few KiB.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Buffers of a connection. ureq's 128 KiB each way are the difference between 50 and 21 MiB for 128 probes. What comes
/// in has to have room for the whole head and a byte more, by which a longer one is told.
const INPUT_BUFFER_BYTES: usize = MAX_HEAD_BYTES + 1;
const OUTPUT_BUFFER_BYTES: usize = 4 * 1024;
/// Redirects that a node of ips.txt may send. One that only the Explorer named may send none: whoever registers a
/// node must not choose what the router calls.
const MAX_REDIRECTS: u32 = 3;

/// For connect and TLS of any request. They can't be cut short, and the router has to end within 5 s.
const CONNECT_TIMEOUT: Duration = PROBE_TIMEOUT;

/// What a node is allowed to do with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Named by the operator: up to three redirects are followed.
    Listed,
    /// Named by the Explorer: none is.
    Explorer,
}

/// How a probe ended.
#[derive(Debug)]
pub enum Outcome {
    /// The node answered as a node does.
    Up(NodeInfo),
    /// 429: it is alive and asks us less often. Neither a success nor a failure.
    Limited,
    /// A failure, with the reason in a few words.
    Failed(String),
    /// It went wrong on our side (descriptors, memory, ports): no verdict.
    Ours(String),
}

/// Asks nodes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Tried in this order, the next one only when this one does not trust a certificate.
    agents: Arc<[Agent]>,
    names: Names,
}

/// Why `SSL_CERT_FILE` is of no use.
#[derive(Debug)]
pub struct CertError(String);

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertError {}

impl Default for Prober {
    /// Trusts the built-in roots.
    fn default() -> Self {
        Self::with_roots([RootCerts::WebPki])
    }
}

impl Prober {
    /// A prober that trusts the built-in roots and those in `cert_file`.
    ///
    /// # Errors
    /// When the file can't be read or has no certificate in it.
    pub fn new(cert_file: Option<&Path>) -> Result<Self, CertError> {
        let own = cert_file.map(read_roots).transpose()?;
        Ok(Self::with_roots(own.into_iter().chain([RootCerts::WebPki])))
    }

    /// A prober as the settings want it. Many images set `SSL_CERT_FILE` for everyone, so one that is of no use must
    /// not keep the router from starting.
    pub(crate) fn of_config(config: &Config) -> Self {
        Self::new(config.ssl_cert_file.as_deref()).unwrap_or_else(|error| {
            log::warn!("{error}; https nodes are checked against the built-in roots alone");
            Self::default()
        })
    }

    fn with_roots(roots: impl IntoIterator<Item = RootCerts>) -> Self {
        let names = Names::default();
        Self {
            agents: roots.into_iter().map(|roots| agent(roots, &names)).collect(),
            names,
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Asks one node. Takes no longer than [`PROBE_TIMEOUT`].
    pub fn probe(&self, addr: &NodeAddr, trust: Trust) -> Outcome {
        let bounds = Bounds {
            timeout: PROBE_TIMEOUT,
            max_body_bytes: MAX_INFO_BYTES,
            max_redirects: match trust {
                Trust::Listed => MAX_REDIRECTS,
                Trust::Explorer => 0,
            },
        };
        match self.get(&addr.info_url(), bounds) {
            Ok((200, body)) => {
                NodeInfo::parse(&body).map_or_else(|error| Outcome::Failed(error.to_string()), Outcome::Up)
            }
            Ok((429, _)) => Outcome::Limited,
            Ok((status, _)) => Outcome::Failed(format!("answered {status}")),
            Err(error) => failure(error),
        }
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
        self.names.close();
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

fn agent(roots: RootCerts, names: &Names) -> Agent {
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
    Agent::with_parts(config, DefaultConnector::default(), names.clone())
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

fn failure(error: ureq::Error) -> Outcome {
    if let ureq::Error::Io(error) = &error
        && is_ours(error)
    {
        return Outcome::Ours(error.to_string());
    }
    Outcome::Failed(reason(&error))
}

/// What a lack of ours looks like. No address available: the ports are used up, since addresses that can't be reached
/// from here are left out before a connect (`names`).
pub(crate) fn is_ours(error: &io::Error) -> bool {
    const OURS: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno))
}

/// A failed request in words that don't change from one time to the next.
pub(crate) fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => "host name not looked up in time".to_owned(),
        ureq::Error::Timeout(_) => "no complete answer in time".to_owned(),
        ureq::Error::HostNotFound => "host name not found".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("answer of more than {limit} bytes"),
        ureq::Error::LargeResponseHeader(..) => format!("head of more than {MAX_HEAD_BYTES} bytes"),
        ureq::Error::TooManyRedirects => format!("more than {MAX_REDIRECTS} redirects"),
        ureq::Error::Io(error) => io_reason(error),
        other => short(&format!("{other}")),
    }
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "answer ended too early".to_owned(),
        _ => short(&error.to_string()),
    }
}

/// Text that a node may have had a hand in: escaped, and no longer than a log line should be.
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect()
}

/// One node to ask.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: NodeId,
    /// The registry's number of this probe.
    pub(crate) probe: u32,
    pub(crate) addr: NodeAddr,
    pub(crate) trust: Trust,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) id: NodeId,
    pub(crate) probe: u32,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// The threads that ask, as many as were ever needed at once.
#[derive(Debug)]
pub(crate) struct Pool {
    prober: Prober,
    /// Field order is drop order: the channel must close before the joins, or they never end.
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    reports: Sender<Report>,
    threads: Vec<Joined>,
}

impl Pool {
    /// A pool for at most `max_probes` jobs under way at once. Both channels have room for all of them, so neither
    /// the pool nor its owner ever waits to send.
    pub(crate) fn new(prober: Prober, max_probes: usize) -> (Self, Receiver<Report>) {
        let (jobs, queue) = bounded(max_probes);
        let (reports, inbox) = bounded(max_probes);
        let pool = Self {
            prober,
            jobs,
            queue,
            reports,
            threads: Vec::new(),
        };
        (pool, inbox)
    }

    /// Starts threads until there are this many.
    ///
    /// # Errors
    /// When not even one can be started.
    pub(crate) fn grow(&mut self, threads: usize) -> io::Result<()> {
        while self.threads.len() < threads {
            let (queue, reports, prober) = (self.queue.clone(), self.reports.clone(), self.prober.clone());
            match threads::spawn("probe", move || run(&queue, &reports, &prober)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(error),
                Err(error) => {
                    log::debug!("{} probe threads, no more: {error}", self.threads.len());
                    break;
                }
            }
        }
        Ok(())
    }

    /// Hands a job over. The owner keeps count: there are never more under way than the channel has room for.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.prober.shutdown();
        // Both ends of the channel are here: drain it, then close it, and the threads end after what they are at.
        while self.queue.try_recv().is_ok() {}
        let (closed, _) = bounded(0);
        self.jobs = closed;
        self.threads.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn run(queue: &Receiver<Job>, reports: &Sender<Report>, prober: &Prober) {
    for job in queue {
        let begin = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| prober.probe(&job.addr, job.trust)))
            .unwrap_or_else(|_| Outcome::Failed("the probe panicked".to_owned()));
        let report = Report {
            id: job.id,
            probe: job.probe,
            outcome,
            took: begin.elapsed(),
        };
        if reports.send(report).is_err() {
            return;
        }
    }
}
