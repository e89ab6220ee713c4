//! What one node reports of its containers (`GET /resources`): the last good entries.

use std::borrow::Cow;
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
