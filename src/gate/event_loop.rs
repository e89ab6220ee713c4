//! The gate's only thread: handles the events of clients, workers and the clock.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use thunderdome::Index as Key;

use super::BACKLOG;
use super::clients::Clients;
use super::connection::Event;
use super::refusal::Refusal;
use super::worker_pool::{Sent, Spawn, WorkerPool};
use crate::config::Config;
use crate::metrics::{Metrics, Refused};
use crate::response::{Deferral, MAX_DEFERRAL};
use crate::util::threads;

/// The resolution of deadlines, and the pause of accepting when descriptors or memory run out.
const TICK: Duration = Duration::from_millis(100);
/// The event loop never takes this long between two events, unless the process does not run.
const MAX_LAG: Duration = Duration::from_millis(500);
/// Connections that are accepted in one batch, so that a flood does not delay existing connections.
const MAX_ACCEPTS: usize = 64;
/// Failed pools with threads that still run. Only a defect makes workers stuck, and new ones would get stuck too.
const MAX_FAILED: usize = 4;
/// Deferred requests, each repeated ten times per second. Above the limit, and above a quarter of the connections, the
/// workers must respond immediately.
const MAX_DEFERRED: usize = 100;
/// After the shutdown has begun, idle connections may send one more request for this time: a proxy may be about to use
/// one. Connections with their last response are kept as long, so that no reset overtakes it.
const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// After the shutdown has begun, requests in flight have this time.
const DRAIN_ALL: Duration = Duration::from_secs(3);
/// While requests are with the workers, the loop yields this often before it sleeps: a response takes some microseconds,
/// and waking the thread takes as long.
const MAX_YIELDS: u32 = 5;
/// Events of one wait.
const MAX_EVENTS: usize = 256;
/// Bytes of one read: more than a header section has.
const SCRATCH_BYTES: usize = 16 * 1024;

/// Event numbers that are no connection's key: the upper half of a key is never zero.
const LISTENER: u64 = 0;
const SHUTDOWN: u64 = 1;
const WORKERS_LOST: u64 = 2;
const OUTCOMES: u64 = 3;

/// Everything the gate's thread owns.
pub(super) struct EventLoop {
    /// `None` after the shutdown has begun.
    listener: Option<TcpListener>,
    clients: Clients,
    spawn: Spawn,
    pool: Option<WorkerPool>,
    /// The pool that is being started, on another thread.
    starting: Option<JoinHandle<io::Result<WorkerPool>>>,
    /// Failed pools with threads that still run.
    failed: Vec<WorkerPool>,
    /// Requests that the workers receive again at the next tick.
    deferred: Vec<Sent>,
    draining: Option<Instant>,
    scratch: Vec<u8>,
}

impl EventLoop {
    pub(super) fn new(
        listener: TcpListener,
        shutdown: &OwnedFd,
        config: Config,
        spawn: Spawn,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // One report is enough, so the value need not be read.
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&epoll, shutdown, EventData::new_u64(SHUTDOWN), once)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let pool = spawn()?;
        pool.watch(&epoll, WORKERS_LOST, OUTCOMES)?;
        Ok(Self {
            listener: Some(listener),
            clients: Clients::new(epoll, config, metrics),
            spawn,
            pool: Some(pool),
            starting: None,
            failed: Vec::new(),
            deferred: Vec::new(),
            draining: None,
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Serves until the shutdown is over. The loop's clock stops while the process is stopped (SIGSTOP, a paused VM):
    /// deadlines would otherwise be over before what arrived in the meantime is read.
    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut read = Instant::now();
        let mut yields = 0;
        let (mut now, mut next_tick) = (read, read + TICK);
        loop {
            let is_yielding = yields < MAX_YIELDS && self.pool.as_ref().is_some_and(|pool| pool.load() > 0);
            let timeout = match is_yielding {
                true => Duration::ZERO,
                false => next_tick.saturating_duration_since(now),
            };
            let timeout = Timespec::try_from(timeout).ok();
            events.clear();
            match epoll::wait(&self.clients.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return log::error!(reason:% = error; "gate stops: epoll failed"),
            }
            if is_yielding && events.is_empty() {
                yields += 1;
                thread::yield_now();
                continue;
            }
            yields = 0;
            let passed = read.elapsed();
            read += passed;
            now += passed.min(MAX_LAG);
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
                return;
            }
        }
    }

    fn handle(&mut self, number: u64, flags: EventFlags, now: Instant) {
        match number {
            // At the limit each one evicts another. The new bytes should be read before many more connections arrive.
            LISTENER => self.accept(MAX_ACCEPTS.min(self.clients.share()), now),
            SHUTDOWN => self.drain(now),
            // The private connection brings nothing. It can only be lost.
            WORKERS_LOST => self.fail("private connection closed", now),
            OUTCOMES => self.receive(now),
            bits => {
                if let Some(key) = Key::from_bits(bits) {
                    self.clients.on_client_event(key, flags, &mut self.scratch, now);
                }
            }
        }
    }

    /// Accepts at most this many connections.
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
                // This peer has already disconnected.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) => {
                    self.clients.metrics.refused[Refused::Accept].add(1);
                    if let Some(suppressed) = self.clients.throttle(Refused::Accept, now) {
                        log::warn!(reason:% = error, suppressed; "accept failed: pausing for a moment");
                    }
                    return self.listen(EventFlags::empty());
                }
            }
        }
    }

    /// Pauses accepting until the next tick, or resumes it. A listener that cannot accept would otherwise report the
    /// same event continuously.
    fn listen(&self, interest: EventFlags) {
        if let Some(listener) = &self.listener {
            let _ = epoll::modify(&self.clients.epoll, listener, EventData::new_u64(LISTENER), interest);
        }
    }

    /// Sends waiting requests to the workers.
    fn dispatch(&mut self, now: Instant) {
        let Some(pool) = &mut self.pool else {
            return;
        };
        while pool.has_room()
            && let Some((client, request)) = self.clients.next_waiting(now)
        {
            pool.send(client, request);
        }
        if let Err(error) = pool.flush() {
            self.fail(&error.to_string(), now);
        }
    }

    /// Passes the workers' outcomes on to their connections.
    fn receive(&mut self, now: Instant) {
        let received = self.pool.as_mut().map(WorkerPool::receive);
        for (request, outcome) in received.into_iter().flatten() {
            match outcome {
                Some(response) => {
                    self.clients.metrics.observe_request(now.duration_since(request.begun));
                    self.clients.pump(request.client, Event::Responded(response), now);
                }
                None if self.draining.is_none() && self.deferred.len() < MAX_DEFERRED.min(self.clients.share()) => {
                    self.deferred.push(request);
                }
                None => self.clients.pump(request.client, Event::Repeated(Deferral::Over), now),
            }
        }
    }

    /// Repeats the deferred requests, for the last time if the next tick may be too late.
    fn repeat_deferred(&mut self, now: Instant) {
        for Sent { client, begun, .. } in std::mem::take(&mut self.deferred) {
            let deferral = match now + TICK * 3 / 2 < begun + MAX_DEFERRAL {
                true => Deferral::More,
                false => Deferral::Over,
            };
            self.clients.pump(client, Event::Repeated(deferral), now);
        }
    }

    /// Discards the workers: the requests in flight are lost. The next tick starts another pool, so that a pool that
    /// fails again and again does not block the clients.
    fn fail(&mut self, reason: &str, now: Instant) {
        let Some(pool) = self.pool.take() else {
            return;
        };
        let lost = pool.abandon(&self.clients.epoll);
        if let Some(suppressed) = self.clients.throttle(Refused::Lost, now) {
            log::warn!(reason, requests = lost.len(), suppressed; "workers lost: starting others");
        }
        for request in lost {
            self.clients.pump(request.client, Event::Rejected(Refusal::LOST), now);
        }
        self.failed.push(pool);
    }

    /// Starts another pool on a thread, or uses the one that has started there.
    fn replace_workers(&mut self) -> io::Result<()> {
        if let Some(starting) = self.starting.take_if(|starting| starting.is_finished()) {
            let pool = starting.join().map_err(|_| io::Error::other("the start panicked"))??;
            pool.watch(&self.clients.epoll, WORKERS_LOST, OUTCOMES)?;
            self.pool = Some(pool);
        } else if self.failed.len() >= MAX_FAILED {
            return Err(io::Error::other("the threads of lost pools are stuck"));
        } else if self.starting.is_none() {
            let spawn = Arc::clone(&self.spawn);
            self.starting = Some(threads::spawn_detached("start workers", move || spawn())?);
        }
        Ok(())
    }

    fn tick(&mut self, now: Instant) {
        self.listen(EventFlags::IN);
        self.failed.retain(|pool| !pool.has_stopped());
        if self.pool.as_mut().is_some_and(|pool| pool.is_stuck(now)) {
            self.fail("no response in time", now);
        } else if self.pool.is_none()
            && let Err(error) = self.replace_workers()
            && let Some(suppressed) = self.clients.throttle(Refused::Busy, now)
        {
            log::warn!(reason:% = error, suppressed; "workers not started: retrying");
        }
        self.repeat_deferred(now);
        self.clients.expire(now);
    }

    /// Begins the shutdown: no new connections, and existing ones get their responses.
    fn drain(&mut self, now: Instant) {
        // Connections in the backlog are established and get their responses too.
        self.accept(BACKLOG, now);
        self.listener = None;
        self.draining = Some(now);
        self.clients.drain(now);
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
