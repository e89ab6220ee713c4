//! Resolves host names on dedicated threads, and keeps the last addresses for when a lookup fails.
//!
//! A lookup cannot be interrupted and may take half a minute. So these threads are not joined, a probe waits for a
//! lookup no longer than its own deadline (or a second if older addresses are known), and names that were slow the last
//! time wait for dedicated threads.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reason::FetchError;
use super::system::{self, LookupError};
use crate::node::{NetworkScope, deny_reason};
use crate::util::threads;

/// Concurrent lookups. A silent name server holds a thread for ten seconds and more per name.
const MAX_THREADS: usize = 48;
/// How many of these threads resolve names that were slow the last time. The rest remains for the other names.
const MAX_SLOW_THREADS: usize = 24;
/// A lookup of this duration was slow. A working name server needs a tenth of it.
const SLOW: Duration = Duration::from_secs(1);
/// How long a result is used without another lookup, at most. Many nodes that share a name thus cost one lookup per
/// round.
const MAX_FRESH: Duration = Duration::from_secs(5);
/// How long to wait for a new result if older addresses are known.
const STALE_GRACE: Duration = Duration::from_secs(1);
/// Stored names. Above it, names that were not requested lately are evicted.
const MAX_NAMES: usize = 100_000;
/// A name that was not requested for this long may be evicted.
const IDLE: Duration = Duration::from_secs(600);
/// Consecutive definite results, each an interval after the one before, that remove the known addresses of a name.
const MAX_MISSES: u32 = 3;

/// The host names of all requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct HostResolver(Arc<Shared>);

type LookUp = Box<dyn Fn(&str) -> Result<Vec<IpAddr>, LookupError> + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    resolved: Condvar,
    look_up: LookUp,
}

#[derive(Debug)]
struct State {
    names: HashMap<String, Name>,
    queue: VecDeque<String>,
    /// Names that were slow the last time.
    slow_queue: VecDeque<String>,
    threads: usize,
    /// Threads that resolve a name of the slow queue.
    slow_threads: usize,
    /// Names with a problem, for one log line when the first has one and one when the last has none.
    problems: usize,
    interval: Duration,
    closed: bool,
}

#[derive(Debug)]
struct Name {
    addrs: Vec<IpAddr>,
    /// When the last lookup finished, successful or not.
    tried: Option<Instant>,
    requested: Instant,
    is_queued: bool,
    is_slow: bool,
    /// The last lookup's error.
    error: Option<LookupError>,
    /// Consecutive definite results at least an interval apart, and when the last of them was counted.
    misses: u32,
    missed: Option<Instant>,
}

impl Name {
    fn new(requested: Instant) -> Self {
        Self {
            addrs: Vec::new(),
            tried: None,
            requested,
            is_queued: false,
            is_slow: false,
            error: None,
            misses: 0,
            missed: None,
        }
    }

    /// Why the name server is to blame, if it is.
    fn problem(&self) -> Option<String> {
        match &self.error {
            Some(LookupError::Failed(reason)) => Some(reason.clone()),
            _ if self.is_slow => Some("slow or silent".to_owned()),
            _ => None,
        }
    }

    /// Counts a definite result, and removes the addresses after the last that is tolerated.
    fn miss(&mut self, host: &str, interval: Duration, now: Instant) {
        // A tenth less: probes of a node are an interval apart give or take some milliseconds.
        let is_due = self
            .missed
            .is_none_or(|missed| now.duration_since(missed) >= interval * 9 / 10);
        if self.addrs.is_empty() || !is_due {
            return;
        }
        (self.misses, self.missed) = (self.misses + 1, Some(now));
        if self.misses == 1 {
            log::warn!(host, results_left = MAX_MISSES - 1; "host name not found: last known addresses stay in use");
        }
        if self.misses == MAX_MISSES {
            log::warn!(host; "host name gone: known addresses removed");
            self.addrs.clear();
        }
    }
}

impl fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostResolver").field(&*self.lock()).finish()
    }
}

impl HostResolver {
    /// A resolver that uses the system's files and name servers, for nodes that are probed once per interval.
    pub(super) fn of_system(interval: Duration) -> Self {
        Self::new(interval, Box::new(system::look_up))
    }

    fn new(interval: Duration, look_up: LookUp) -> Self {
        let state = State {
            names: HashMap::new(),
            queue: VecDeque::new(),
            slow_queue: VecDeque::new(),
            threads: 0,
            slow_threads: 0,
            problems: 0,
            interval,
            closed: false,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            resolved: Condvar::new(),
            look_up,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the threads after their current lookup, and wakes all waiting requests.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.resolved.notify_all();
    }

    /// Returns the last known addresses of a host without a lookup. An IP address is its own.
    pub(crate) fn known(&self, host: &str) -> Vec<IpAddr> {
        match host.parse() {
            Ok(addr) => vec![addr],
            Err(_) => self.lock().known(host),
        }
    }

    /// Returns the error of the name server and the number of host names with it, `None` without an error.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.lock();
        if state.problems == 0 {
            return None;
        }
        let (host, reason) = state
            .names
            .iter()
            .find_map(|(host, name)| Some((host, name.problem()?)))?;
        Some(format!(
            "name server fails for {} host names, such as {host:?}: {reason}",
            state.problems
        ))
    }

    /// Stores addresses as if a lookup had just returned them.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "the result is as old as the test")]
    pub(crate) fn learn(&self, host: &str, addrs: Vec<IpAddr>) {
        let now = Instant::now();
        let name = Name {
            addrs,
            tried: Some(now),
            ..Name::new(now)
        };
        self.lock().names.insert(host.to_owned(), name);
    }

    /// Returns the addresses that a request may connect to. A name must not lead to link-local or metadata addresses,
    /// because its owner may be another party than the operator who listed the name.
    ///
    /// # Errors
    /// There is no such address.
    pub(super) fn addresses(&self, host: &str, within: Duration) -> Result<Vec<IpAddr>, FetchError> {
        if let Ok(addr) = host.parse() {
            return Ok(vec![addr]);
        }
        let addrs = self.look_up(host, within);
        let refused = |addr: &IpAddr| deny_reason(*addr, NetworkScope::Loopback);
        let allowed: Vec<_> = addrs.iter().copied().filter(|addr| refused(addr).is_none()).collect();
        match addrs.first() {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(addr) => {
                let why = refused(addr).unwrap_or_default();
                Err(FetchError::of_peer(format!(
                    "host name resolves to {addr}, which no name may ({why})"
                )))
            }
            None => Err(self.lock().reason(host)),
        }
    }

    /// Returns the addresses of a host in lower case: of an address itself, of a name a fresh result if it arrives in
    /// time, else the last known addresses, else none.
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
        self.start_thread(&mut state);
        loop {
            let Some(name) = state.names.get(host) else {
                return Vec::new();
            };
            let patience = if name.addrs.is_empty() {
                within
            } else {
                within.min(STALE_GRACE)
            };
            let left = patience.saturating_sub(begin.elapsed());
            if !name.is_queued || left.is_zero() || state.closed {
                return name.addrs.clone();
            }
            let waited = self.0.resolved.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts a thread if a name waits for one. It exits when no name waits any more.
    fn start_thread(&self, state: &mut State) {
        if state.threads == MAX_THREADS || !state.has_job() {
            return;
        }
        let resolver = self.clone();
        match threads::spawn_detached("names", move || resolver.run()) {
            Ok(_) => state.threads += 1,
            // The existing threads continue, and the next request tries again.
            Err(error) => log::debug!(error:%; "lookup delayed: no thread available"),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    fn run(&self) {
        let mut state = self.lock();
        while let Some((host, was_slow)) = state.next() {
            drop(state);
            let begin = Instant::now();
            let result = (self.0.look_up)(&host);
            state = self.lock();
            state.slow_threads -= usize::from(was_slow);
            state.record(&host, result, begin, Instant::now());
            self.0.resolved.notify_all();
        }
        state.threads -= 1;
    }
}

impl State {
    fn known(&self, host: &str) -> Vec<IpAddr> {
        self.names.get(host).map(|name| name.addrs.clone()).unwrap_or_default()
    }

    /// Why there is no address of a host.
    fn reason(&self, host: &str) -> FetchError {
        match self.names.get(host) {
            _ if self.closed => FetchError::shutdown(),
            None => FetchError::of_peer(format!("host name not resolved: more than {MAX_NAMES} names in use")),
            Some(Name {
                is_queued: false,
                error: Some(error),
                ..
            }) => FetchError::of_peer(error.to_string()),
            Some(_) => FetchError::of_peer("timeout: host name not resolved"),
        }
    }

    fn has_job(&self) -> bool {
        !self.queue.is_empty() || (!self.slow_queue.is_empty() && self.slow_threads < MAX_SLOW_THREADS)
    }

    /// Returns the next name to resolve, and whether it was slow.
    fn next(&mut self) -> Option<(String, bool)> {
        if self.closed || !self.has_job() {
            return None;
        }
        if let Some(host) = self.queue.pop_front() {
            return Some((host, false));
        }
        let host = self.slow_queue.pop_front()?;
        self.slow_threads += 1;
        Some((host, true))
    }

    fn record(&mut self, host: &str, result: Result<Vec<IpAddr>, LookupError>, begin: Instant, now: Instant) {
        let Some(name) = self.names.get_mut(host) else {
            return;
        };
        let had_problem = name.problem().is_some();
        (name.is_queued, name.tried) = (false, Some(now));
        name.is_slow = now.duration_since(begin) >= SLOW;
        match &result {
            Err(LookupError::NotFound) => name.miss(host, self.interval, begin),
            _ => (name.misses, name.missed) = (0, None),
        }
        match result {
            Ok(addrs) => (name.addrs, name.error) = (addrs, None),
            Err(error) => name.error = Some(error),
        }
        let problem = name.problem();
        self.problems = self.problems + usize::from(problem.is_some()) - usize::from(had_problem);
        match (had_problem, problem, self.problems) {
            (false, Some(reason), 1) => log::warn!(
                host, reason, lookup_ms = now.duration_since(begin).as_millis();
                "name server fails: last known addresses stay in use"
            ),
            (true, None, 0) => log::info!("name server recovered: all lookups succeed"),
            _ => {}
        }
    }

    /// Queues a host unless its last result is fresh. Returns false if there is no room for another name.
    fn enqueue(&mut self, host: &str, now: Instant) -> bool {
        if !self.names.contains_key(host) && self.names.len() >= MAX_NAMES {
            self.names
                .retain(|_, name| name.is_queued || now.duration_since(name.requested) < IDLE);
            self.problems = self.names.values().filter(|name| name.problem().is_some()).count();
            if self.names.len() >= MAX_NAMES {
                return false;
            }
        }
        let fresh_for = MAX_FRESH.min(self.interval / 2);
        let name = self.names.entry(host.to_owned()).or_insert_with(|| Name::new(now));
        name.requested = now;
        let is_fresh = name.tried.is_some_and(|tried| now.duration_since(tried) < fresh_for);
        if !is_fresh && !name.is_queued {
            name.is_queued = true;
            let queue = if name.is_slow {
                &mut self.slow_queue
            } else {
                &mut self.queue
            };
            queue.push_back(host.to_owned());
        }
        true
    }
}

#[cfg(test)]
mod tests;
