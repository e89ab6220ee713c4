//! What nodes report of their containers (`GET /resources`): the last good entries of each node, within a total limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalogue::Index;
use super::state::State;
use super::{NodeId, Registry};
use crate::node::{ContainerId, Entries, NodeAddr, Reading};

/// Polls in a row in which a container may be missing while its last entry is kept: intermittent failures are normal.
const MAX_MISSES: u8 = 3;
/// All entries together. Above it, the nodes that rank last lose their entries.
const MAX_BYTES: usize = 64 * 1024 * 1024;
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

/// The last good entries of a node's containers.
pub type KnownEntries = BTreeMap<ContainerId, KnownEntry>;

/// The last good entry of a container.
#[derive(Clone, Debug)]
pub struct KnownEntry {
    /// A JSON object that the router has written.
    pub text: Arc<str>,
    /// Polls in a row since, in which the entry was missing.
    misses: u8,
}

/// What is known of the resources of one node.
#[derive(Debug, Default)]
pub(super) struct NodeResources {
    entries: KnownEntries,
    /// Why the last poll did not bring everything; empty if it did.
    problem: String,
}

impl NodeResources {
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.values();
        entries.map(|entry| entry.text.len() + ENTRY_OVERHEAD).sum()
    }

    /// The state as text. Untrusted text in it is escaped and truncated.
    pub(super) fn state(&self, containers: usize) -> String {
        let known = self.entries.len();
        match (known, self.problem.as_str()) {
            (0, "") => "not polled yet".to_owned(),
            (_, "") => format!("{known} of {containers} containers"),
            (_, problem) => format!("{known} of {containers} containers: {problem}"),
        }
    }

    /// Applies a poll of a node that runs `runs` (sorted).
    fn apply(&mut self, report: ResourceReport, runs: &[ContainerId]) {
        match report {
            Ok(Reading { entries, left_out }) => {
                self.problem = match (entries.is_empty(), left_out) {
                    (_, Some(reason)) => format!("omitted {reason}"),
                    (true, None) => "no container in the response".to_owned(),
                    (false, None) => String::new(),
                };
                self.settle(entries, runs);
            }
            Err(ResourceFailure::NotFound) => {
                self.entries.clear();
                "status 404: infernet-node has resources from 1.4.0 on".clone_into(&mut self.problem);
            }
            Err(ResourceFailure::Failed(reason)) => {
                self.settle(Entries::new(), runs);
                self.problem = reason;
            }
            Err(ResourceFailure::LocalError(reason)) => self.problem = format!("not polled, local error: {reason}"),
        }
    }

    /// Adds new entries. An entry that is missing now is kept as long as it may be.
    fn settle(&mut self, new: Entries, runs: &[ContainerId]) {
        self.entries.values_mut().for_each(|known| known.misses += 1);
        let new = new.into_iter().map(|(id, text)| (id, KnownEntry { text, misses: 0 }));
        self.entries.extend(new);
        self.entries
            .retain(|id, known| known.misses <= MAX_MISSES && runs.binary_search(id).is_ok());
    }
}

/// An available node with entries.
#[derive(Clone, Copy, Debug)]
pub struct ResourceNode<'a> {
    /// The address as listed.
    pub addr: &'a NodeAddr,
    /// The address for clients.
    pub public: &'a NodeAddr,
    /// Smaller for a node that should finish earlier.
    pub order: u64,
    /// The entries of its containers, at least one.
    pub entries: &'a KnownEntries,
}

impl Registry {
    /// The containers that an available node runs, sorted.
    pub fn runs(&self, id: NodeId) -> Option<Vec<ContainerId>> {
        self.lock().runs(id)
    }

    /// Prepares the record of a node whose resources are to be polled.
    pub fn expect_resources(&self, id: NodeId) {
        self.lock().change_resources(id, |_| {});
    }

    /// Applies a poll of the resources of a node, if the node is still available. If all entries exceed the limit, the
    /// nodes that rank last lose theirs. Returns whether all were kept.
    pub fn set_resources(&self, id: NodeId, report: ResourceReport) -> bool {
        let mut state = self.lock();
        if let Some(runs) = state.runs(id) {
            state.change_resources(id, |resources| resources.apply(report, &runs));
        }
        drop(state);
        let is_full = || self.lock().resource_bytes > MAX_BYTES;
        let mut are_kept = true;
        while is_full() {
            are_kept = false;
            let mut last = None;
            self.visit_nodes(|id, node| {
                if node.resources.as_ref().is_some_and(|known| !known.entries.is_empty()) {
                    last = last.max(Some((node.record.rank, id)));
                }
            });
            let Some((_, last)) = last else {
                break;
            };
            self.lock().change_resources(last, |resources| {
                resources.entries.clear();
                resources.problem = format!("no room: all entries have more than {} MiB", MAX_BYTES >> 20);
            });
        }
        are_kept
    }

    /// Shows the available nodes with entries that run all of `containers` to `visit`, by rank. The lock is released
    /// between the nodes.
    pub fn visit_resources(&self, containers: &[String], mut visit: impl FnMut(ResourceNode<'_>)) {
        let Some(containers) = self.lock().indexes(containers) else {
            return;
        };
        let mut nodes = Vec::new();
        self.visit_nodes(|id, node| {
            if node.resources.is_some() && containers.iter().all(|container| node.runs(*container)) {
                nodes.push((node.record.rank, id));
            }
        });
        nodes.sort_unstable();
        for (_, id) in nodes {
            if let Some(node) = self.lock().nodes.get(id)
                && let (Some(place), Some(resources)) = (node.place, &node.resources)
                && !resources.entries.is_empty()
            {
                visit(ResourceNode {
                    addr: &node.record.addr,
                    public: node.record.public_addr(),
                    order: place.key,
                    entries: &resources.entries,
                });
            }
        }
    }
}

impl State {
    fn indexes(&self, containers: &[String]) -> Option<Vec<Index>> {
        containers.iter().map(|id| self.catalogue.index(id)).collect()
    }

    /// Drops the entries of containers that the node no longer runs.
    pub(super) fn retain_resources(&mut self, id: NodeId) {
        if self.nodes.get(id).is_some_and(|node| node.resources.is_some()) {
            let runs = self.runs(id).unwrap_or_default();
            self.change_resources(id, |resources| {
                resources.entries.retain(|id, _| runs.binary_search(id).is_ok());
            });
        }
    }

    /// Changes the resources of a node, and the sum of their bytes.
    fn change_resources(&mut self, id: NodeId, change: impl FnOnce(&mut NodeResources)) {
        if let Some(node) = self.nodes.get_mut(id) {
            let resources = node.resources.get_or_insert_default();
            self.resource_bytes -= resources.bytes();
            change(resources);
            self.resource_bytes += resources.bytes();
        }
    }
}
