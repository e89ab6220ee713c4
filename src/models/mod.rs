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
use crate::node::{Entries, NodeAddr, Source};
use crate::registry::ResourceReport;
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

/// A query to send to a node. It is in flight until [`Models::answered`].
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
    woken: Receiver<()>,
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

    /// Receives when a round begins: wakes the driver.
    pub(crate) fn woken(&self) -> &Receiver<()> {
        &self.woken
    }

    /// Each change is complete or not begun, whatever panicked elsewhere.
    fn lock(&self) -> MutexGuard<'_, Surveys> {
        self.surveys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a model: begins a survey or a round of it if one is due.
    pub(crate) fn request(&self, id: &str, client: Client, now: Instant) -> Step {
        let (step, outcome) = self.lock().request(id, client, now);
        self.metrics.surveys[outcome].add(1);
        if step == Step::Later {
            // A full channel has woken the driver already.
            let _ = self.wake.try_send(());
        }
        step
    }

    /// Returns whether a round of this id is in progress.
    pub(crate) fn is_in_progress(&self, id: &str) -> bool {
        self.lock().is_in_progress(id)
    }

    /// Returns the nodes' entries for a model, in no order.
    pub(crate) fn answers(&self, id: &str, now: Instant) -> Vec<(NodeAddr, Arc<Entries>)> {
        self.lock().answers(id, now)
    }

    /// Selects the nodes that each new round queries: the earliest to finish of `nodes`, each with its order.
    /// Collects and sorts the nodes without a lock, and only if a query may be sent now.
    pub(crate) fn plan(&self, nodes: impl FnOnce() -> Vec<(u64, NodeAddr)>, now: Instant) {
        if self.lock().is_plan_due(now) {
            let mut nodes = nodes();
            nodes.sort_unstable();
            self.lock().plan(&nodes, now);
        }
    }

    /// Returns the next query to a node that `is_free`, or the time of the next look if a client waits.
    pub(crate) fn next(&self, is_free: impl Fn(&NodeAddr) -> bool, now: Instant) -> Result<Query, Option<Instant>> {
        self.lock().next(is_free, now)
    }

    /// Applies the outcome of a query.
    pub(crate) fn answered(&self, query: &Query, source: Source, outcome: ResourceReport, now: Instant) {
        self.lock().answered(query, source, outcome, now);
    }
}
