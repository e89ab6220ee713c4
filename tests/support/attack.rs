//! Clients that don't behave: many connections that do one thing wrong each, held and opened again by one thread.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// Attackers have these addresses and the ones that follow.
pub const FIRST_ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);

/// A connection that isn't made in this time is tried again later.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Between two looks at all connections.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two bytes of those that drip, and two of those that are read slowly.
const DRIP: Duration = Duration::from_secs(1);

/// Written at one go by those who write as fast as they can.
const FLOOD_BYTES: usize = 64 * 1024;

/// What an attacker sends after its opening.
#[derive(Clone, Debug)]
pub enum Then {
    /// Nothing; it stays and reads nothing.
    Silence,
    /// These bytes, one a second, over and over.
    Drip(&'static [u8]),
    /// These bytes over and over, as fast as they are taken. It reads nothing.
    Flood(Vec<u8>),
    /// Nothing; it reads a byte a second, through a receive buffer as small as there is.
    ReadSlowly,
    /// A reset at once.
    Reset,
    /// It reads its answer and comes back at once.
    Read,
}

/// One kind of misbehaviour.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: &'static str,
    /// Held at once; opened again when the router closes them.
    pub connections: usize,
    /// Addresses that they come from, in turn.
    pub sources: u32,
    pub opening: Vec<u8>,
    pub then: Then,
}

/// An attack that goes on until it is ended.
pub struct UnderWay {
    stop: Sender<()>,
    opened: Arc<AtomicUsize>,
    thread: JoinHandle<Outcome>,
}

/// How an attack went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub opened: usize,
    pub closed_by_router: usize,
    /// The most that were open at once.
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

    /// Looks at each connection once, and opens those that are gone.
    fn turn(&self, bots: &mut [Option<Bot>], addr: SocketAddr, outcome: &mut Outcome) {
        for (number, place) in bots.iter_mut().enumerate() {
            let keeps = match place {
                Some(bot) => self.go_on(bot, Instant::now()),
                None => {
                    *place = self.open(number, addr);
                    outcome.opened += usize::from(place.is_some());
                    continue;
                }
            };
            if !keeps {
                outcome.closed_by_router += 1;
                *place = None;
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

    /// False when the connection is over.
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
    /// Connections that it has opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub fn end(self) -> Outcome {
        drop(self.stop);
        self.thread.join().expect("it does not panic")
    }
}

/// A connection from that address, made in that time.
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

/// A request for that target, on a connection that stays.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// Random heads from a seed: each nearly one, with some bytes changed. The sequence is the same each time.
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

/// Sends random heads, each on a connection of its own that is ended at once or read to the end. Returns how many.
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
