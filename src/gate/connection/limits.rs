//! The limits of a client connection, in time and size.

use std::time::{Duration, Instant};

/// For the whole header section, from its first byte or the accept.
pub(in crate::gate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a client to take a response, before [`MIN_BYTES_PER_SECOND`] applies.
pub(in crate::gate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The gate disconnects a reader that is slower than this, on average since its response began and after
/// [`WRITE_TIMEOUT`].
const MIN_BYTES_PER_SECOND: usize = 10 * 1024;
/// Bytes of a response that may be in the kernel instead of with the client, which earn no time. At
/// [`MIN_BYTES_PER_SECOND`] a client takes them within [`WRITE_TIMEOUT`].
const MAX_KERNEL_BYTES: usize = 80 * 1024;
/// A connection that has sent no more than this in all is closed as usual, whether the client has read it or not.
pub(super) const SMALL_BYTES: usize = 1024;
/// A complete request waits this long at most for a ticket.
pub(in crate::gate) const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// A response takes microseconds. A worker that takes this long is stuck, and its pool is replaced.
pub(in crate::gate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After the last response, bytes that the client still sends are discarded for this time, so that no reset overtakes
/// the response (RFC 9112, section 9.6).
pub(in crate::gate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are discarded. Further bytes remain unread until the time is over.
pub(in crate::gate) const MAX_LINGER_BYTES: usize = 256 * 1024;
/// A header section may take this long before its connection can be evicted for a client with as many connections: new
/// connections would otherwise only close one another.
pub(in crate::gate) const MIN_WAIT: Duration = Duration::from_millis(20);
/// The same for a response without progress: clients that never read would otherwise keep all others out.
pub(in crate::gate) const MIN_WRITE: Duration = Duration::from_secs(1);
/// An idle connection keeps no buffer larger than this.
pub(super) const MAX_SPARE_BYTES: usize = 1024;
/// Requests on one connection, as in nginx. A client that reconnects is counted again.
pub(in crate::gate) const MAX_REQUESTS: u32 = 1_000;

/// When a client that has been sent this much must have taken more.
pub(super) fn write_deadline(begun: Instant, sent: usize) -> Instant {
    let taken = sent.saturating_sub(MAX_KERNEL_BYTES);
    begun + WRITE_TIMEOUT + Duration::from_millis((taken * 1_000 / MIN_BYTES_PER_SECOND) as u64)
}
