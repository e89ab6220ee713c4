//! The desk with an inside that a test plays, at a time that the test sets.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use rustix::event::{EventfdFlags, eventfd};

use super::super::lane::ANSWER_TIMEOUT;
use super::super::{Gate, Inside};
use super::*;
use crate::util::threads;

/// A deadline that only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(30);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n";
const INSIDE: &str = "GET /a HTTP/1.1\r\nClient: 127.0.0.1\r\nPersistence: persist\r\n\r\n";
const LANES: usize = 2;
/// As many as all lanes take.
const MAX_INSIDE: usize = LANES * 32;

/// What the closure that opens the inside goes by.
#[derive(Default)]
struct Script {
    fails: AtomicBool,
    /// Workers that were told to end.
    told: AtomicUsize,
}

struct Rig {
    desk: Desk,
    addr: SocketAddr,
    script: Arc<Script>,
    /// The other ends of the lanes, each time they are opened.
    insides: Receiver<Vec<UnixStream>>,
    /// Workers end when this is dropped.
    stuck: Option<Sender<()>>,
    bell: OwnedFd,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig() -> Rig {
    let gate = Gate::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let (script, (opened, insides)) = (Arc::new(Script::default()), unbounded());
    let (stuck, release) = bounded::<()>(0);
    let to_open = Arc::clone(&script);
    let open: Open = Box::new(move || {
        if to_open.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("as the test wants it"));
        }
        let pairs: Vec<_> = (0..LANES).map(|_| UnixStream::pair().expect("a pair")).collect();
        let (lanes, others) = pairs.into_iter().unzip();
        opened.send(others).expect("the rig listens");
        let told = Arc::clone(&to_open);
        let mut workers = Workers::new(move || {
            told.told.fetch_add(1, Ordering::Relaxed);
        });
        let release = release.clone();
        workers.push(threads::spawn("stand-in", move || {
            // Closed is what it waits for.
            let _ = release.recv();
        })?);
        Ok(Inside { lanes, workers })
    });
    let settings = Settings {
        max_connections: 512,
        trusted_proxies: Vec::new(),
    };
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let addr = gate.addr;
    let desk = Desk::new(gate.listener, &bell, settings, open, Arc::default()).expect("a desk");
    Rig {
        desk,
        addr,
        script,
        insides,
        stuck: Some(stuck),
        bell,
        now: Instant::now(),
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Before the desk, which waits for its workers.
        self.stuck = None;
    }
}

impl Rig {
    /// Handles what has come until the condition holds.
    #[expect(clippy::disallowed_methods, reason = "a deadline that only a hang reaches")]
    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Desk) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&mut self.desk) {
            assert!(Instant::now() < end, "waited until {what}");
            let mut events = Vec::with_capacity(MAX_EVENTS);
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            epoll::wait(&self.desk.clients.epoll, spare_capacity(&mut events), Some(&wait)).expect("events");
            for event in &events {
                let flags = event.flags;
                self.desk.handle(event.data.u64(), flags, self.now);
            }
            self.desk.go_on(self.now);
        }
    }

    /// Handles so many events as one batch, those of lanes first.
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
            epoll::wait(&self.desk.clients.epoll, spare_capacity(&mut events), Some(&wait)).expect("events");
        }
        events.sort_by_key(|event| event.data.u64());
        for event in &events {
            let flags = event.flags;
            self.desk.handle(event.data.u64(), flags, self.now);
        }
        self.desk.go_on(self.now);
    }

    fn tick_after(&mut self, time: Duration) {
        self.now += time;
        self.desk.tick(self.now);
        self.desk.go_on(self.now);
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
        let in_stage = |desk: &Desk, stage| {
            let count = std::cell::Cell::new(0);
            desk.clients.any(|connection| {
                count.set(count.get() + usize::from(connection.stage == stage));
                false
            });
            count.get()
        };
        let asked = |desk: &Desk| in_stage(desk, Stage::Inside) + in_stage(desk, Stage::Waiting);
        let before = asked(&self.desk);
        self.until("the request is inside or waits", |desk| asked(desk) > before);
        client
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

    fn inside(&self) -> Vec<UnixStream> {
        self.insides.try_recv().expect("an inside was opened")
    }
}

/// The one request that is on these lanes, and the lane it is on.
fn take_request(lanes: &mut [UnixStream]) -> (usize, String) {
    for (number, lane) in lanes.iter_mut().enumerate() {
        lane.set_nonblocking(true).expect("set");
        let mut buffer = [0; 4096];
        if let Ok(got) = lane.read(&mut buffer) {
            return (number, String::from_utf8_lossy(&buffer[..got]).into_owned());
        }
    }
    panic!("no request is inside");
}

#[test]
fn nothing_but_method_target_and_client_goes_inside_and_the_answer_comes_back() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.ask();
    let (number, request) = take_request(&mut lanes);
    assert_eq!(request, INSIDE);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn a_client_that_has_closed_its_half_is_answered() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.ask();
    client.shutdown(Shutdown::Write).expect("shut");
    let (number, _) = take_request(&mut lanes);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK);
    assert!(rig.desk.clients.is_empty());
}

#[test]
fn the_answer_for_a_client_that_is_gone_goes_to_nobody_else() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let gone = rig.ask();
    let (first, _) = take_request(&mut lanes);
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).expect("set");
    drop(gone);
    rig.until("its place is free", |desk| desk.clients.is_empty());
    let mut next = rig.ask();
    lanes[first]
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        .expect("sent");
    let (number, request) = take_request(&mut lanes);
    assert_eq!(request, INSIDE);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn a_lane_that_closes_costs_its_request_a_502_and_is_replaced() {
    let mut rig = rig();
    let lanes = rig.inside();
    let (mut one, mut other) = (rig.ask(), rig.ask());
    drop(lanes);
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
    // Whoever asks now waits until the next tick.
    let mut next = rig.ask();
    rig.tick_after(TICK);
    let mut lanes = rig.inside();
    let (number, _) = take_request(&mut lanes);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut next).as_bytes(), OK);
}

#[test]
fn a_lane_that_talks_nonsense_costs_its_request_a_502() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.ask();
    let (number, _) = take_request(&mut lanes);
    lanes[number].write_all(b"nonsense\r\n\r\n").expect("sent");
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn an_inside_that_never_answers_costs_a_502_when_the_answer_is_overdue_and_not_before() {
    let mut rig = rig();
    let _lanes = rig.inside();
    let mut client = rig.ask();
    rig.tick_after(ANSWER_TIMEOUT);
    assert!(rig.insides.is_empty());
    rig.tick_after(Duration::from_millis(1));
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 502 "));
    assert_eq!(rig.script.told.load(Ordering::Relaxed), 1);
    rig.tick_after(TICK);
    rig.inside();
}

#[test]
fn a_request_that_finds_all_lanes_full_waits_for_a_second_and_gets_a_503() {
    let mut rig = rig();
    let _lanes = rig.inside();
    let inside: Vec<TcpStream> = (0..MAX_INSIDE).map(|_| rig.ask()).collect();
    assert!(rig.desk.waiting.is_empty());
    let mut late = rig.ask();
    assert_eq!(rig.desk.waiting.len(), 1);
    rig.tick_after(WAIT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.desk.waiting.len(), 1);
    rig.tick_after(Duration::from_millis(1));
    assert!(rig.desk.waiting.is_empty());
    let answer = rig.last_answer(&mut late);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    drop(inside);
}

#[test]
fn a_request_that_waits_goes_inside_as_soon_as_there_is_room() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut inside: Vec<TcpStream> = (0..=MAX_INSIDE).map(|_| rig.ask()).collect();
    assert_eq!(rig.desk.waiting.len(), 1);
    lanes[0].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut inside[0]).as_bytes(), OK);
    rig.until("the one that waits is inside", |desk| desk.waiting.is_empty());
}

#[test]
fn an_inside_that_does_not_open_is_tried_at_each_tick_and_nobody_waits_in_silence() {
    let mut rig = rig();
    drop(rig.inside());
    rig.script.fails.store(true, Ordering::Relaxed);
    rig.until("the lanes are lost", |desk| desk.lanes.is_empty());
    let mut client = rig.ask();
    rig.tick_after(TICK);
    assert!(rig.insides.is_empty());
    rig.tick_after(WAIT_TIMEOUT);
    assert!(rig.last_answer(&mut client).starts_with("HTTP/1.1 503 "));
    rig.script.fails.store(false, Ordering::Relaxed);
    let mut client = rig.ask();
    rig.tick_after(TICK);
    let mut lanes = rig.inside();
    let (number, _) = take_request(&mut lanes);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn workers_that_are_stuck_are_not_followed_by_new_ones_for_ever() {
    let mut rig = rig();
    for _ in 0..MAX_LOST {
        drop(rig.inside());
        rig.until("the lanes are lost", |desk| desk.lanes.is_empty());
        rig.tick_after(TICK);
    }
    assert_eq!((rig.desk.lost.len(), rig.insides.len()), (MAX_LOST, 0));
    rig.stuck = None;
    rig.until("they have ended", |desk| desk.lost.iter().all(Workers::have_ended));
    rig.tick_after(TICK);
    assert_eq!(rig.desk.lost.len(), 0);
    rig.inside();
}

#[test]
fn workers_that_are_stuck_do_not_keep_the_gate_from_ending() {
    let mut rig = rig();
    let _lanes = rig.inside();
    let _client = rig.ask();
    rig.desk.drain(rig.now);
    assert!(!rig.desk.is_over(rig.now + DRAIN_ALL - Duration::from_millis(1)));
    assert!(rig.desk.is_over(rig.now + DRAIN_ALL));
    let workers = rig.desk.workers.take().expect("they are there");
    assert!(!workers.have_ended());
    workers.leave();
}

#[test]
fn the_end_waits_for_requests_under_way_and_takes_in_those_whose_connection_was_made() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.connect();
    client.write_all(GET).expect("sent");
    rustix::io::write(&rig.bell, &1_u64.to_ne_bytes()).expect("rung");
    rig.until("the end begins", |desk| desk.draining.is_some());
    rig.until("the request is inside", |desk| {
        desk.clients.any(|connection| connection.stage == Stage::Inside)
    });
    assert!(!rig.desk.is_over(rig.now + DRAIN_IDLE));
    let (number, request) = take_request(&mut lanes);
    assert!(request.contains("Persistence: close"), "{request}");
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    assert!(!rig.desk.is_over(rig.now), "the answer may be on its way");
    assert!(rig.desk.is_over(rig.now + DRAIN_IDLE));
    drop(client);
    rig.until("the client has taken it", |desk| desk.clients.is_empty());
    assert!(rig.desk.is_over(rig.now));
    assert!(TcpStream::connect(rig.addr).is_err(), "the port is closed");
}

#[test]
fn a_head_that_waits_for_a_place_inside_is_answered_without_a_body_whatever_was_read_since() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"HEAD /a HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |desk| {
        desk.lanes.iter().any(|lane| lane.load() > 0)
    });
    let (number, _) = take_request(&mut lanes);
    let _others: Vec<TcpStream> = (0..MAX_INSIDE).map(|_| rig.ask()).collect();
    assert_eq!(
        rig.desk.waiting.len(),
        1,
        "one waits for the place that the answer makes"
    );
    lanes[number].write_all(OK).expect("sent");
    client.write_all(b" b\r\n\r\n").expect("sent");
    rig.batch(2);
    assert_eq!(rig.desk.waiting.len(), 1, "the HEAD waits");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    // All that are before it, one by one.
    let head = &OK[..OK.len() - 2];
    let mut answers = OK.repeat(MAX_INSIDE / LANES);
    answers.extend(head);
    for lane in &mut lanes {
        lane.write_all(&answers[..answers.len() - head.len()]).expect("sent");
    }
    rig.until("all but the HEAD are answered", |desk| {
        desk.lanes.iter().map(Lane::load).sum::<usize>() == 1
    });
    let at = rig
        .desk
        .lanes
        .iter()
        .position(|lane| lane.load() == 1)
        .expect("one has it");
    lanes[at].write_all(head).expect("sent");
    assert_eq!(rig.read(&mut client, |got| got.ends_with("\r\n\r\n")).as_bytes(), head);
}

/// A client whose second request is cut, and comes whole in the batch that brings the answer to the first.
fn cut_in_the_batch_of_an_answer(rig: &mut Rig, lanes: &mut [UnixStream], rest: &[u8]) -> TcpStream {
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"GET /second HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |desk| {
        desk.lanes.iter().any(|lane| lane.load() > 0)
    });
    let (number, request) = take_request(lanes);
    assert_eq!(request, INSIDE);
    lanes[number].write_all(OK).expect("sent");
    client.write_all(rest).expect("sent");
    rig.batch(2);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client
}

#[test]
fn a_connection_whose_answer_promised_to_keep_it_is_kept_however_requests_are_cut() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = cut_in_the_batch_of_an_answer(&mut rig, &mut lanes, b" b\r\n\r\nGET /third HTTP");
    let (number, request) = take_request(&mut lanes);
    assert!(request.starts_with("GET /second HTTP/1.1\r\n") && request.contains("Persistence: persist"));
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client.write_all(b"/1.1\r\nHost: b\r\n\r\n").expect("sent");
    rig.until("the third request is inside", |desk| {
        desk.clients.is_empty() || desk.lanes.iter().any(|lane| lane.load() > 0)
    });
    let (number, request) = take_request(&mut lanes);
    assert!(request.starts_with("GET /third HTTP/1.1\r\n"));
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn a_connection_has_one_request_inside_at_most_and_its_answers_come_in_order() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let rest = b" b\r\n\r\nGET /third HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut client = cut_in_the_batch_of_an_answer(&mut rig, &mut lanes, rest);
    for name in ["second", "third"] {
        rig.until("its request is inside", |desk| {
            desk.lanes.iter().any(|lane| lane.load() > 0)
        });
        assert_eq!(rig.desk.lanes.iter().map(Lane::load).sum::<usize>(), 1);
        let (number, request) = take_request(&mut lanes);
        assert!(request.starts_with(&format!("GET /{name} HTTP/1.1\r\n")), "{request}");
        lanes[number].write_all(OK).expect("sent");
        assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    }
}

#[test]
fn a_long_answer_goes_on_though_the_client_closes_its_half_in_the_batch_that_brings_it() {
    // More than the sockets between the gate and a client hold.
    const LEN: usize = 15 * 1024 * 1024;
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.ask();
    let (number, _) = take_request(&mut lanes);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + LEN, b'x');
    let mut written = 0;
    rig.until("all but the last byte is inside", |_| {
        match lanes[number].write(&answer[written..answer.len() - 1]) {
            Ok(more) => written += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        written == answer.len() - 1
    });
    rig.until("the gate has read it", |desk| {
        rustix::io::ioctl_fionread(desk.lanes[number].stream()) == Ok(0)
    });
    lanes[number].write_all(b"x").expect("sent");
    client.shutdown(Shutdown::Write).expect("shut");
    rig.batch(2);
    assert!(
        rig.desk.clients.any(|connection| connection.unsent() > 0),
        "the answer is long"
    );
    let mut got = 0;
    let mut buffer = vec![0; 1024 * 1024];
    rig.until("the client has all of it", |_| {
        match client.read(&mut buffer) {
            Ok(more) => got += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        got == answer.len()
    });
}

#[test]
fn requests_sent_ahead_are_answered_though_the_client_closes_its_half_in_the_batch_of_an_answer() {
    let mut rig = rig();
    let mut lanes = rig.inside();
    let mut client = rig.connect();
    client.write_all(&GET.repeat(2)).expect("sent");
    rig.until("its first request is inside", |desk| {
        desk.lanes.iter().any(|lane| lane.load() > 0)
    });
    let (number, _) = take_request(&mut lanes);
    lanes[number].write_all(OK).expect("sent");
    client.shutdown(Shutdown::Write).expect("shut");
    rig.batch(2);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    let (number, request) = take_request(&mut lanes);
    assert_eq!(request, INSIDE);
    lanes[number].write_all(OK).expect("sent");
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK);
}
