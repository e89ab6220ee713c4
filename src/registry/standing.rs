//! Reports the state of single nodes, for `/status`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::node::Routing;
use super::speed::Time;
use super::state::State;
use super::{NodeId, NodeRecord, PromisePolicy, Registry};
use crate::node::ContainerId;

/// All that a report shows of one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// What the probes found.
    pub record: NodeRecord,
    /// Promises that no probe has counted yet.
    pub promises: u64,
    /// Assumed jobs per second, each with the weight of a promise; `None` with `PROMISES=off`.
    pub speed: Option<f64>,
    /// Whether the node has a record. Without one it is treated as a typical node.
    pub is_learned: bool,
    /// Time from now until the node should finish its work; `None` with `PROMISES=off`.
    pub finish: Option<Duration>,
    /// The containers that it runs, sorted.
    pub containers: Vec<ContainerId>,
    /// The state of its resources as text, while it is available and was polled for them.
    pub resources: Option<String>,
}

impl Registry {
    /// The records of these nodes, without removed nodes. The lock is released after each node.
    pub fn views(&self, ids: &[NodeId], now: Instant) -> Vec<NodeView> {
        let now = self.time(now);
        let mut views: Vec<NodeView> = ids.iter().filter_map(|id| self.lock().node_view(*id, now)).collect();
        views.iter_mut().for_each(|view| view.containers.sort_unstable());
        views
    }

    /// The available and the draining nodes that run a container.
    pub(crate) fn runners(&self, container: &str) -> HashSet<NodeId> {
        let index = self.lock().catalogue.index(container);
        let mut runners = HashSet::new();
        self.visit_nodes(|id, node| {
            let is_placed = index.is_some_and(|index| node.routing.runs(index));
            if is_placed || node.withheld().any(|id| id.as_str() == container) {
                runners.insert(id);
            }
        });
        runners
    }
}

impl State {
    fn node_view(&self, id: NodeId, now: Time) -> Option<NodeView> {
        let node = self.nodes.get(id)?;
        let Routing { work, place, runs, .. } = &*node.routing;
        let is_on = self.fleet.policy != PromisePolicy::Off;
        let placed = self.runs(id).unwrap_or_default().into_iter();
        Some(NodeView {
            record: node.record.clone(),
            promises: node.routing.promised(self.fleet.interval),
            speed: is_on.then(|| work.speed()),
            is_learned: work.record().is_some(),
            finish: is_on.then(|| work.finish().since(now)),
            containers: placed.chain(node.withheld().cloned()).collect(),
            resources: place.and_then(|_| node.routing.resources.state(runs.len())),
        })
    }
}
