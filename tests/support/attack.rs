//! Misbehaving clients: one thread holds many connections of one kind and reopens closed ones.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// Address of the first attacker. The others have the next addresses.
pub const FIRST_ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);

/// Timeout of a connect. The attacker retries later.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Pause between two passes over all connections.
const PAUSE: Duration = Duration::from_millis(20);

/// Pause between two bytes that a connection drips or reads slowly.
const DRIP: Duration = Duration::from_secs(1);

/// Bytes per write of a flood.
const FLOOD_BYTES: usize = 64 * 1024;

/// Behaviour of an attacker after its opening bytes.
#[derive(Clone, Debug)]
pub enum Then {
    /// Sends and reads nothing, and keeps the connection open.
    Silence,
    /// Sends these bytes repeatedly, one per second.
    Drip(&'static [u8]),
    /// Sends these bytes repeatedly, as fast as the router accepts them. Reads nothing.
    Flood(Vec<u8>),
    /// Sends nothing, and reads one byte per second with the smallest receive buffer.
    ReadSlowly,
    /// Resets the connection immediately.
    Reset,
    /// Reads the response and reconnects immediately.
    Read,
}

/// One kind of attack.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: &'static str,
    /// Number of concurrent connections. The attacker reopens closed ones.
    pub connections: usize,
    /// Number of source addresses, used in turn.
    pub sources: u32,
    pub opening: Vec<u8>,
    pub then: Then,
}

/// A running attack.
pub struct UnderWay {
    stop: Sender<()>,
    opened: Arc<AtomicUsize>,
    thread: JoinHandle<Outcome>,
}

/// Result of an attack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub opened: usize,
    pub closed_by_router: usize,
    /// Highest number of concurrent connections.
    pub most: usize,
}

struct Bot {
    stream: TcpStream,
    sent: usize,
    next: Instant,
}

impl Attack {
    pub fn start(&self, addr: SocketAddr) -> UnderWay {
        let (stop, stopped) = mpsc::channel();
        let (attack, opened) = (self.clone(), Arc::<AtomicUsize>::default());
        let for_run = Arc::clone(&opened);
        let run = move || {
            let mut outcome = Outcome::default();
            let mut bots: Vec<Option<Bot>> = (0..attack.connections).map(|_| None).collect();
            loop {
                attack.turn(&mut bots, addr, &mut outcome);
                for_run.store(outcome.opened, Ordering::Relaxed);
                match stopped.recv_timeout(PAUSE) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return outcome,
                }
            }
        };
        let thread = std::thread::Builder::new().name(self.name.into());
        UnderWay {
            stop,
            opened,
            thread: thread.spawn(run).expect("a thread is available"),
        }
    }

    /// Advances each connection once and reopens closed ones.
    fn turn(&self, bots: &mut [Option<Bot>], addr: SocketAddr, outcome: &mut Outcome) {
        for (number, slot) in bots.iter_mut().enumerate() {
            let keeps = match slot {
                Some(bot) => self.go_on(bot, Instant::now()),
                None => {
                    *slot = self.open(number, addr);
                    outcome.opened += usize::from(slot.is_some());
                    continue;
                }
            };
            if !keeps {
                outcome.closed_by_router += 1;
                *slot = None;
            }
        }
        outcome.most = outcome.most.max(bots.iter().flatten().count());
    }

    fn open(&self, number: usize, addr: SocketAddr) -> Option<Bot> {
        let source = u32::from(FIRST_ATTACKER) + number as u32 % self.sources;
        let mut stream = connect(Ipv4Addr::from(source), addr, CONNECT_DEADLINE).ok()?;
        if matches!(self.then, Then::ReadSlowly) {
            sockopt::set_socket_recv_buffer_size(&stream, 1).ok()?;
        }
        stream.write_all(&self.opening).ok()?;
        if matches!(self.then, Then::Reset) {
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
        }
        stream.set_nonblocking(true).ok()?;
        let next = Instant::now();
        Some(Bot { stream, sent: 0, next })
    }

    /// Returns false if the connection is closed.
    fn go_on(&self, bot: &mut Bot, now: Instant) -> bool {
        if has_hung_up(&bot.stream) {
            return false;
        }
        let is_due = now >= bot.next;
        match &self.then {
            Then::Silence => true,
            Then::Reset => false,
            Then::Drip(bytes) if is_due => {
                bot.next = now + DRIP;
                bot.sent += 1;
                is_alive(bot.stream.write(&[bytes[bot.sent % bytes.len()]]))
            }
            Then::ReadSlowly if is_due => {
                bot.next = now + DRIP;
                is_alive(bot.stream.read(&mut [0]))
            }
            Then::Drip(_) | Then::ReadSlowly => true,
            Then::Flood(bytes) => {
                let flood = bytes.repeat(FLOOD_BYTES.div_ceil(bytes.len()));
                let from = bot.sent % bytes.len();
                let written = bot.stream.write(&flood[from..]);
                bot.sent += written.as_ref().copied().unwrap_or(0);
                is_alive(written)
            }
            Then::Read => is_alive(bot.stream.read(&mut [0; 4096])),
        }
    }
}

impl UnderWay {
    /// Returns the number of connections opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub fn end(self) -> Outcome {
        drop(self.stop);
        self.thread.join().expect("no panic")
    }
}

/// Connects from a source address within a timeout.
pub fn connect(from: Ipv4Addr, addr: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux bounds a connect by the send timeout.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(within))?;
    net::bind(&socket, &SocketAddr::from((from, 0)))?;
    net::connect(&socket, &addr)?;
    Ok(TcpStream::from(socket))
}

fn has_hung_up(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn is_alive(done: io::Result<usize>) -> bool {
    match done {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}

/// Returns a keep-alive request for the target.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// Random heads from a seed: valid heads with some changed bytes. A seed always gives the same sequence.
pub struct RandomHeads(u64);

impl RandomHeads {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// xorshift64*
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize
    }

    pub fn head(&mut self) -> Vec<u8> {
        const WORDS: [&[u8]; 16] = [
            b"GET / HTTP/1.1\r\n",
            b"HEAD /health HTTP/1.0\r\n",
            b"POST /api/v1/ips HTTP/1.1\r\n",
            b"GET /api/v1/ips?container=hello-world HTTP/1.1\r\n",
            b"GET http://a/api/v1/containers HTTP/1.1\r\n",
            b"Host: a\r\n",
            b"Content-Length: 100000000000000000\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b": \r\n",
            b"\n",
            b"\xff\x00",
        ];
        let mut head = Vec::new();
        for _ in 0..1 + self.next() % 6 {
            head.extend_from_slice(WORDS[self.next() % WORDS.len()]);
        }
        for _ in 0..self.next() % 3 {
            let at = self.next() % head.len();
            head[at] = self.next() as u8;
        }
        head.extend_from_slice(b"\r\n\r\n");
        head
    }
}

/// Sends random heads, each on a separate connection that it drops or reads to the end. Returns their number.
pub fn random_heads(addr: SocketAddr, seed: u64, most: usize, within: Duration) -> usize {
    let (mut heads, end) = (RandomHeads::new(seed), Instant::now() + within);
    let mut sent = 0;
    while sent < most && Instant::now() < end {
        let source = Ipv4Addr::from(u32::from(FIRST_ATTACKER) + (sent % 250) as u32);
        let Ok(mut stream) = connect(source, addr, CONNECT_DEADLINE) else {
            continue;
        };
        let _ = stream.write_all(&heads.head());
        if heads.next() % 4 > 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(CONNECT_DEADLINE));
            let _ = stream.read_to_end(&mut Vec::new());
        }
        sent += 1;
    }
    sent
}
