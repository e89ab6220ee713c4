//! What is known of one node beside its position in the orders: written by the poller, read by every report.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::pending::PendingByType;
use crate::node::{Attributes, ContainerId, NodeAddr, Rank};

/// The highest bits of a key have the class of a node. The rest is a time in nanoseconds, enough for 146 years, or a
/// number of pending jobs.
const CLASS_SHIFT: u32 = 62;
pub(super) const MAX_KEY: u64 = (1 << CLASS_SHIFT) - 1;

/// The key later by this many nanoseconds, in the same class.
pub(super) fn later(key: u64, nanos: u64) -> u64 {
    key & !MAX_KEY | (key & MAX_KEY).saturating_add(nanos).min(MAX_KEY)
}

/// The state of a node, as reports show it and as the poller concludes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not available.
    Down,
    /// Available although its probes fail: a mass failure is suspected. Ranks below all nodes that respond.
    Doubted,
    /// Available, but the last probe failed. Another failure takes the node down.
    Suspect,
    /// Only shown, never the health of a record: the node has returned only 429 for ten intervals. It is available or
    /// not, as before.
    Limited,
    /// No probe has returned a result yet.
    New,
    /// Available.
    Up,
}

impl NodeState {
    /// All states in the order in which they are shown: problems first.
    pub const ALL: [Self; 6] = {
        use NodeState::*;
        [Down, Doubted, Suspect, Limited, New, Up]
    };

    /// The name in JSON, on the page and in `?state=`.
    pub fn name(self) -> &'static str {
        ["down", "doubted", "suspect", "limited", "new", "up"][self as usize]
    }

    /// Whether the state is a problem. A new node has none yet.
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::New | Self::Up)
    }

    /// Whether the router returns a node with this health to clients.
    pub fn is_available(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Doubted)
    }
}

/// One listed node.
#[derive(Clone, Debug)]
pub struct NodeRecord {
    /// The address as listed.
    pub addr: NodeAddr,
    /// The rank in the lists.
    pub rank: Rank,
    /// What the operator decides about the node.
    pub attributes: Attributes,
    /// What the poller concludes.
    pub health: NodeState,
    /// Start of the current state.
    pub since: Instant,
    /// End and duration of the last probe.
    pub probed: Option<(Instant, Duration)>,
    /// Time from which the node is shown as `limited`, while it returns only 429.
    pub limited_at: Option<Instant>,
    /// Pending jobs of the last report, while the node is available.
    pub pending: Option<PendingByType>,
    /// The first container id of the last report that was omitted because a quota was reached.
    pub omitted: Option<ContainerId>,
    /// When the certificate of an https node expires, as the last successful probe found it.
    pub certificate_expires: Option<SystemTime>,
    /// The last failure. Kept when the node recovers, so that a flapping node does not repeat it in the log.
    pub last_failure: Arc<str>,
    /// Whether a probe was redirected.
    pub is_redirecting: bool,
}

impl NodeRecord {
    pub(super) fn new(addr: NodeAddr, rank: Rank, now: Instant) -> Self {
        Self {
            addr,
            rank,
            attributes: Attributes::default(),
            health: NodeState::New,
            since: now,
            probed: None,
            limited_at: None,
            pending: None,
            omitted: None,
            certificate_expires: None,
            last_failure: Arc::default(),
            is_redirecting: false,
        }
    }

    /// The address that clients get.
    pub fn public_addr(&self) -> &NodeAddr {
        self.attributes.public.as_ref().unwrap_or(&self.addr)
    }

    /// Whether the router returns the node to clients.
    pub fn is_available(&self) -> bool {
        self.health.is_available() && !self.attributes.is_draining
    }

    /// The class in which the node ranks: responding nodes, responding backups, doubted nodes, doubted backups.
    pub(super) fn class(&self) -> u64 {
        let is_doubted = self.health == NodeState::Doubted;
        (u64::from(is_doubted) * 2 + u64::from(self.attributes.is_backup)) << CLASS_SHIFT
    }

    /// The state to show. `limited` follows from the time since which the node has returned only 429.
    pub fn state(&self) -> NodeState {
        let limited = self.limited_at.zip(self.probed);
        let is_limited = limited.is_some_and(|(limited_at, (probed, _))| probed >= limited_at);
        match is_limited && self.health != NodeState::Doubted {
            true => NodeState::Limited,
            false => self.health,
        }
    }

    /// Why the state is a problem; empty if it is not.
    pub fn reason(&self) -> &str {
        match self.state().is_problem() {
            true => &self.last_failure,
            false => "",
        }
    }

    /// Changes the record and restarts `since` if the state changed.
    pub(super) fn change<T>(&mut self, now: Instant, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.state();
        let result = change(self);
        if self.state() != before {
            self.since = now;
        }
        result
    }
}
