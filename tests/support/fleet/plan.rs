//! State that a fleet's handle and its event loop share: counts, and each node's prepared response.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::json;

use super::Behaviour;

pub(super) type Bytes = Arc<[u8]>;

/// The repeated part of an endless response: large, so that it costs the reader more than the fleet.
const FILLER_BYTES: usize = 64 * 1024;

pub(super) struct Shared {
    pub first: u32,
    pub serves: fn(&str) -> bool,
    state: Mutex<State>,
    pub changed: Condvar,
    pub wake: OwnedFd,
}

impl Shared {
    pub fn new(first: Ipv4Addr, serves: fn(&str) -> bool, nodes: Vec<Node>) -> Self {
        Self {
            first: u32::from(first),
            serves,
            state: Mutex::new(State {
                nodes,
                ..State::default()
            }),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd is available"),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).expect("the counter is far from full");
    }

    /// Wakes waiting threads, if there are any: each notification costs a system call.
    pub fn notify(&self, state: &State) {
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub nodes: Vec<Node>,
    pub asked: u64,
    pub accepted: u64,
    pub open: usize,
    pub most_open: usize,
    pub last_head: Vec<u8>,
    pub record: Option<Vec<(u32, Instant)>>,
    /// Requests of `/resources`, counted separately: node, target and time.
    pub resource_asks: Vec<(usize, String, Instant)>,
    pub waiters: usize,
    pub wants_listening: bool,
    pub is_listening: bool,
    pub stopping: bool,
}

#[derive(Clone)]
pub(super) struct Node {
    pub plan: Arc<Plan>,
    /// Responses to `/resources`, without and with a `model_id`. `None`: 404.
    pub resources: Option<[Arc<Plan>; 2]>,
    pub asked: u32,
    asked_before_plan: u32,
}

impl Node {
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            resources: None,
            asked: 0,
            asked_before_plan: 0,
        }
    }

    pub fn follow(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
        self.asked_before_plan = self.asked;
    }

    /// Number of the latest request within the current plan, from 1.
    pub fn ask_of_plan(&self) -> u32 {
        self.asked - self.asked_before_plan
    }
}

pub(super) struct Plan {
    pub act: Act,
    /// Whether other targets than the fleet's get 404.
    pub only_own_targets: bool,
    pub last_up: Bytes,
}

#[derive(Clone)]
pub(super) enum Act {
    Send(Bytes, Then),
    SendAfter(Duration, Bytes),
    /// `first` N times, then `last` once, repeatedly.
    Cycle {
        first: Bytes,
        times: u32,
        last: Bytes,
    },
    Reset,
    Wait,
}

/// What follows after the last byte.
#[derive(Clone)]
pub(super) enum Then {
    Close,
    Hold,
    Drip(u8),
    Repeat(Bytes),
}

impl Plan {
    pub fn of(behaviour: &Behaviour, last_up: &Bytes) -> Self {
        let mut last_up = Arc::clone(last_up);
        let close = |bytes: Vec<u8>| Act::Send(bytes.into(), Then::Close);
        let then = |bytes: &[u8], then| Act::Send(bytes.into(), then);
        let act = match behaviour {
            Behaviour::Up { pending, containers } => {
                last_up = up(*pending, containers).into();
                Act::Send(Arc::clone(&last_up), Then::Close)
            }
            Behaviour::Body(body) => close(ok(body)),
            Behaviour::Status(status) => close(failure(*status)),
            Behaviour::Answer {
                status,
                content_type,
                body,
            } => close(answer(*status, &content(content_type, body.len()), body)),
            Behaviour::Raw(bytes) => close(bytes.clone()),
            Behaviour::Redirect(location) => close(redirect(location)),
            Behaviour::CloseAtOnce => then(b"", Then::Close),
            Behaviour::Hang => then(b"", Then::Hold),
            Behaviour::HangAfterHead => {
                let head = answer(200, &content("application/json", 200), b"");
                then(&head, Then::Hold)
            }
            Behaviour::Drip => then(&endless_body(), Then::Drip(b' ')),
            Behaviour::DripHead => then(b"HTTP/1.1 200 OK\r\nX-Drip: ", Then::Drip(b'a')),
            Behaviour::Endless => then(&endless_body(), Then::Repeat(filler(b" "))),
            Behaviour::EndlessHead => then(b"HTTP/1.1 200 OK\r\n", Then::Repeat(filler(b"X-A: a\r\n"))),
            Behaviour::Slow(after) => Act::SendAfter(*after, Arc::clone(&last_up)),
            Behaviour::FailEveryOther => Act::Cycle {
                first: failure(500).into(),
                times: 1,
                last: Arc::clone(&last_up),
            },
            Behaviour::RedirectTimes(times, location) => Act::Cycle {
                first: redirect(location).into(),
                times: *times,
                last: Arc::clone(&last_up),
            },
            Behaviour::EndlessContinue => then(b"", Then::Repeat(filler(b"HTTP/1.1 100 Continue\r\n\r\n"))),
            Behaviour::Reset => Act::Reset,
            Behaviour::Wait => Act::Wait,
        };
        Self {
            act,
            only_own_targets: !matches!(behaviour, Behaviour::Redirect(_) | Behaviour::RedirectTimes(..)),
            last_up,
        }
    }
}

/// The response of infernet-node 1.4.0.
pub fn up(pending: u64, containers: &[String]) -> Vec<u8> {
    let container = |id: &String| {
        json!({
            "id": id,
            "description": format!("{id} container"),
            "external": true,
            "image": format!("ritualnetwork/{id}:latest"),
        })
    };
    let info = json!({
        "version": "1.4.0",
        "containers": containers.iter().map(container).collect::<Vec<_>>(),
        "pending": {"offchain": pending, "onchain": 0},
        "chain": {"enabled": false, "address": ""},
    });
    ok(info.to_string().as_bytes())
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer(200, &content("application/json", body.len()), body)
}

pub(super) fn failure(status: u16) -> Vec<u8> {
    if matches!(status, 100..200 | 204 | 304) {
        return answer(status, "", b"");
    }
    let body = br#"{"error":"as the test wants it"}"#;
    answer(status, &content("application/json", body.len()), body)
}

fn redirect(location: &str) -> Vec<u8> {
    let headers = format!("Location: {location}\r\nContent-Length: 0\r\n");
    answer(302, &headers, b"")
}

fn content(content_type: &str, bytes: usize) -> String {
    format!("Content-Type: {content_type}\r\nContent-Length: {bytes}\r\n")
}

fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Other" };
    let head = format!("HTTP/1.1 {status} {reason}\r\n{headers}Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn endless_body() -> Vec<u8> {
    answer(200, "Content-Type: application/json\r\n", b"{")
}

fn filler(unit: &[u8]) -> Bytes {
    unit.repeat(FILLER_BYTES / unit.len()).into()
}

/// Returns a socket that is bound to a port on all addresses and does not listen. Several sockets may share the port.
pub(super) fn bound(port: u16) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket is available");
    sockopt::set_socket_reuseport(&socket, true).expect("Linux has SO_REUSEPORT");
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).expect("a port is free");
    socket
}

pub(super) fn port_of(socket: &OwnedFd) -> u16 {
    local_addr(socket).port()
}

pub(super) fn local_addr(socket: &OwnedFd) -> SocketAddrV4 {
    let addr = net::getsockname(socket).expect("the socket is bound");
    addr.try_into().expect("the socket is an IPv4 one")
}
