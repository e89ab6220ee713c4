//! What nodes report of their containers (`GET /resources`): the last good entries, within a total limit.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalogue::Index;
use super::node::Node;
use super::state::State;
use super::{NodeId, NodeRecord, Registry};
use crate::node::{ContainerId, Entries, Reading};

/// All entries together. Above it, the nodes that rank last lose their entries.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that are evicted beyond the limit, so that the pass over all nodes is rare.
const SPARE_BYTES: usize = MAX_BYTES / 64;

/// Polls in a row in which a container may be missing while its last entry is kept: intermittent failures are normal.
const MAX_MISSES: u8 = 3;
/// Memory of an entry beside its text.
const ENTRY_OVERHEAD: usize = 128;

/// The result of a poll of a node's resources.
pub type ResourceReport = Result<Reading, ResourceFailure>;

/// Why a poll of a node's resources brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceFailure {
    /// 404: the node has no such endpoint.
    NotFound,
    /// The poll failed for this reason.
    Failed(String),
    /// A local error with its reason. The state of the node remains unknown.
    LocalError(String),
}

/// The last good entry of a container.
#[derive(Clone, Debug)]
pub struct KnownEntry {
    /// The container.
    pub id: ContainerId,
    /// A JSON object that the router has written.
    pub text: Arc<str>,
    /// Polls in a row since, in which the entry was missing.
    misses: u8,
}

/// What is known of the resources of one node.
#[derive(Debug, Default)]
pub(super) struct NodeResources {
    /// Sorted.
    pub(super) entries: Vec<KnownEntry>,
    /// Why the last poll did not bring everything; empty if it did.
    pub(super) problem: Cow<'static, str>,
}

impl NodeResources {
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.iter();
        entries.map(|entry| entry.text.len() + ENTRY_OVERHEAD).sum()
    }

    /// The state as text, once the node was polled. Untrusted text in it is escaped and truncated.
    pub(super) fn state(&self, containers: usize) -> Option<String> {
        let known = self.entries.len();
        match (known, &*self.problem) {
            (0, "") => None,
            (_, "") => Some(format!("{known} of {containers} containers")),
            (_, problem) => Some(format!("{known} of {containers} containers: {problem}")),
        }
    }

    /// Applies a poll of a node that runs `runs` (sorted).
    pub(super) fn apply(&mut self, report: ResourceReport, runs: &[ContainerId]) {
        match report {
            Ok(Reading { entries, left_out }) => {
                self.problem = match (entries.is_empty(), left_out) {
                    (_, Some(reason)) => format!("omitted {reason}").into(),
                    (true, None) => "no container in the response".into(),
                    (false, None) => "".into(),
                };
                self.settle(entries, runs);
            }
            Err(ResourceFailure::NotFound) => {
                self.entries.clear();
                self.problem = "status 404: infernet-node has resources from 1.4.0 on".into();
            }
            Err(ResourceFailure::Failed(reason)) => {
                self.settle(Entries::new(), runs);
                self.problem = reason.into();
            }
            Err(ResourceFailure::LocalError(reason)) => {
                self.problem = format!("not polled, local error: {reason}").into();
            }
        }
    }

    /// Adds new entries. An entry that is missing now is kept as long as it may be.
    fn settle(&mut self, new: Entries, runs: &[ContainerId]) {
        self.entries.retain_mut(|known| {
            known.misses += 1;
            known.misses <= MAX_MISSES && new.iter().all(|(id, _)| *id != known.id)
        });
        let new = new.into_iter().filter(|(id, _)| runs.binary_search(id).is_ok());
        self.entries
            .extend(new.map(|(id, text)| KnownEntry { id, text, misses: 0 }));
        self.entries.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    }
}

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
