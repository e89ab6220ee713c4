//! A private connection to the workers, with a few requests under way, answered in order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::in_flight::Forward;
use crate::util::arena::Key;

/// Requests under way on one private connection. More would only wait inside instead of at the gate, where they can
/// still be refused.
const MAX_IN_FLIGHT: usize = 32;
/// An answer takes microseconds. One that takes this long is lost, and its connection with it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker connection keeps no buffer larger than this.
const MAX_SPARE_BYTES: usize = 256 * 1024;

/// A request that was sent to the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) client: Key,
    pub(super) number: u32,
    pub(super) begun: Instant,
    is_head: bool,
}

#[derive(Debug)]
pub(crate) struct WorkerConnection {
    stream: UnixStream,
    /// What epoll tells us of it.
    interest: EventFlags,
    out: Vec<u8>,
    /// The beginning of an answer whose end has not come yet.
    input: Vec<u8>,
    in_flight: VecDeque<Sent>,
    /// When it last brought some of an answer, or was sent a request while it had nothing to do.
    moved: Option<Instant>,
}

impl WorkerConnection {
    /// Takes over a stream that does not block.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            interest: EventFlags::IN,
            out: Vec::new(),
            input: Vec::new(),
            in_flight: VecDeque::with_capacity(MAX_IN_FLIGHT),
            moved: None,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Requests under way.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.load() < MAX_IN_FLIGHT
    }

    /// Takes a request; `flush` sends it.
    pub(super) fn push(&mut self, client: Key, request: &Forward, now: Instant) {
        if self.in_flight.is_empty() {
            self.moved = Some(now);
        }
        self.out.extend_from_slice(request.bytes.as_bytes());
        self.in_flight.push_back(Sent {
            client,
            number: request.number,
            begun: request.begun,
            is_head: request.is_head,
        });
    }

    /// Sends what was taken, as far as it goes without waiting, and has the rest waited for by this number.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) fn flush(&mut self, epoll: &OwnedFd, number: u64) -> io::Result<()> {
        let mut interest = EventFlags::IN;
        while !self.out.is_empty() && interest == EventFlags::IN {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => interest |= EventFlags::OUT,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.interest != interest {
            self.interest = interest;
            epoll::modify(epoll, &self.stream, EventData::new_u64(number), interest)?;
        }
        Ok(())
    }

    /// Reads what has come and hands over each complete answer.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        mut deliver: impl FnMut(Sent, &[u8]),
    ) -> io::Result<()> {
        let got = match self.stream.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => &scratch[..got],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.moved = Some(now);
        self.input.extend_from_slice(got);
        let mut taken = 0;
        while let Some(request) = self.in_flight.front().copied()
            && let Some(len) = answer_len(&self.input[taken..], request.is_head)?
        {
            self.in_flight.pop_front();
            deliver(request, &self.input[taken..taken + len]);
            taken += len;
        }
        self.input.drain(..taken);
        self.input.shrink_to(MAX_SPARE_BYTES);
        match self.in_flight.is_empty() && !self.input.is_empty() {
            true => Err(io::Error::new(ErrorKind::InvalidData, "an answer to no request")),
            false => Ok(()),
        }
    }

    /// Whether an answer is long overdue. Requests that wait for others before them are not: those move.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let waits = |moved| now.saturating_duration_since(moved) > ANSWER_TIMEOUT;
        !self.in_flight.is_empty() && self.moved.is_some_and(waits)
    }

    /// The requests that are lost with it.
    pub(super) fn into_in_flight(self) -> VecDeque<Sent> {
        self.in_flight
    }
}

/// Length of the answer that `bytes` begin with; none while it isn't complete.
fn answer_len(bytes: &[u8], is_head: bool) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let head_len = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
    };
    let length = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body_len = match length {
        Some(header) if !is_head => {
            let text = str::from_utf8(header.value).ok();
            text.and_then(|text| text.parse::<usize>().ok())
                .ok_or(ErrorKind::InvalidData)?
        }
        _ => 0,
    };
    let len = head_len.saturating_add(body_len);
    Ok((bytes.len() >= len).then_some(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn pair() -> (WorkerConnection, UnixStream, Instant) {
        let (outside, inside) = UnixStream::pair().expect("a pair");
        outside.set_nonblocking(true).expect("set");
        (WorkerConnection::new(outside), inside, Instant::now())
    }

    fn push(connection: &mut WorkerConnection, now: Instant) {
        let request = Forward {
            bytes: "GET".to_owned(),
            number: 1,
            is_head: false,
            begun: now,
            stranger: None,
        };
        connection.push(Key::default(), &request, now);
    }

    #[test]
    fn an_answer_is_handed_over_when_it_is_complete_whatever_its_pieces() {
        for cut in 1..ANSWER.len() {
            let (mut connection, mut inside, now) = pair();
            push(&mut connection, now);
            inside.write_all(&ANSWER[..cut]).expect("sent");
            connection
                .receive(&mut [0; 4096], now, |_, _| panic!("not complete at {cut}"))
                .expect("alive");
            inside.write_all(&ANSWER[cut..]).expect("sent");
            let mut got = Vec::new();
            connection
                .receive(&mut [0; 4096], now, |_, answer| got.push(answer.to_vec()))
                .expect("alive");
            assert_eq!((got, connection.load()), (vec![ANSWER.to_vec()], 0));
        }
    }

    #[test]
    fn a_connection_that_closes_or_talks_nonsense_is_lost() {
        let (mut connection, inside, now) = pair();
        push(&mut connection, now);
        drop(inside);
        assert!(connection.receive(&mut [0; 4096], now, |_, _| ()).is_err());
        assert_eq!(connection.into_in_flight().len(), 1);

        let (mut connection, mut inside, now) = pair();
        inside.write_all(ANSWER).expect("sent");
        let received = connection.receive(&mut [0; 4096], now, |_, _| panic!("to whom?"));
        assert!(received.is_err());
    }

    #[test]
    fn takes_so_many_and_is_stuck_when_nothing_comes_for_long() {
        let (mut connection, mut inside, now) = pair();
        while connection.has_room() {
            push(&mut connection, now);
        }
        assert_eq!(connection.load(), MAX_IN_FLIGHT);
        assert!(!connection.is_stuck(now + ANSWER_TIMEOUT));
        assert!(connection.is_stuck(now + ANSWER_TIMEOUT + Duration::from_millis(1)));
        // One answer, though all others still wait.
        inside.write_all(ANSWER).expect("sent");
        let later = now + ANSWER_TIMEOUT;
        connection.receive(&mut [0; 4096], later, |_, _| ()).expect("alive");
        assert!(!connection.is_stuck(later + ANSWER_TIMEOUT));
        assert!(connection.is_stuck(later + ANSWER_TIMEOUT + Duration::from_millis(1)));
    }
}
