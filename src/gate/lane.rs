//! The way inside: private connections to the workers, each with a few requests under way, answered in order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::util::arena::Key;

/// Requests under way on one private connection. More would only wait inside instead of at the gate, where they can
/// still be refused.
const MAX_UNDER_WAY: usize = 32;
/// An answer takes microseconds. One that takes this long is lost, and its lane with it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A lane keeps no buffer larger than this.
const SPARE_BYTES: usize = 256 * 1024;

/// A request that was sent inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    pub(super) connection: Key,
    pub(super) sent: Instant,
    /// The answer to a HEAD has no body, whatever its length says.
    pub(super) is_head: bool,
}

/// One private connection.
#[derive(Debug)]
pub(super) struct Lane {
    stream: UnixStream,
    /// What epoll tells us of it.
    pub(super) interest: EventFlags,
    out: Vec<u8>,
    /// The beginning of an answer whose end has not come yet.
    input: Vec<u8>,
    under_way: VecDeque<UnderWay>,
    /// When the lane last brought some of an answer, or was sent a request while it had nothing to do.
    moved: Option<Instant>,
}

impl Lane {
    /// Takes over a connection that does not block.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            interest: EventFlags::IN,
            out: Vec::new(),
            input: Vec::new(),
            under_way: VecDeque::with_capacity(MAX_UNDER_WAY),
            moved: None,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn load(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < MAX_UNDER_WAY
    }

    /// Puts a request on the lane; `flush` sends it.
    pub(super) fn push(&mut self, request: &[u8], under_way: UnderWay) {
        if self.under_way.is_empty() {
            self.moved = Some(under_way.sent);
        }
        self.out.extend_from_slice(request);
        self.under_way.push_back(under_way);
    }

    /// Sends what was put on the lane, as far as it goes without waiting, and returns what to wait for.
    ///
    /// # Errors
    /// When the lane is lost.
    pub(super) fn flush(&mut self) -> io::Result<EventFlags> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(EventFlags::IN | EventFlags::OUT),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(EventFlags::IN)
    }

    /// Reads what has come and hands over each complete answer.
    ///
    /// # Errors
    /// When the lane is lost.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        mut deliver: impl FnMut(UnderWay, &[u8]),
    ) -> io::Result<()> {
        let got = match self.stream.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => &scratch[..got],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.moved = Some(now);
        if self.input.is_empty() {
            let taken = self.hand_over(got, &mut deliver)?;
            self.input.extend_from_slice(&got[taken..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(got);
            let taken = self.hand_over(&input, &mut deliver)?;
            input.drain(..taken);
            if !input.is_empty() || input.capacity() <= SPARE_BYTES {
                self.input = input;
            }
        }
        match self.under_way.is_empty() && !self.input.is_empty() {
            true => Err(io::Error::new(
                ErrorKind::InvalidData,
                "an answer that nobody asked for",
            )),
            false => Ok(()),
        }
    }

    /// Hands over each complete answer in `bytes` and returns how long they are together.
    fn hand_over(&mut self, bytes: &[u8], deliver: &mut impl FnMut(UnderWay, &[u8])) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(under_way) = self.under_way.front().copied() {
            let Some(len) = answer_len(&bytes[taken..], under_way.is_head)? else {
                break;
            };
            self.under_way.pop_front();
            deliver(under_way, &bytes[taken..taken + len]);
            taken += len;
        }
        Ok(taken)
    }

    /// Whether an answer is long overdue. Requests that wait for others on their lane are not: it moves.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let waits = |moved| now.saturating_duration_since(moved) > ANSWER_TIMEOUT;
        !self.under_way.is_empty() && self.moved.is_some_and(waits)
    }

    /// The requests that are lost with the lane.
    pub(super) fn into_under_way(self) -> VecDeque<UnderWay> {
        self.under_way
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
    fn lane() -> (Lane, UnixStream, UnderWay) {
        let (outside, inside) = UnixStream::pair().expect("a pair");
        outside.set_nonblocking(true).expect("set");
        let under_way = UnderWay {
            connection: Key::default(),
            sent: Instant::now(),
            is_head: false,
        };
        (Lane::new(outside), inside, under_way)
    }

    #[test]
    fn an_answer_is_handed_over_when_it_is_complete_whatever_its_pieces() {
        for cut in 1..ANSWER.len() {
            let (mut lane, mut inside, under_way) = lane();
            lane.push(b"GET", under_way);
            inside.write_all(&ANSWER[..cut]).expect("sent");
            lane.receive(&mut [0; 4096], under_way.sent, |_, _| panic!("not complete at {cut}"))
                .expect("alive");
            inside.write_all(&ANSWER[cut..]).expect("sent");
            let mut got = Vec::new();
            lane.receive(&mut [0; 4096], under_way.sent, |_, answer| got.push(answer.to_vec()))
                .expect("alive");
            assert_eq!((got, lane.load()), (vec![ANSWER.to_vec()], 0));
        }
    }

    #[test]
    fn a_lane_that_closes_or_talks_nonsense_is_lost() {
        let (mut lane, inside, under_way) = lane();
        lane.push(b"GET", under_way);
        drop(inside);
        assert!(lane.receive(&mut [0; 4096], under_way.sent, |_, _| ()).is_err());
        assert_eq!(lane.into_under_way().len(), 1);

        let (mut lane, mut inside, under_way) = self::lane();
        inside.write_all(ANSWER).expect("sent");
        assert!(
            lane.receive(&mut [0; 4096], under_way.sent, |_, _| panic!("to whom?"))
                .is_err()
        );
    }

    #[test]
    fn takes_so_many_and_is_stuck_when_nothing_comes_for_long() {
        let (mut lane, mut inside, under_way) = lane();
        while lane.has_room() {
            lane.push(b"GET", under_way);
        }
        assert_eq!(lane.load(), MAX_UNDER_WAY);
        let sent = under_way.sent;
        assert!(!lane.is_stuck(sent + ANSWER_TIMEOUT));
        assert!(lane.is_stuck(sent + ANSWER_TIMEOUT + Duration::from_millis(1)));
        // One answer, though all others still wait.
        inside.write_all(ANSWER).expect("sent");
        let later = sent + ANSWER_TIMEOUT;
        lane.receive(&mut [0; 4096], later, |_, _| ()).expect("alive");
        assert!(!lane.is_stuck(later + ANSWER_TIMEOUT));
        assert!(lane.is_stuck(later + ANSWER_TIMEOUT + Duration::from_millis(1)));
    }
}
