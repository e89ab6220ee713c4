//! Whatever the client, the workers and the clock do, in any order: each request gets one response, its own, in order,
//! a HEAD without a body, and the connection closes as announced.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::config::CorsOrigins;
use crate::response::Deferral;

/// A request of a client, with its effect on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Get,
    Head,
    Options,
    /// Empty lines remain from the request before.
    AfterEmptyLines,
    Old,
    OldKept,
    Closing,
    ClosingHead,
    WithBody,
    /// Chunked without data, as proxies send it.
    EmptyBody,
    Malformed,
}

/// An event, expected or not, including outdated events of the kernel.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends this many more bytes.
    Send(usize),
    /// The client sends no more, not even the rest of a request.
    End,
    /// The kernel reports that data is readable. The gate reads at most this many bytes.
    Readable(usize),
    /// The kernel accepts this many bytes of a response.
    Writable(usize),
    Dispatch,
    Answer,
    /// The workers defer the request. True: they may defer it again.
    Defer(bool),
    /// A response while no request is with the workers.
    WrongAnswer,
    Fail,
    /// This many milliseconds pass.
    Pass(u64),
    Drain,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let kept = prop::sample::select(vec![
        Ask::Get,
        Ask::Head,
        Ask::Options,
        Ask::AfterEmptyLines,
        Ask::OldKept,
    ]);
    let any = prop::sample::select(vec![
        Ask::Old,
        Ask::Closing,
        Ask::ClosingHead,
        Ask::WithBody,
        Ask::EmptyBody,
        Ask::Malformed,
        Ask::Get,
    ]);
    prop::collection::vec(prop_oneof![6 => kept, 1 => any], 0..7)
}

/// Steps without errors, so that all requests must get a response.
fn calm_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..90_usize).prop_map(Step::Send),
        4 => (1..200_usize).prop_map(Step::Readable),
        2 => (0..120_usize).prop_map(Step::Writable),
        4 => Just(Step::Dispatch),
        4 => Just(Step::Answer),
        1 => any::<bool>().prop_map(Step::Defer),
        1 => Just(Step::WrongAnswer),
        1 => (0..10_u64).prop_map(Step::Pass),
    ]
}

fn rough_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => calm_step(),
        1 => Just(Step::End),
        1 => Just(Step::Fail),
        1 => Just(Step::Drain),
        1 => (0..20_000_u64).prop_map(Step::Pass),
    ]
}

impl Ask {
    fn bytes(self, number: usize) -> String {
        let host = "Host: a\r\n";
        match self {
            Ask::Get => format!("GET /{number} HTTP/1.1\r\n{host}\r\n"),
            Ask::Head => format!("HEAD /{number} HTTP/1.1\r\n{host}\r\n"),
            Ask::Options => format!("OPTIONS /{number} HTTP/1.1\r\n{host}\r\n"),
            Ask::AfterEmptyLines => format!("\r\n\r\nGET /{number} HTTP/1.1\r\n{host}\r\n"),
            Ask::Old => format!("GET /{number} HTTP/1.0\r\n\r\n"),
            Ask::OldKept => format!("GET /{number} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            Ask::Closing => format!("GET /{number} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            Ask::ClosingHead => format!("HEAD /{number} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            Ask::WithBody => format!("POST /{number} HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"),
            Ask::EmptyBody => format!("GET /{number} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Ask::Malformed => format!("GET /{number} HTTP/1.x\r\n{host}\r\n"),
        }
    }

    fn persistence(self) -> &'static str {
        match self {
            Ask::Get | Ask::Head | Ask::Options | Ask::AfterEmptyLines => "persist",
            Ask::OldKept => "keep-alive",
            _ => "close",
        }
    }

    fn is_head(self) -> bool {
        matches!(self, Ask::Head | Ask::ClosingHead)
    }
}

/// The response of a worker, as the client must receive it.
fn answer(target: &str, persistence: &str, cors: &str, is_head: bool) -> String {
    let body = if is_head { "" } else { target };
    let len = target.len();
    format!("HTTP/1.1 200 OK\r\n{cors}Content-Length: {len}\r\nX: {persistence}\r\n\r\n{body}")
}

/// Drives a connection as the gate does. The test plays the client, the worker and the kernel.
struct World {
    connection: Connection,
    now: Instant,
    to_send: Vec<u8>,
    /// Sent by the client and not read yet.
    in_socket: Vec<u8>,
    has_ended: bool,
    /// Bytes that the kernel accepts.
    space: usize,
    got: Vec<u8>,
    queued: bool,
    is_inside: bool,
    closed: Option<Option<Refused>>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn new(asks: &[Ask], cors_origins: CorsOrigins) -> Self {
        let config = Config {
            cors_origins,
            ..Config::from_lookup(|_| None).expect("the defaults are valid")
        };
        let now = Instant::now();
        let to_send: Vec<String> = (0..).zip(asks).map(|(number, ask)| ask.bytes(number)).collect();
        Self {
            connection: Connection::new(Ipv4Addr::LOCALHOST.into(), Arc::new(config), now),
            now,
            to_send: to_send.concat().into_bytes(),
            in_socket: Vec::new(),
            has_ended: false,
            space: 50,
            got: Vec::new(),
            queued: false,
            is_inside: false,
            closed: None,
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        if self.closed.is_some() {
            return;
        }
        let mut action = self.connection.on(event, self.now);
        loop {
            action = match action {
                Action::Nothing => return,
                Action::Shutdown => {
                    assert!(self.connection.is_lingering() || self.has_ended);
                    return;
                }
                Action::Queue(_) => {
                    assert!(!self.queued && !self.is_inside, "one request in flight at most");
                    self.queued = true;
                    return;
                }
                Action::Forward => {
                    assert!(self.queued && !self.is_inside);
                    self.queued = false;
                    self.is_inside = self.connection.in_flight().is_some();
                    return;
                }
                Action::Refuse(_) => {
                    self.queued = false;
                    self.is_inside = false;
                    Action::Send
                }
                Action::Send => {
                    let unsent = self.connection.unsent();
                    let sent = unsent.len().min(self.space);
                    self.got.extend_from_slice(&unsent[..sent]);
                    self.space -= sent;
                    self.connection.on(Event::Sent(sent), self.now)
                }
                Action::Close(why) => {
                    self.closed = Some(why);
                    return;
                }
            };
        }
    }

    fn readable(&mut self, most: usize) {
        match self.connection.room().min(most).min(self.in_socket.len()) {
            _ if self.connection.room() == 0 => self.tell(Event::Writable),
            0 if self.has_ended && self.in_socket.is_empty() => self.tell(Event::Ended),
            0 => {}
            len => {
                let bytes: Vec<u8> = self.in_socket.drain(..len).collect();
                self.tell(Event::Received(&bytes));
            }
        }
    }

    fn answer(&mut self) {
        // It may have been refused meanwhile.
        if std::mem::take(&mut self.is_inside)
            && let Some(InFlight { request, .. }) = self.connection.in_flight()
        {
            let is_head = request.method == "HEAD";
            let persistence = match request.context.persistence {
                Persistence::Persist => "persist",
                Persistence::KeepAlive => "keep-alive",
                Persistence::Close => "close",
            };
            let response = answer(&request.target, persistence, &request.context.cors, is_head);
            self.tell(Event::Responded(response.into_bytes()));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(len) if !self.has_ended => {
                let len = len.min(self.to_send.len());
                self.in_socket.extend(self.to_send.drain(..len));
            }
            Step::End => self.has_ended = true,
            Step::Readable(most) => self.readable(most),
            Step::Writable(more) => {
                self.space += more;
                self.tell(Event::Writable);
            }
            Step::Dispatch if self.queued || !self.connection.is_waiting() => self.tell(Event::Dispatched),
            Step::Answer => self.answer(),
            Step::Defer(may_wait) => {
                let in_flight = self.connection.in_flight();
                let is_over = in_flight.is_some_and(|sent| sent.request.context.deferral == Deferral::Over);
                match self.is_inside && !is_over {
                    true => {
                        self.is_inside = false;
                        self.tell(Event::Repeated(if may_wait { Deferral::More } else { Deferral::Over }));
                    }
                    false => self.answer(),
                }
            }
            Step::WrongAnswer if !self.is_inside => {
                let wrong = answer("/wrong", "persist", "", false);
                self.tell(Event::Responded(wrong.into_bytes()));
            }
            Step::Fail if self.is_inside => {
                self.is_inside = false;
                self.tell(Event::Rejected(Refusal::LOST));
            }
            Step::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                if self.connection.is_late(self.now) {
                    self.tell(Event::Expired);
                }
            }
            Step::Drain => self.tell(Event::Draining),
            _ => {}
        }
    }

    /// Completes all remaining steps. The kernel reports only the events of interest.
    fn finish(&mut self) {
        self.step(Step::Send(usize::MAX));
        while self.closed.is_none() {
            let interest = self.connection.interest();
            if interest.contains(EventFlags::OUT) {
                self.step(Step::Writable(1_000));
            } else if self.queued {
                self.step(Step::Dispatch);
            } else if self.is_inside {
                self.answer();
            } else if interest.contains(EventFlags::IN) && (self.has_ended || !self.in_socket.is_empty()) {
                self.readable(usize::MAX);
            } else {
                return;
            }
        }
    }
}

/// The responses that a client must receive without errors. The last one may be a refusal.
fn expected(asks: &[Ask], cors: &CorsOrigins) -> (Vec<String>, bool) {
    let mut answers = Vec::new();
    for (number, ask) in asks.iter().enumerate() {
        if *ask == Ask::Malformed {
            return (answers, true);
        }
        let lines = cors::lines(cors, ask.bytes(number).as_bytes());
        answers.push(answer(&format!("/{number}"), ask.persistence(), &lines, ask.is_head()));
        if ask.persistence() == "close" {
            break;
        }
    }
    (answers, false)
}

fn cors() -> impl Strategy<Value = CorsOrigins> {
    prop::sample::select(vec![CorsOrigins::None, CorsOrigins::Any])
}

proptest! {
    // A counterexample is only printed. By default proptest also writes it beside the sources.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases.max(2_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_request_gets_one_response_in_order(
        asks in asks(), steps in prop::collection::vec(calm_step(), 0..80), cors in cors(),
    ) {
        let mut world = World::new(&asks, cors.clone());
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        let got = String::from_utf8_lossy(&world.got).into_owned();
        let (answers, is_refused) = expected(&asks, &cors);
        let answers = answers.concat();
        if is_refused {
            let refusal = got.strip_prefix(&answers).expect("all before the refusal");
            prop_assert!(refusal.starts_with("HTTP/1.1 400 ") && refusal.contains("\r\nConnection: close\r\n"));
            prop_assert_eq!(refusal.matches("HTTP/1.1").count(), 1);
        } else {
            prop_assert_eq!(&got, &answers);
        }
        let announced = is_refused || asks.iter().any(|ask| ask.persistence() == "close");
        prop_assert_eq!(world.closed.is_some() || world.connection.is_lingering(), announced);
    }

    #[test]
    fn after_errors_responses_stay_in_order_refusal_last(
        asks in asks(), steps in prop::collection::vec(rough_step(), 0..80), cors in cors(),
    ) {
        let mut world = World::new(&asks, cors.clone());
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        let mut got = &*String::from_utf8_lossy(&world.got).into_owned();
        // The last response of a draining connection has another line.
        let (answers, _) = expected(&asks, &cors);
        let mut at = 0;
        while let Some(answer) = answers.get(at) {
            let closing = answer.replace("X: persist", "X: close").replace("X: keep-alive", "X: close");
            match got.strip_prefix(&**answer).or_else(|| got.strip_prefix(&*closing)) {
                Some(rest) => (got, at) = (rest, at + 1),
                None => break,
            }
        }
        let cut = answers.get(at).is_some_and(|answer| {
            let closing = answer.replace("X: persist", "X: close").replace("X: keep-alive", "X: close");
            answer.starts_with(got) || closing.starts_with(got)
        });
        let is_refusal = got.contains("\r\nConnection: close\r\n") && got.matches("HTTP/1.1").count() == 1;
        // A client that does not read may be disconnected within a refusal.
        let is_cut_refusal = world.closed.is_some() && !got.contains(" 200 ") && got.matches("HTTP/1.1").count() <= 1;
        prop_assert!(got.is_empty() || cut || is_refusal || is_cut_refusal, "{got:?} instead of {:?}", answers.get(at));
        prop_assert!(!got.contains("/wrong"));
    }

    #[test]
    fn refused_head_request_has_no_body(
        steps in prop::collection::vec(rough_step(), 0..40), cors in cors(),
    ) {
        let mut world = World::new(&[Ask::Head; 3], cors);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        let got = String::from_utf8_lossy(&world.got).into_owned();
        // A head that breaks off within its method (400 or 408) may have any method.
        prop_assert!(!got.contains("HTTP/1.1 50") || !got.contains('{'), "{got:?}");
    }
}
