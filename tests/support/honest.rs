//! A client that behaves, and what it gets while others don't.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attack::connect;

/// How often it asks.
const EVERY: Duration = Duration::from_millis(50);

/// An answer that takes longer is none.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks 20 times a second, each time on a new connection, until it is told to end.
pub struct Honest {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
}

/// What it got.
#[derive(Debug, Default)]
pub struct Seen {
    pub answered: usize,
    /// Those of them that named no node.
    pub empty: usize,
    /// What it got instead of an answer with status 200.
    pub unanswered: Vec<String>,
    latencies: Vec<Duration>,
}

impl Honest {
    pub fn start(from: Ipv4Addr, addr: SocketAddr, target: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let request = format!("GET {target} HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n");
        let ask_on = move || {
            let mut seen = Seen::default();
            let mut next = Instant::now();
            loop {
                seen.ask(from, addr, &request);
                next += EVERY;
                // A stop in the first moment finds one request answered at least.
                match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return seen,
                }
            }
        };
        let thread = std::thread::Builder::new().name("honest client".into());
        Self {
            stop,
            thread: thread.spawn(ask_on).expect("a thread is available"),
        }
    }

    #[track_caller]
    pub fn end(self) -> Seen {
        drop(self.stop);
        let mut seen = self.thread.join().expect("it does not panic");
        seen.latencies.sort_unstable();
        seen
    }
}

impl Seen {
    fn ask(&mut self, from: Ipv4Addr, addr: SocketAddr, request: &str) {
        let begin = Instant::now();
        match answer(from, addr, request) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 OK\r\n") => {
                self.answered += 1;
                self.empty += usize::from(answer.ends_with("\r\n\r\n[]"));
                self.latencies.push(begin.elapsed());
            }
            Ok(other) => self.unanswered.push(format!("{other:?} after {:?}", begin.elapsed())),
            Err(error) => self.unanswered.push(format!("{error} after {:?}", begin.elapsed())),
        }
    }

    /// The latency that this part of the answers stayed below.
    pub fn quantile(&self, part: f64) -> Duration {
        let at = (self.latencies.len() as f64 * part) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(at.min(last)).copied().unwrap_or_default()
    }
}

fn answer(from: Ipv4Addr, addr: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream: TcpStream = connect(from, addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        // All of an answer may be here before a reset.
        Err(error) if error.kind() != ErrorKind::ConnectionReset || answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}
