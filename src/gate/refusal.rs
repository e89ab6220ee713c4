//! The reasons for which the gate itself refuses requests and connections, with their responses.

use std::fmt;

use crate::metrics::Refused;
use crate::response::Response;

/// Longest header section, request line included, as nginx has it. Real ones are a few hundred bytes; 64 container ids
/// fit.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Most header lines, as HAProxy has it.
pub(crate) const MAX_HEADERS: usize = 100;

/// Why a request does not reach a worker, or gets no response from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400, with the invalid part.
    Malformed(&'static str),
    /// 408
    Late,
    /// 413
    Body,
    /// 414
    TargetTooLong,
    /// 431
    TooLong,
    /// 503: no ticket was free in time, or the connection was evicted.
    Busy,
    /// 503: all connections are in use.
    Full,
    /// 503: the client is at its connection share.
    Share,
    /// 502: the worker or its response is lost.
    Lost,
    /// 505
    Version,
}

impl Refusal {
    pub(crate) fn response(self) -> Response {
        let (status, _) = self.kind();
        let error = Response::error(status, &self.to_string());
        match status {
            502 | 503 => error.with("Retry-After", "1"),
            _ => error,
        }
    }

    /// The status, and the label in `/metrics`.
    pub(crate) fn kind(self) -> (u16, Refused) {
        match self {
            Refusal::Malformed(_) => (400, Refused::Malformed),
            Refusal::Late => (408, Refused::Late),
            Refusal::Body => (413, Refused::Body),
            Refusal::TargetTooLong => (414, Refused::TooLong),
            Refusal::TooLong => (431, Refused::TooLong),
            Refusal::Lost => (502, Refused::Lost),
            Refusal::Busy => (503, Refused::Busy),
            Refusal::Full => (503, Refused::Full),
            Refusal::Share => (503, Refused::Share),
            Refusal::Version => (505, Refused::Version),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(what) => write!(f, "Malformed request: {what}"),
            Refusal::Late => f.write_str("The request was not complete in time"),
            Refusal::Body => f.write_str("A request with this method has no body"),
            Refusal::TargetTooLong => write!(f, "A request line has less than {MAX_HEAD_BYTES} bytes"),
            Refusal::TooLong => write!(
                f,
                "A request head has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers"
            ),
            Refusal::Busy | Refusal::Full => f.write_str("The router is busy"),
            Refusal::Share => f.write_str("Too many connections from this address"),
            Refusal::Lost => f.write_str("The answer was lost"),
            Refusal::Version => f.write_str("Expected HTTP/1.1 or HTTP/1.0"),
        }
    }
}
