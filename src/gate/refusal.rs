//! The reasons for which the gate itself refuses requests and connections, with their responses.

use std::borrow::Cow;

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
        let (status, _, message) = self.parts();
        let error = Response::error(status, &message);
        match status {
            502 | 503 => error.with("Retry-After", "1"),
            _ => error,
        }
    }

    /// The status, the label in `/metrics`, and the message.
    pub(crate) fn parts(self) -> (u16, Refused, Cow<'static, str>) {
        match self {
            Refusal::Malformed(what) => (400, Refused::Malformed, format!("Malformed request: {what}").into()),
            Refusal::Late => (408, Refused::Late, "The request was not complete in time".into()),
            Refusal::Body => (413, Refused::Body, "A request with this method has no body".into()),
            Refusal::TargetTooLong => {
                let message = format!("A request line has less than {MAX_HEAD_BYTES} bytes");
                (414, Refused::TooLong, message.into())
            }
            Refusal::TooLong => {
                let message = format!("A request head has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers");
                (431, Refused::TooLong, message.into())
            }
            Refusal::Lost => (502, Refused::Lost, "The answer was lost".into()),
            Refusal::Busy => (503, Refused::Busy, "The router is busy".into()),
            Refusal::Full => (503, Refused::Full, "The router is busy".into()),
            Refusal::Share => (503, Refused::Share, "Too many connections from this address".into()),
            Refusal::Version => (505, Refused::Version, "Expected HTTP/1.1 or HTTP/1.0".into()),
        }
    }
}
