//! Finds the nodes that support a model: one survey per model id, shared by all clients that request it.
//!
//! Opens no socket and starts no thread. Its driver plans the new rounds, sends the queries and reports the responses.
//! No lock is held while nodes are walked, so a worker never waits for long.

mod new_ids;
mod queries;
mod surveys;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::client::Client;
use crate::metrics::Metrics;
use crate::node::NodeAddr;
pub(crate) use queries::MAX_IN_FLIGHT;
use surveys::Surveys;

/// What a request with a `model_id` gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A response with what is known: nothing more will come for now.
    Ready,
    /// A deferral: more responses may arrive within 2 s.
    Later,
    /// A refusal: the budget for new ids is used up for this time.
    Refused(Duration),
}

/// A query to send to a node. It is in flight until [`Surveys::answered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: Arc<str>,
    pub(crate) addr: NodeAddr,
}

/// All surveys, shared by the workers and the driver.
#[derive(Debug)]
pub(crate) struct Models {
    surveys: Mutex<Surveys>,
    wake: Sender<()>,
    /// Receives when a round begins: wakes the driver.
    pub(crate) woken: Receiver<()>,
    metrics: Arc<Metrics>,
}

impl Models {
    /// Without any survey.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let (wake, woken) = bounded(1);
        Self {
            surveys: Mutex::default(),
            wake,
            woken,
            metrics,
        }
    }

    /// All surveys. Each change is complete or not begun, whatever panicked elsewhere.
    pub(crate) fn surveys(&self) -> MutexGuard<'_, Surveys> {
        self.surveys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a model: begins a survey or a round of it if one is due.
    pub(crate) fn request(&self, id: &str, client: Client, now: Instant) -> Step {
        let (step, outcome) = self.surveys().request(id, client, now);
        self.metrics.surveys[outcome].add(1);
        if step == Step::Later {
            // A full channel has woken the driver already.
            let _ = self.wake.try_send(());
        }
        step
    }

    /// Selects the nodes that each new round queries: the earliest to finish of `nodes`, each with its order.
    /// Collects and sorts the nodes without a lock, and only if a query may be sent now.
    pub(crate) fn plan(&self, nodes: impl FnOnce() -> Vec<(u64, NodeAddr)>, now: Instant) {
        if self.surveys().is_plan_due(now) {
            let mut nodes = nodes();
            nodes.sort_unstable_by_key(|(order, _)| *order);
            self.surveys().plan(&nodes, now);
        }
    }
}
