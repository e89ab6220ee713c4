//! What nodes report of their containers (`GET /resources`): the last good entries of each node, within a total limit.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Bound;

use super::catalogue::Index;
use super::node::Node;
use super::state::State;
use super::{NodeId, Rank, Registry};
use crate::node::{ContainerId, Entries, NodeAddr};

/// Polls in a row in which a container may be missing while its last entry is kept: intermittent failures are normal.
const MAX_MISSES: u8 = 3;
/// All entries together. Above it, the nodes that rank last lose their entries.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Memory of an entry beside its text.
const ENTRY_OVERHEAD: usize = 128;
/// Nodes that are read under one hold of the lock.
const NODES_AT_ONCE: usize = 64;

/// The result of a poll of a node's resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceReport {
    /// Entries of containers that the node runs, and why another one was omitted.
    Entries(Entries, Option<String>),
    /// 404: the node has no such endpoint.
    NotFound,
    /// The poll failed for this reason.
    Failed(String),
    /// A local error with its reason. The state of the node remains unknown.
    LocalError(String),
}

/// What is known of the resources of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeResources {
    entries: Entries,
    /// Polls in a row in which an entry was missing.
    misses: BTreeMap<ContainerId, u8>,
    /// Why the last poll did not bring everything; empty if it did.
    problem: String,
}

impl NodeResources {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, text)| text.len() + ENTRY_OVERHEAD).sum()
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
            ResourceReport::Entries(entries, omitted) => {
                self.problem = match (entries.is_empty(), omitted) {
                    (_, Some(reason)) => format!("omitted {reason}"),
                    (true, None) => "no container in the response".to_owned(),
                    (false, None) => String::new(),
                };
                self.settle(entries, runs);
            }
            ResourceReport::NotFound => {
                self.entries = Vec::new();
                "status 404: infernet-node has resources from 1.4.0 on".clone_into(&mut self.problem);
            }
            ResourceReport::Failed(reason) => {
                self.settle(Entries::new(), runs);
                self.problem = reason;
            }
            ResourceReport::LocalError(reason) => self.problem = format!("not polled, local error: {reason}"),
        }
    }

    /// Replaces the entries by new ones. An entry that is missing now is kept as long as it may be.
    fn settle(&mut self, new: Entries, runs: &[ContainerId]) {
        let is_run = |id: &ContainerId| runs.binary_search(id).is_ok();
        let is_new = |id: &ContainerId| new.binary_search_by(|(new, _)| new.cmp(id)).is_ok();
        let mut known = mem::take(&mut self.entries);
        let misses = mem::take(&mut self.misses);
        known.retain(|(id, _)| is_run(id) && !is_new(id));
        for (id, text) in known {
            let count = misses.get(&id).map_or(1, |count| count + 1);
            if count <= MAX_MISSES {
                self.misses.insert(id.clone(), count);
                self.entries.push((id, text));
            }
        }
        self.entries.extend(new.into_iter().filter(|(id, _)| is_run(id)));
        self.entries.sort_unstable();
    }
}

/// The nodes with entries, by rank, and the bytes of all entries.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_rank: BTreeSet<(Rank, NodeId)>,
    bytes: usize,
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
    pub entries: &'a Entries,
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

    /// Applies a poll of the resources of a node, if the node is still available. Returns false if the storage is full,
    /// so that entries were dropped.
    pub fn set_resources(&self, id: NodeId, report: ResourceReport) -> bool {
        let mut state = self.lock();
        let runs = state.runs(id);
        runs.is_none_or(|runs| state.change_resources(id, |resources| resources.apply(report, &runs)))
    }

    /// Shows the available nodes with entries that run all of `containers` to `visit`, by rank. The lock is released
    /// between the slices.
    pub fn visit_resources(&self, containers: &[String], mut visit: impl FnMut(ResourceNode<'_>)) {
        let mut last = None;
        loop {
            let next = self.lock().visit_resources(last, containers, &mut visit);
            if next.is_none() {
                return;
            }
            last = next;
        }
    }
}

impl State {
    fn runs(&self, id: NodeId) -> Option<Vec<ContainerId>> {
        let node = self.nodes.get(id).filter(|node| node.place.is_some())?;
        let mut runs: Vec<ContainerId> = node.runs.iter().filter_map(|run| self.catalogue.id(*run)).collect();
        runs.sort_unstable();
        Some(runs)
    }

    /// Drops the entries of containers that the node no longer runs.
    pub(super) fn retain_resources(&mut self, id: NodeId) {
        if self.nodes.get(id).is_some_and(|node| node.resources.is_some()) {
            let runs = self.runs(id).unwrap_or_default();
            self.change_resources(id, |resources| {
                resources.entries.retain(|(id, _)| runs.binary_search(id).is_ok());
            });
        }
    }

    /// Changes the resources of a node. If all entries exceed the limit, the nodes that rank last lose theirs, or this
    /// one if it does. Returns whether all were kept.
    fn change_resources(&mut self, id: NodeId, change: impl FnOnce(&mut NodeResources)) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return true;
        };
        let holder = (node.record.rank, id);
        let resources = node.resources.get_or_insert_default();
        self.holders.bytes -= resources.bytes();
        change(resources);
        let bytes = resources.bytes();
        self.holders.bytes += bytes;
        match bytes > 0 {
            true => drop(self.holders.by_rank.insert(holder)),
            false => drop(self.holders.by_rank.remove(&holder)),
        }
        let is_full = self.holders.bytes > MAX_BYTES;
        while self.holders.bytes > MAX_BYTES
            && let Some((_, last)) = self.holders.by_rank.pop_last()
        {
            self.drop_resources(last);
        }
        !is_full
    }

    /// Drops the entries of a node because the storage is full.
    fn drop_resources(&mut self, id: NodeId) {
        if let Some(resources) = self.nodes.get_mut(id).and_then(|node| node.resources.as_mut()) {
            self.holders.bytes -= resources.bytes();
            resources.entries = Vec::new();
            resources.problem = format!("no room: all entries have more than {} MiB", MAX_BYTES >> 20);
        }
    }

    /// Changes the rank of a node among the holders.
    pub(super) fn rerank_resources(&mut self, id: NodeId, former: Rank, rank: Rank) {
        if self.holders.by_rank.remove(&(former, id)) {
            self.holders.by_rank.insert((rank, id));
        }
    }

    /// Removes a node that is no longer listed from the holders.
    pub(super) fn remove_resources(&mut self, id: NodeId, node: &Node) {
        self.holders.by_rank.remove(&(node.record.rank, id));
        self.holders.bytes -= node.resources.as_ref().map_or(0, |resources| resources.bytes());
    }

    /// Returns where the next slice begins; `None` after the last one.
    fn visit_resources(
        &self,
        after: Option<(Rank, NodeId)>,
        containers: &[String],
        visit: &mut impl FnMut(ResourceNode<'_>),
    ) -> Option<(Rank, NodeId)> {
        let wanted: Option<Vec<Index>> = containers.iter().map(|id| self.catalogue.index(id)).collect();
        let wanted = wanted?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for holder in self.holders.by_rank.range((from, Bound::Unbounded)).take(NODES_AT_ONCE) {
            last = Some(*holder);
            let Some(node) = self.nodes.get(holder.1) else {
                continue;
            };
            let runs = |index: &Index| node.runs.binary_search(index).is_ok();
            if let (Some(place), Some(resources)) = (node.place, &node.resources)
                && wanted.iter().all(runs)
            {
                visit(ResourceNode {
                    addr: &node.record.addr,
                    public: node.record.public_addr(),
                    order: place.key,
                    entries: &resources.entries,
                });
            }
        }
        last
    }
}
