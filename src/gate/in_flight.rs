//! A request between its header section and its response.

use std::time::Instant;

use super::exchange::Context;
use crate::response::Persistence;

/// A request that waits for the response of a worker.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Method and target, such as `GET /health`.
    pub(super) line: String,
    pub(super) context: Context,
    /// Counts the requests of the connection.
    pub(super) number: u32,
    /// When its header section was complete.
    pub(super) begun: Instant,
}

impl InFlight {
    /// Whether the response has no body.
    pub(super) fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }

    /// Whether the connection closes after the response.
    pub(super) fn is_last(&self) -> bool {
        self.context.persistence == Persistence::Close
    }
}
