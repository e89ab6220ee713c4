//! A load on one address: connections that each repeat the request after its response, from one thread with epoll.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

/// Whether the client keeps a connection for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Alive,
    Close,
}

/// Result of a load.
pub struct Measured {
    pub requests_per_second: f64,
    /// In microseconds, sorted.
    latencies: Vec<u32>,
}

impl Measured {
    /// Returns the number of responses.
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Returns the latency at a quantile, in microseconds.
    pub fn quantile(&self, part: f64) -> u32 {
        let at = (self.latencies.len() as f64 * part) as usize;
        self.latencies
            .get(at.min(self.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    }
}

struct Client {
    stream: TcpStream,
    begin: Instant,
    /// Bytes of the response so far, and its length once known.
    got: Vec<u8>,
    want: Option<usize>,
    /// Whether the server announced that it closes the connection after this response.
    closes: bool,
}

/// Requests `target` repeatedly for a time.
pub fn run(addr: SocketAddr, target: &str, connections: usize, keep: Keep, lasting: Duration) -> Measured {
    let close = if keep == Keep::Close {
        "Connection: close\r\n"
    } else {
        ""
    };
    let request = format!("GET {target} HTTP/1.1\r\nHost: bench\r\n{close}\r\n").into_bytes();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    // Connect one by one, with one response each: tiny_http loses some of many simultaneous connections.
    let mut clients: Vec<Client> = (0..connections).map(|_| open(addr, &request, keep)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        watch(&poll, client, number);
        client.send(&request);
    }
    let (begin, mut latencies) = (Instant::now(), Vec::new());
    let mut events = Vec::with_capacity(connections);
    while begin.elapsed() < lasting {
        events.clear();
        let wait = Timespec { tv_sec: 5, tv_nsec: 0 };
        epoll::wait(&poll, spare_capacity(&mut events), Some(&wait)).expect("events");
        assert!(!events.is_empty(), "no answer in five seconds");
        for event in &events {
            let number = event.data.u64() as usize;
            let client = &mut clients[number];
            if client.receive() {
                latencies.push(client.begin.elapsed().as_micros() as u32);
                if client.closes || keep == Keep::Close {
                    *client = Client::connect(addr);
                    watch(&poll, client, number);
                }
                client.send(&request);
            }
        }
    }
    let requests_per_second = latencies.len() as f64 / begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Measured {
        requests_per_second,
        latencies,
    }
}

fn watch(poll: impl std::os::fd::AsFd, client: &Client, number: usize) {
    client.stream.set_nonblocking(true).expect("set");
    epoll::add(poll, &client.stream, EventData::new_u64(number as u64), EventFlags::IN).expect("added");
}

/// Opens a connection. A kept one has had one response.
fn open(addr: SocketAddr, request: &[u8], keep: Keep) -> Client {
    let mut client = Client::connect(addr);
    if keep == Keep::Alive {
        client.send(request);
        while !client.receive() {}
    }
    client
}

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("set");
        Self {
            stream,
            begin: Instant::now(),
            got: Vec::with_capacity(4096),
            want: None,
            closes: false,
        }
    }

    fn send(&mut self, request: &[u8]) {
        self.got.clear();
        self.want = None;
        self.begin = Instant::now();
        self.stream.write_all(request).expect("a request is small");
    }

    /// Reads the available bytes. Returns true if the response is complete.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 32 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {:?}", String::from_utf8_lossy(&self.got)),
            Ok(got) => self.got.extend_from_slice(&buffer[..got]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        if self.want.is_none() {
            (self.want, self.closes) = response_len(&self.got);
        }
        self.want.is_some_and(|want| self.got.len() >= want)
    }
}

/// Returns the length of a response, and whether the server closes the connection after it.
fn response_len(bytes: &[u8]) -> (Option<usize>, bool) {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes).expect("a response") else {
        return (None, false);
    };
    assert_eq!(answer.code, Some(200), "{}", String::from_utf8_lossy(bytes));
    let value = |name| {
        answer
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|h| h.value)
    };
    let length = value("content-length").and_then(|length| str::from_utf8(length).ok()?.parse::<usize>().ok());
    let closes = value("connection").is_some_and(|connection| connection.eq_ignore_ascii_case(b"close"));
    (length.map(|length| head + length), closes)
}
