//! The thread that responds for all nodes of a fleet.
//!
//! A typical request costs seven system calls and no lasting allocation, so that a measurement on the same machine
//! measures the router.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, sockopt};

use super::plan::{Act, Bytes, Shared, Then, bound, failure, local_addr};

/// Length of the accept queue. The kernel limits it to `somaxconn`.
const BACKLOG: i32 = 4096;

/// Maximum length of a request head. A head of the router has a few hundred bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Pause between two bytes of a node that drips.
const DRIP: Duration = Duration::from_millis(100);

/// Pause before the next accept after running out of descriptors.
const RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

const LISTENER: u64 = 0;
const WAKE: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// Runs until the fleet is dropped.
pub(super) fn run(shared: &Shared, port: u16) {
    let mut fleet = EventLoop::new(shared, port);
    let mut events = Vec::with_capacity(256);
    loop {
        let timeout = if fleet.paused {
            Some(RETRY)
        } else {
            fleet.until_next_timer()
        };
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&fleet.epoll, room, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait: {error}"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => fleet.accept(),
                WAKE => {
                    if !fleet.obey() {
                        return;
                    }
                }
                id => fleet.resume(id),
            }
        }
        fleet.fire_timers();
        if timeout == Some(RETRY) {
            fleet.paused = false;
            fleet.listen_for(epoll::EventFlags::IN);
        }
    }
}

struct EventLoop<'a> {
    shared: &'a Shared,
    port: u16,
    epoll: OwnedFd,
    listener: Option<OwnedFd>,
    /// Out of descriptors: accepting continues after `RETRY`.
    paused: bool,
    connections: HashMap<u64, Connection>,
    next_id: u64,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    buffer: Vec<u8>,
}

struct Connection {
    socket: OwnedFd,
    node: usize,
    phase: Phase,
    interest: Option<epoll::EventFlags>,
}

enum Phase {
    Head(Vec<u8>),
    Sending {
        bytes: Bytes,
        sent: usize,
        then: Then,
    },
    SendAt(Bytes),
    Dripping(u8),
    /// Has sent a request to a node that waits for the test.
    Waiting(Target),
    Held,
    Reset,
}

/// The target of a request.
#[derive(Clone, Copy)]
enum Target {
    /// What the fleet serves.
    Own,
    Resources,
    /// Resources with a `model_id`.
    Support,
    Other,
}

#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Ends,
}

impl<'a> EventLoop<'a> {
    fn new(shared: &'a Shared, port: u16) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll is available");
        let wake = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &shared.wake, wake, epoll::EventFlags::IN).expect("the eventfd is new");
        Self {
            shared,
            port,
            epoll,
            listener: None,
            paused: false,
            connections: HashMap::new(),
            next_id: FIRST_CONNECTION,
            timers: BinaryHeap::new(),
            buffer: vec![0; MAX_HEAD_BYTES],
        }
    }

    fn until_next_timer(&self) -> Option<Timespec> {
        let Reverse((at, _)) = self.timers.peek()?;
        let left = at.saturating_duration_since(Instant::now());
        Some(left.try_into().expect("timers are less than years ahead"))
    }

    /// Carries out the commands of the handle. Returns false on the command to stop.
    fn obey(&mut self) -> bool {
        let mut count = [0; 8];
        // An empty read is valid: several commands may have arrived as one.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        let mut state = self.shared.lock();
        if state.stopping {
            return false;
        }
        if state.wants_listening != state.is_listening {
            // Closing the listener also resets connections that it has not accepted.
            self.listener = state.wants_listening.then(|| listen(&self.epoll, self.port));
            self.paused = false;
            state.is_listening = state.wants_listening;
            self.shared.notify(&state);
        }
        drop(state);
        let is_waiting = |c: &Connection| matches!(c.phase, Phase::Waiting(_));
        let waiting = self.connections.iter().filter(|(_, c)| is_waiting(c));
        for id in waiting.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.resume(id);
        }
        true
    }

    fn accept(&mut self) {
        loop {
            let Some(listener) = &self.listener else {
                return;
            };
            match net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.welcome(socket),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    eprintln!("fleet: can't accept, out of descriptors");
                    self.listen_for(epoll::EventFlags::empty());
                    self.paused = true;
                    return;
                }
                Err(Errno::AGAIN) => return,
                Err(_client_is_gone) => {}
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        let node = u32::from(*local_addr(&socket).ip()).wrapping_sub(self.shared.first) as usize;
        let mut state = self.shared.lock();
        if node >= state.nodes.len() {
            return;
        }
        state.accepted += 1;
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        self.shared.notify(&state);
        drop(state);
        let id = self.next_id;
        self.next_id += 1;
        let connection = Connection {
            socket,
            node,
            phase: Phase::Head(Vec::new()),
            interest: None,
        };
        self.go_on(id, connection);
    }

    fn resume(&mut self, id: u64) {
        // The connection may have closed since the event or the timer was created.
        if let Some(connection) = self.connections.remove(&id) {
            self.go_on(id, connection);
        }
    }

    fn go_on(&mut self, id: u64, mut connection: Connection) {
        if self.advance(id, &mut connection) == Fate::Stays {
            self.watch(id, &mut connection);
            self.connections.insert(id, connection);
            return;
        }
        // Close before counting, so that a thread that waits for the count sees a closed connection.
        drop(connection);
        let mut state = self.shared.lock();
        state.open -= 1;
        self.shared.notify(&state);
    }

    fn watch(&self, id: u64, connection: &mut Connection) {
        let wanted = match connection.phase {
            Phase::Sending { .. } => epoll::EventFlags::OUT,
            _ => epoll::EventFlags::IN,
        };
        let socket = &connection.socket;
        let data = epoll::EventData::new_u64(id);
        match connection.interest {
            Some(interest) if interest == wanted => return,
            Some(_) => epoll::modify(&self.epoll, socket, data, wanted),
            None => epoll::add(&self.epoll, socket, data, wanted),
        }
        .expect("the epoll has room");
        connection.interest = Some(wanted);
    }

    fn listen_for(&self, flags: epoll::EventFlags) {
        if let Some(listener) = &self.listener {
            let data = epoll::EventData::new_u64(LISTENER);
            epoll::modify(&self.epoll, listener, data, flags).expect("the listener is watched");
        }
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let (bytes, then) = match &connection.phase {
                Phase::SendAt(bytes) => (Arc::clone(bytes), Then::Close),
                Phase::Dripping(byte) => ([*byte].as_slice().into(), Then::Drip(*byte)),
                _ => continue,
            };
            connection.phase = Phase::sending(bytes, then);
            self.resume(id);
        }
    }

    /// Makes all progress that is possible without waiting.
    fn advance(&mut self, id: u64, connection: &mut Connection) -> Fate {
        loop {
            match &mut connection.phase {
                Phase::Head(head) => match net::recv(&connection.socket, &mut self.buffer[..], RecvFlags::empty()) {
                    Err(Errno::AGAIN) => return Fate::Stays,
                    Ok((n, _)) if n > 0 && head.len() + n <= MAX_HEAD_BYTES => {
                        head.extend_from_slice(&self.buffer[..n]);
                        if head.windows(4).any(|w| w == b"\r\n\r\n") {
                            let head = std::mem::take(head);
                            connection.phase = self.asked(id, connection.node, &head);
                        }
                    }
                    _ => return Fate::Ends,
                },
                Phase::Sending { bytes, sent, then } if *sent == bytes.len() => match then {
                    Then::Close => return Fate::Ends,
                    Then::Hold => connection.phase = Phase::Held,
                    Then::Drip(byte) => {
                        self.timers.push(Reverse((Instant::now() + DRIP, id)));
                        connection.phase = Phase::Dripping(*byte);
                    }
                    Then::Repeat(filler) => {
                        *bytes = Arc::clone(filler);
                        *sent = 0;
                        // Other connections have their turn before the next piece.
                        return Fate::Stays;
                    }
                },
                Phase::Sending { bytes, sent, .. } => {
                    match net::send(&connection.socket, &bytes[*sent..], SendFlags::NOSIGNAL) {
                        Ok(n) => *sent += n,
                        Err(Errno::AGAIN) => return Fate::Stays,
                        Err(_) => return Fate::Ends,
                    }
                }
                Phase::Reset => {
                    let linger = Some(Duration::ZERO);
                    sockopt::set_socket_linger(&connection.socket, linger).expect("a socket can linger");
                    return Fate::Ends;
                }
                Phase::Waiting(target) => {
                    let next = self.phase_of(id, connection.node, *target);
                    if matches!(next, Phase::Waiting(_)) {
                        return self.listen_to(connection);
                    }
                    connection.phase = next;
                }
                Phase::SendAt(_) | Phase::Dripping(_) | Phase::Held => {
                    return self.listen_to(connection);
                }
            }
        }
    }

    /// Notices when the client closes the connection. Discards its further bytes.
    fn listen_to(&mut self, connection: &Connection) -> Fate {
        match net::recv(&connection.socket, &mut self.buffer[..], RecvFlags::empty()) {
            Err(Errno::AGAIN) => Fate::Stays,
            Ok((n, _)) if n > 0 => Fate::Stays,
            _ => Fate::Ends,
        }
    }

    fn asked(&mut self, id: u64, node: usize, head: &[u8]) -> Phase {
        let text = target_of(head);
        let target = match text {
            "/resources" => Target::Resources,
            _ if text.starts_with("/resources?") => Target::Support,
            _ if (self.shared.serves)(text) => Target::Own,
            _ => Target::Other,
        };
        let mut state = self.shared.lock();
        if matches!(target, Target::Resources | Target::Support) {
            state.resource_asks.push((node, text.to_owned(), Instant::now()));
        } else {
            state.asked += 1;
            state.nodes[node].asked += 1;
            state.last_head.clear();
            state.last_head.extend_from_slice(head);
            if let Some(record) = &mut state.record {
                let node = u32::try_from(node).expect("a fleet has at most 100,000 nodes");
                record.push((node, Instant::now()));
            }
        }
        self.shared.notify(&state);
        drop(state);
        self.phase_of(id, node, target)
    }

    fn phase_of(&mut self, id: u64, node: usize, target: Target) -> Phase {
        let state = self.shared.lock();
        let node = &state.nodes[node];
        let plan = match (target, &node.resources) {
            (Target::Resources, Some([plan, _])) | (Target::Support, Some([_, plan])) => plan,
            (Target::Own, _) => &node.plan,
            _ if node.plan.only_own_targets => return Phase::sending(failure(404).into(), Then::Close),
            _ => &node.plan,
        };
        match &plan.act {
            Act::Send(bytes, then) => Phase::sending(Arc::clone(bytes), then.clone()),
            Act::Cycle { first, times, last } => {
                let bytes = if node.ask_of_plan().is_multiple_of(times + 1) {
                    last
                } else {
                    first
                };
                Phase::sending(Arc::clone(bytes), Then::Close)
            }
            Act::SendAfter(after, bytes) => {
                self.timers.push(Reverse((Instant::now() + *after, id)));
                Phase::SendAt(Arc::clone(bytes))
            }
            Act::Reset => Phase::Reset,
            Act::Wait => Phase::Waiting(target),
        }
    }
}

impl Phase {
    fn sending(bytes: Bytes, then: Then) -> Self {
        Self::Sending { bytes, sent: 0, then }
    }
}

fn listen(epoll: &OwnedFd, port: u16) -> OwnedFd {
    let listener = bound(port);
    net::listen(&listener, BACKLOG).expect("the port is ours");
    let data = epoll::EventData::new_u64(LISTENER);
    epoll::add(epoll, &listener, data, epoll::EventFlags::IN).expect("the listener is new");
    listener
}

/// Returns the target of a GET, or an empty text for another method.
fn target_of(head: &[u8]) -> &str {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let target = line
        .strip_prefix(b"GET ")
        .and_then(|rest| rest.strip_suffix(b" HTTP/1.1"));
    std::str::from_utf8(target.unwrap_or_default()).unwrap_or_default()
}
