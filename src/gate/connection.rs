//! One client connection as a state machine over events of its client, the workers and the clock.
//! Pure: it has no socket and reads no clock but for the Date of a refusal. `clients` drives it and performs each
//! [`Action`].

mod event;
pub(super) mod limits;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::EventFlags;

use super::cors;
use super::head::{self, Request, without_empty_lines};
use super::refusal::{MAX_HEAD_BYTES, Refusal};
use crate::config::{Config, CorsOrigins};
use crate::metrics::Refused;
use crate::response::Persistence;
pub(super) use event::{Action, Event, InFlight};
use limits::{
    HEAD_TIMEOUT, LINGER_TIMEOUT, MAX_LINGER_BYTES, MAX_REQUESTS, MAX_SPARE_BYTES, MIN_WAIT, MIN_WRITE,
    RESPONSE_TIMEOUT, SMALL_BYTES, WAIT_TIMEOUT, write_deadline,
};

/// What a complete request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A ticket.
    Ticket,
    /// The workers, which have it.
    Workers,
}

/// The connection state and its data.
#[derive(Debug)]
enum Stage {
    /// Between requests, or in a request that is not complete.
    Reading,
    /// The request is complete.
    Requested(InFlight, Wait),
    /// Its response is being sent.
    Writing {
        response: Vec<u8>,
        sent: usize,
        begun: Instant,
        is_last: bool,
    },
    /// The last response is sent, but the client may not have received all of it. So many bytes that the client still
    /// sends are discarded: none after it has closed its half.
    Lingering { discards: usize },
}

#[derive(Debug)]
pub(super) struct Connection {
    peer: IpAddr,
    config: Arc<Config>,
    stage: Stage,
    /// Since when it is in this stage, or has made its last progress there.
    since: Instant,
    /// Requests that were read.
    requests: u32,
    /// Bytes that were sent.
    sent_in_all: usize,
    /// When the client must have received the last response.
    received_by: Instant,
    /// While reading, the beginning of a request; otherwise pipelined bytes.
    input: Vec<u8>,
    /// Bytes of `input` that were examined.
    scanned: usize,
}

impl Connection {
    pub(super) fn new(peer: IpAddr, config: Arc<Config>, now: Instant) -> Self {
        Self {
            peer,
            config,
            stage: Stage::Reading,
            since: now,
            requests: 0,
            sent_in_all: 0,
            received_by: now,
            input: Vec::new(),
            scanned: 0,
        }
    }

    /// The time since the last change of stage, or since the last progress.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether a request has begun, or was sent ahead. Empty lines are not part of a request.
    fn has_begun(&self) -> bool {
        !without_empty_lines(&self.input).is_empty()
    }

    /// The request that is with the workers.
    pub(super) fn in_flight(&self) -> Option<&InFlight> {
        match &self.stage {
            Stage::Requested(in_flight, Wait::Workers) => Some(in_flight),
            _ => None,
        }
    }

    /// How long the connection must be idle before it can be closed for another one of its client, which may still be
    /// receiving a long last response, or be about to send its first request. `None` if a request has begun since the
    /// last response.
    pub(super) fn idle_after(&self) -> Option<Duration> {
        let is_short = match self.stage {
            Stage::Reading if self.has_begun() => return None,
            Stage::Reading => self.requests > 0,
            Stage::Lingering { .. } => !self.may_hold_unread(),
            _ => return None,
        };
        Some(if is_short { Duration::ZERO } else { MIN_WRITE })
    }

    /// How long the connection must be in its stage before it can be evicted for a client with as many connections.
    /// `None` while its request is with the workers.
    pub(super) fn evictable_after(&self) -> Option<Duration> {
        match self.stage {
            Stage::Lingering { .. } if self.may_hold_unread() => Some(MIN_WRITE),
            Stage::Reading | Stage::Lingering { .. } => Some(MIN_WAIT),
            Stage::Writing { .. } => Some(MIN_WRITE),
            Stage::Requested(_, Wait::Ticket) => Some(Duration::MAX),
            Stage::Requested(..) => None,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Requested(_, Wait::Ticket))
    }

    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.stage, Stage::Lingering { .. })
    }

    /// Whether more than [`SMALL_BYTES`] of its responses may be in the kernel.
    pub(super) fn may_hold_unread(&self) -> bool {
        self.sent_in_all > SMALL_BYTES
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline()
    }

    /// When this stage is over, unless there is progress.
    fn deadline(&self) -> Instant {
        let timeout = match &self.stage {
            Stage::Reading if self.requests > 0 && !self.has_begun() => self.config.idle_timeout,
            Stage::Reading => HEAD_TIMEOUT,
            Stage::Requested(_, Wait::Ticket) => WAIT_TIMEOUT,
            Stage::Requested(_, Wait::Workers) => RESPONSE_TIMEOUT * 2,
            Stage::Writing { begun, sent, .. } => return write_deadline(*begun, *sent),
            Stage::Lingering { .. } => LINGER_TIMEOUT,
        };
        let end = self.since + timeout;
        match self.is_lingering() && self.may_hold_unread() {
            true => end.max(self.received_by),
            false => end,
        }
    }

    /// The events that epoll has to report.
    pub(super) fn interest(&self) -> EventFlags {
        match self.stage {
            Stage::Reading | Stage::Lingering { discards: 1.. } => EventFlags::IN,
            Stage::Writing { .. } => EventFlags::OUT,
            // Once both halves are closed, the kernel would otherwise report it continuously.
            Stage::Lingering { discards: 0 } => EventFlags::ET,
            Stage::Requested(..) => EventFlags::empty(),
        }
    }

    /// How many bytes may be read now. During a request, further bytes remain in the socket.
    pub(super) fn room(&self) -> usize {
        match self.stage {
            // Room for the first chunk's size as well, and for the Origin of a head that is too long.
            Stage::Reading => 2 * MAX_HEAD_BYTES - self.input.len(),
            Stage::Lingering { .. } => usize::MAX,
            Stage::Requested(..) | Stage::Writing { .. } => 0,
        }
    }

    /// The unsent bytes of the response.
    pub(super) fn unsent(&self) -> &[u8] {
        match &self.stage {
            Stage::Writing { response, sent, .. } => &response[*sent..],
            _ => &[],
        }
    }

    /// The only method that changes the state.
    pub(super) fn on(&mut self, event: Event<'_>, now: Instant) -> Action {
        let (may_hold_unread, has_begun) = (self.may_hold_unread(), self.has_begun());
        match (event, &mut self.stage) {
            (Event::Received(bytes), Stage::Reading) => {
                self.input.extend_from_slice(bytes);
                if self.requests > 0 && !has_begun && self.has_begun() {
                    self.since = now;
                }
                self.parse_next(now)
            }
            (Event::Ended, Stage::Reading) if has_begun => {
                self.refuse_incomplete(Refusal::malformed("it ended within the header section"), now)
            }
            (Event::Received(bytes), Stage::Lingering { discards }) => {
                *discards = discards.saturating_sub(bytes.len());
                Action::Nothing
            }
            (Event::Ended, Stage::Lingering { discards }) if may_hold_unread => {
                // No progress: the deadline stays.
                *discards = 0;
                Action::Nothing
            }
            (Event::Ended, Stage::Reading) if may_hold_unread => self.linger(0, now),
            (Event::Ended, Stage::Reading | Stage::Lingering { .. }) => Action::Close(None),
            (Event::Dispatched, Stage::Requested(_, wait @ Wait::Ticket)) => {
                *wait = Wait::Workers;
                self.since = now;
                Action::Forward
            }
            (Event::Responded(response), Stage::Requested(in_flight, Wait::Workers)) => {
                let is_last = in_flight.request.context.persistence == Persistence::Close;
                self.write(response, is_last, now)
            }
            (Event::Repeated(deferral), Stage::Requested(in_flight, wait @ Wait::Workers)) => {
                in_flight.request.context.deferral = deferral;
                *wait = Wait::Ticket;
                self.since = now;
                Action::Queue(in_flight.request.context.client.into())
            }
            (Event::Writable, Stage::Writing { .. }) => Action::Send,
            (Event::Sent(more @ 1..), Stage::Writing { response, sent, .. }) => {
                *sent += more;
                self.sent_in_all += more;
                self.since = now;
                match *sent < response.len() {
                    true => Action::Nothing,
                    false => self.after_response(now),
                }
            }
            (Event::Expired, _) => self.expire(now),
            (Event::Rejected(refusal), Stage::Reading | Stage::Requested(..)) => self.refuse(refusal, now),
            (Event::Draining, _) => {
                // The next response is the last one.
                self.requests = self.requests.max(MAX_REQUESTS - 1);
                Action::Nothing
            }
            _ => Action::Nothing,
        }
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        self.stage = stage;
        self.since = now;
    }

    /// Looks for a complete request in the bytes that were read. No request is in flight then.
    fn parse_next(&mut self, now: Instant) -> Action {
        // Empty lines before a request do not count to its length, however many there are.
        let lines = self.input.chunks_exact(2).take_while(|line| line == b"\r\n");
        self.input.drain(..lines.count() * 2);
        if !self.has_begun() {
            // A CR or LF alone makes the request malformed, but only if one follows. Two bytes show that.
            self.input.truncate(2);
            return Action::Nothing;
        }
        match head::parse(&self.input, &mut self.scanned, self.peer, &self.config) {
            Ok(Some((end, request))) => self.wait(end, request, now),
            Ok(None) => Action::Nothing,
            Err(refusal) if self.awaits_origin(refusal) => Action::Nothing,
            Err(refusal) => self.refuse(refusal, now),
        }
    }

    /// Whether the Origin of a head that is too long may follow: a web page could not read the refusal without it.
    fn awaits_origin(&self, refusal: Refusal) -> bool {
        matches!(refusal, Refusal::TARGET | Refusal::HEAD)
            && matches!(self.config.cors_origins, CorsOrigins::Listed(_))
            && self.room() > 0
            && !self.input.windows(4).any(|end| end == b"\r\n\r\n")
    }

    /// Refuses a request that will not be complete. A head that is too long was read further for its Origin.
    fn refuse_incomplete(&mut self, refusal: Refusal, now: Instant) -> Action {
        match head::parse(&self.input, &mut self.scanned, self.peer, &self.config) {
            Err(too_long @ (Refusal::TARGET | Refusal::HEAD)) => self.refuse(too_long, now),
            _ => self.refuse(refusal, now),
        }
    }

    fn wait(&mut self, end: usize, mut request: Request, now: Instant) -> Action {
        self.scanned = 0;
        self.input.drain(..end);
        self.input.shrink_to(MAX_SPARE_BYTES);
        self.requests += 1;
        if self.requests >= MAX_REQUESTS {
            request.context.persistence = Persistence::Close;
        }
        let client = request.context.client.into();
        let in_flight = InFlight { request, begun: now };
        self.enter(Stage::Requested(in_flight, Wait::Ticket), now);
        Action::Queue(client)
    }

    fn write(&mut self, response: Vec<u8>, is_last: bool, now: Instant) -> Action {
        let writing = Stage::Writing {
            response,
            sent: 0,
            begun: now,
            is_last,
        };
        self.enter(writing, now);
        Action::Send
    }

    /// Refuses a request, after which the connection closes. The refusal of a HEAD has no body, even if its header
    /// section is incomplete.
    fn refuse(&mut self, refusal: Refusal, now: Instant) -> Action {
        let (is_head, cors) = match &mut self.stage {
            Stage::Requested(InFlight { request, .. }, _) => {
                (request.method == "HEAD", std::mem::take(&mut request.context.cors))
            }
            _ => {
                let is_head = without_empty_lines(&self.input).starts_with(b"HEAD ");
                (is_head, cors::lines(&self.config.cors_origins, &self.input))
            }
        };
        let response = refusal.response();
        let response = response.to_bytes(is_head, Persistence::Close, &cors, SystemTime::now());
        self.write(response, true, now);
        Action::Refuse(refusal.label)
    }

    /// After the last response, the client may still send bytes that are discarded.
    fn after_response(&mut self, now: Instant) -> Action {
        self.received_by = self.deadline();
        if matches!(self.stage, Stage::Writing { is_last: true, .. }) {
            return self.linger(MAX_LINGER_BYTES, now);
        }
        self.enter(Stage::Reading, now);
        self.parse_next(now)
    }

    fn linger(&mut self, discards: usize, now: Instant) -> Action {
        self.input = Vec::new();
        self.enter(Stage::Lingering { discards }, now);
        Action::Shutdown
    }

    fn expire(&mut self, now: Instant) -> Action {
        match self.stage {
            // Without a response: a request that the client sends at this moment would take it for its own.
            Stage::Reading if !self.has_begun() => Action::Close(None),
            Stage::Reading => self.refuse_incomplete(Refusal::LATE, now),
            Stage::Requested(_, Wait::Ticket) => self.refuse(Refusal::BUSY, now),
            Stage::Requested(_, Wait::Workers) => self.refuse(Refusal::LOST, now),
            Stage::Lingering { .. } => Action::Close(None),
            Stage::Writing { .. } => Action::Close(Some(Refused::SlowReader)),
        }
    }
}

#[cfg(test)]
mod properties;
