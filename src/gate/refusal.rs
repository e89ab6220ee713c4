//! The reasons for which the gate itself refuses requests and connections, with their responses.

use crate::metrics::Refused;
use crate::response::Response;

/// Longest header section, request line included, as nginx has it. Real ones are a few hundred bytes; 64 container ids
/// fit.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Most header lines, as HAProxy has it.
pub(crate) const MAX_HEADERS: usize = 100;

/// Why a request does not reach a worker, or gets no response from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The label in `/metrics`.
    pub(crate) label: Refused,
    message: &'static str,
}

impl Refusal {
    pub(crate) const LATE: Self = Self::new(408, Refused::Late, "The request was not complete in time");
    pub(crate) const BODY: Self = Self::new(413, Refused::Body, "A request with this method has no body");
    pub(crate) const TARGET: Self = Self::new(414, Refused::TooLong, "A request line has less than 8192 bytes");
    pub(crate) const HEAD: Self = Self::new(
        431,
        Refused::TooLong,
        "A request head has at most 8192 bytes and 100 headers",
    );
    /// The worker or its response is lost.
    pub(crate) const LOST: Self = Self::new(502, Refused::Lost, "The answer was lost");
    /// No ticket was free in time, or the connection was evicted.
    pub(crate) const BUSY: Self = Self::new(503, Refused::Busy, "The router is busy");
    /// All connections are in use.
    pub(crate) const FULL: Self = Self::new(503, Refused::Full, "The router is busy");
    /// The client is at its connection share.
    pub(crate) const SHARE: Self = Self::new(503, Refused::Share, "Too many connections from this address");
    pub(crate) const VERSION: Self = Self::new(505, Refused::Version, "Expected HTTP/1.1 or HTTP/1.0");

    /// 400, with the invalid part.
    pub(crate) const fn malformed(part: &'static str) -> Self {
        Self::new(400, Refused::Malformed, part)
    }

    const fn new(status: u16, label: Refused, message: &'static str) -> Self {
        Self { status, label, message }
    }

    pub(crate) fn message(self) -> String {
        match self.status {
            400 => format!("Malformed request: {}", self.message),
            _ => self.message.to_owned(),
        }
    }

    pub(crate) fn response(self) -> Response {
        let error = Response::error(self.status, &self.message());
        match self.status {
            502 | 503 => error.with("Retry-After", "1"),
            _ => error,
        }
    }
}
