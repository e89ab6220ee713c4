//! A small, strict HTTP/1.1 client. It panics with a reason on an invalid or late response.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::Value;

/// Default timeout of one response.
const DEADLINE: Duration = Duration::from_secs(10);

/// Maximum number of header lines of a response.
const MAX_HEADERS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// In their order and spelling on the wire.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header, case-insensitively. Panics if the header occurs twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} comes twice: {values:?}");
        values.first().copied()
    }

    /// Returns all values of a header, case-insensitively.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON ({error}): {self:?}"),
        }
    }

    /// The body as a list of strings, as `/api/v1/ips` sends it.
    #[track_caller]
    pub fn strings(&self) -> Vec<String> {
        match serde_json::from_slice(&self.body) {
            Ok(list) => list,
            Err(error) => panic!("the body is not a list of strings ({error}): {self:?}"),
        }
    }
}

/// Reason for a missing response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server closed the connection between two responses.
    Closed,
    /// The server reset the connection, after these bytes.
    Reset(Vec<u8>),
    /// The server closed the connection within a response, after these bytes.
    CutShort(Vec<u8>),
}

/// `GET` on a separate connection.
#[track_caller]
pub fn get(addr: SocketAddr, target: &str) -> Answer {
    Connection::open(addr).close_with("GET", target, &[])
}

/// `GET` with further headers, such as `("X-Forwarded-For", "192.0.2.1")`.
#[track_caller]
pub fn get_with(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    Connection::open(addr).close_with("GET", target, headers)
}

/// `GET` from a source address of this machine, such as 127.0.0.9.
#[track_caller]
pub fn get_from(source: IpAddr, addr: SocketAddr, target: &str) -> Answer {
    Connection::from(source, addr).close_with("GET", target, &[])
}

/// Any method, on a separate connection.
#[track_caller]
pub fn call(addr: SocketAddr, method: &str, target: &str) -> Answer {
    Connection::open(addr).close_with(method, target, &[])
}

/// Sends the bytes and returns all responses until the server closes the connection.
#[track_caller]
pub fn request(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut connection = Connection::open(addr);
    connection.send(bytes);
    connection.receive_all()
}

/// One connection, for keep-alive, pipelining and misbehaviour.
pub struct Connection {
    stream: TcpStream,
    deadline: Duration,
    /// Bytes of requests without a response: they show which responses are to HEAD.
    unanswered: Vec<u8>,
    /// Received bytes after the last returned response.
    received: Vec<u8>,
}

impl Connection {
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Self {
        match TcpStream::connect_timeout(&addr, DEADLINE) {
            Ok(stream) => Self::of(stream),
            Err(error) => panic!("no connection to {addr}: {error}"),
        }
    }

    /// Connects from a source address of this machine.
    #[track_caller]
    pub fn from(source: IpAddr, addr: SocketAddr) -> Self {
        let family = match source {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let socket =
            net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket is available");
        // Linux bounds a connect by the send timeout.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(DEADLINE))
            .expect("a socket has a send timeout");
        let connected = net::bind(&socket, &SocketAddr::from((source, 0))).and_then(|()| net::connect(&socket, &addr));
        match connected {
            Ok(()) => Self::of(TcpStream::from(socket)),
            Err(error) => panic!("no connection from {source} to {addr}: {error}"),
        }
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP stream has the option");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("the timeout is not zero");
        Self {
            stream,
            deadline: DEADLINE,
            unanswered: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Sets the timeout of each further response.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("the stream was connected")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends the bytes without waiting for a response.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(bytes) {
            panic!("can't send: {error}");
        }
    }

    /// Sends the bytes to a server that may have closed the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.unanswered.extend_from_slice(bytes.as_ref());
        self.stream.write_all(bytes.as_ref())
    }

    /// `GET` on a connection that stays open.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: router\r\n\r\n"));
        self.receive()
    }

    /// Sends the last request on this connection.
    #[track_caller]
    pub fn close_with(mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: router\r\nConnection: close\r\n");
        self.send(format!("{head}{headers}\r\n"));
        self.receive()
    }

    #[track_caller]
    pub fn receive(&mut self) -> Answer {
        match self.try_receive() {
            Ok(answer) => answer,
            Err(ended) => panic!("no answer: {ended:?}"),
        }
    }

    /// Returns all responses until the server closes the connection.
    #[track_caller]
    pub fn receive_all(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            match self.try_receive() {
                Ok(answer) => answers.push(answer),
                Err(Ended::Closed) => return answers,
                Err(ended) => panic!("{ended:?} after {answers:?}"),
            }
        }
    }

    /// Returns the next response, from a server that may close the connection instead.
    #[track_caller]
    pub fn try_receive(&mut self) -> Result<Answer, Ended> {
        let until = Instant::now() + self.deadline;
        let to_head = take_request(&mut self.unanswered);
        let (status, headers, head_bytes) = loop {
            if let Some(head) = parse_head(&self.received) {
                break head;
            }
            self.read_more(until)?;
        };
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let mut rest = self.received.split_off(head_bytes);
        std::mem::swap(&mut rest, &mut self.received);
        if !to_head && !matches!(status, 100..200 | 204 | 304) {
            answer.body = self.read_body(&answer, until)?;
        }
        Ok(answer)
    }

    /// Waits until the server closes or resets the connection. Returns the bytes before that.
    #[track_caller]
    pub fn wait_closed(&mut self) -> Vec<u8> {
        let until = Instant::now() + self.deadline;
        while self.read_more(until).is_ok() {}
        std::mem::take(&mut self.received)
    }

    /// Shuts down the sending half. Responses can still arrive.
    pub fn finish_sending(&self) {
        // The server may have closed the connection: the next receive reports it.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Resets the connection.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket can linger");
    }

    #[track_caller]
    fn read_body(&mut self, answer: &Answer, until: Instant) -> Result<Vec<u8>, Ended> {
        if let Some(coding) = answer.header("Transfer-Encoding") {
            assert_eq!(coding, "chunked", "of {answer:?}");
            return self.read_chunks(until);
        }
        let Some(length) = answer.header("Content-Length") else {
            return match self.read_until_closed(until) {
                Ended::Closed | Ended::CutShort(_) => Ok(std::mem::take(&mut self.received)),
                reset => Err(reset),
            };
        };
        let Ok(length) = length.parse() else {
            panic!("Content-Length is {length:?}");
        };
        self.read_exactly(length, until)
    }

    #[track_caller]
    fn read_until_closed(&mut self, until: Instant) -> Ended {
        loop {
            if let Err(ended) = self.read_more(until) {
                return ended;
            }
        }
    }

    #[track_caller]
    fn read_chunks(&mut self, until: Instant) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = self.received.windows(2).position(|w| w == b"\r\n") {
                    break self.read_exactly(end + 2, until)?;
                }
                self.read_more(until)?;
            };
            let line = String::from_utf8_lossy(&line);
            let Ok(size) = usize::from_str_radix(line.trim_end(), 16) else {
                panic!("a chunk of size {line:?}");
            };
            body.extend(self.read_exactly(size, until)?);
            assert_eq!(self.read_exactly(2, until)?, b"\r\n", "ends each chunk");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    #[track_caller]
    fn read_exactly(&mut self, count: usize, until: Instant) -> Result<Vec<u8>, Ended> {
        while self.received.len() < count {
            self.read_more(until).map_err(|ended| match ended {
                // The response has begun, even without a further byte.
                Ended::Closed => Ended::CutShort(Vec::new()),
                ended => ended,
            })?;
        }
        let rest = self.received.split_off(count);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    #[track_caller]
    fn read_more(&mut self, until: Instant) -> Result<(), Ended> {
        let mut buffer = [0; 16 * 1024];
        let left = until.saturating_duration_since(Instant::now());
        // A zero timeout would mean no timeout.
        let left = left.max(Duration::from_millis(1));
        self.stream
            .set_read_timeout(Some(left))
            .expect("the timeout is not zero");
        match self.stream.read(&mut buffer) {
            Ok(0) if self.received.is_empty() => Err(Ended::Closed),
            Ok(0) => Err(Ended::CutShort(self.received.clone())),
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Ended::Reset(self.received.clone())),
            Err(error) => panic!(
                "no complete answer within {:?} ({error}); so far {:?}",
                self.deadline,
                String::from_utf8_lossy(&self.received)
            ),
        }
    }
}

type Head = (u16, Vec<(String, String)>, usize);

#[track_caller]
fn parse_head(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(bytes)),
    };
    let headers = head.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_owned(), value)
    });
    let status = head.code.expect("a complete head has a status");
    Some((status, headers.collect(), length))
}

/// Removes the first request with its body. Returns true if it was HEAD, false without a request.
fn take_request(sent: &mut Vec<u8>) -> bool {
    let Some(end) = sent.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&sent[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body_bytes = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    sent.drain(..sent.len().min((end + 4).saturating_add(body_bytes)));
    head.starts_with("head ")
}
