//! How single nodes stand, for `/status`.

use std::time::Instant;

use super::order::Order;
use super::state::State;
use super::{NodeId, Registry, Standing};
use crate::node::ContainerId;

/// Nodes, and ids of their containers, that are read under one hold of the lock: no more than an answer of 1,000
/// addresses holds it for.
const NODES_AT_ONCE: usize = 64;
const IDS_AT_ONCE: usize = 512;

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

    /// Whether this node is one of them. Meant for nodes that are still in the registry.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.get(id.index() as usize).copied().unwrap_or_default()
    }
}

impl Registry {
    /// How these nodes stand, each with the containers that it runs, by id; none for one that has left. The lock is taken
    /// anew for some nodes at a time.
    pub fn standings(&self, ids: &[NodeId], now: Instant) -> Vec<Option<(Standing, Vec<ContainerId>)>> {
        let (now, mut standings) = (self.time(now), Vec::with_capacity(ids.len()));
        while standings.len() < ids.len() {
            let state = self.lock();
            let (mut nodes, mut containers) = (0, 0);
            while nodes < NODES_AT_ONCE && containers < IDS_AT_ONCE && standings.len() < ids.len() {
                let id = ids[standings.len()];
                let standing = state.standing(id, now);
                let running = state.containers_of(id);
                nodes += 1;
                containers += running.len();
                standings.push(standing.map(|standing| (standing, running)));
            }
        }
        for (_, containers) in standings.iter_mut().flatten() {
            containers.sort_unstable();
        }
        standings
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

    fn containers_of(&self, id: NodeId) -> Vec<ContainerId> {
        let runs = self.nodes.get(id).map_or(&[][..], |node| &node.runs);
        runs.iter().filter_map(|run| self.catalogue.id(*run)).collect()
    }
}
