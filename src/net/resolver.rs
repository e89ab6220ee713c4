//! Resolves host names, each lookup on a separate thread, and keeps the last addresses for when a lookup fails.
//!
//! A lookup cannot be interrupted and may take half a minute. So these threads are not joined, a probe waits for a
//! lookup no longer than its own deadline (or a second if older addresses are known), and names that were slow the last
//! time leave threads to the others.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reason::FetchError;
use super::system::LookupError;
use crate::node::{NetworkScope, deny_reason};
use crate::util::threads;

/// Concurrent lookups. A silent name server holds a thread for ten seconds and more per name.
const MAX_LOOKUPS: usize = 48;
/// How many of them are of names that were slow the last time. The rest remains for the other names.
const MAX_SLOW_LOOKUPS: usize = 24;
/// A lookup of this duration was slow. A working name server needs a tenth of it.
const SLOW: Duration = Duration::from_secs(1);
/// How long a result is used without another lookup, at most. Many nodes that share a name thus cost one lookup per
/// round.
const MAX_FRESH: Duration = Duration::from_secs(5);
/// How long to wait for a new result if older addresses are known.
const STALE_GRACE: Duration = Duration::from_secs(1);
/// Stored names: as many as there are nodes. Above it, idle names are evicted.
const MAX_NAMES: usize = 100_000;
/// A name without a lookup for this long is idle.
const IDLE: Duration = Duration::from_secs(600);
/// Consecutive definite results, each an interval after the one before, that remove the known addresses of a name.
const MAX_MISSES: u32 = 3;

/// The host names of all requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct HostResolver(Arc<Shared>);

type LookUp = Box<dyn Fn(&str) -> Result<Vec<IpAddr>, LookupError> + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    /// A lookup has finished.
    resolved: Condvar,
    look_up: LookUp,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Name>,
    /// The names of lookups in progress, and whether a name was slow the last time.
    in_progress: HashMap<String, bool>,
    /// Names with a problem, for one log line when the first has one and one when the last has none.
    problems: HashSet<String>,
    interval: Duration,
    /// Lookups that changed the addresses of a name.
    changes: u64,
    is_closed: bool,
}

#[derive(Default)]
struct Name {
    addrs: Vec<IpAddr>,
    /// When the last lookup finished, successful or not.
    tried: Option<Instant>,
    /// Whether the last lookup was slow.
    is_slow: bool,
    /// The last lookup's error.
    error: Option<LookupError>,
    /// Consecutive definite results at least an interval apart, and when the last of them was counted.
    misses: Option<(u32, Instant)>,
}

impl Name {
    /// Why the name server is to blame, if it is.
    fn problem(&self) -> Option<&str> {
        match &self.error {
            Some(LookupError::Failed(reason)) => Some(reason),
            _ => self.is_slow.then_some("slow or silent"),
        }
    }

    /// Whether the last result is younger than this, or arrived after `now`.
    fn is_younger(&self, age: Duration, now: Instant) -> bool {
        self.tried
            .is_some_and(|tried| now.saturating_duration_since(tried) < age)
    }

    /// Counts a definite result, and removes the addresses after the last that is tolerated.
    fn miss(&mut self, host: &str, interval: Duration, now: Instant) {
        let misses = match self.misses {
            // A tenth less: probes of a node are an interval apart give or take some milliseconds.
            Some((_, last)) if now.duration_since(last) < interval * 9 / 10 => return,
            last => last.map_or(1, |(misses, _)| misses + 1),
        };
        self.misses = Some((misses, now));
        if misses == 1 {
            log::warn!(host, results_left = MAX_MISSES - 1; "host name not found: last known addresses stay in use");
        }
        if misses == MAX_MISSES {
            log::warn!(host; "host name gone: known addresses removed");
            self.addrs.clear();
        }
    }
}

impl HostResolver {
    /// A resolver for nodes that are probed once per interval.
    pub(super) fn new(interval: Duration, look_up: LookUp) -> Self {
        let state = State {
            interval,
            ..State::default()
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            resolved: Condvar::new(),
            look_up,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        threads::lock(&self.0.state)
    }

    /// Starts no further lookup, and wakes all waiting requests.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.0.resolved.notify_all();
    }

    /// Returns the last known addresses of a host without a lookup. An IP address is its own.
    pub(crate) fn known(&self, host: &str) -> Vec<IpAddr> {
        let stored = |_| self.lock().names.get(host).map(|name| name.addrs.clone());
        host.parse()
            .map_or_else(stored, |addr| Some(vec![addr]))
            .unwrap_or_default()
    }

    /// Returns how often the addresses of a name have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Returns the error of the name server and the number of host names with it, `None` without an error.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.lock();
        let (count, host) = (state.problems.len(), state.problems.iter().next()?);
        let reason = state.names.get(host)?.problem()?;
        Some(format!(
            "name server fails for {count} host names, such as {host:?}: {reason}"
        ))
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
        let is_allowed = |addr: &IpAddr| deny_reason(*addr, NetworkScope::Loopback).is_none();
        let (allowed, refused): (Vec<_>, Vec<_>) = self.look_up(host, within).into_iter().partition(is_allowed);
        match refused.first() {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(addr) => Err(FetchError::of_peer(format!(
                "host name resolves to {addr}, which no name may: link-local, metadata or reserved"
            ))),
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
        loop {
            let fresh_for = MAX_FRESH.min(state.interval / 2);
            let Some(name) = state.name(host, begin) else {
                return Vec::new();
            };
            let (is_fresh, addrs) = (name.is_younger(fresh_for, begin), name.addrs.clone());
            if !is_fresh {
                self.start_lookup(&mut state, host);
            }
            let patience = if addrs.is_empty() {
                within
            } else {
                within.min(STALE_GRACE)
            };
            let left = patience.saturating_sub(begin.elapsed());
            if is_fresh || left.is_zero() {
                return addrs;
            }
            let waited = self.0.resolved.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts a lookup of a known name, if none is in progress and the limits permit. Otherwise the waiting request
    /// tries again after the next lookup that finishes.
    fn start_lookup(&self, state: &mut State, host: &str) {
        let is_slow = state.names.get(host).is_some_and(|name| name.is_slow);
        let slow = state.in_progress.values().filter(|slow| **slow).count();
        let is_full = state.in_progress.len() >= MAX_LOOKUPS || (is_slow && slow >= MAX_SLOW_LOOKUPS);
        if is_full || state.in_progress.contains_key(host) {
            return;
        }
        let (resolver, name) = (self.clone(), host.to_owned());
        match threads::spawn_detached("names", move || resolver.run(&name)) {
            Ok(_) => drop(state.in_progress.insert(host.to_owned(), is_slow)),
            Err(error) => log::debug!(error:%; "lookup delayed: no thread available"),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a thread's outermost function")]
    fn run(&self, host: &str) {
        let begin = Instant::now();
        let result = (self.0.look_up)(host);
        let mut state = self.lock();
        state.in_progress.remove(host);
        state.record(host, result, begin, Instant::now());
        self.0.resolved.notify_all();
    }
}

impl State {
    /// Why there is no address of a host.
    fn reason(&self, host: &str) -> FetchError {
        let error = self.names.get(host).and_then(|name| name.error.as_ref());
        let timeout = || "timeout: host name not resolved".to_owned();
        FetchError::of_peer(error.map_or_else(timeout, LookupError::to_string))
    }

    /// Returns a name, which is new unless it is known. `None` if there is no room for it, or after the shutdown.
    fn name(&mut self, host: &str, now: Instant) -> Option<&Name> {
        if !self.names.contains_key(host) && self.names.len() >= MAX_NAMES {
            self.names
                .retain(|host, name| self.in_progress.contains_key(host) || name.is_younger(IDLE, now));
            self.problems.retain(|host| self.names.contains_key(host));
        }
        let has_room = self.names.len() < MAX_NAMES || self.names.contains_key(host);
        (has_room && !self.is_closed).then(|| &*self.names.entry(host.to_owned()).or_default())
    }

    fn record(&mut self, host: &str, result: Result<Vec<IpAddr>, LookupError>, begin: Instant, now: Instant) {
        let Some(name) = self.names.get_mut(host) else {
            return;
        };
        name.tried = Some(now);
        name.is_slow = now.duration_since(begin) >= SLOW;
        match &result {
            Err(LookupError::NotFound) if !name.addrs.is_empty() => name.miss(host, self.interval, begin),
            _ => name.misses = None,
        }
        match result {
            Ok(addrs) => {
                self.changes += u64::from(name.addrs != addrs);
                (name.addrs, name.error) = (addrs, None);
            }
            Err(error) => name.error = Some(error),
        }
        match name.problem() {
            Some(reason) if self.problems.insert(host.to_owned()) && self.problems.len() == 1 => log::warn!(
                host, reason, lookup_ms = now.duration_since(begin).as_millis() as u64;
                "name server fails: last known addresses stay in use"
            ),
            None if self.problems.remove(host) && self.problems.is_empty() => {
                log::info!("name server recovered: all lookups succeed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
