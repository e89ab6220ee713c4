//! Reports the state of single nodes, for `/status`.

use std::time::Instant;

use super::order::Order;
use super::speed::Time;
use super::state::State;
use super::{NodeId, NodeRecord, Registry, Standing};
use crate::node::ContainerId;

/// Nodes, and ids of their containers, that are read under one hold of the lock: no longer than a
/// response of 1,000 addresses holds it.
const NODES_AT_ONCE: usize = 64;
const IDS_AT_ONCE: usize = 512;

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

/// Which available nodes run a container.
#[derive(Clone, Debug)]
pub struct Runners(Vec<bool>);

impl Runners {
    fn of(order: &Order) -> Self {
        let mut runs = Vec::new();
        for place in order.iter() {
            let at = place.node as usize;
            if at >= runs.len() {
                runs.resize(at + 1, false);
            }
            runs[at] = true;
        }
        Self(runs)
    }

    /// Whether this node runs it. Meant for nodes that are still in the registry.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.get(id.index() as usize).copied().unwrap_or_default()
    }
}

impl Registry {
    /// The records of these nodes; `None` for a removed node. The lock is released between the slices.
    pub fn views(&self, ids: &[NodeId], now: Instant) -> Vec<Option<NodeView>> {
        let (now, mut views) = (self.time(now), Vec::with_capacity(ids.len()));
        while views.len() < ids.len() {
            let state = self.lock();
            let (mut nodes, mut containers) = (0, 0);
            while nodes < NODES_AT_ONCE && containers < IDS_AT_ONCE && views.len() < ids.len() {
                let view = state.node_view(ids[views.len()], now);
                nodes += 1;
                containers += view.as_ref().map_or(0, |view| view.containers.len());
                views.push(view);
            }
        }
        for view in views.iter_mut().flatten() {
            view.containers.sort_unstable();
        }
        views
    }

    /// The available nodes that run a container.
    pub fn runners(&self, container: &str) -> Runners {
        let order = self.lock().order_of(container);
        order.as_ref().map_or(Runners(Vec::new()), Runners::of)
    }
}

impl State {
    fn order_of(&self, container: &str) -> Option<Order> {
        Some(self.catalogue.find(container)?.order.clone())
    }

    fn node_view(&self, id: NodeId, now: Time) -> Option<NodeView> {
        let node = self.nodes.get(id)?;
        Some(NodeView {
            record: node.record.clone(),
            standing: self.standing(id, now)?,
            resources: node
                .place
                .and(node.resources.as_ref())
                .map(|resources| resources.state(node.runs.len())),
            containers: match &node.withheld {
                Some(withheld) => withheld.running.iter().map(|container| container.id.clone()).collect(),
                None => node.runs.iter().filter_map(|run| self.catalogue.id(*run)).collect(),
            },
        })
    }
}
