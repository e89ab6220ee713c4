//! Owns all client connections with their sockets, counts them for each client, and performs the actions of their state
//! machines. Does not know how workers are reached.

mod eviction;
mod fair_queue;
mod unread;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use thunderdome::{Arena, Index as Key};

use super::SEND_BUFFER_BYTES;
use super::connection::{Action, Connection, Event, InFlight};
use super::refusal::Refusal;
use crate::client::{Client, is_in};
use crate::config::Config;
use crate::metrics::{Label, Metrics, Refused};
use crate::util::log_throttle::{LogThrottle, ONE_A_MINUTE, ONE_AN_HOUR, Suppressed};
use fair_queue::FairQueue;

/// One client, an IPv4 address or an IPv6 /64, may hold this part of the connections.
const CLIENT_SHARE: usize = 4;
/// Connections beyond the cap that are kept for a moment, so that their 503 is read before the reset.
const MAX_REJECTED: usize = 64;

/// The client that a connection is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Client(Client),
    /// A trusted proxy serves many clients and has no share.
    TrustedProxy,
    /// No client: the connection was rejected and remains only until its 503 is read.
    Rejected,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    holder: Holder,
    /// The events that epoll reports.
    interest: EventFlags,
    /// Bytes of one write: half of the kernel's send buffer.
    write_bytes: usize,
    connection: Connection,
}

pub(super) struct Clients {
    pub(super) epoll: OwnedFd,
    config: Arc<Config>,
    pub(super) metrics: Arc<Metrics>,
    sockets: Arena<Socket>,
    /// All connections, except those of trusted proxies.
    held: HashMap<Holder, BTreeSet<Key>>,
    /// Connections with a complete request that waits for a ticket.
    waiting: FairQueue,
    /// Unsent bytes of all responses.
    unsent: usize,
    /// Connections with a larger buffer in the kernel.
    large_buffers: usize,
    /// Where the next search for a connection to evict begins.
    next_candidate: usize,
    /// For each kind of refusal, in the order of [`Refused`].
    throttles: [LogThrottle; Refused::ALL.len()],
    untrusted_proxies: LogThrottle,
}

impl Clients {
    pub(super) fn new(epoll: OwnedFd, config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            epoll,
            config: Arc::new(config),
            metrics,
            sockets: Arena::new(),
            held: HashMap::new(),
            waiting: FairQueue::default(),
            unsent: 0,
            large_buffers: 0,
            next_candidate: 0,
            throttles: std::array::from_fn(|_| ONE_A_MINUTE),
            untrusted_proxies: ONE_AN_HOUR,
        }
    }

    /// Whether the shutdown has to wait for a connection. Connections without a request count only if `idle_counts`.
    pub(super) fn any_left(&self, idle_counts: bool) -> bool {
        let mut all = self.sockets.iter();
        all.any(|(_, socket)| idle_counts || socket.connection.idle_after().is_none())
    }

    /// Connections that one client may hold.
    pub(super) fn share(&self) -> usize {
        (self.config.max_connections / CLIENT_SHARE).max(1)
    }

    /// Connections that are charged to a holder; 0 for a proxy, which has no share.
    fn held_by(&self, holder: Holder) -> usize {
        self.held.get(&holder).map_or(0, BTreeSet::len)
    }

    /// Registers a new connection, or rejects it with 503.
    pub(super) fn admit(&mut self, stream: TcpStream, peer: IpAddr, now: Instant) {
        self.metrics.connections.add(1);
        let holder = match is_in(&self.config.trusted_proxies, peer) {
            true => Holder::TrustedProxy,
            false => Holder::Client(Client::from(peer)),
        };
        let refusal = self.refusal(holder, peer, now);
        let holder = if refusal.is_some() { Holder::Rejected } else { holder };
        let key = self.sockets.insert(Socket {
            stream,
            holder,
            interest: EventFlags::IN,
            write_bytes: SEND_BUFFER_BYTES,
            connection: Connection::new(peer, Arc::clone(&self.config), now),
        });
        if holder != Holder::TrustedProxy {
            self.held.entry(holder).or_default().insert(key);
        }
        let data = EventData::new_u64(key.to_bits());
        if epoll::add(&self.epoll, &self.sockets[key].stream, data, EventFlags::IN).is_err() {
            return self.close(key, Some(Refused::Accept));
        }
        self.metrics.connections_open.set(self.sockets.len() as u64);
        // A rejected connection remains for a moment, so that the client can read the 503, which a new socket takes in
        // one write.
        if let Some(refusal) = refusal {
            self.pump(key, Event::Rejected(refusal), now);
            if self.held_by(Holder::Rejected) > MAX_REJECTED {
                self.close(key, None);
            }
        }
    }

    /// Why a new connection has no room, even after an eviction.
    fn refusal(&mut self, holder: Holder, peer: IpAddr, now: Instant) -> Option<Refusal> {
        let max = self.config.max_connections;
        if self.held_by(holder) >= self.share() && !self.close_own_idle(holder, now) {
            if let Some(suppressed) = self.throttle(Refused::Share, now) {
                let limit = self.share();
                log::warn!(client:% = peer, scope = "client", limit, suppressed; "connection limit reached: 503 sent");
            }
            return Some(Refusal::SHARE);
        }
        if self.sockets.len() - self.held_by(Holder::Rejected) >= max && !self.make_room(holder, now) {
            if let Some(suppressed) = self.throttle(Refused::Full, now) {
                log::warn!(limit = max, suppressed; "all connections busy: MAX_CONNECTIONS reached, 503 sent");
            }
            return Some(Refusal::FULL);
        }
        None
    }

    /// Handles an event of a connection.
    pub(super) fn on_client_event(&mut self, key: Key, flags: EventFlags, scratch: &mut [u8], now: Instant) {
        let Some(Socket { stream, connection, .. }) = self.sockets.get_mut(key) else {
            return;
        };
        let unexpected = flags - connection.interest();
        let room = connection.room().min(scratch.len());
        // A lingering connection reports a hang-up when its client closes. Its remaining bytes are read even then: the
        // reset that unread bytes cause could overtake the response.
        let is_broken =
            flags.contains(EventFlags::ERR) || (flags.contains(EventFlags::HUP) && !connection.is_lingering());
        if is_broken {
            return self.close(key, None);
        }
        let event = match room > 0 && flags.intersects(EventFlags::IN | EventFlags::HUP) {
            true => stream.read(&mut scratch[..room]).map(|got| match got {
                0 => Event::Ended,
                got => Event::Received(&scratch[..got]),
            }),
            false => Ok(Event::Writable),
        };
        match event {
            // A connection that is closed on both sides has no peer any more, and nothing on its way to it.
            Ok(Event::Ended) if stream.peer_addr().is_err() => self.close(key, None),
            Ok(event) => {
                if matches!(event, Event::Writable) {
                    self.enlarge_buffer(key);
                }
                self.pump(key, event, now);
            }
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.close(key, None),
        }
        self.listen(key, unexpected);
    }

    /// Passes an event to a connection and performs its actions until it waits for the next event.
    pub(super) fn pump(&mut self, key: Key, event: Event<'_>, now: Instant) {
        let Some(Socket {
            stream,
            connection,
            write_bytes: most,
            ..
        }) = self.sockets.get_mut(key)
        else {
            return;
        };
        let before = connection.unsent().len();
        let mut action = connection.on(event, now);
        let over = loop {
            action = match action {
                Action::Nothing | Action::Forward => break None,
                Action::Queue(client) => {
                    self.waiting.push(client, key);
                    break None;
                }
                Action::Refuse(why) => {
                    self.metrics.refused[why].add(1);
                    Action::Send
                }
                Action::Send => match send(stream, connection.unsent(), *most) {
                    Ok(sent) => connection.on(Event::Sent(sent), now),
                    Err(_) => Action::Close(None),
                },
                Action::Shutdown => match stream.shutdown(Shutdown::Write) {
                    Ok(()) => Action::Nothing,
                    Err(_) => Action::Close(None),
                },
                Action::Close(why) => break Some(why),
            };
        };
        let after = connection.unsent().len();
        self.unsent = self.unsent + after - before;
        match over {
            Some(why) => self.close(key, why),
            None => self.listen(key, EventFlags::empty()),
        }
        if after > before {
            self.evict_readers(key, now);
        }
    }

    /// Updates the events that epoll reports of a connection, if it lacks one or has reported an unexpected one. An
    /// unexpected event that never occurs costs nothing.
    fn listen(&mut self, key: Key, unexpected: EventFlags) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let expected = socket.connection.interest();
        if socket.interest.contains(expected) && !(socket.interest - expected).intersects(unexpected) {
            return;
        }
        socket.interest = expected;
        let data = EventData::new_u64(key.to_bits());
        if epoll::modify(&self.epoll, &socket.stream, data, expected).is_err() {
            self.close(key, None);
        }
    }

    /// The next request for the workers, and its connection.
    pub(super) fn next_waiting(&mut self, now: Instant) -> Option<(Key, &InFlight)> {
        let key = loop {
            let key = self.waiting.pop()?;
            let socket = self.sockets.get_mut(key);
            let action = socket.map(|socket| socket.connection.on(Event::Dispatched, now));
            if let Some(Action::Forward) = action {
                break key;
            }
        };
        let in_flight = self.sockets.get(key)?.connection.in_flight()?;
        // The setting is wrong, or a client claims to be a proxy. Behind a trusted proxy, an unknown client is that proxy.
        let client = in_flight.request.context.client;
        if !in_flight.request.context.is_client_known
            && !is_in(&self.config.trusted_proxies, client)
            && let Some(suppressed) = self.untrusted_proxies.admit(now)
        {
            log::warn!(
                proxy:% = client,
                suppressed;
                "proxy not in TRUSTED_PROXIES: all its clients share one rate limit, and none can read /metrics and /status"
            );
        }
        Some((key, in_flight))
    }

    /// Notifies all connections that the router shuts down.
    pub(super) fn drain(&mut self, now: Instant) {
        self.each(|_| true, || Event::Draining, now);
    }

    /// Handles all deadlines that are over, and removes connections that no longer wait from the queue.
    pub(super) fn expire(&mut self, now: Instant) {
        self.each(|connection| connection.is_late(now), || Event::Expired, now);
        let sockets = &self.sockets;
        let is_waiting = |key| sockets.get(key).is_some_and(|socket| socket.connection.is_waiting());
        self.waiting.retain(is_waiting);
    }

    fn each(&mut self, is: impl Fn(&Connection) -> bool, event: fn() -> Event<'static>, now: Instant) {
        let keys = self.sockets.iter().filter(|(_, socket)| is(&socket.connection));
        let keys: Vec<Key> = keys.map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.pump(key, event(), now));
    }

    fn close(&mut self, key: Key, why: Option<Refused>) {
        let Some(socket) = self.sockets.remove(key) else {
            return;
        };
        self.unsent -= socket.connection.unsent().len();
        self.large_buffers -= usize::from(socket.write_bytes > SEND_BUFFER_BYTES);
        socket.discard_unread();
        if let Entry::Occupied(mut held) = self.held.entry(socket.holder) {
            held.get_mut().remove(&key);
            if held.get().is_empty() {
                held.remove();
            }
        }
        // A lingering connection has had all its responses.
        if let Some(why) = why.filter(|_| !socket.connection.is_lingering()) {
            self.metrics.refused[why].add(1);
        }
        self.metrics.connections_open.set(self.sockets.len() as u64);
    }

    /// Whether a line of this kind may be logged: one per minute. `/metrics` counts the others.
    pub(super) fn throttle(&mut self, kind: Refused, now: Instant) -> Option<Suppressed> {
        self.throttles[kind.index()].admit(now)
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Sends at most this much without waiting, and returns how much that was.
pub(super) fn send(stream: &mut impl Write, bytes: &[u8], most: usize) -> io::Result<usize> {
    match stream.write(&bytes[..bytes.len().min(most)]) {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Err(error) if is_for_later(&error) => Ok(0),
        sent => sent,
    }
}

#[cfg(test)]
mod tests;
