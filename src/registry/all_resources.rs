//! The resources of all nodes, within a total limit.

use super::catalogue::Index;
use super::node::Node;
use super::resources::{KnownEntry, NodeResources, ResourceReport};
use super::state::State;
use super::{NodeId, NodeRecord, Registry};
use crate::node::ContainerId;

/// All entries together. Above it, the nodes that rank last lose their entries.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that are evicted beyond the limit, so that the pass over all nodes is rare.
const SPARE_BYTES: usize = MAX_BYTES / 64;

impl Registry {
    /// The containers that an available node runs, sorted.
    pub fn runs(&self, id: NodeId) -> Option<Vec<ContainerId>> {
        self.lock().runs(id)
    }

    /// Applies a poll of the resources of a node, if the node is still available. If all entries exceed the limit, the
    /// nodes that rank last lose theirs. Returns whether all were kept.
    pub fn set_resources(&self, id: NodeId, report: ResourceReport) -> bool {
        let mut state = self.lock();
        if let Some(runs) = state.runs(id) {
            state.change_resources(id, |resources| resources.apply(report, &runs));
        }
        let excess = state.resource_bytes.saturating_sub(MAX_BYTES);
        drop(state);
        if excess > 0 {
            self.evict_resources(excess + SPARE_BYTES);
        }
        excess == 0
    }

    /// Evicts the entries of the nodes that rank last, until these had as many bytes.
    fn evict_resources(&self, mut bytes: usize) {
        let mut nodes = Vec::new();
        self.visit_nodes(|id, node| {
            let bytes = node.routing.resources.bytes();
            nodes.extend((bytes > 0).then_some((node.record.rank, id, bytes)));
        });
        nodes.sort_unstable();
        while bytes > 0
            && let Some((_, last, freed)) = nodes.pop()
        {
            bytes = bytes.saturating_sub(freed);
            self.lock().change_resources(last, |resources| {
                resources.entries.clear();
                resources.problem = format!("no room: all entries have more than {} MiB", MAX_BYTES >> 20).into();
            });
        }
    }

    /// Shows the available nodes with entries that run all of `containers` to `visit`, by rank: the record, a number
    /// that is smaller for a node that should finish earlier, and the entries. The lock is released between the nodes.
    pub fn visit_resources(&self, containers: &[String], mut visit: impl FnMut(&NodeRecord, u64, &[KnownEntry])) {
        let index = |id: &String| self.lock().catalogue.index(id);
        let Some(containers) = containers.iter().map(index).collect::<Option<Vec<Index>>>() else {
            return;
        };
        let mut nodes = Vec::new();
        self.visit_nodes(|id, node| {
            let is_known = !node.routing.resources.entries.is_empty();
            if is_known && containers.iter().all(|container| node.routing.runs(*container)) {
                nodes.push((node.record.rank, id));
            }
        });
        nodes.sort_unstable();
        for (_, id) in nodes {
            if let Some(Node { record, routing }) = self.lock().nodes.get(id)
                && let Some(place) = routing.place
                && !routing.resources.entries.is_empty()
            {
                visit(record, place.key, &routing.resources.entries);
            }
        }
    }
}

impl State {
    /// Drops the entries of containers that the node no longer runs.
    pub(super) fn retain_resources(&mut self, id: NodeId) {
        let runs = self.runs(id).unwrap_or_default();
        self.change_resources(id, |resources| {
            resources.entries.retain(|known| runs.binary_search(&known.id).is_ok());
        });
    }

    /// Changes the resources of a node, and the sum of their bytes.
    fn change_resources(&mut self, id: NodeId, change: impl FnOnce(&mut NodeResources)) {
        if let Some(node) = self.nodes.get_mut(id) {
            let resources = &mut node.routing.resources;
            self.resource_bytes -= resources.bytes();
            change(resources);
            self.resource_bytes += resources.bytes();
        }
    }
}
