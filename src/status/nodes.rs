//! The nodes on the board, pure: those in trouble before the others, each group by address.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, Deref};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::node::{NodeAddr, Source};
use crate::registry::NodeId;

/// Types of pending jobs shown of one node; the rest is counted together as `other`. Real nodes have two.
const MAX_TYPES: usize = 4;
/// Longest name of a type that is kept, in bytes; longer ones count as `other`. Real ones have eight.
const MAX_TYPE_BYTES: usize = 32;
/// Names of types kept for all nodes together: stored once each, so that 100,000 nodes cost no more than one.
const MAX_TYPE_NAMES: usize = 256;
/// What jobs are counted as whose type is not kept.
const OTHER: &str = "other";

/// How a node is, as the router sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeState {
    /// It was not asked yet, or has not answered.
    New,
    /// Its last probe succeeded.
    Up,
    /// Available, but its last probe failed: one more and it is down.
    Suspect,
    /// Not available.
    Down,
    /// It has answered nothing but 429 for long.
    Limited,
    /// Its probes fail together with those of most others: it stays available, behind all that answer.
    Doubted,
}

impl NodeState {
    /// All of them, those in trouble first, in the order in which they are shown.
    pub(crate) const ALL: [Self; 6] = [
        Self::Down,
        Self::Doubted,
        Self::Suspect,
        Self::Limited,
        Self::New,
        Self::Up,
    ];

    /// As JSON, the page and `?state=` name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Limited => "limited",
            Self::Doubted => "doubted",
        }
    }

    /// Whether something is wrong with the node. A new one is not in trouble yet.
    pub(crate) fn is_trouble(self) -> bool {
        !matches!(self, Self::New | Self::Up)
    }
}

/// Pending jobs by type, as many types as are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PendingByType(Box<[(Arc<str>, u64)]>);

impl PendingByType {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, jobs)| (&**name, *jobs))
    }
}

impl Serialize for PendingByType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// What the router knows of one node. Never changed: another takes its place.
#[derive(Clone, Debug)]
pub(crate) struct NodeStatus {
    pub(crate) id: NodeId,
    pub(crate) addr: NodeAddr,
    pub(crate) source: Source,
    pub(crate) state: NodeState,
    /// Seconds since 1970 at which it came into this state.
    pub(crate) since: u64,
    /// When its last probe ended, in seconds since 1970, and how long that took.
    pub(crate) probed: Option<(u64, Duration)>,
    /// Pending jobs by type, as it told last; none before it told any, and while it is down.
    pub(crate) pending: Option<PendingByType>,
    /// Why it is in trouble; empty where it is not.
    pub(crate) reason: Box<str>,
}

/// What a probe brought, for [`Nodes::probed`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed<'a> {
    pub(crate) state: NodeState,
    /// Seconds since 1970.
    pub(crate) at: u64,
    pub(crate) took: Duration,
    /// What it told of its pending jobs, where it answered as a node does.
    pub(crate) pending: Option<&'a [(String, u64)]>,
    pub(crate) reason: &'a str,
}

/// A node in the order in which nodes are shown.
#[derive(Clone, Debug)]
struct Entry(Arc<NodeStatus>);

impl Entry {
    fn key(&self) -> (bool, &str) {
        (!self.0.state.is_trouble(), self.0.addr.as_listed())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// All listed nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// By the place of the node in the registry.
    by_place: Vec<Option<Arc<NodeStatus>>>,
    shown: BTreeSet<Entry>,
    counts: [usize; NodeState::ALL.len()],
    type_names: HashMap<Box<str>, Arc<str>>,
}

/// Where a walk over the nodes goes on.
#[derive(Clone, Debug)]
pub(crate) struct Position(Arc<NodeStatus>);

impl Deref for Position {
    type Target = NodeStatus;

    fn deref(&self) -> &NodeStatus {
        &self.0
    }
}

impl Nodes {
    /// How many nodes are in this state.
    pub(crate) fn count(&self, state: NodeState) -> usize {
        self.counts[state as usize]
    }

    /// A node is listed, or listed otherwise than before.
    pub(crate) fn listed(&mut self, id: NodeId, addr: NodeAddr, source: Source, at: u64) {
        let node = match self.take(id) {
            Some(known) => NodeStatus {
                addr,
                source,
                ..NodeStatus::clone(&known)
            },
            None => NodeStatus {
                id,
                addr,
                source,
                state: NodeState::New,
                since: at,
                probed: None,
                pending: None,
                reason: Box::default(),
            },
        };
        self.put(node);
    }

    /// A node is listed no more.
    pub(crate) fn removed(&mut self, id: NodeId) {
        self.take(id);
    }

    /// A probe of a node ended.
    pub(crate) fn probed(&mut self, id: NodeId, probed: Probed<'_>) {
        let Some(known) = self.take(id) else {
            return;
        };
        let pending = match probed.pending {
            Some(pending) => Some(self.kept_types(pending)),
            None if matches!(probed.state, NodeState::Down | NodeState::New) => None,
            None => known.pending.clone(),
        };
        self.put(NodeStatus {
            state: probed.state,
            since: match known.state == probed.state {
                true => known.since,
                false => probed.at,
            },
            probed: Some((probed.at, probed.took)),
            pending,
            reason: probed.reason.into(),
            ..NodeStatus::clone(&known)
        });
    }

    /// A node is in another state, by no probe of its own.
    pub(crate) fn moved(&mut self, id: NodeId, state: NodeState, at: u64) {
        let Some(known) = self.take(id) else {
            return;
        };
        self.put(NodeStatus {
            state,
            since: if known.state == state { known.since } else { at },
            ..NodeStatus::clone(&known)
        });
    }

    fn take(&mut self, id: NodeId) -> Option<Arc<NodeStatus>> {
        let place = self.by_place.get_mut(id.index() as usize)?;
        let known = place.take_if(|known| known.id == id)?;
        self.shown.remove(&Entry(Arc::clone(&known)));
        self.counts[known.state as usize] -= 1;
        Some(known)
    }

    fn put(&mut self, node: NodeStatus) {
        self.counts[node.state as usize] += 1;
        let node = Arc::new(node);
        let place = node.id.index() as usize;
        if place >= self.by_place.len() {
            self.by_place.resize(place + 1, None);
        }
        self.by_place[place] = Some(Arc::clone(&node));
        self.shown.insert(Entry(node));
    }

    fn kept_types(&mut self, pending: &[(String, u64)]) -> PendingByType {
        let mut kept: Vec<(Arc<str>, u64)> = Vec::with_capacity(pending.len().min(MAX_TYPES));
        let mut other = 0u64;
        for (name, jobs) in pending {
            match self.kept_name(name).filter(|_| kept.len() < MAX_TYPES) {
                Some(name) => kept.push((name, *jobs)),
                None => other = other.saturating_add(*jobs),
            }
        }
        if other > 0 {
            kept.push((OTHER.into(), other));
        }
        PendingByType(kept.into())
    }

    fn kept_name(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.type_names.get(name) {
            return Some(Arc::clone(known));
        }
        if name.len() > MAX_TYPE_BYTES || name == OTHER || self.type_names.len() >= MAX_TYPE_NAMES {
            return None;
        }
        let kept: Arc<str> = name.into();
        self.type_names.insert(name.into(), Arc::clone(&kept));
        Some(kept)
    }

    /// Looks at no more than `most` nodes behind `after` and hands each to `visit` until that has had enough. Returns
    /// the last one looked at; none at the end.
    pub(crate) fn walk(
        &self,
        after: Option<&Position>,
        most: usize,
        mut visit: impl FnMut(&Arc<NodeStatus>) -> bool,
    ) -> Option<Position> {
        let from = after.map_or(Bound::Unbounded, |last| Bound::Excluded(Entry(Arc::clone(&last.0))));
        let mut range = self.shown.range((from, Bound::Unbounded)).take(most);
        let mut last = None;
        for entry in range.by_ref() {
            if !visit(&entry.0) {
                return None;
            }
            last = Some(entry);
        }
        last.map(|entry| Position(Arc::clone(&entry.0)))
    }
}

#[cfg(test)]
mod tests;
