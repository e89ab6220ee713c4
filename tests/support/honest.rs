//! A well-behaved client, and the responses that it gets during attacks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attack::connect;

/// Time between two requests.
const EVERY: Duration = Duration::from_millis(50);

/// Timeout of a response.
const DEADLINE: Duration = Duration::from_secs(20);

/// Sends 20 requests per second, each on a new connection, until `end`.
pub struct Honest {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
}

/// The results of an honest client.
#[derive(Debug, Default)]
pub struct Seen {
    pub answered: usize,
    /// Number of responses without a node.
    pub empty: usize,
    /// What the client got instead of a response with status 200.
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
                // The client sends at least one request, even if it is stopped immediately.
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
        let mut seen = self.thread.join().expect("no panic");
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

    /// Returns the latency at a quantile.
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
        // The whole response may have arrived before a reset.
        Err(error) if error.kind() != ErrorKind::ConnectionReset || answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}
