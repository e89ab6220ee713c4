//! A pool of workers: the private connection to tiny_http, the tickets, and how the threads stop. tiny_http brings a
//! worker a method, a target and a ticket. The rest of the request waits in the [`Exchange`] under the ticket, and the
//! outcome comes back there.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::event::epoll::{self, EventData};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::retry_on_intr;
use thunderdome::Index as Key;

use super::clients::send;
use super::connection::InFlight;
use super::connection::limits::RESPONSE_TIMEOUT;
use super::head::Context;
use crate::util::threads::{Joined, lock};

/// Requests that are with the workers at most. Further requests wait at the gate, where they can still be refused.
pub(super) const MAX_IN_FLIGHT: usize = 32;
/// For the response to the first request: some milliseconds, or a busy machine.
const GREETING_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The response as the client receives it. `None` defers the request: more will be known in a moment.
pub(crate) type Outcome = Option<Vec<u8>>;

/// Connects one pool of workers with the gate.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// By ticket. At most [`MAX_IN_FLIGHT`], as of the outcomes.
    contexts: Mutex<HashMap<u64, Context>>,
    outcomes: Mutex<Vec<(u64, Outcome)>>,
    /// Reports that outcomes have arrived. Never read: the gate watches it for changes.
    wake: OwnedFd,
}

impl Exchange {
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            contexts: Mutex::default(),
            outcomes: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Takes the context of a ticket, which is there once.
    pub(crate) fn take(&self, ticket: u64) -> Option<Context> {
        lock(&self.contexts).remove(&ticket)
    }

    /// Returns a ticket with its outcome. Wakes the gate if there was none.
    pub(crate) fn give_back(&self, ticket: u64, outcome: Outcome) {
        let mut outcomes = lock(&self.outcomes);
        outcomes.push((ticket, outcome));
        let is_first = outcomes.len() == 1;
        drop(outcomes);
        if is_first {
            // An eventfd has room for 2^64 of them.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// A request that was sent to the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The tick that found it the oldest request in flight.
    oldest_since: Option<Instant>,
    pub(super) client: Key,
    pub(super) begun: Instant,
}

/// Threads that respond to requests from a private connection. Dropping the pool stops and joins them, unless one is
/// stuck.
pub(crate) struct WorkerPool {
    stream: UnixStream,
    /// Bytes for `stream`.
    out: Vec<u8>,
    exchange: Arc<Exchange>,
    /// By ticket: the number of the request.
    in_flight: BTreeMap<u64, Sent>,
    requests: u64,
    stop: Box<dyn Fn() + Send>,
    threads: Vec<Joined>,
}

/// Starts a pool: the first one, and another one whenever one has failed.
pub(crate) type Spawn = Arc<dyn Fn() -> io::Result<WorkerPool> + Send + Sync>;

impl WorkerPool {
    /// A pool without threads. `stop` tells its threads to stop and does not wait for them.
    pub(crate) fn new(stream: UnixStream, exchange: Arc<Exchange>, stop: impl Fn() + Send + 'static) -> Self {
        Self {
            stream,
            out: Vec::new(),
            exchange,
            in_flight: BTreeMap::new(),
            requests: 0,
            stop: Box::new(stop),
            threads: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, thread: Joined) {
        self.threads.push(thread);
    }

    /// Waits for the outcome of a first request. tiny_http starts its threads in its own time, and whatever else needs
    /// threads has to start after them.
    ///
    /// # Errors
    /// There is no outcome in time.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        // Its ticket has no context.
        self.stream.write_all(b"OPTIONS *#0 HTTP/1.1\r\n\r\n")?;
        let mut woken = [PollFd::new(&self.exchange.wake, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut woken, Some(&GREETING_TIMEOUT)))? == 0 {
            return Err(io::Error::new(ErrorKind::TimedOut, "tiny_http does not respond"));
        }
        lock(&self.exchange.outcomes).clear();
        Ok(())
    }

    /// Has epoll report the loss of the private connection and the arrival of outcomes.
    pub(super) fn watch(&self, epoll: &OwnedFd, lost: u64, arrived: u64) -> io::Result<()> {
        epoll::add(epoll, &self.stream, EventData::new_u64(lost), epoll::EventFlags::IN)?;
        let changes = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(epoll, &self.exchange.wake, EventData::new_u64(arrived), changes)?;
        Ok(())
    }

    /// Whether one more request may be in flight.
    pub(super) fn has_room(&self) -> bool {
        self.load() < MAX_IN_FLIGHT
    }

    /// Takes a request; `flush` sends it.
    pub(super) fn send(&mut self, client: Key, in_flight: &InFlight) {
        self.requests += 1;
        let InFlight { request, begun } = in_flight;
        let sent = Sent {
            oldest_since: None,
            client,
            begun: *begun,
        };
        self.in_flight.insert(self.requests, sent);
        lock(&self.exchange.contexts).insert(self.requests, request.context.clone());
        let (method, target, ticket) = (&request.method, &request.target, self.requests);
        // Writing to a vector cannot fail. A target has no `#`.
        let _ = write!(self.out, "{method} {target}#{ticket} HTTP/1.1\r\n\r\n");
    }

    /// Sends the requests that were taken as far as the kernel has room. If it has none, workers have requests, and their
    /// outcomes bring the next call.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            let sent = send(&mut self.stream, &self.out, usize::MAX)?;
            self.out.drain(..sent);
        }
        Ok(())
    }

    /// Takes the outcomes that have arrived, each with its request.
    pub(super) fn receive(&mut self) -> Vec<(Sent, Outcome)> {
        let outcomes = std::mem::take(&mut *lock(&self.exchange.outcomes)).into_iter();
        let received = outcomes.filter_map(|(ticket, outcome)| Some((self.in_flight.remove(&ticket)?, outcome)));
        received.collect()
    }

    /// Whether one request has been the oldest for [`RESPONSE_TIMEOUT`]. tiny_http hands requests to the workers in
    /// order, so a worker has had it for about as long.
    pub(super) fn is_stuck(&mut self, now: Instant) -> bool {
        let oldest = self.in_flight.values_mut().next();
        let since = oldest.map(|oldest| *oldest.oldest_since.get_or_insert(now));
        since.is_some_and(|since| now.saturating_duration_since(since) > RESPONSE_TIMEOUT)
    }

    /// Requests in flight.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Tells the threads to stop, without waiting for a stuck one, and ends what [`WorkerPool::watch`] began: a stuck
    /// worker keeps the exchange. Returns the requests that are lost.
    pub(super) fn abandon(&self, epoll: &OwnedFd) -> Vec<Sent> {
        (self.stop)();
        let _ = epoll::delete(epoll, &self.stream);
        let _ = epoll::delete(epoll, &self.exchange.wake);
        self.in_flight.values().copied().collect()
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.threads.iter().all(Joined::is_finished)
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        (self.stop)();
        // A stuck worker must not keep the process from exiting.
        if self.load() > 0 {
            let stuck = self.threads.drain(..).filter(|thread| !thread.is_finished());
            stuck.for_each(Joined::detach);
        }
    }
}
