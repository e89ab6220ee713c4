//! Bounds the memory of responses that clients do not read, here and in the kernel: 24 MiB with 512 connections.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use thunderdome::Index as Key;

use super::{Clients, Socket};
use crate::gate::SEND_BUFFER_BYTES;
use crate::gate::connection::limits::{LINGER_TIMEOUT, MIN_WRITE};
use crate::metrics::Refused;

/// Unsent bytes of all responses: a long one for each of a dozen slow readers. The gate evicts readers above the limit.
const MAX_UNSENT_BYTES: usize = 12 * 1024 * 1024;
/// The send buffer for a client that takes a long response, which the kernel doubles: the small one limits a client 100
/// ms away to 80 kB/s.
const LARGE_BUFFER_BYTES: usize = 32 * 1024;
/// Connections with such a buffer. They hold 5 MiB in the kernel.
const MAX_LARGE_BUFFERS: usize = 64;

impl Clients {
    /// Gives a connection a large send buffer, if its client takes a long response.
    pub(super) fn enlarge_buffer(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.write_bytes == SEND_BUFFER_BYTES
            && self.large_buffers < MAX_LARGE_BUFFERS
            && socket.connection.unsent().len() > SEND_BUFFER_BYTES
            && sockopt::set_socket_send_buffer_size(&socket.stream, LARGE_BUFFER_BYTES).is_ok()
        {
            socket.write_bytes = LARGE_BUFFER_BYTES;
            self.large_buffers += 1;
        }
    }

    /// Closes connections until the unsent responses are within [`MAX_UNSENT_BYTES`]: first connections that have made no
    /// progress for [`MIN_WRITE`], then those with the most unsent bytes. The newest connection is kept.
    pub(super) fn evict_readers(&mut self, newest: Key, now: Instant) {
        while self.unsent > MAX_UNSENT_BYTES {
            let others = self.sockets.iter().filter(|(key, _)| *key != newest);
            let readers = others.filter_map(|(key, Socket { connection, .. })| {
                let unsent = connection.unsent().len();
                let is_stuck = connection.age(now) >= MIN_WRITE;
                (unsent > 0).then_some(((is_stuck, unsent), key))
            });
            let Some((_, key)) = readers.max() else {
                return;
            };
            self.close(key, Some(Refused::SlowReader));
        }
    }
}

impl Socket {
    /// Has the kernel discard what the client has not read when the socket closes. By default the kernel keeps it until
    /// the client reads or the retries end, which takes minutes.
    pub(super) fn discard_unread(&self) {
        let Self { stream, connection, .. } = self;
        let is_short = connection.unsent().is_empty() && (!connection.may_hold_unread() || self.is_drained());
        // Neither option can be refused.
        let _ = match is_short {
            true => sockopt::set_tcp_user_timeout(stream, LINGER_TIMEOUT.as_millis() as u32),
            false => sockopt::set_socket_linger(stream, Some(Duration::ZERO)),
        };
    }

    /// Whether the kernel has next to nothing left to send. A connection that lingers may have: its reset reaches no
    /// client that has closed both sides.
    fn is_drained(&self) -> bool {
        // A socket is writable while two thirds of its buffer are free, here of the smallest one, some 4 KiB.
        let mut writable = [PollFd::new(&self.stream, PollFlags::OUT)];
        !self.connection.is_lingering()
            && sockopt::set_socket_send_buffer_size(&self.stream, 0).is_ok()
            && matches!(poll(&mut writable, Some(&Timespec::default())), Ok(1))
    }
}
