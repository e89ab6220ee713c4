//! The event loop with workers that a test plays, at a time that the test sets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketType};

mod cuts;

use super::super::connection::limits::{RESPONSE_TIMEOUT, WAIT_TIMEOUT};
use super::super::head::Context;
use super::super::worker_pool::{Exchange, MAX_IN_FLIGHT};
use super::*;
use crate::response::Persistence;

/// A deadline that only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(30);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n";

/// The settings of the closure that spawns workers.
#[derive(Default)]
struct Script {
    fails: AtomicBool,
    /// Pools that were stopped.
    stopped: AtomicUsize,
}

/// The workers' end of a pool.
struct Worker {
    stream: UnixStream,
    exchange: Arc<Exchange>,
    /// Received and not taken yet.
    input: String,
}

/// A request that a worker has taken.
#[derive(Debug)]
struct Taken {
    /// Method and target.
    line: String,
    ticket: u64,
    context: Context,
}

impl Worker {
    /// The next request that has arrived.
    fn take(&mut self) -> Option<Taken> {
        let mut buffer = [0; 16 * 1024];
        if let Ok(got) = self.stream.read(&mut buffer) {
            self.input.push_str(str::from_utf8(&buffer[..got]).expect("text"));
        }
        let (request, rest) = self.input.split_once("\r\n\r\n")?;
        let (line, ticket) = request.strip_suffix(" HTTP/1.1")?.rsplit_once('#')?;
        let ticket = ticket.parse().expect("a number");
        let taken = Taken {
            line: line.to_owned(),
            ticket,
            context: self.exchange.take(ticket).expect("a context"),
        };
        self.input = rest.to_owned();
        Some(taken)
    }

    #[track_caller]
    fn take_one(&mut self) -> Taken {
        self.take().expect("a request is inside")
    }

    fn respond(&self, request: &Taken, response: &[u8]) {
        self.exchange.give_back(request.ticket, Some(response.to_vec()));
    }

    fn defer(&self, request: &Taken) {
        self.exchange.give_back(request.ticket, None);
    }
}

struct Rig {
    event_loop: EventLoop,
    addr: SocketAddr,
    script: Arc<Script>,
    /// The workers' end of each pool.
    spawned: Receiver<Worker>,
    /// The threads of pools stop when this is dropped.
    stuck: Option<Sender<()>>,
    shutdown: OwnedFd,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig_with(max_connections: usize) -> Rig {
    let listener = super::super::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let (script, (opened, spawned)) = (Arc::new(Script::default()), unbounded());
    let (stuck, release) = bounded::<()>(0);
    let to_open = Arc::clone(&script);
    let spawn: Spawn = Arc::new(move || {
        if to_open.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("as the test wants it"));
        }
        let (stream, other) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        let exchange = Arc::new(Exchange::new()?);
        let worker = Worker {
            stream: other,
            exchange: Arc::clone(&exchange),
            input: String::new(),
        };
        opened.send(worker).expect("the rig listens");
        let stopped = Arc::clone(&to_open);
        let mut pool = WorkerPool::new(stream, exchange, move || {
            stopped.stopped.fetch_add(1, Ordering::Relaxed);
        });
        let release = release.clone();
        pool.push(threads::spawn("stand-in", move || {
            // Closed is what it waits for.
            let _ = release.recv();
        })?);
        Ok(pool)
    });
    let config = Config {
        max_connections,
        // A peer without a header of proxies is a client, and has no share.
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a block")],
        idle_timeout: Duration::from_secs(75),
        ..Config::from_lookup(|_| None).expect("the defaults are valid")
    };
    let shutdown = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let addr = listener.local_addr().expect("bound");
    let event_loop = EventLoop::new(listener, &shutdown, config, spawn, Arc::default()).expect("an event loop");
    Rig {
        event_loop,
        addr,
        script,
        spawned,
        stuck: Some(stuck),
        shutdown,
        now: Instant::now(),
    }
}

fn rig() -> Rig {
    rig_with(512)
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Before the event_loop, which waits for its workers.
        self.stuck = None;
    }
}

impl Rig {
    /// Handles events until the condition holds.
    #[expect(clippy::disallowed_methods, reason = "a deadline that only a hang reaches")]
    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut EventLoop) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&mut self.event_loop) {
            assert!(Instant::now() < end, "waited until {what}");
            let mut events = Vec::with_capacity(MAX_EVENTS);
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            epoll::wait(&self.event_loop.clients.epoll, spare_capacity(&mut events), Some(&wait)).expect("events");
            for event in &events {
                let flags = event.flags;
                self.event_loop.handle(event.data.u64(), flags, self.now);
            }
            self.event_loop.dispatch(self.now);
        }
    }

    /// Handles this many events as one batch, those of workers first.
    #[expect(clippy::disallowed_methods, reason = "a deadline that only a hang reaches")]
    #[track_caller]
    fn batch(&mut self, of: usize) {
        let end = Instant::now() + PATIENCE;
        let mut batch: Vec<(u64, EventFlags)> = Vec::new();
        while batch.len() < of {
            assert!(Instant::now() < end, "waited for {of} events, not {batch:?}");
            let mut events = Vec::with_capacity(MAX_EVENTS);
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            epoll::wait(&self.event_loop.clients.epoll, spare_capacity(&mut events), Some(&wait)).expect("events");
            let events = events.iter().map(|event| (event.data.u64(), event.flags));
            batch.extend(events);
            batch.sort_by_key(|(number, _)| *number);
            batch.dedup_by_key(|(number, _)| *number);
        }
        for (number, flags) in batch {
            self.event_loop.handle(number, flags, self.now);
        }
        self.event_loop.dispatch(self.now);
    }

    fn tick_after(&mut self, time: Duration) {
        self.now += time;
        self.event_loop.tick(self.now);
        self.event_loop.dispatch(self.now);
    }

    fn connect(&mut self) -> TcpStream {
        self.connect_from(1)
    }

    /// A connection from 127.0.0.`last`.
    fn connect_from(&mut self, last: u8) -> TcpStream {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let source = SocketAddr::from(([127, 0, 0, last], 0));
        rustix::net::bind(&socket, &source).expect("bound");
        rustix::net::connect(&socket, &self.addr).expect("a connection");
        let client = TcpStream::from(socket);
        client.set_nonblocking(true).expect("set");
        client
    }

    /// A client with a request that is inside or waits for a ticket.
    fn ask(&mut self) -> TcpStream {
        self.ask_from(1)
    }

    /// The same from 127.0.0.`last`.
    fn ask_from(&mut self, last: u8) -> TcpStream {
        let mut client = self.connect_from(last);
        client.write_all(GET).expect("sent");
        let asked = |event_loop: &EventLoop| load(event_loop) + event_loop.clients.waiting();
        let before = asked(&self.event_loop);
        self.until("the request is inside or waits", |event_loop| {
            asked(event_loop) > before
        });
        client
    }

    /// The next request of this worker.
    #[track_caller]
    fn next_request(&mut self, worker: &mut Worker) -> Taken {
        let mut next = None;
        self.until("a request is inside", |_| {
            next = worker.take();
            next.is_some()
        });
        next.expect("waited for")
    }

    /// The first bytes that the client receives, at most this many, or until the connection closes.
    #[track_caller]
    fn read(&mut self, client: &mut TcpStream, is_all: impl Fn(&str) -> bool) -> String {
        let mut got = String::new();
        self.until("the client has its answer", |_| {
            let mut buffer = [0; 4096];
            match client.read(&mut buffer) {
                Ok(0) => return true,
                Ok(more) => got.push_str(str::from_utf8(&buffer[..more]).expect("text")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error} after {got:?}"),
            }
            is_all(&got)
        });
        got
    }

    #[track_caller]
    fn answer(&mut self, client: &mut TcpStream) -> String {
        self.read(client, |got| got.ends_with("[]"))
    }

    /// All until the gate closes the connection.
    #[track_caller]
    fn last_answer(&mut self, client: &mut TcpStream) -> String {
        self.read(client, |_| false)
    }

    /// The workers' end of the first pool.
    fn worker(&self) -> Worker {
        self.spawned.try_recv().expect("workers were spawned")
    }

    /// The workers' end of a further pool, which starts at a tick on another thread.
    #[track_caller]
    fn next_worker(&mut self) -> Worker {
        let now = self.now;
        self.until("workers were spawned", |event_loop| {
            event_loop.tick(now);
            event_loop.pool.is_some()
        });
        self.worker()
    }
}

fn load(event_loop: &EventLoop) -> usize {
    event_loop.pool.as_ref().map_or(0, WorkerPool::load)
}

#[test]
fn only_method_and_target_travel_and_response_returns() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    let request = worker.take_one();
    assert_eq!(request.line, "GET /a");
    let Context {
        client: from,
        is_client_known,
        deferral,
        persistence,
        ..
    } = &request.context;
    assert!(from.is_loopback() && *is_client_known);
    assert_eq!((*deferral, *persistence), (Deferral::First, Persistence::Persist));
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn half_closed_client_gets_its_response() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    client.shutdown(Shutdown::Write).expect("shut");
    let request = worker.take_one();
    worker.respond(&request, OK);
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK);
    assert!(rig.event_loop.clients.is_empty());
}

#[test]
fn response_for_a_closed_connection_reaches_no_other() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let gone = rig.ask();
    let first = worker.take_one();
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).expect("set");
    drop(gone);
    rig.until("its slot is free", |event_loop| event_loop.clients.is_empty());
    let mut next = rig.ask();
    worker.respond(&first, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let request = worker.take_one();
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn slow_response_delays_no_other() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut slow = rig.ask();
    let held = worker.take_one();
    for _ in 0..MAX_IN_FLIGHT * 2 {
        let mut client = rig.ask();
        let request = worker.take_one();
        worker.respond(&request, OK);
        assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    }
    worker.respond(&held, OK);
    assert_eq!(rig.answer(&mut slow).as_bytes(), OK);
}

#[test]
fn lost_workers_return_502_and_are_replaced() {
    let mut rig = rig();
    let worker = rig.worker();
    let (mut one, mut other) = (rig.ask(), rig.ask());
    drop(worker);
    for client in [&mut one, &mut other] {
        let answer = rig.last_answer(client);
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    assert_eq!(rig.script.stopped.load(Ordering::Relaxed), 1);
    // A request that comes now waits for the next pool.
    let mut next = rig.ask();
    let mut worker = rig.next_worker();
    let request = rig.next_request(&mut worker);
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn bytes_on_the_private_connection_cost_a_502() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    worker.stream.write_all(b"HTTP/1.1 400 \r\n\r\n").expect("sent");
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn stuck_worker_returns_502_at_response_timeout() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    rig.tick_after(Duration::ZERO);
    // Responses to other requests change nothing.
    rig.tick_after(RESPONSE_TIMEOUT / 2);
    worker.take_one();
    let mut other = rig.ask();
    let request = worker.take_one();
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut other).as_bytes(), OK);
    rig.tick_after(RESPONSE_TIMEOUT / 2);
    assert!(rig.event_loop.pool.is_some());
    rig.tick_after(Duration::from_millis(1));
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
    assert_eq!(rig.script.stopped.load(Ordering::Relaxed), 1);
    rig.next_worker();
}

#[test]
fn request_that_waits_for_others_is_not_overdue() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut clients = [rig.ask(), rig.ask()];
    for client in &mut clients {
        rig.tick_after(RESPONSE_TIMEOUT * 2 / 3);
        let request = worker.take_one();
        worker.respond(&request, OK);
        assert_eq!(rig.answer(client).as_bytes(), OK);
        rig.tick_after(Duration::ZERO);
    }
    assert!(rig.event_loop.pool.is_some());
}

#[test]
fn request_without_ticket_gets_503_after_a_second() {
    let mut rig = rig();
    let _worker = rig.worker();
    let inside: Vec<TcpStream> = (0..MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert_eq!(rig.event_loop.clients.waiting(), 0);
    let mut late = rig.ask();
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    rig.tick_after(WAIT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    rig.tick_after(Duration::from_millis(1));
    assert_eq!(rig.event_loop.clients.waiting(), 0);
    let answer = rig.last_answer(&mut late);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    drop(inside);
}

#[test]
fn waiting_request_is_forwarded_with_free_ticket() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut inside: Vec<TcpStream> = (0..=MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    let request = worker.take_one();
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut inside[0]).as_bytes(), OK);
    rig.until("the one that waits is inside", |event_loop| {
        event_loop.clients.waiting() == 0
    });
}

#[test]
fn clients_take_turns_for_free_tickets() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let _first: Vec<TcpStream> = (0..MAX_IN_FLIGHT + 3).map(|_| rig.ask_from(1)).collect();
    let _second = rig.ask_from(2);
    let inside: Vec<Taken> = (0..MAX_IN_FLIGHT).map(|_| worker.take_one()).collect();
    inside[..3].iter().for_each(|request| worker.respond(request, OK));
    rig.until("three tickets are used again", |event_loop| {
        event_loop.clients.waiting() == 1
    });
    let next = [(); 3].map(|()| worker.take_one().context.client);
    let [first, second] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
    assert_eq!(next, [first, second, first]);
}

#[test]
fn failed_pool_start_is_retried_and_returns_503() {
    let mut rig = rig();
    drop(rig.worker());
    rig.script.fails.store(true, Ordering::Relaxed);
    rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
    let mut client = rig.ask();
    rig.tick_after(TICK);
    rig.tick_after(WAIT_TIMEOUT);
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 503 "));
    assert!(rig.spawned.is_empty());
    rig.script.fails.store(false, Ordering::Relaxed);
    let mut client = rig.ask();
    let mut worker = rig.next_worker();
    let request = rig.next_request(&mut worker);
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn panic_of_a_pool_start_is_retried() {
    let mut rig = rig();
    drop(rig.worker());
    rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
    let panics = threads::spawn_detached("start workers", || panic!("as the test requires"));
    rig.event_loop.starting = Some(panics.expect("a thread"));
    rig.next_worker();
}

#[test]
fn stuck_pools_are_not_replaced_forever() {
    let mut rig = rig();
    drop(rig.worker());
    for _ in 1..MAX_FAILED {
        rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
        drop(rig.next_worker());
    }
    rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
    rig.tick_after(TICK);
    assert_eq!(rig.event_loop.failed.len(), MAX_FAILED);
    assert!(rig.event_loop.starting.is_none());
    rig.stuck = None;
    rig.until("they have stopped", |event_loop| {
        event_loop.failed.iter().all(WorkerPool::has_stopped)
    });
    rig.next_worker();
    assert_eq!(rig.event_loop.failed.len(), 0);
}

#[test]
fn stuck_workers_do_not_delay_the_exit() {
    let mut rig = rig();
    let _worker = rig.worker();
    let _client = rig.ask();
    rig.event_loop.drain(rig.now);
    assert!(!rig.event_loop.is_over(rig.now + DRAIN_ALL - Duration::from_millis(1)));
    assert!(rig.event_loop.is_over(rig.now + DRAIN_ALL));
    let pool = rig.event_loop.pool.take().expect("it is there");
    assert!(!pool.has_stopped());
    drop(pool);
}

#[test]
fn shutdown_waits_for_requests_and_accepts_queued_connections() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.connect();
    client.write_all(GET).expect("sent");
    rustix::io::write(&rig.shutdown, &1_u64.to_ne_bytes()).expect("told");
    rig.until("the shutdown begins", |event_loop| event_loop.draining.is_some());
    rig.until("the request is inside", |event_loop| load(event_loop) > 0);
    assert!(!rig.event_loop.is_over(rig.now + DRAIN_IDLE));
    let request = worker.take_one();
    assert_eq!(request.context.persistence, Persistence::Close);
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    assert!(!rig.event_loop.is_over(rig.now), "the response may be on its way");
    assert!(rig.event_loop.is_over(rig.now + DRAIN_IDLE));
    drop(client);
    rig.until("the client has taken it", |event_loop| event_loop.clients.is_empty());
    assert!(rig.event_loop.is_over(rig.now));
    assert!(TcpStream::connect(rig.addr).is_err(), "the port is closed");
}
