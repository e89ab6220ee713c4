//! Requests on their way to a worker and back. tiny_http brings the worker a method, a target and a ticket. The rest of
//! the request waits here under the ticket, and the outcome comes back here.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::response::{Deferral, Persistence};

/// Requests that are with the workers at most. Further requests wait at the gate, where they can still be refused.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// A response takes microseconds. A worker that takes this long is stuck, and its pool is replaced.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the gate knows of a request besides its method and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) client: IpAddr,
    /// False if the request came through a proxy that is not trusted or does not name its client.
    pub(crate) is_client_known: bool,
    pub(crate) deferral: Deferral,
    pub(crate) persistence: Persistence,
    /// Header lines for the response, each with its end.
    pub(crate) cors: String,
}

/// The response as the client receives it. `None` defers the request: more will be known in a moment.
pub(crate) type Outcome = Option<Vec<u8>>;

/// Connects one pool of workers with the gate.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// By ticket. At most [`MAX_IN_FLIGHT`], as of the outcomes.
    contexts: Mutex<HashMap<u64, Context>>,
    outcomes: Mutex<Vec<(u64, Outcome)>>,
    /// Reports that outcomes have arrived. Never read: the gate watches it for changes.
    wake: OwnedFd,
}

impl Exchange {
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            contexts: Mutex::default(),
            outcomes: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(super) fn put(&self, ticket: u64, context: Context) {
        lock(&self.contexts).insert(ticket, context);
    }

    /// Takes the context of a ticket, which is there once.
    pub(crate) fn take(&self, ticket: u64) -> Option<Context> {
        lock(&self.contexts).remove(&ticket)
    }

    /// Returns a ticket with its outcome. Wakes the gate if there was none.
    pub(crate) fn give_back(&self, ticket: u64, outcome: Outcome) {
        let mut outcomes = lock(&self.outcomes);
        outcomes.push((ticket, outcome));
        let is_first = outcomes.len() == 1;
        drop(outcomes);
        if is_first && let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            log::error!(reason:% = error; "gate not woken: responses are late");
        }
    }

    pub(super) fn take_outcomes(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut *lock(&self.outcomes))
    }
}

/// The data is valid after each statement, even if a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
