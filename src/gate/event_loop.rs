//! The gate's one thread: handles the events of clients, workers and the clock, in turn.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::clients::Clients;
use super::connection::Event;
use super::worker_connection::WorkerConnection;
use super::worker_pool::{Spawn, WorkerPool};
use super::{BACKLOG, Settings};
use crate::metrics::{Metrics, Refused};
use crate::response::DEFERRED;
use crate::util::arena::Key;

/// How exact deadlines are, and how long accepting pauses when descriptors or memory run out.
const TICK: Duration = Duration::from_millis(100);
/// Accepted at one go, so that a flood of connections does not keep those that are here waiting.
const MAX_ACCEPTS: usize = 64;
/// Failed pools whose threads have not ended yet. Workers get stuck by a defect alone, and then new ones would follow
/// them.
const MAX_FAILED: usize = 4;
/// After the signal to end, idle connections may ask once more for this long: a proxy may be about to use one. Those that
/// were answered for the last time are kept as long, so that no reset overtakes the answer.
const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// After the signal to end, requests under way have this long.
const DRAIN_ALL: Duration = Duration::from_secs(3);
/// Events taken from the kernel at once.
const MAX_EVENTS: usize = 256;
/// Read at once: many small answers of the workers, or a good part of a long one.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Event numbers that no connection's key has: the upper half of a key is never zero.
const LISTENER: u64 = 0;
const SHUTDOWN: u64 = 1;
const FIRST_WORKER: u64 = 2;

/// Everything the gate's thread owns.
pub(super) struct EventLoop {
    /// Gone once the router is about to end.
    listener: Option<TcpListener>,
    /// False while the system has no descriptor or memory for another connection.
    accepting: bool,
    clients: Clients,
    spawn: Spawn,
    pool: Option<WorkerPool>,
    /// Pools that have failed and whose threads have not ended yet.
    failed: Vec<WorkerPool>,
    draining: Option<Instant>,
    metrics: Arc<Metrics>,
    scratch: Vec<u8>,
}

impl EventLoop {
    pub(super) fn new(
        listener: TcpListener,
        shutdown: &OwnedFd,
        settings: Settings,
        spawn: Spawn,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Once is enough, and then it need not be read.
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&epoll, shutdown, EventData::new_u64(SHUTDOWN), once)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut event_loop = Self {
            listener: Some(listener),
            accepting: true,
            clients: Clients::new(epoll, settings, Arc::clone(&metrics)),
            spawn,
            pool: None,
            failed: Vec::new(),
            draining: None,
            metrics,
            scratch: vec![0; SCRATCH_BYTES],
        };
        event_loop.spawn()?;
        Ok(event_loop)
    }

    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut next_tick = Instant::now() + TICK;
        loop {
            let wait = Timespec::try_from(next_tick.saturating_duration_since(Instant::now())).ok();
            let wait = wait.as_ref().filter(|_| !self.is_quiet());
            events.clear();
            match epoll::wait(&self.clients.epoll, spare_capacity(&mut events), wait) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return log::error!("the gate can't wait for its connections: {error}"),
            }
            let now = Instant::now();
            for event in &events {
                let flags = event.flags;
                self.handle(event.data.u64(), flags, now);
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
            self.dispatch(now);
            if self.is_over(now) {
                return self.leave_stuck();
            }
        }
    }

    /// Whether nothing can happen but news from the kernel.
    fn is_quiet(&self) -> bool {
        self.clients.is_empty() && self.accepting && self.draining.is_none() && self.pool.is_some()
    }

    fn handle(&mut self, number: u64, flags: EventFlags, now: Instant) {
        match number {
            // At the cap each one closes another, which should have been read before that many more have come.
            LISTENER => self.accept(MAX_ACCEPTS.min(self.clients.share()), now),
            SHUTDOWN => self.drain(now),
            worker if worker >> 32 == 0 => self.read_worker((worker - FIRST_WORKER) as usize, now),
            bits => {
                let key = Key::from_bits(bits);
                self.clients.on_client_event(key, flags, &mut self.scratch, now);
            }
        }
    }

    /// Accepts so many of the connections that wait.
    fn accept(&mut self, most: usize, now: Instant) {
        for _ in 0..most {
            let Some(listener) = &self.listener else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(listener, flags) {
                Ok((stream, peer)) => {
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        let peer = peer.ip().to_canonical();
                        self.clients.admit(TcpStream::from(stream), peer, now);
                    }
                }
                Err(Errno::AGAIN) => return,
                // The peer was gone before it was accepted; the next one may not be.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) => {
                    self.clients.count(Refused::Accept);
                    let what = format!("no connection can be accepted for now: {error}");
                    self.clients.warn(Refused::Accept, &what, now);
                    return self.listen(EventFlags::empty());
                }
            }
        }
    }

    /// Stops or goes on listening to the listener, which would otherwise report the same trouble at once again.
    fn listen(&mut self, interest: EventFlags) {
        if let Some(listener) = &self.listener
            && epoll::modify(&self.clients.epoll, listener, EventData::new_u64(LISTENER), interest).is_ok()
        {
            self.accepting = !interest.is_empty();
        }
    }

    /// Starts workers, and listens to them.
    fn spawn(&mut self) -> io::Result<()> {
        let pool = (self.spawn)()?;
        for (number, connection) in (FIRST_WORKER..).zip(&pool.connections) {
            let data = EventData::new_u64(number);
            epoll::add(&self.clients.epoll, connection.stream(), data, EventFlags::IN)?;
        }
        self.pool = Some(pool);
        Ok(())
    }

    /// Sends requests that wait to the workers, each to the connection with the least to do.
    fn dispatch(&mut self, now: Instant) {
        let Some(pool) = &mut self.pool else {
            return;
        };
        let connections = &mut pool.connections;
        while let Some(connection) = connections
            .iter_mut()
            .filter(|to| to.has_room())
            .min_by_key(|to| to.load())
            && let Some((client, request)) = self.clients.next_waiting(now)
        {
            connection.push(client, &request, now);
        }
        for (number, connection) in (FIRST_WORKER..).zip(&mut pool.connections) {
            if let Err(error) = connection.flush(&self.clients.epoll, number) {
                return self.fail(&error.to_string(), now);
            }
        }
    }

    /// Reads the answers that a worker connection brings and passes them on.
    fn read_worker(&mut self, number: usize, now: Instant) {
        let connection = self.pool.as_mut().and_then(|pool| pool.connections.get_mut(number));
        let Some(connection) = connection else {
            return log::trace!("news of worker connection {number}, which is gone");
        };
        let is_draining = self.draining.is_some();
        let received = connection.receive(&mut self.scratch, now, |request, answer| {
            if answer.starts_with(DEFERRED) {
                let event = Event::Deferred {
                    number: request.number,
                    may_wait: !is_draining && self.clients.may_defer(),
                };
                return self.clients.pump(request.client, event, now);
            }
            self.metrics.request_time.observe(now.duration_since(request.begun));
            self.clients
                .pump(request.client, Event::Answered(request.number, answer), now);
        });
        if let Err(error) = received {
            self.fail(&error.to_string(), now);
        }
    }

    /// Gives up the workers: what was under way is lost. The next tick starts others, so that a pool that fails again and
    /// again does not keep the gate from its clients.
    fn fail(&mut self, why: &str, now: Instant) {
        let what = format!("the workers are lost and will be replaced: {why}");
        self.clients.warn(Refused::Lost, &what, now);
        let Some(mut pool) = self.pool.take() else {
            return;
        };
        pool.tell_to_end();
        for request in pool.connections.drain(..).flat_map(WorkerConnection::into_in_flight) {
            self.clients.pump(request.client, Event::Failed(request.number), now);
        }
        self.failed.push(pool);
    }

    fn tick(&mut self, now: Instant) {
        if !self.accepting {
            self.listen(EventFlags::IN);
        }
        self.failed.retain(|pool| !pool.has_ended());
        match &self.pool {
            Some(pool) if pool.connections.iter().any(|connection| connection.is_stuck(now)) => {
                self.fail("an answer is long overdue", now);
            }
            Some(_) => {}
            None => {
                let spawned = match self.failed.len() < MAX_FAILED {
                    true => self.spawn(),
                    false => Err(io::Error::other("those that were lost are stuck")),
                };
                if let Err(error) = spawned {
                    let what = format!("no workers for now: {error}");
                    self.clients.warn(Refused::Busy, &what, now);
                }
            }
        }
        self.clients.expire(now);
    }

    /// The end begins: no new connections; those that are here get their answers.
    fn drain(&mut self, now: Instant) {
        // Those whose connection is made have as much right to an answer as those accepted a moment ago.
        self.accept(BACKLOG, now);
        self.listener = None;
        self.accepting = true;
        self.draining = Some(now);
        self.clients.drain(now);
    }

    /// Workers that have not answered until now are left to themselves; all others are waited for.
    fn leave_stuck(mut self) {
        self.failed.extend(self.pool.take_if(|pool| pool.is_busy()));
        let stuck = self.failed.into_iter().filter(|pool| !pool.has_ended());
        stuck.for_each(WorkerPool::leave);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.draining.is_some_and(|since| {
            let lasted = now.duration_since(since);
            lasted >= DRAIN_ALL || !self.clients.any_left(lasted < DRAIN_IDLE)
        })
    }
}

#[cfg(test)]
mod tests;
