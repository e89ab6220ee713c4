//! Requests on their way to a worker and back. tiny_http brings the worker a method, a target and a ticket. The rest of
//! the request waits here under the ticket, and the outcome comes back here.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::response::{Deferral, Persistence};

/// Requests that are with the workers at most. Further requests wait at the gate, where they can still be refused.
pub(super) const MAX_IN_FLIGHT: usize = 64;

/// What the gate knows of a request besides its method and target.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) client: IpAddr,
    /// False if the request came through a proxy that is not trusted or does not name its client.
    pub(crate) is_client_known: bool,
    pub(crate) deferral: Deferral,
    pub(crate) persistence: Persistence,
    /// Header lines for the response, each with its end.
    pub(crate) cors: String,
}

/// A request between its header section and its response.
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
}

/// What a worker made of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response as the client receives it.
    Responded(Vec<u8>),
    /// More will be known in a moment.
    Deferred,
}

/// Connects one pool of workers with the gate.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// By ticket.
    contexts: [Mutex<Option<Context>>; MAX_IN_FLIGHT],
    /// At most one for each ticket.
    outcomes: Mutex<Vec<(usize, Outcome)>>,
    /// Reports that outcomes have arrived. Never read: the gate watches it for changes.
    wake: OwnedFd,
}

impl Exchange {
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            contexts: [const { Mutex::new(None) }; MAX_IN_FLIGHT],
            outcomes: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(super) fn put(&self, ticket: usize, context: Context) {
        *lock(&self.contexts[ticket]) = Some(context);
    }

    /// Takes the context of a ticket, which is there once.
    pub(crate) fn take(&self, ticket: usize) -> Option<Context> {
        self.contexts.get(ticket).and_then(|context| lock(context).take())
    }

    /// Returns a ticket with its outcome. Wakes the gate if there was none.
    pub(crate) fn give_back(&self, ticket: usize, outcome: Outcome) {
        let mut outcomes = lock(&self.outcomes);
        outcomes.push((ticket, outcome));
        let is_first = outcomes.len() == 1;
        drop(outcomes);
        if is_first && let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            log::error!(reason:% = error; "gate not woken: responses are late");
        }
    }

    pub(super) fn take_outcomes(&self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut *lock(&self.outcomes))
    }
}

/// The data is valid after each statement, even if a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
