//! The tiny_http worker pool. The only file that knows tiny_http.
//!
//! Its listener is an abstract socket whose name is random and can't be guessed. It is shut for good once the gate's own
//! connections are queued, for which alone its backlog has room: were another process to get in between, one of those
//! would find no place, and another listener is tried.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use tiny_http::{Request, Server};

use super::{Asked, Deferral, Service};
use crate::gate::{CLIENT_FIELD, DEFERRAL_FIELD, KNOWN_FIELD, PERSISTENCE_FIELD, WorkerPool};
use crate::response::{Body, Persistence, Response};
use crate::util::threads;

/// Private connections. tiny_http has a thread for each; its pool starts with four, so that none waits for one.
const CONNECTIONS: usize = 2;
/// Threads that answer. An answer takes some microseconds, so they are here for the connections, not for the cores.
const WORKERS: usize = 2;
/// tiny_http's own: one that accepts, and a pool of at least four.
const TINY_HTTP_THREADS: usize = 5;
/// What each private connection is asked first. Without a client it is no client's request.
const GREETING: &[u8] = b"OPTIONS * HTTP/1.1\r\n\r\n";
const GREETING_ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// For the answer to that: some milliseconds, or a busy machine.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a name is tried before it is given up.
const MAX_ATTEMPTS: usize = 8;

/// Starts workers and opens private connections to them.
///
/// # Errors
/// When the system has no room for a socket or a thread.
pub(crate) fn spawn(service: &Arc<Service>) -> io::Result<WorkerPool> {
    threads::check_room(TINY_HTTP_THREADS + WORKERS)?;
    let (listener, connections) = private_listener()?;
    // It starts threads, and panics where there is no room for them: another process may have taken it meanwhile.
    let server = catch_unwind(|| Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("tiny_http did not start"))?
        .map_err(io::Error::other)?;
    // Never dropped: tiny_http's `drop` wakes its accept thread through a path name, and panics where the listener has
    // none. Ours has none, and its accept thread ended when the listener was shut. What stays behind is a queue of
    // some hundred bytes, each time the workers are lost.
    let server: &'static Server = Box::leak(Box::new(server));
    let closing = Arc::new(AtomicBool::new(false));
    let is_closing = Arc::clone(&closing);
    let mut pool = WorkerPool::new(move || {
        is_closing.store(true, Ordering::Release);
        // Each call wakes one.
        (0..WORKERS).for_each(|_| server.unblock());
    });
    for _ in 0..WORKERS {
        let (closing, service) = (Arc::clone(&closing), Arc::clone(service));
        pool.push(threads::spawn("worker", move || run(server, &closing, &service))?);
    }
    connections.iter().try_for_each(greet)?;
    pool.connect(connections);
    Ok(pool)
}

/// Waits until a private connection is served: tiny_http's threads begin at their own time, and whatever else takes
/// threads has to come after them.
fn greet(mut stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
    stream.write_all(GREETING)?;
    let mut answer = [0; GREETING_ANSWER.len()];
    stream.read_exact(&mut answer)?;
    stream.set_nonblocking(true)?;
    match answer == GREETING_ANSWER {
        true => Ok(()),
        false => Err(io::Error::other("tiny_http does not answer as it should")),
    }
}

/// Answers until it is woken at the end; what waits before the wake-up is thrown away then, with its descriptors.
fn run(server: &Server, closing: &AtomicBool, service: &Service) {
    loop {
        match server.recv() {
            Ok(request) if closing.load(Ordering::Acquire) => drop(request.into_writer()),
            Ok(request) => respond(request, service),
            Err(_) if closing.load(Ordering::Acquire) => return,
            // tiny_http's word that its listener is shut, which we did.
            Err(_) => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn respond(request: Request, service: &Service) {
    let field = |name: &'static str| {
        let header = request.headers().iter().find(|header| header.field.equiv(name));
        header.map_or("", |header| header.value.as_str())
    };
    let Ok(client) = field(CLIENT_FIELD).parse() else {
        return send(request, GREETING_ANSWER);
    };
    let method = request.method().to_string();
    let asked = Asked {
        method: &method,
        target: request.url(),
        client,
        is_client_known: field(KNOWN_FIELD).is_empty(),
        deferral: match field(DEFERRAL_FIELD) {
            "more" => Deferral::More,
            "over" => Deferral::Over,
            _ => Deferral::First,
        },
    };
    let reply = catch_unwind(AssertUnwindSafe(|| service.answer(asked, Instant::now())))
        .unwrap_or_else(|_| Response::error(500, "Internal error"));
    let persistence = match field(PERSISTENCE_FIELD) {
        "" => Persistence::Persist,
        "keep-alive" => Persistence::KeepAlive,
        _ => Persistence::Close,
    };
    let body = if method == "HEAD" { Body::Count } else { Body::Send };
    let bytes = reply.to_bytes(body, persistence, SystemTime::now());
    send(request, &bytes);
}

fn send(request: Request, bytes: &[u8]) {
    // In one piece: tiny_http's own Response makes three writes of it, and adds a Server line.
    let mut writer = request.into_writer();
    if let Err(error) = writer.write_all(bytes).and_then(|()| writer.flush()) {
        log::debug!("an answer found no gate: {error}");
    }
}

/// A listener from which exactly the returned connections will be accepted.
fn private_listener() -> io::Result<(UnixListener, Vec<UnixStream>)> {
    for _ in 0..MAX_ATTEMPTS {
        let listener = socket(SocketFlags::empty())?;
        let addr = SocketAddrUnix::new_abstract_name(random_name().as_bytes())?;
        rustix::net::bind(&listener, &addr)?;
        // The kernel lets one more wait than it is told.
        rustix::net::listen(&listener, CONNECTIONS as i32 - 1)?;
        let connect = |_| {
            let stream = socket(SocketFlags::NONBLOCK)?;
            rustix::net::connect(&stream, &addr)?;
            Ok(UnixStream::from(stream))
        };
        let connections: Result<Vec<UnixStream>, Errno> = (0..CONNECTIONS).map(connect).collect();
        // No one else gets in from here on; those that are in will be accepted.
        rustix::net::shutdown(&listener, Shutdown::Both)?;
        match connections {
            Ok(connections) => return Ok((UnixListener::from(listener), connections)),
            Err(Errno::AGAIN) => log::error!("another process has tried to reach the workers; trying another name"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("no private way to the workers"))
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags | SocketFlags::CLOEXEC,
        None,
    )
}

fn random_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!(
        "infernet-router-{:016x}{:016x}",
        RandomState::new().hash_one(1),
        RandomState::new().hash_one(2)
    )
}
