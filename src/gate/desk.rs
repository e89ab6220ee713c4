//! The gate's one thread: what the kernel tells of connections, lanes and the clock, in turn.

use std::collections::VecDeque;
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
use super::connection::{Connection, Stage, WAIT_TIMEOUT};
use super::head::{Refusal, Request};
use super::inside::{Open, Workers};
use super::lane::{self, Lane, UnderWay};
use super::{BACKLOG, CLIENT_FIELD, PERSISTENCE_FIELD, Settings, forwarded};
use crate::metrics::{Metrics, Refused};
use crate::response::Persistence;
use crate::util::arena::Key;

/// How exact deadlines are, and how long accepting pauses when descriptors or memory run out.
const TICK: Duration = Duration::from_millis(100);
/// Accepted at one go, so that a flood of connections does not keep those that are here waiting.
const MAX_ACCEPTS: usize = 64;
/// Lost insides whose workers have not ended yet. Workers get stuck by a mistake of ours alone, and then new ones
/// would follow them.
const MAX_LOST: usize = 4;
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
const BELL: u64 = 1;
const FIRST_LANE: u64 = 2;

/// Everything the gate's thread owns.
pub(super) struct Desk {
    /// Gone once the router is about to end.
    listener: Option<TcpListener>,
    /// False while the system has no descriptor or memory for another connection.
    accepting: bool,
    clients: Clients,
    open: Open,
    /// Complete heads for which no lane has room, first come first.
    waiting: VecDeque<Key>,
    lanes: Vec<Lane>,
    /// The workers of the lanes.
    workers: Option<Workers>,
    /// Workers whose lanes were lost and who have not ended yet.
    lost: Vec<Workers>,
    draining: Option<Instant>,
    scratch: Vec<u8>,
}

impl Desk {
    pub(super) fn new(
        listener: TcpListener,
        bell: &OwnedFd,
        settings: Settings,
        open: Open,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Once is enough, and then it need not be read.
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&epoll, bell, EventData::new_u64(BELL), once)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut desk = Self {
            listener: Some(listener),
            accepting: true,
            clients: Clients::new(epoll, settings, metrics),
            open,
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            workers: None,
            lost: Vec::new(),
            draining: None,
            scratch: vec![0; SCRATCH_BYTES],
        };
        desk.open_inside()?;
        Ok(desk)
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
            self.go_on(now);
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
                self.go_on(now);
            }
            if self.is_over(now) {
                return self.leave_stuck();
            }
        }
    }

    /// Whether nothing can happen but news from the kernel.
    fn is_quiet(&self) -> bool {
        self.clients.is_empty() && self.accepting && self.draining.is_none() && !self.lanes.is_empty()
    }

    fn handle(&mut self, number: u64, flags: EventFlags, now: Instant) {
        match number {
            // At the cap each one closes another, which should have been read before that many more have come.
            LISTENER => self.accept(MAX_ACCEPTS.min(self.clients.share()), now),
            BELL => self.drain(now),
            lane if lane < FIRST_LANE + self.lanes.len() as u64 => self.hear((lane - FIRST_LANE) as usize, now),
            lane if lane >> 32 == 0 => log::trace!("news of lane {lane}, which is gone"),
            bits => {
                let key = Key::from_bits(bits);
                if self.clients.turn_to(key, flags, &mut self.scratch, now) {
                    self.proceed(key, now);
                }
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
                        self.clients
                            .admit(TcpStream::from(stream), peer.ip().to_canonical(), now);
                    }
                }
                Err(Errno::AGAIN) => return,
                // The peer was gone before it was accepted; the next one may not be.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) => {
                    self.clients.count(Refused::Accept);
                    let what = format!("no connection can be accepted for now: {error}");
                    self.clients.complain(Refused::Accept, &what, now);
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

    /// Looks for a complete request in what a connection sent.
    fn proceed(&mut self, key: Key, now: Instant) {
        // Since it was found to have sent more, its next request may have gone on its way.
        let Some(connection) = self
            .clients
            .get_mut(key)
            .filter(|connection| connection.stage == Stage::Reading)
        else {
            return;
        };
        match connection.next_request() {
            Ok(Some(request)) => {
                if self.draining.is_some() {
                    connection.close_after();
                }
                let peer = connection.peer;
                let persistence = connection.persistence();
                let client = forwarded::client(peer, &request.forwarded, &self.clients.settings.trusted_proxies);
                if let Some(connection) = self.clients.get_mut(key) {
                    connection.request = canonical(&request, client, persistence);
                    connection.enter(Stage::Waiting, WAIT_TIMEOUT, now);
                    self.waiting.push_back(key);
                }
            }
            Ok(None) => self.clients.listen_for(key, EventFlags::IN),
            Err(refusal) => self.clients.refuse(key, refusal, now),
        }
    }

    fn open_inside(&mut self) -> io::Result<()> {
        let inside = (self.open)()?;
        for stream in inside.lanes {
            stream.set_nonblocking(true)?;
            let number = FIRST_LANE + self.lanes.len() as u64;
            epoll::add(&self.clients.epoll, &stream, EventData::new_u64(number), EventFlags::IN)?;
            self.lanes.push(Lane::new(stream));
        }
        self.workers = Some(inside.workers);
        Ok(())
    }

    /// Hands requests that wait to the lanes and sends what is on these; then looks at requests that came ahead.
    fn go_on(&mut self, now: Instant) {
        loop {
            self.hand_on(now);
            (0..self.lanes.len()).for_each(|lane| self.flush(lane, now));
            let again = self.clients.take_again();
            if again.is_empty() {
                return;
            }
            again.into_iter().for_each(|key| self.proceed(key, now));
        }
    }

    fn hand_on(&mut self, now: Instant) {
        while let Some(lane) = self
            .lanes
            .iter_mut()
            .filter(|lane| lane.has_room())
            .min_by_key(|lane| lane.load())
        {
            let Some(key) = self.waiting.pop_front() else {
                return;
            };
            if let Some(connection) = self
                .clients
                .get_mut(key)
                .filter(|connection| connection.stage == Stage::Waiting)
            {
                let under_way = UnderWay {
                    connection: key,
                    sent: now,
                    // Of the request that goes in, not of what the connection has read since.
                    is_head: connection.request.starts_with(b"HEAD "),
                };
                lane.push(&std::mem::take(&mut connection.request), under_way);
                connection.enter(Stage::Inside, lane::ANSWER_TIMEOUT * 2, now);
            }
        }
    }

    fn flush(&mut self, number: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(number) else {
            return;
        };
        let flushed = lane.flush().and_then(|interest| {
            if lane.interest != interest {
                lane.interest = interest;
                let data = EventData::new_u64(FIRST_LANE + number as u64);
                epoll::modify(&self.clients.epoll, lane.stream(), data, interest)?;
            }
            Ok(())
        });
        if let Err(error) = flushed {
            self.lose_inside(&error.to_string(), now);
        }
    }

    /// Reads the answers that a lane brings and passes them on.
    fn hear(&mut self, number: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(number) else {
            return;
        };
        let heard = lane.receive(&mut self.scratch, now, |under_way, answer| {
            self.clients.deliver(under_way, answer, now);
        });
        if let Err(error) = heard {
            self.lose_inside(&error.to_string(), now);
        }
    }

    /// Gives up all lanes: what was under way is lost. The next tick opens a new inside, so that one that is lost again
    /// and again does not keep the gate from its clients.
    fn lose_inside(&mut self, why: &str, now: Instant) {
        let what = format!("the workers are lost and will be replaced: {why}");
        self.clients.complain(Refused::Lost, &what, now);
        if let Some(workers) = self.workers.take() {
            workers.tell_to_end();
            self.lost.push(workers);
        }
        for under_way in std::mem::take(&mut self.lanes)
            .into_iter()
            .flat_map(Lane::into_under_way)
        {
            let is_inside = |connection: &Connection| connection.stage == Stage::Inside;
            if self
                .clients
                .get_mut(under_way.connection)
                .is_some_and(|connection| is_inside(connection))
            {
                self.clients.refuse(under_way.connection, Refusal::Lost, now);
            }
        }
    }

    fn reopen_inside(&mut self, now: Instant) {
        let opened = match self.lost.len() < MAX_LOST {
            true => self.open_inside(),
            false => Err(io::Error::other("those that were lost are stuck")),
        };
        if let Err(error) = opened {
            self.lanes.clear();
            self.clients
                .complain(Refused::Busy, &format!("no workers for now: {error}"), now);
        }
    }

    fn tick(&mut self, now: Instant) {
        if !self.accepting {
            self.listen(EventFlags::IN);
        }
        self.lost.retain(|workers| !workers.have_ended());
        if self.lanes.is_empty() {
            self.reopen_inside(now);
        } else if self.lanes.iter().any(|lane| lane.is_stuck(now)) {
            self.lose_inside("an answer is long overdue", now);
        }
        self.clients.end_late(now);
        let clients = &mut self.clients;
        self.waiting.retain(|key| {
            clients
                .get_mut(*key)
                .is_some_and(|connection| connection.stage == Stage::Waiting)
        });
    }

    /// The end begins: no new connections; those that are here get their answers.
    fn drain(&mut self, now: Instant) {
        if self.draining.is_none() {
            // Those whose connection is made have as much right to an answer as those accepted a moment ago.
            self.accept(BACKLOG, now);
            self.listener = None;
            self.accepting = true;
            self.draining = Some(now);
        }
    }

    /// Workers that have not answered until now are left to themselves; all others are waited for.
    fn leave_stuck(mut self) {
        if self.lanes.iter().any(|lane| lane.load() > 0) {
            self.lost.extend(self.workers.take());
        }
        let stuck = self.lost.into_iter().filter(|workers| !workers.have_ended());
        stuck.for_each(Workers::leave);
    }

    fn is_over(&mut self, now: Instant) -> bool {
        let Some(since) = self.draining else {
            return false;
        };
        let lasted = now.duration_since(since);
        lasted >= DRAIN_ALL
            || !self.clients.any(|connection| match connection.stage {
                Stage::Lingering => lasted < DRAIN_IDLE,
                Stage::Reading if !connection.has_input() => lasted < DRAIN_IDLE,
                _ => true,
            })
    }
}

/// A request as the workers read it: nothing else of what a client sent.
pub(super) fn canonical(request: &Request, client: std::net::IpAddr, persistence: Persistence) -> Vec<u8> {
    let reply = match persistence {
        Persistence::Persist => "persist",
        Persistence::KeepAlive => "keep-alive",
        Persistence::Close => "close",
    };
    let Request { method, target, .. } = request;
    format!("{method} {target} HTTP/1.1\r\n{CLIENT_FIELD}: {client}\r\n{PERSISTENCE_FIELD}: {reply}\r\n\r\n")
        .into_bytes()
}

#[cfg(test)]
mod tests;
