//! One client connection: where it stands between its head and its answer. It moves bytes; the gate decides.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::head::{MAX_HEAD_BYTES, Refusal, Request, Scanner, parse};
use crate::client::Client;
use crate::response::Persistence;

/// For the whole head, from the first byte or the accept; not for each read.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A kept-alive connection that says nothing. Clients' own pools keep theirs 5 to 30 s.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a client to take an answer: a megabyte at 100 KiB/s.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A complete head waits this long at most for a place inside.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last answer, what a client still sends is thrown away for so long, so that no reset overtakes the answer
/// (RFC 9112, section 9.6).
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Thrown away at most; what comes then is left unread until the time is over.
const MAX_LINGER_BYTES: usize = 256 * 1024;
/// Requests on one connection, as nginx has it: whoever comes back is counted again.
pub(super) const MAX_REQUESTS: u32 = 1_000;
/// An idle connection keeps no buffer larger than this.
const SPARE_BYTES: usize = 1024;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Between requests, or in a head.
    Reading,
    /// Its head is complete; no lane has room.
    Waiting,
    /// Its request is with the workers.
    Inside,
    /// Its answer is on the way.
    Writing,
    /// Answered for the last time; what still comes is thrown away.
    Lingering,
}

/// Whose share of the connections one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Client(Client),
    /// A proxy speaks for many: it has no share.
    TrustedProxy,
    /// It was turned away and is only here until its 503 is read.
    Nobody,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) holder: Holder,
    pub(super) stage: Stage,
    /// Since when it stands there.
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// What epoll tells us of it.
    pub(super) interest: EventFlags,
    /// The request that waits, as the workers read it.
    pub(super) request: Vec<u8>,
    pub(super) is_head: bool,
    pub(super) served: u32,
    persistence: Persistence,
    /// Whether more may come that nobody will read.
    lingers: bool,
    lingered: usize,
    input: Vec<u8>,
    scanner: Scanner,
    output: Vec<u8>,
    written: usize,
}

/// How reading went.
pub(super) enum Input {
    /// There may be more later.
    Some,
    /// The client will send nothing more.
    End,
}

/// How lingering went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    /// There may be more to throw away.
    More,
    /// No more is thrown away.
    Enough,
    /// The client is done too.
    Over,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: IpAddr, holder: Holder, now: Instant) -> Self {
        Self {
            stream,
            peer,
            holder,
            stage: Stage::Reading,
            since: now,
            deadline: now + HEAD_TIMEOUT,
            interest: EventFlags::IN,
            request: Vec::new(),
            is_head: false,
            served: 0,
            persistence: Persistence::Close,
            lingers: true,
            lingered: 0,
            input: Vec::new(),
            scanner: Scanner::default(),
            output: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, timeout: Duration, now: Instant) {
        self.stage = stage;
        self.since = now;
        self.deadline = now + timeout;
    }

    /// Bytes of an answer that the client has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Reading && self.served > 0 && self.input.is_empty()
    }

    /// Whether bytes of a next request are here already.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether some of those bytes were not looked at yet: there may be requests in them.
    pub(super) fn has_unscanned_input(&self) -> bool {
        !self.scanner.has_seen_all_of(&self.input)
    }

    /// Reads what has come, up to the longest head and a byte.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn read(&mut self, scratch: &mut [u8], now: Instant) -> io::Result<Input> {
        let room = (MAX_HEAD_BYTES + 1).saturating_sub(self.input.len()).min(scratch.len());
        match self.stream.read(&mut scratch[..room]) {
            Ok(0) => Ok(Input::End),
            Ok(got) => {
                if self.is_idle() {
                    self.enter(Stage::Reading, HEAD_TIMEOUT, now);
                }
                self.input.extend_from_slice(&scratch[..got]);
                Ok(Input::Some)
            }
            Err(error) if is_for_later(&error) => Ok(Input::Some),
            Err(error) => Err(error),
        }
    }

    /// The next complete request, if there is one.
    ///
    /// # Errors
    /// When the connection has to end with a refusal.
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, Refusal> {
        self.lingers = true;
        self.persistence = Persistence::Close;
        // A refusal has no body either, also that of a head which isn't complete.
        self.is_head = self.input.trim_ascii_start().starts_with(b"HEAD ");
        let Some(end) = self.scanner.scan(&self.input)? else {
            return Ok(None);
        };
        let request = parse(&self.input[..end])?;
        self.scanner = Scanner::default();
        self.input.drain(..end);
        if self.input.is_empty() && self.input.capacity() > SPARE_BYTES {
            self.input = Vec::new();
        }
        self.served += 1;
        let asked_to_close = request.persistence == Persistence::Close;
        self.lingers = request.has_body || !asked_to_close || !self.input.is_empty();
        self.persistence = request.persistence;
        if self.served >= MAX_REQUESTS {
            self.persistence = Persistence::Close;
        }
        Ok(Some(request))
    }

    pub(super) fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Makes the answer under way the last one.
    pub(super) fn close_after(&mut self) {
        self.persistence = Persistence::Close;
    }

    /// Sends an answer, as far as it goes without waiting. True when all of it went.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn answer(&mut self, answer: &[u8], now: Instant) -> io::Result<bool> {
        self.enter(Stage::Writing, WRITE_TIMEOUT, now);
        let sent = send(&mut self.stream, answer)?;
        self.output.extend_from_slice(&answer[sent..]);
        self.written = 0;
        Ok(self.output.is_empty())
    }

    /// Gives up what was not sent at once.
    pub(super) fn forget_output(&mut self) {
        (self.output, self.written) = (Vec::new(), 0);
    }

    /// Goes on sending. True when all of it went.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn write_on(&mut self) -> io::Result<bool> {
        self.written += send(&mut self.stream, &self.output[self.written..])?;
        let done = self.written == self.output.len();
        if done {
            self.forget_output();
        }
        Ok(done)
    }

    /// What comes after an answer. False when the connection is over.
    pub(super) fn after_answer(&mut self, now: Instant) -> bool {
        match (self.persistence, self.lingers) {
            (Persistence::Close, false) => false,
            (Persistence::Close, true) => {
                self.input = Vec::new();
                self.enter(Stage::Lingering, LINGER_TIMEOUT, now);
                self.stream.shutdown(Shutdown::Write).is_ok()
            }
            _ => {
                let timeout = if self.input.is_empty() {
                    IDLE_TIMEOUT
                } else {
                    HEAD_TIMEOUT
                };
                self.enter(Stage::Reading, timeout, now);
                true
            }
        }
    }

    /// Throws away what comes after the last answer.
    pub(super) fn linger(&mut self, scratch: &mut [u8]) -> Linger {
        match self.stream.read(scratch) {
            Ok(0) => Linger::Over,
            Ok(got) => {
                self.lingered += got;
                match self.lingered < MAX_LINGER_BYTES {
                    true => Linger::More,
                    false => Linger::Enough,
                }
            }
            Err(error) if is_for_later(&error) => Linger::More,
            Err(_) => Linger::Over,
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
