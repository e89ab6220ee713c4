//! The tiny_http worker pool. The only file that knows tiny_http.
//!
//! tiny_http listens on an abstract socket with a random name. The socket is shut permanently once the gate's
//! connection is queued, and its backlog has room for only that one: if another process takes the slot, another
//! listener is tried.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use tiny_http::{Method, Request, Server};

use super::Service;
use crate::gate::{Context, Exchange, Outcome, WorkerPool};
use crate::response::Response;
use crate::util::threads;

/// Threads that respond. A response takes some microseconds, so there is no use for more.
const WORKERS: usize = 2;
/// tiny_http's threads: one accepts, and at least four are in its pool, of which one reads the private connection.
const TINY_HTTP_THREADS: usize = 5;
/// Listeners that are tried.
const MAX_ATTEMPTS: usize = 8;

/// Starts workers and opens a private connection to them.
///
/// # Errors
/// The system has no room for a socket or a thread.
pub(crate) fn spawn(service: &Arc<Service>) -> io::Result<WorkerPool> {
    threads::check_room(TINY_HTTP_THREADS + WORKERS)?;
    let (listener, connection) = private_listener()?;
    let exchange = Arc::new(Exchange::new()?);
    // It starts threads, and panics if there is no room for them: another process may have taken it meanwhile.
    let server = catch_unwind(|| Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("tiny_http did not start"))?
        .map_err(io::Error::other)?;
    // Never dropped: tiny_http's `drop` wakes its accept thread through a path name, and panics if the listener has
    // none. This one has none, and its accept thread exited when the listener was shut. Each lost pool leaves a queue
    // of some hundred bytes behind.
    let (server, closing): &'static (Server, AtomicBool) = Box::leak(Box::new((server, AtomicBool::new(false))));
    let mut pool = WorkerPool::new(connection, Arc::clone(&exchange), || {
        closing.store(true, Ordering::Release);
        // Each call wakes one.
        (0..WORKERS).for_each(|_| server.unblock());
    });
    for _ in 0..WORKERS {
        let (service, exchange) = (Arc::clone(service), Arc::clone(&exchange));
        pool.push(threads::spawn("worker", move || {
            run(server, closing, &service, &exchange)
        })?);
    }
    pool.greet()?;
    Ok(pool)
}

/// Responds until it is woken at the end. Requests that are queued before the wake-up are discarded then, with their
/// descriptors.
fn run(server: &Server, closing: &AtomicBool, service: &Service, exchange: &Exchange) {
    loop {
        match server.recv() {
            Ok(request) if closing.load(Ordering::Acquire) => drop(request.into_writer()),
            Ok(request) => respond(request, service, exchange),
            Err(_) if closing.load(Ordering::Acquire) => return,
            // tiny_http reports that its listener is shut, which `private_listener` did.
            Err(_) => {}
        }
    }
}

fn respond(request: Request, service: &Service, exchange: &Exchange) {
    let split = request.url().rsplit_once('#');
    if let Some((target, ticket)) = split.and_then(|(target, ticket)| Some((target, ticket.parse().ok()?))) {
        // The gate's greeting has no context.
        let context = exchange.take(ticket);
        let outcome = context.and_then(|context| outcome(request.method(), target, &context, service));
        exchange.give_back(ticket, outcome);
    }
    // Unused: without this, tiny_http would respond itself.
    drop(request.into_writer());
}

#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn outcome(method: &Method, target: &str, context: &Context, service: &Service) -> Outcome {
    let answer = || service.answer(method.as_str(), target, context, Instant::now());
    let response = catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| Response::error(500, "Internal error"));
    let is_head = *method == Method::Head;
    let bytes = || response.to_bytes(is_head, context.persistence, &context.cors, SystemTime::now());
    (!response.is_deferred()).then(bytes)
}

/// A listener from which only the returned connection will be accepted. The connection does not block.
fn private_listener() -> io::Result<(UnixListener, UnixStream)> {
    for _ in 0..MAX_ATTEMPTS {
        let listener = socket(SocketFlags::empty())?;
        let random = RandomState::new();
        let name = format!("infernet-router-{:016x}{:016x}", random.hash_one(1), random.hash_one(2));
        let addr = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        rustix::net::bind(&listener, &addr)?;
        // The kernel queues one more than the backlog.
        rustix::net::listen(&listener, 0)?;
        let connection = socket(SocketFlags::NONBLOCK)?;
        let connected = rustix::net::connect(&connection, &addr);
        // No other process gets in from here on; what is queued will be accepted.
        rustix::net::shutdown(&listener, Shutdown::Both)?;
        match connected {
            Ok(()) => return Ok((UnixListener::from(listener), UnixStream::from(connection))),
            Err(Errno::AGAIN) => log::error!("private listener taken: another process connected to it, retrying"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("no private connection to the workers"))
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags | SocketFlags::CLOEXEC,
        None,
    )
}
