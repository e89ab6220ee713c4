//! Looks host names up, on a few threads of its own, and keeps the last answer for when a look-up fails.
//!
//! A look-up of the system can't be cut short and may take half a minute; a probe that needs a name waits for it no
//! longer than its own deadline, or a second when an older answer is known. So these threads are not joined, and names
//! that are slow wait behind those that are not.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::util::threads;

/// Look-ups under way at once. A silent name server holds a thread for ten seconds a name and more.
const MAX_THREADS: usize = 48;
/// Of these, for names that were slow the last time: the others have threads left however many of them there are.
const MAX_SLOW_THREADS: usize = 24;
/// A look-up that took as long as this was slow. A name server that answers does so in a tenth of it.
const SLOW: Duration = Duration::from_secs(1);
/// A thread that has had nothing to do for so long ends.
const THREAD_IDLE: Duration = Duration::from_secs(30);
/// How long an answer is used without asking again: below it, a round asks once for a name that many nodes share.
const FRESH: Duration = Duration::from_secs(5);
/// How long to wait for a new answer when an older one is known.
const STALE_GRACE: Duration = Duration::from_secs(1);
/// Names known at once; beyond it those that nobody asked for lately are forgotten.
const MAX_NAMES: usize = 100_000;
/// A name that was not asked for in this time may be forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// The names that were looked up, shared by all probes.
#[derive(Clone)]
pub(crate) struct HostResolver(Arc<Shared>);

/// Looks a name up, for as long as that takes.
type LookUp = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    answered: Condvar,
    asked: Condvar,
    look_up: LookUp,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Entry>,
    queue: VecDeque<String>,
    /// Names that were slow the last time.
    slow_queue: VecDeque<String>,
    threads: usize,
    idle_threads: usize,
    /// Threads that look up a name of the slow queue.
    slow_threads: usize,
    /// Names that were slow the last time, queued or not.
    slow_names: usize,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    addrs: Vec<IpAddr>,
    /// When the last look-up ended, successful or not.
    tried: Option<Instant>,
    asked: Instant,
    queued: bool,
    /// Whether the last look-up was slow.
    slow: bool,
}

impl fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostResolver").field(&*self.lock()).finish()
    }
}

impl Default for HostResolver {
    /// Asks the system, as its files and name servers have it.
    fn default() -> Self {
        Self::new(Box::new(|host| {
            let addrs = (host, 0).to_socket_addrs()?;
            Ok(addrs.map(|addr| addr.ip()).collect())
        }))
    }
}

impl HostResolver {
    fn new(look_up: LookUp) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            answered: Condvar::new(),
            asked: Condvar::new(),
            look_up,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads as soon as they are back from the system; nobody waits for a look-up any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.asked.notify_all();
        self.0.answered.notify_all();
    }

    /// What is known of a host without asking: itself for an address, the last answer for a name.
    pub(crate) fn known(&self, host: &str) -> Vec<IpAddr> {
        match host.parse() {
            Ok(addr) => vec![addr],
            Err(_) => self
                .lock()
                .names
                .get(host)
                .map(|entry| entry.addrs.clone())
                .unwrap_or_default(),
        }
    }

    /// Makes an answer the last one, as if it had just come.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "the answer is as old as the test")]
    pub(crate) fn learn(&self, host: &str, addrs: Vec<IpAddr>) {
        let now = Instant::now();
        let entry = Entry {
            addrs,
            tried: Some(now),
            asked: now,
            queued: false,
            slow: false,
        };
        self.lock().names.insert(host.to_owned(), entry);
    }

    /// The addresses of a host, in lower case: itself for an address; of a name a fresh answer if one comes in time, else
    /// the last one, else none.
    #[expect(clippy::disallowed_methods, reason = "waits against a deadline")]
    pub(crate) fn look_up(&self, host: &str, within: Duration) -> Vec<IpAddr> {
        if let Ok(addr) = host.parse() {
            return vec![addr];
        }
        let begin = Instant::now();
        let mut state = self.lock();
        if state.closed || !state.enqueue(host, begin) {
            return Vec::new();
        }
        self.start_threads(&mut state);
        self.0.asked.notify_one();
        loop {
            let Some(entry) = state.names.get(host) else {
                return Vec::new();
            };
            let patience = if entry.addrs.is_empty() {
                within
            } else {
                within.min(STALE_GRACE)
            };
            let left = patience.saturating_sub(begin.elapsed());
            if !entry.queued || left.is_zero() || state.closed {
                return entry.addrs.clone();
            }
            let waited = self.0.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether nothing is known of a host because its look-up has not ended.
    fn is_queued(&self, host: &str) -> bool {
        self.lock().names.get(host).is_some_and(|entry| entry.queued)
    }

    /// Threads are started when there is a name to look up that no idle one takes.
    fn start_threads(&self, state: &mut State) {
        if state.threads < MAX_THREADS && state.takeable() > state.idle_threads {
            let names = self.clone();
            match threads::spawn_detached("names", move || names.run()) {
                Ok(_) => state.threads += 1,
                // Those that are there go on; the next name tries again.
                Err(error) => log::debug!("no thread to look up host names: {error}"),
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some((host, was_slow)) = state.next() else {
                state.idle_threads += 1;
                let waited = self.0.asked.wait_timeout(state, THREAD_IDLE);
                let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = waited;
                state.idle_threads -= 1;
                if timeout.timed_out() && state.takeable() == 0 {
                    break;
                }
                continue;
            };
            drop(state);
            let begin = Instant::now();
            let found = (self.0.look_up)(&host);
            state = self.lock();
            state.slow_threads -= usize::from(was_slow);
            state.looked_up(&host, found, begin, Instant::now());
            self.0.answered.notify_all();
        }
        state.threads -= 1;
    }
}

impl State {
    /// How many queued names a thread may take now.
    fn takeable(&self) -> usize {
        let slow = self.slow_queue.len().min(MAX_SLOW_THREADS - self.slow_threads);
        self.queue.len() + slow
    }

    /// The next name to look up, and whether it is one of the slow ones.
    fn next(&mut self) -> Option<(String, bool)> {
        if let Some(host) = self.queue.pop_front() {
            return Some((host, false));
        }
        if self.slow_threads == MAX_SLOW_THREADS {
            return None;
        }
        let host = self.slow_queue.pop_front()?;
        self.slow_threads += 1;
        Some((host, true))
    }

    fn looked_up(&mut self, host: &str, found: io::Result<Vec<IpAddr>>, begin: Instant, now: Instant) {
        let Some(entry) = self.names.get_mut(host) else {
            return;
        };
        let took = now.duration_since(begin);
        let was_slow = std::mem::replace(&mut entry.slow, took >= SLOW);
        entry.queued = false;
        entry.tried = Some(now);
        entry.addrs = found.unwrap_or_else(|_| std::mem::take(&mut entry.addrs));
        match (was_slow, entry.slow) {
            (false, true) => self.slow_names += 1,
            (true, false) => self.slow_names -= 1,
            _ => {}
        }
        match (was_slow, self.slow_names) {
            (false, 1) => log::warn!(
                "looking up the host name {host:?} took {:.1} s: its name server is slow or silent; others that are slow \
                 are not told of until all are fast again",
                took.as_secs_f64()
            ),
            (true, 0) => log::info!("host names are looked up fast again"),
            _ => {}
        }
    }

    /// Queues a host unless its answer is fresh. False when there is no room for another name.
    fn enqueue(&mut self, host: &str, now: Instant) -> bool {
        if !self.names.contains_key(host) {
            if self.names.len() >= MAX_NAMES {
                self.names
                    .retain(|_, entry| entry.queued || now.duration_since(entry.asked) < IDLE);
                self.slow_names = self.names.values().filter(|entry| entry.slow).count();
            }
            if self.names.len() >= MAX_NAMES {
                return false;
            }
        }
        let entry = self.names.entry(host.to_owned()).or_insert(Entry {
            addrs: Vec::new(),
            tried: None,
            asked: now,
            queued: false,
            slow: false,
        });
        entry.asked = now;
        let fresh = entry.tried.is_some_and(|tried| now.duration_since(tried) < FRESH);
        if !fresh && !entry.queued {
            entry.queued = true;
            let queue = if entry.slow {
                &mut self.slow_queue
            } else {
                &mut self.queue
            };
            queue.push_back(host.to_owned());
        }
        true
    }
}

impl Resolver for HostResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = &uri.host().unwrap_or_default().to_ascii_lowercase();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let addrs = self.look_up(literal, *timeout.after);
        if addrs.is_empty() {
            return Err(match self.is_queued(host) {
                true => ureq::Error::Timeout(ureq::Timeout::Resolve),
                false => ureq::Error::HostNotFound,
            });
        }
        let mut resolved = self.empty();
        let most = 16; // the capacity of `ResolvedSocketAddrs`
        let reachable = addrs.into_iter().map(|addr| SocketAddr::new(addr, port));
        reachable
            .filter(has_route)
            .take(most)
            .for_each(|addr| resolved.push(addr));
        if resolved.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NetworkUnreachable).into());
        }
        Ok(resolved)
    }
}

/// Whether the system knows a way to an address. Where there is no IPv6, as in many containers, a connect to any IPv6
/// address fails as it does when the ports are used up, which would say nothing of the node. Connecting a datagram
/// socket sends nothing.
fn has_route(addr: &SocketAddr) -> bool {
    if addr.is_ipv4() {
        return true;
    }
    let connected = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(addr));
    const NO_WAY: [Errno; 4] = [
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
    ];
    let errno = connected.err().and_then(|error| Errno::from_io_error(&error));
    !errno.is_some_and(|errno| NO_WAY.contains(&errno))
}

#[cfg(test)]
mod tests;
