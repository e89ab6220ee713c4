//! Why the gate itself answers, and what it then says.

use std::fmt;

use super::head::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::metrics::Refused;
use crate::response::Response;

/// Why a request is not handed on, or not answered by a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400, with what is wrong.
    Malformed(&'static str),
    /// 408
    Late,
    /// 413
    Body,
    /// 414
    TargetTooLong,
    /// 431
    TooLong,
    /// 503: no worker was free for long, or the place went to another client.
    Busy,
    /// 503: all places are taken.
    Full,
    /// 503: the client holds its whole share of the connections.
    Share,
    /// 502: what was to answer is gone.
    Lost,
    /// 505
    Version,
}

impl Refusal {
    pub(crate) fn reply(self) -> Response {
        let error = Response::error(self.status(), &self.to_string());
        match self {
            Refusal::Busy | Refusal::Full | Refusal::Share | Refusal::Lost => error.with("Retry-After", "1"),
            _ => error,
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Late => 408,
            Refusal::Body => 413,
            Refusal::TargetTooLong => 414,
            Refusal::TooLong => 431,
            Refusal::Lost => 502,
            Refusal::Busy | Refusal::Full | Refusal::Share => 503,
            Refusal::Version => 505,
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

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(_) => Refused::Malformed,
            Refusal::Late => Refused::Late,
            Refusal::Body => Refused::Body,
            Refusal::TargetTooLong | Refusal::TooLong => Refused::TooLong,
            Refusal::Busy => Refused::Busy,
            Refusal::Full => Refused::Full,
            Refusal::Share => Refused::Share,
            Refusal::Lost => Refused::Lost,
            Refusal::Version => Refused::Version,
        }
    }
}
