//! Looks host names up, on a few threads of its own, and keeps the last answer for when a look-up fails.
//!
//! A look-up of the system can't be cut short and may take half a minute; whoever needs a name waits for it no longer
//! than its own deadline, or a second when an older answer is known. These threads are the only ones not joined.

use std::collections::{HashMap, VecDeque};
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

/// Look-ups under way at once. One broken name server holds a thread for up to half a minute.
const THREADS: usize = 4;
/// How long an answer is used without asking again: below it, a round asks once for a name that many nodes share.
const FRESH: Duration = Duration::from_secs(5);
/// How long to wait for a new answer when an older one is known.
const STALE_GRACE: Duration = Duration::from_secs(1);
/// HostResolver known at once; beyond it those that nobody asked for lately are forgotten.
const MAX_NAMES: usize = 100_000;
/// A name that was not asked for in this time may be forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// The names that were looked up, shared by all probes.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostResolver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    answered: Condvar,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Entry>,
    queue: VecDeque<String>,
    threads: usize,
    idle_threads: usize,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    addrs: Vec<IpAddr>,
    /// When the last look-up ended, successful or not.
    tried: Option<Instant>,
    asked: Instant,
    queued: bool,
}

impl HostResolver {
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
        if state.threads < THREADS && state.queue.len() > state.idle_threads {
            let names = self.clone();
            match threads::spawn_detached("names", move || names.run()) {
                Ok(_) => state.threads += 1,
                Err(error) => log::warn!("no thread to look up host names: {error}"),
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some(host) = state.queue.pop_front() else {
                state.idle_threads += 1;
                state = self.0.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle_threads -= 1;
                continue;
            };
            drop(state);
            let found = (host.as_str(), 0)
                .to_socket_addrs()
                .map(|addrs| addrs.map(|addr| addr.ip()).collect());
            state = self.lock();
            if let Some(entry) = state.names.get_mut(&host) {
                entry.queued = false;
                entry.tried = Some(Instant::now());
                entry.addrs = found.unwrap_or_else(|_| std::mem::take(&mut entry.addrs));
            }
            self.0.answered.notify_all();
        }
    }
}

impl State {
    /// Queues a host unless its answer is fresh. False when there is no room for another name.
    fn enqueue(&mut self, host: &str, now: Instant) -> bool {
        if !self.names.contains_key(host) {
            if self.names.len() >= MAX_NAMES {
                self.names
                    .retain(|_, entry| entry.queued || now.duration_since(entry.asked) < IDLE);
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
        });
        entry.asked = now;
        let fresh = entry.tried.is_some_and(|tried| now.duration_since(tried) < FRESH);
        if !fresh && !entry.queued {
            entry.queued = true;
            self.queue.push_back(host.to_owned());
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
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn the_last_answer_stays_when_a_look_up_fails() {
        let names = HostResolver::default();
        learn(&names, "no-such-host.invalid", [127, 0, 0, 1], None, Instant::now());
        let found = names.look_up("no-such-host.invalid", Duration::from_secs(30));
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
        names.close();
    }

    #[test]
    fn finds_localhost_and_not_what_does_not_exist() {
        let names = HostResolver::default();
        assert!(
            names
                .look_up("localhost", Duration::from_secs(30))
                .iter()
                .all(IpAddr::is_loopback)
        );
        assert!(!names.known("localhost").is_empty());
        assert!(
            names
                .look_up("no-such-host.invalid", Duration::from_secs(30))
                .is_empty()
        );
        names.close();
    }

    /// HostResolver whose threads are all held by a broken name server.
    fn stuck() -> HostResolver {
        let names = HostResolver::default();
        names.lock().threads = THREADS;
        names
    }

    fn learn(names: &HostResolver, host: &str, addr: [u8; 4], tried: Option<Instant>, now: Instant) {
        let entry = Entry {
            addrs: vec![IpAddr::from(addr)],
            tried,
            asked: now,
            queued: false,
        };
        names.lock().names.insert(host.to_owned(), entry);
    }

    #[test]
    fn an_unknown_name_is_waited_for_as_long_as_its_asker_can() {
        let names = stuck();
        assert!(names.look_up("a.example", Duration::from_millis(20)).is_empty());
        assert!(names.look_up("a.example", Duration::ZERO).is_empty());
        assert_eq!(names.lock().queue, ["a.example"], "waits for a thread only once");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn a_known_name_is_not_waited_for_much_longer_than_a_second() {
        let names = stuck();
        learn(&names, "a.example", [192, 0, 2, 1], None, Instant::now());
        // Only an answer that is not used would take an hour.
        let found = names.look_up("a.example", Duration::from_secs(3600));
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn a_fresh_answer_is_used_without_asking_again() {
        let names = stuck();
        let now = Instant::now();
        learn(&names, "a.example", [192, 0, 2, 1], Some(now), now);
        let found = names.look_up("a.example", Duration::from_secs(3600));
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
        assert!(names.lock().queue.is_empty());
        assert!(names.lock().enqueue("a.example", now + FRESH));
        assert_eq!(names.lock().queue, ["a.example"]);
    }

    #[test]
    fn nobody_waits_for_names_that_are_closed() {
        let names = stuck();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| names.look_up("a.example", Duration::from_secs(3600)));
            while names.lock().queue.is_empty() {
                std::thread::yield_now();
            }
            names.close();
            assert!(asker.join().expect("no panic").is_empty());
        });
        assert!(names.look_up("b.example", Duration::from_secs(3600)).is_empty());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn names_that_nobody_asks_for_make_room_for_new_ones() {
        let names = stuck();
        let now = Instant::now();
        let mut state = names.lock();
        for i in 0..MAX_NAMES {
            state.names.insert(
                i.to_string(),
                Entry {
                    addrs: Vec::new(),
                    tried: None,
                    asked: now,
                    queued: i == 0,
                },
            );
        }
        assert!(state.enqueue("1", now), "known");
        assert!(!state.enqueue("a.example", now), "no room");
        assert!(state.enqueue("a.example", now + IDLE), "room");
        let mut left: Vec<_> = state.names.keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["0", "1", "a.example"], "those that are being looked up stay");
    }

    #[test]
    fn a_literal_needs_no_look_up() {
        let names = HostResolver::default();
        assert_eq!(names.known("::1"), [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        assert_eq!(names.lock().threads, 0);
    }
}
