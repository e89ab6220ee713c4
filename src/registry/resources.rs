//! What one node reports of its containers (`GET /resources`): the last good entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{ContainerId, Entries, Reading};

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
    pub(super) entries: KnownEntries,
    /// Why the last poll did not bring everything; empty if it did.
    pub(super) problem: String,
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
    pub(super) fn apply(&mut self, report: ResourceReport, runs: &[ContainerId]) {
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
