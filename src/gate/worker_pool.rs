//! The gate's end of a pool of workers: the private connection to tiny_http, the tickets, and how the threads stop.

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::exchange::{Exchange, InFlight, MAX_IN_FLIGHT, Outcome};
use crate::util::arena::Key;
use crate::util::threads::Joined;

/// A response takes microseconds. A worker that takes this long is stuck, and its pool is replaced.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the response to the first request: some milliseconds, or a busy machine.
const GREETING_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// The first request. Its ticket has no context.
const GREETING: &[u8] = b"OPTIONS *#0 HTTP/1.1\r\n\r\n";

/// A request that was sent to the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) client: Key,
    pub(super) number: u32,
    pub(super) begun: Instant,
    /// Counts the requests of the pool.
    order: u64,
}

/// Threads that respond to requests from a private connection. Dropping the pool stops and joins them.
pub(crate) struct WorkerPool {
    stream: UnixStream,
    /// Bytes for `stream`.
    out: Vec<u8>,
    exchange: Arc<Exchange>,
    /// By ticket.
    in_flight: [Option<Sent>; MAX_IN_FLIGHT],
    requests: u64,
    /// The oldest request in flight, and since when.
    oldest: Option<(u64, Instant)>,
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
            in_flight: [None; MAX_IN_FLIGHT],
            requests: 0,
            oldest: None,
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
        self.stream.write_all(GREETING)?;
        let mut woken = [PollFd::new(self.exchange.wake(), PollFlags::IN)];
        if retry_on_intr(|| poll(&mut woken, Some(&GREETING_TIMEOUT)))? == 0 {
            return Err(io::Error::new(ErrorKind::TimedOut, "tiny_http does not respond"));
        }
        self.exchange.take_outcomes();
        Ok(())
    }

    /// Has epoll report the loss of the private connection and the arrival of outcomes.
    pub(super) fn watch(&self, epoll: &OwnedFd, lost: u64, arrived: u64) -> io::Result<()> {
        epoll::add(epoll, &self.stream, EventData::new_u64(lost), EventFlags::IN)?;
        let changes = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(
            epoll,
            self.exchange.wake(),
            EventData::new_u64(arrived),
            changes,
        )?)
    }

    pub(super) fn free_ticket(&self) -> Option<usize> {
        self.in_flight.iter().position(Option::is_none)
    }

    /// Takes a request; `flush` sends it.
    pub(super) fn send(&mut self, ticket: usize, client: Key, request: &InFlight, now: Instant) {
        self.requests += 1;
        self.oldest.get_or_insert((self.requests, now));
        self.in_flight[ticket] = Some(Sent {
            client,
            number: request.number,
            begun: request.begun,
            order: self.requests,
        });
        self.exchange.put(ticket, request.context.clone());
        // Writing to a vector cannot fail. A target has no `#`.
        let _ = write!(self.out, "{}#{ticket} HTTP/1.1\r\n\r\n", request.line);
    }

    /// Sends the requests that were taken as far as the kernel has room. If it has none, workers have requests, and their
    /// outcomes bring the next call.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the outcomes that have arrived, each with its request.
    pub(super) fn receive(&mut self) -> Vec<(Sent, Outcome)> {
        let outcomes = self.exchange.take_outcomes().into_iter();
        let received = outcomes
            .filter_map(|(ticket, outcome)| Some((self.in_flight.get_mut(ticket)?.take()?, outcome)))
            .collect();
        if self.load() == 0 {
            self.oldest = None;
        }
        received
    }

    /// Whether one request has been the oldest for [`RESPONSE_TIMEOUT`]. tiny_http hands requests to the workers in
    /// order, so a worker has had it for about as long.
    pub(super) fn is_stuck(&mut self, now: Instant) -> bool {
        let oldest = self.in_flight.iter().flatten().map(|sent| sent.order).min();
        match (oldest, self.oldest) {
            (Some(order), Some((same, since))) if order == same => {
                now.saturating_duration_since(since) > RESPONSE_TIMEOUT
            }
            (oldest, _) => {
                self.oldest = oldest.map(|order| (order, now));
                false
            }
        }
    }

    /// Requests in flight.
    pub(super) fn load(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }

    /// Tells the threads to stop, without waiting for a stuck one, and ends what [`WorkerPool::watch`] began: a stuck
    /// worker keeps the exchange. Returns the requests that are lost.
    pub(super) fn abandon(&mut self, epoll: &OwnedFd) -> Vec<Sent> {
        (self.stop)();
        let _ = epoll::delete(epoll, &self.stream);
        let _ = epoll::delete(epoll, self.exchange.wake());
        self.in_flight.iter_mut().filter_map(Option::take).collect()
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.threads.iter().all(Joined::is_finished)
    }

    /// Detaches its threads: a stuck one must not keep the process from exiting.
    pub(super) fn detach(mut self) {
        self.threads.drain(..).for_each(Joined::detach);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        (self.stop)();
    }
}
