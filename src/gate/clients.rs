//! Every client connection: who holds how many, and what is done to one. No word of the workers here.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::connection::{Connection, Holder, Input, Linger, Stage};
use super::head::Refusal;
use super::lane::UnderWay;
use super::{Settings, forwarded};
use crate::client::Client;
use crate::metrics::{Label, Metrics, Refused};
use crate::response::{Body, Persistence};
use crate::util::arena::{Arena, Key};

/// One client, an IPv4 address or an IPv6 /64, may hold this part of the connections.
const CLIENT_SHARE: usize = 4;
/// A head is on its way for this long before its connection may have to make room for one of a client that holds as many:
/// or else newcomers would only close one another.
const MIN_WAIT: Duration = Duration::from_millis(20);
/// The same for an answer that is not taken: or else those who never read would keep all others out.
const MIN_WRITE: Duration = Duration::from_secs(1);
/// Connections beyond the cap that are kept for a moment, so that their 503 is read before the reset.
const MAX_REFUSED: usize = 64;
/// Answers that clients have not taken yet, in bytes, all together; beyond it the slowest reader is cut off.
const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;
/// Least time between two lines about one kind of trouble, which tends to come in floods.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Clients {
    pub(super) epoll: OwnedFd,
    pub(super) settings: Settings,
    metrics: Arc<Metrics>,
    connections: Arena<Connection>,
    held: HashMap<Client, usize>,
    /// Connections that were refused and linger beyond the cap.
    refused: usize,
    /// Bytes of answers that wait for their clients.
    unsent: usize,
    /// Connections that were answered and have sent more already.
    again: Vec<Key>,
    /// When each kind of trouble was last told, in the order of [`Refused`].
    complained: [Option<Instant>; Refused::ALL.len()],
}

impl Clients {
    pub(super) fn new(epoll: OwnedFd, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            epoll,
            settings,
            metrics,
            connections: Arena::default(),
            held: HashMap::new(),
            refused: 0,
            unsent: 0,
            again: Vec::new(),
            complained: [None; Refused::ALL.len()],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.len() == 0
    }

    pub(super) fn any(&self, is: impl Fn(&Connection) -> bool) -> bool {
        self.connections.iter().any(|(_, connection)| is(connection))
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// The connections whose next request may be here already.
    pub(super) fn take_again(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.again)
    }

    /// Takes a new connection in, or turns it away.
    pub(super) fn admit(&mut self, stream: TcpStream, peer: IpAddr, now: Instant) {
        self.metrics.connections.add(1);
        let holder = match forwarded::is_trusted(peer, &self.settings.trusted_proxies) {
            true => Holder::TrustedProxy,
            false => Holder::Client(Client::from(peer)),
        };
        let connection = Connection::new(stream, peer, holder, now);
        if self.held_by(holder) >= self.share() {
            let what = format!("{peer} holds its whole share of the connections");
            self.complain(Refused::Share, &what, now);
            return self.turn_away(connection, Refused::Share, now);
        }
        if self.connections.len() - self.refused >= self.settings.max_connections && !self.make_room(holder, now) {
            let what = "all connections are being answered: MAX_CONNECTIONS is too small for so many";
            self.complain(Refused::Full, what, now);
            return self.turn_away(connection, Refused::Full, now);
        }
        self.take_in(connection);
    }

    /// Connections that one client may hold.
    pub(super) fn share(&self) -> usize {
        (self.settings.max_connections / CLIENT_SHARE).max(1)
    }

    /// Connections of a client; none of a proxy, for which there is no share.
    fn held_by(&self, holder: Holder) -> usize {
        match holder {
            Holder::Client(client) => self.held.get(&client).copied().unwrap_or(0),
            Holder::TrustedProxy | Holder::Nobody => 0,
        }
    }

    fn take_in(&mut self, connection: Connection) {
        let holder = connection.holder;
        let interest = connection.interest;
        let key = self.connections.insert(connection);
        match holder {
            Holder::Client(client) => *self.held.entry(client).or_default() += 1,
            Holder::Nobody => self.refused += 1,
            Holder::TrustedProxy => {}
        }
        let added = self.connections.get(key).map(|connection| {
            epoll::add(
                &self.epoll,
                &connection.stream,
                EventData::new_u64(key.to_bits()),
                interest,
            )
        });
        if !matches!(added, Some(Ok(()))) {
            self.close(key, Some(Refused::Accept));
        }
        self.tell_open();
    }

    /// Closes the connection that has waited longest for its head, or to be read, of the client that holds most. One that
    /// waits for a worker is told that it was too many, and only where that is fairer. Nobody makes room for a client
    /// that holds more.
    fn make_room(&mut self, newcomer: Holder, now: Instant) -> bool {
        let holds = self.held_by(newcomer);
        let waits = |connection: &Connection| {
            let least = match connection.stage {
                Stage::Reading | Stage::Lingering => MIN_WAIT,
                Stage::Writing => MIN_WRITE,
                Stage::Waiting => Duration::MAX,
                Stage::Inside => return false,
            };
            let theirs = self.held_by(connection.holder);
            let is_long = now.saturating_duration_since(connection.since) >= least;
            (theirs > holds + 1 || (theirs >= holds && is_long)) && connection.holder != Holder::Nobody
        };
        let waiting = self.connections.iter().filter(|(_, connection)| waits(connection));
        let victim = waiting
            .max_by_key(|(_, connection)| {
                let holds = self.held_by(connection.holder);
                (holds, connection.stage != Stage::Waiting, Reverse(connection.since))
            })
            .map(|(key, _)| key);
        let Some(victim) = victim else {
            return false;
        };
        if let Some(connection) = self.connections.get_mut(victim)
            && connection.stage == Stage::Waiting
        {
            // As much of it as the socket takes: the connection ends here.
            let _ = connection.answer(&refusal_bytes(Refusal::Busy, Body::Send), now);
            connection.forget_output();
        }
        self.close(victim, Some(Refused::MadeRoom));
        true
    }

    /// Sends a 503 and keeps the connection for a moment, so that the client gets to read it.
    fn turn_away(&mut self, mut connection: Connection, why: Refused, now: Instant) {
        self.count(why);
        connection.holder = Holder::Nobody;
        let refusal = match why {
            Refused::Share => Refusal::Share,
            _ => Refusal::Busy,
        };
        let refusal = refusal_bytes(refusal, Body::Send);
        // A fresh socket takes 300 bytes at once; where it doesn't, the client is gone.
        let is_sent = matches!(connection.answer(&refusal, now), Ok(true));
        if is_sent && self.refused < MAX_REFUSED && connection.after_answer(now) {
            self.take_in(connection);
        }
    }

    /// Does what the kernel's news of a connection asks for. True when bytes of a head came.
    pub(super) fn turn_to(&mut self, key: Key, flags: EventFlags, scratch: &mut [u8], now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        // A connection that lingers has hung up when its client does too; what still came is read even then, or the
        // reset of its unread bytes could overtake the answer.
        let is_broken = flags.contains(EventFlags::ERR)
            || (flags.contains(EventFlags::HUP) && connection.stage != Stage::Lingering);
        if is_broken {
            self.close(key, None);
            return false;
        }
        match connection.stage {
            Stage::Reading => match connection.read(scratch, now) {
                Ok(Input::Some) => return true,
                // The end is told again when its requests have been answered.
                Ok(Input::End) if connection.has_unscanned_input() => return true,
                Ok(Input::End) if connection.has_input() => {
                    self.refuse(key, Refusal::Malformed("it ended within the head"), now);
                }
                Ok(Input::End) | Err(_) => self.close(key, None),
            },
            Stage::Lingering => match connection.linger(scratch) {
                Linger::More => {}
                Linger::Enough => self.listen_for(key, EventFlags::empty()),
                Linger::Over => self.close(key, None),
            },
            Stage::Writing if flags.contains(EventFlags::OUT) => self.write_on(key, now),
            // What comes now is read when its turn has come.
            Stage::Waiting | Stage::Inside => self.listen_for(key, EventFlags::empty()),
            // The same, and room to write is waited for already.
            Stage::Writing => {}
        }
        false
    }

    pub(super) fn listen_for(&mut self, key: Key, interest: EventFlags) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.interest != interest {
            connection.interest = interest;
            let data = EventData::new_u64(key.to_bits());
            if epoll::modify(&self.epoll, &connection.stream, data, interest).is_err() {
                self.close(key, None);
            }
        }
    }

    /// Tells the client why not, and ends the connection.
    pub(super) fn refuse(&mut self, key: Key, refusal: Refusal, now: Instant) {
        self.count(refusal.into());
        if let Some(connection) = self.connections.get_mut(key) {
            connection.close_after();
            let body = if connection.is_head { Body::Count } else { Body::Send };
            self.answer(key, &refusal_bytes(refusal, body), now);
        }
    }

    /// Passes on what the workers answered, if the client is still there.
    pub(super) fn deliver(&mut self, under_way: UnderWay, answer: &[u8], now: Instant) {
        self.metrics.request_time.observe(now.duration_since(under_way.sent));
        let is_inside = |connection: &Connection| connection.stage == Stage::Inside;
        if self.connections.get(under_way.connection).is_some_and(is_inside) {
            self.answer(under_way.connection, answer, now);
        }
    }

    fn answer(&mut self, key: Key, answer: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.answer(answer, now) {
            Ok(true) => self.after_answer(key, now),
            Ok(false) => {
                self.unsent += connection.unsent();
                self.listen_for(key, EventFlags::OUT);
                self.cut_slow_readers(key);
            }
            Err(_) => self.close(key, None),
        }
    }

    fn write_on(&mut self, key: Key, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let before = connection.unsent();
        let written = connection.write_on();
        self.unsent -= before - connection.unsent();
        match written {
            Ok(true) => self.after_answer(key, now),
            Ok(false) => {}
            Err(_) => self.close(key, None),
        }
    }

    fn after_answer(&mut self, key: Key, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.after_answer(now) {
            return self.close(key, None);
        }
        if connection.has_input() {
            self.again.push(key);
        } else {
            self.listen_for(key, EventFlags::IN);
        }
    }

    /// Keeps the answers that nobody takes within bounds; the newest one stays.
    fn cut_slow_readers(&mut self, newest: Key) {
        while self.unsent > MAX_UNSENT_BYTES {
            let unsent = |(key, connection): &(Key, &Connection)| *key != newest && connection.unsent() > 0;
            let slowest = self
                .connections
                .iter()
                .filter(unsent)
                .min_by_key(|(_, connection)| connection.since);
            match slowest.map(|(key, _)| key) {
                Some(key) => self.close(key, Some(Refused::SlowReader)),
                None => return,
            }
        }
    }

    /// Ends what is past its deadline.
    pub(super) fn end_late(&mut self, now: Instant) {
        let late = self
            .connections
            .iter()
            .filter(|(_, connection)| now >= connection.deadline);
        let late: Vec<(Key, Stage, bool)> = late
            .map(|(key, connection)| (key, connection.stage, connection.is_idle()))
            .collect();
        for (key, stage, is_idle) in late {
            match stage {
                Stage::Reading if is_idle => self.close(key, None),
                Stage::Reading => self.refuse(key, Refusal::Late, now),
                Stage::Waiting => self.refuse(key, Refusal::Busy, now),
                Stage::Inside => self.refuse(key, Refusal::Lost, now),
                Stage::Writing => self.close(key, Some(Refused::SlowReader)),
                Stage::Lingering => self.close(key, None),
            }
        }
    }

    fn close(&mut self, key: Key, why: Option<Refused>) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        self.unsent -= connection.unsent();
        match connection.holder {
            Holder::Client(client) => {
                if let Some(held) = self.held.get_mut(&client) {
                    *held -= 1;
                    if *held == 0 {
                        self.held.remove(&client);
                    }
                }
            }
            Holder::Nobody => self.refused -= 1,
            Holder::TrustedProxy => {}
        }
        if let Some(why) = why {
            self.count(why);
        }
        self.tell_open();
    }

    fn tell_open(&self) {
        self.metrics.connections_open.set(self.connections.len() as u64);
    }

    pub(super) fn count(&self, why: Refused) {
        self.metrics.refused[why].add(1);
    }

    /// Logs trouble, unless some of its kind was logged lately.
    pub(super) fn complain(&mut self, kind: Refused, what: &str, now: Instant) {
        let last = &mut self.complained[kind as usize];
        if last.is_none_or(|last| now.duration_since(last) >= COMPLAINT_INTERVAL) {
            *last = Some(now);
            log::warn!("{what}; more of this kind is counted in /metrics and not logged for a minute");
        }
    }
}

fn refusal_bytes(refusal: Refusal, body: Body) -> Vec<u8> {
    refusal.reply().to_bytes(body, Persistence::Close, SystemTime::now())
}

#[cfg(test)]
mod tests;
