//! The event loop with workers that a test plays, at a time that the test sets.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use rustix::event::{EventfdFlags, eventfd};

mod cuts;

use super::super::Gate;
use super::super::clients::MAX_DEFERRED;
use super::super::connection::WAIT_TIMEOUT;
use super::super::worker_connection::ANSWER_TIMEOUT;
use super::*;
use crate::util::threads;

/// A deadline that only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(30);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n";
const CANONICAL: &str = "GET /a HTTP/1.1\r\nClient: 127.0.0.1\r\n\r\n";
const CONNECTIONS: usize = 2;
/// As many as all workers take.
const MAX_IN_FLIGHT: usize = CONNECTIONS * 32;

/// What the closure that spawns workers goes by.
#[derive(Default)]
struct Script {
    fails: AtomicBool,
    /// Workers that were told to end.
    told: AtomicUsize,
}

struct Rig {
    event_loop: EventLoop,
    addr: SocketAddr,
    script: Arc<Script>,
    /// The other ends of the workers, each time they are opened.
    spawned: Receiver<Vec<UnixStream>>,
    /// Workers end when this is dropped.
    stuck: Option<Sender<()>>,
    shutdown: OwnedFd,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig() -> Rig {
    let gate = Gate::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let (script, (opened, spawned)) = (Arc::new(Script::default()), unbounded());
    let (stuck, release) = bounded::<()>(0);
    let to_open = Arc::clone(&script);
    let spawn: Spawn = Box::new(move || {
        if to_open.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("as the test wants it"));
        }
        let pairs: Vec<_> = (0..CONNECTIONS).map(|_| UnixStream::pair().expect("a pair")).collect();
        let (streams, others): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        streams
            .iter()
            .for_each(|stream: &UnixStream| stream.set_nonblocking(true).expect("set"));
        opened.send(others).expect("the rig listens");
        let told = Arc::clone(&to_open);
        let mut pool = WorkerPool::new(move || {
            told.told.fetch_add(1, Ordering::Relaxed);
        });
        let release = release.clone();
        pool.push(threads::spawn("stand-in", move || {
            // Closed is what it waits for.
            let _ = release.recv();
        })?);
        pool.connect(streams);
        Ok(pool)
    });
    let settings = Settings {
        max_connections: 512,
        trusted_proxies: Vec::new(),
        idle_timeout: Duration::from_secs(75),
        cors_origins: Default::default(),
    };
    let shutdown = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let addr = gate.addr;
    let event_loop = EventLoop::new(gate.listener, &shutdown, settings, spawn, Arc::default()).expect("an event loop");
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

impl Drop for Rig {
    fn drop(&mut self) {
        // Before the event_loop, which waits for its workers.
        self.stuck = None;
    }
}

impl Rig {
    /// Handles what has come until the condition holds.
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

    /// Handles so many events as one batch, those of workers first.
    #[expect(clippy::disallowed_methods, reason = "a deadline that only a hang reaches")]
    #[track_caller]
    fn batch(&mut self, of: usize) {
        let end = Instant::now() + PATIENCE;
        let mut events = Vec::with_capacity(MAX_EVENTS);
        while events.len() < of {
            assert!(
                Instant::now() < end,
                "waited for {of} events at once, not {}",
                events.len()
            );
            events.clear();
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            epoll::wait(&self.event_loop.clients.epoll, spare_capacity(&mut events), Some(&wait)).expect("events");
        }
        events.sort_by_key(|event| event.data.u64());
        for event in &events {
            let flags = event.flags;
            self.event_loop.handle(event.data.u64(), flags, self.now);
        }
        self.event_loop.dispatch(self.now);
    }

    fn tick_after(&mut self, time: Duration) {
        self.now += time;
        self.event_loop.tick(self.now);
        self.event_loop.dispatch(self.now);
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.addr).expect("a connection");
        client.set_nonblocking(true).expect("set");
        client
    }

    /// A client whose request is inside, or waits for a place there.
    fn ask(&mut self) -> TcpStream {
        let mut client = self.connect();
        client.write_all(GET).expect("sent");
        let asked = |event_loop: &EventLoop| load(event_loop) + event_loop.clients.waiting();
        let before = asked(&self.event_loop);
        self.until("the request is inside or waits", |event_loop| {
            asked(event_loop) > before
        });
        client
    }

    /// The next request that comes to these workers, and the worker it is on.
    #[track_caller]
    fn next_request(&mut self, workers: &mut [UnixStream]) -> (usize, String) {
        let mut next = None;
        self.until("a request is inside", |_| {
            next = find_request(workers);
            next.is_some()
        });
        next.expect("waited for")
    }

    /// What the client is sent until it has that many bytes' worth of it, or the connection ends.
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

    fn workers(&self) -> Vec<UnixStream> {
        self.spawned.try_recv().expect("workers were spawned")
    }
}

fn load(event_loop: &EventLoop) -> usize {
    let pool = event_loop.pool.iter();
    pool.flat_map(|pool| &pool.connections)
        .map(WorkerConnection::load)
        .sum()
}

/// The one request that is on these workers, and the worker it is on.
fn take_request(workers: &mut [UnixStream]) -> (usize, String) {
    find_request(workers).expect("a request is inside")
}

fn find_request(workers: &mut [UnixStream]) -> Option<(usize, String)> {
    workers.iter_mut().enumerate().find_map(|(number, worker)| {
        worker.set_nonblocking(true).expect("set");
        let mut buffer = [0; 4096];
        let got = worker.read(&mut buffer).ok()?;
        Some((number, String::from_utf8_lossy(&buffer[..got]).into_owned()))
    })
}

#[test]
fn nothing_but_method_target_and_client_goes_inside_and_the_answer_comes_back() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.ask();
    let (number, request) = take_request(&mut workers);
    assert_eq!(request, CANONICAL);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn a_client_that_has_closed_its_half_is_answered() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.ask();
    client.shutdown(Shutdown::Write).expect("shut");
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK);
    assert!(rig.event_loop.clients.is_empty());
}

#[test]
fn the_answer_for_a_client_that_is_gone_goes_to_nobody_else() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let gone = rig.ask();
    let (first, _) = take_request(&mut workers);
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).expect("set");
    drop(gone);
    rig.until("its place is free", |event_loop| event_loop.clients.is_empty());
    let mut next = rig.ask();
    workers[first]
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        .expect("sent");
    let (number, request) = take_request(&mut workers);
    assert_eq!(request, CANONICAL);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn a_worker_connection_that_closes_costs_its_request_a_502_and_is_replaced() {
    let mut rig = rig();
    let workers = rig.workers();
    let (mut one, mut other) = (rig.ask(), rig.ask());
    drop(workers);
    for client in [&mut one, &mut other] {
        let answer = rig.last_answer(client);
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    assert_eq!(
        rig.script.told.load(Ordering::Relaxed),
        1,
        "its workers are told to end"
    );
    // A request that comes now waits until the next tick.
    let mut next = rig.ask();
    rig.tick_after(TICK);
    let mut workers = rig.workers();
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn a_worker_connection_that_talks_nonsense_costs_its_request_a_502() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.ask();
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(b"nonsense\r\n\r\n").expect("sent");
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn an_inside_that_never_answers_costs_a_502_when_the_answer_is_overdue_and_not_before() {
    let mut rig = rig();
    let _workers = rig.workers();
    let mut client = rig.ask();
    rig.tick_after(ANSWER_TIMEOUT);
    assert!(rig.spawned.is_empty());
    rig.tick_after(Duration::from_millis(1));
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
    assert_eq!(rig.script.told.load(Ordering::Relaxed), 1);
    rig.tick_after(TICK);
    rig.workers();
}

#[test]
fn a_request_that_finds_all_workers_full_waits_for_a_second_and_gets_a_503() {
    let mut rig = rig();
    let _workers = rig.workers();
    let inside: Vec<TcpStream> = (0..MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert!((rig.event_loop.clients.waiting() == 0));
    let mut late = rig.ask();
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    rig.tick_after(WAIT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    rig.tick_after(Duration::from_millis(1));
    assert!((rig.event_loop.clients.waiting() == 0));
    let answer = rig.last_answer(&mut late);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    drop(inside);
}

#[test]
fn a_request_that_waits_goes_inside_as_soon_as_there_is_room() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut inside: Vec<TcpStream> = (0..=MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert_eq!(rig.event_loop.clients.waiting(), 1);
    workers[0].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut inside[0]).as_bytes(), OK);
    rig.until("the one that waits is inside", |event_loop| {
        event_loop.clients.waiting() == 0
    });
}

#[test]
fn an_inside_that_does_not_open_is_tried_at_each_tick_and_nobody_waits_in_silence() {
    let mut rig = rig();
    drop(rig.workers());
    rig.script.fails.store(true, Ordering::Relaxed);
    rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
    let mut client = rig.ask();
    rig.tick_after(TICK);
    assert!(rig.spawned.is_empty());
    rig.tick_after(WAIT_TIMEOUT);
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 503 "));
    rig.script.fails.store(false, Ordering::Relaxed);
    let mut client = rig.ask();
    rig.tick_after(TICK);
    let mut workers = rig.workers();
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn workers_that_are_stuck_are_not_followed_by_new_ones_for_ever() {
    let mut rig = rig();
    for _ in 0..MAX_FAILED {
        drop(rig.workers());
        rig.until("the workers are lost", |event_loop| event_loop.pool.is_none());
        rig.tick_after(TICK);
    }
    assert_eq!((rig.event_loop.failed.len(), rig.spawned.len()), (MAX_FAILED, 0));
    rig.stuck = None;
    rig.until("they have ended", |event_loop| {
        event_loop.failed.iter().all(WorkerPool::has_ended)
    });
    rig.tick_after(TICK);
    assert_eq!(rig.event_loop.failed.len(), 0);
    rig.workers();
}

#[test]
fn workers_that_are_stuck_do_not_keep_the_gate_from_ending() {
    let mut rig = rig();
    let _workers = rig.workers();
    let _client = rig.ask();
    rig.event_loop.drain(rig.now);
    assert!(!rig.event_loop.is_over(rig.now + DRAIN_ALL - Duration::from_millis(1)));
    assert!(rig.event_loop.is_over(rig.now + DRAIN_ALL));
    let workers = rig.event_loop.pool.take().expect("they are there");
    assert!(!workers.has_ended());
    workers.leave();
}

#[test]
fn the_end_waits_for_requests_under_way_and_takes_in_those_whose_connection_was_made() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.connect();
    client.write_all(GET).expect("sent");
    rustix::io::write(&rig.shutdown, &1_u64.to_ne_bytes()).expect("told");
    rig.until("the end begins", |event_loop| event_loop.draining.is_some());
    rig.until("the request is inside", |event_loop| load(event_loop) > 0);
    assert!(!rig.event_loop.is_over(rig.now + DRAIN_IDLE));
    let (number, request) = take_request(&mut workers);
    assert!(request.contains("Persistence: close"), "{request}");
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    assert!(!rig.event_loop.is_over(rig.now), "the answer may be on its way");
    assert!(rig.event_loop.is_over(rig.now + DRAIN_IDLE));
    drop(client);
    rig.until("the client has taken it", |event_loop| event_loop.clients.is_empty());
    assert!(rig.event_loop.is_over(rig.now));
    assert!(TcpStream::connect(rig.addr).is_err(), "the port is closed");
}
