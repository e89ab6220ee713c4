//! A request between its head and its answer: what is kept of it, and what the workers are sent.

use std::net::IpAddr;
use std::time::Instant;

use super::head::Request;
use super::{CLIENT_FIELD, DEFERRAL_FIELD, KNOWN_FIELD, PERSISTENCE_FIELD};
use crate::response::Persistence;

/// A request that the workers are to answer.
#[derive(Debug)]
pub(super) struct InFlight {
    /// As the workers read it, but for the end of its head.
    pub(super) canonical: String,
    /// What it says of having been put off; nothing before it was.
    pub(super) deferral: Option<&'static str>,
    pub(super) number: u32,
    pub(super) is_head: bool,
    pub(super) begun: Instant,
    pub(super) stranger: Option<IpAddr>,
    /// Whether the connection ends behind its answer.
    pub(super) is_last: bool,
    /// Header lines of [`cors`](super::cors) for its answer.
    pub(super) cors: String,
}

impl InFlight {
    /// What is sent to the workers now.
    pub(super) fn to_forward(&self) -> Forward {
        let Self { canonical, .. } = self;
        Forward {
            bytes: match self.deferral {
                None => format!("{canonical}\r\n"),
                Some(deferral) => format!("{canonical}{DEFERRAL_FIELD}: {deferral}\r\n\r\n"),
            },
            number: self.number,
            is_head: self.is_head,
            begun: self.begun,
            stranger: self.stranger,
        }
    }
}

/// A request for the workers.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) bytes: String,
    pub(super) number: u32,
    /// The answer to a HEAD has no body, whatever its length says.
    pub(super) is_head: bool,
    /// When its head was complete.
    pub(super) begun: Instant,
    /// Whose proxy it came through, where that one is not trusted.
    pub(super) stranger: Option<IpAddr>,
}

/// A request as the workers read it, without the empty line at its end: nothing else of what a client sent, and only what
/// is not as usual, since tiny_http takes its time for each line.
pub(super) fn canonical(request: &Request, client: IpAddr, is_known: bool, persistence: Persistence) -> String {
    let Request { method, target, .. } = request;
    let mut head = format!("{method} {target} HTTP/1.1\r\n{CLIENT_FIELD}: {client}\r\n");
    let more = [
        (!is_known).then_some((KNOWN_FIELD, "no")),
        match persistence {
            Persistence::Persist => None,
            Persistence::KeepAlive => Some((PERSISTENCE_FIELD, "keep-alive")),
            Persistence::Close => Some((PERSISTENCE_FIELD, "close")),
        },
    ];
    for (name, value) in more.into_iter().flatten() {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head
}
