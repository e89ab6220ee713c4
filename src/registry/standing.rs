//! Reports the state of single nodes, for `/status`.

use std::collections::HashSet;
use std::time::Instant;

use super::order::Order;
use super::speed::Time;
use super::state::State;
use super::{NodeId, NodeRecord, PromisePolicy, Registry, Standing};
use crate::node::ContainerId;

/// All that a report shows of one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// What the probes found.
    pub record: NodeRecord,
    /// What determines its position in the orders.
    pub standing: Standing,
    /// The containers that it runs, sorted.
    pub containers: Vec<ContainerId>,
    /// The state of its resources as text, while it is available and polled for them.
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

    /// The slots of the available and the draining nodes that run a container.
    pub(crate) fn runners(&self, container: &str) -> HashSet<u32> {
        let order = self.lock().catalogue.order(container).cloned();
        let mut runners: HashSet<u32> = order.iter().flat_map(Order::iter).map(|place| place.node).collect();
        self.visit_nodes(|id, node| {
            let mut withheld = node.routing.withheld.iter().flat_map(|withheld| &withheld.running);
            runners.extend(
                withheld
                    .any(|running| running.id.as_str() == container)
                    .then(|| id.index()),
            );
        });
        runners
    }
}

impl State {
    pub(super) fn standing(&self, id: NodeId, now: Time) -> Option<Standing> {
        let node = self.nodes.get(id)?;
        let is_on = self.fleet.policy != PromisePolicy::Off;
        Some(Standing {
            promises: node.routing.promised(self.fleet.interval),
            speed: is_on.then(|| node.routing.work.speed()),
            is_learned: node.routing.work.record().is_some(),
            finish: is_on.then(|| node.routing.work.finish().since(now)),
        })
    }

    fn node_view(&self, id: NodeId, now: Time) -> Option<NodeView> {
        let node = self.nodes.get(id)?;
        Some(NodeView {
            record: node.record.clone(),
            standing: self.standing(id, now)?,
            resources: node
                .routing
                .place
                .and(node.routing.resources.as_ref())
                .map(|resources| resources.state(node.routing.runs.len())),
            containers: match &node.routing.withheld {
                Some(withheld) => withheld.running.iter().map(|container| container.id.clone()).collect(),
                None => self.runs(id).unwrap_or_default(),
            },
        })
    }
}
