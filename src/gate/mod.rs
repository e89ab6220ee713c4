//! The public port: accepts connections, bounds them in number, time and size, and passes valid requests to the
//! workers.
//!
//! One request can stop bare tiny_http (upstream PR 290, closed), which has no limits or deadlines (upstream issue 143,
//! open since 2018). Hence the gate owns the public port. One thread with epoll owns all client connections. tiny_http
//! gets only a validated method, path and query, with a ticket, over a private connection. When upstream gets limits
//! and deadlines, the gate can be removed.
//!
//! `event_loop` waits for events. It passes events of clients to `clients`, which owns the sockets and drives each
//! `connection`, a pure state machine over `head`, `forwarded`, `cors` and `refusal`. It passes requests to
//! `worker_pool`. The workers take their context from its exchange and return the response there.

mod clients;
mod connection;
mod cors;
mod event_loop;
mod forwarded;
mod head;
mod refusal;
mod worker_pool;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SocketAddrAny, SocketFlags, SocketType, sockopt};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::util::threads::{self, Alarm, Joined};
use event_loop::EventLoop;
pub(crate) use head::Context;
pub(crate) use worker_pool::{Exchange, Outcome, Spawn, WorkerPool};

/// Connections in the kernel's queue. Clients above the limit connect a second later. A shutdown accepts at most these,
/// since a flood has no end.
const BACKLOG: usize = 4096;
/// The send buffer in the kernel of each new connection, and the size of one write: the kernel checks its limit
/// only between writes. It doubles the value. 512 connections that do not read hold some 6 MiB there.
const SEND_BUFFER_BYTES: usize = 4 * 1024;
/// The receive buffer: a header section in one read. Without a limit the kernel takes megabytes of pipelined requests.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;

/// A gate. Dropping it completes the requests in flight and closes the port.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Joined before the shutdown event is closed: epoll reports nothing of a closed descriptor.
    _thread: Joined,
    shutdown: OwnedFd,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Written once, so it has room.
        let _ = rustix::io::write(&self.shutdown, &1_u64.to_ne_bytes());
    }
}

/// Binds the public port. Connections wait in the kernel's backlog.
///
/// # Errors
/// The address is in use or cannot be bound.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = SocketAddrAny::from(addr).address_family();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        // `::` accepts IPv4 too, whatever the system's `bindv6only`.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG as i32)?;
    // Accepted connections inherit it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
    Ok(TcpListener::from(socket))
}

/// Takes all threads and descriptors that serving needs, before probes can take them. Clients wait in the kernel's
/// backlog until `may_begin` returns. If it returns false, the gate never serves.
///
/// # Errors
/// The workers cannot be started, or the system has no room for a thread.
pub(crate) fn prepare(
    listener: TcpListener,
    config: Config,
    spawn: Spawn,
    metrics: Arc<Metrics>,
    may_begin: impl FnOnce() -> bool + Send + 'static,
    alarm: &Alarm,
) -> io::Result<Serving> {
    let shutdown = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let event_loop = EventLoop::new(listener, &shutdown, config, spawn, metrics)?;
    let thread = threads::spawn_vital("gate", alarm, move || {
        if may_begin() {
            event_loop.run();
        }
    })?;
    Ok(Serving {
        _thread: thread,
        shutdown,
    })
}
