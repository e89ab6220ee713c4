//! What the running router knows, and why it answers as it does: the board behind `/status` and `/status.json`.
//!
//! The poller writes what it found of the nodes, the lists write what became of them, and the API reads. The board has a
//! lock of its own, so reading it never holds up an answer; the registry is asked for no more than the nodes of one page.

mod images;
mod nodes;
mod page;
mod report;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crate::config::Config;
use crate::lists::Lists;
use crate::metrics::unix_seconds;
use crate::node::{NodeAddr, Running, Source};
use crate::registry::{NodeId, Registry};
use crate::util::calendar::rfc3339;
pub(crate) use images::{Change, Conflict, Images, conflict_line};
pub(crate) use nodes::{NodeState, Probed};
use nodes::{NodeStatus, Nodes, PendingByType, Position};
pub(crate) use page::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, to_html};
pub(crate) use report::StatusReport;

/// Nodes looked at under one hold of the lock: some microseconds, for which the poller waits at most.
const NODES_AT_ONCE: usize = 256;
/// Conflicts that are shown one by one; the rest is counted.
const MAX_CONFLICTS: usize = 100;

/// What is shown of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Nodes in this state alone.
    pub(crate) state: Option<NodeState>,
    /// Available nodes that run this container alone.
    pub(crate) container: Option<String>,
    /// Nodes whose address has this in it, in any case of letters.
    pub(crate) part: Option<String>,
    /// How many nodes at most.
    pub(crate) n: usize,
    /// How many to leave out in front.
    pub(crate) offset: usize,
}

/// What the running router knows.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Seconds since 1970.
    started: u64,
    interval: Duration,
    /// Settings that differ from their defaults, by name, without secrets.
    settings: Vec<(&'static str, String)>,
    lists: Lists,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Nodes,
    images: Images,
    is_pool_too_small: bool,
    /// Seconds since 1970 since which a mass failure is doubted.
    doubted_since: Option<u64>,
}

/// The nodes of one page.
struct Found {
    nodes: Vec<Arc<NodeStatus>>,
    /// How many nodes pass the filter in all.
    matched: usize,
}

impl Board {
    pub(crate) fn new(config: &Config, lists: Lists) -> Self {
        Self {
            started: unix_seconds(),
            interval: config.refresh_interval,
            settings: config.changed.clone(),
            lists,
            state: Mutex::default(),
        }
    }

    /// A panic elsewhere leaves it usable: each change is complete or not begun.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool can't ask all nodes in an interval, so that what is shown of some is older than that.
    pub(crate) fn pool_too_small(&self, is_too_small: bool) {
        self.lock().is_pool_too_small = is_too_small;
    }

    /// A node is listed, or listed otherwise than before.
    pub(crate) fn listed(&self, id: NodeId, addr: NodeAddr, source: Source) {
        self.lock().nodes.listed(id, addr, source, unix_seconds());
    }

    /// A node is listed no more.
    #[must_use = "conflicts that end are told"]
    pub(crate) fn removed(&self, id: NodeId) -> Vec<Change> {
        let mut state = self.lock();
        state.nodes.removed(id);
        state.images.remove(id)
    }

    /// A probe of a node ended. `running` has what an available node told of its containers now; a node that is not
    /// available any more runs none.
    #[must_use = "conflicts that begin and end are told"]
    pub(crate) fn probed(&self, id: NodeId, probed: Probed<'_>, running: Option<&[Running]>) -> Vec<Change> {
        let mut state = self.lock();
        state.nodes.probed(id, probed);
        match (running, probed.state) {
            (Some(running), _) => state.images.set(id, running),
            (None, NodeState::Down) => state.images.remove(id),
            (None, _) => Vec::new(),
        }
    }

    /// A node is in another state, by no probe of its own.
    #[must_use = "conflicts that end are told"]
    pub(crate) fn moved(&self, id: NodeId, to: NodeState) -> Vec<Change> {
        let mut state = self.lock();
        state.nodes.moved(id, to, unix_seconds());
        match to {
            NodeState::Down => state.images.remove(id),
            _ => Vec::new(),
        }
    }

    /// From now on a mass failure is doubted.
    pub(crate) fn doubt_begins(&self) {
        self.lock().doubted_since = Some(unix_seconds());
    }

    /// No mass failure is doubted any more.
    pub(crate) fn doubt_ends(&self) {
        self.lock().doubted_since = None;
    }

    /// Container ids that available nodes run with different images.
    pub(crate) fn conflict_count(&self) -> usize {
        self.lock().images.conflict_count()
    }

    /// The nodes that a filter lets pass. The lock is taken anew for each few hundred nodes.
    fn find(&self, filter: &Filter, registry: &Registry) -> Found {
        let runners = filter.container.as_deref().map(|id| registry.runners(id));
        let part = filter.part.as_deref().map(str::to_ascii_lowercase);
        let passes = |node: &NodeStatus| {
            filter.state.is_none_or(|state| node.state == state)
                && runners.as_ref().is_none_or(|runners| runners.contains(node.id))
                && part.as_ref().is_none_or(|part| has_part(node.addr.as_listed(), part))
        };
        let end = filter.offset.saturating_add(filter.n);
        // The counts of the states are known, so that the walk may end with the page.
        let known = (runners.is_none() && part.is_none()).then(|| self.count(filter.state));
        let mut found = Found {
            nodes: Vec::new(),
            matched: 0,
        };
        self.walk(|node| {
            if passes(node) {
                if (filter.offset..end).contains(&found.matched) {
                    found.nodes.push(Arc::clone(node));
                }
                found.matched += 1;
            }
            known.is_none_or(|_| found.matched < end)
        });
        found.matched = known.unwrap_or(found.matched);
        found
    }

    /// Seconds since 1970 since which nodes have been in this state, the longest of them.
    fn longest(&self, wanted: NodeState) -> Option<u64> {
        let mut since = None;
        self.walk(|node| {
            if node.state == wanted {
                since = Some(since.map_or(node.since, |since: u64| since.min(node.since)));
            }
            // All in trouble come first.
            node.state.is_trouble() || !wanted.is_trouble()
        });
        since
    }

    fn walk(&self, mut visit: impl FnMut(&Arc<NodeStatus>) -> bool) {
        let mut last: Option<Position> = None;
        loop {
            last = self.lock().nodes.walk(last.as_ref(), NODES_AT_ONCE, &mut visit);
            if last.is_none() {
                return;
            }
        }
    }

    fn count(&self, state: Option<NodeState>) -> usize {
        let board = self.lock();
        match state {
            Some(state) => board.nodes.count(state),
            None => NodeState::ALL.iter().map(|state| board.nodes.count(*state)).sum(),
        }
    }
}

/// Whether an address, which is ASCII, has this part in it in any case of letters; the part is in lower case.
fn has_part(addr: &str, part: &str) -> bool {
    let Some(first) = part.bytes().next() else {
        return true;
    };
    let mut windows = addr.as_bytes().windows(part.len());
    // The first byte alone tells for most: 100,000 addresses are looked through within some milliseconds.
    windows.any(|window| window[0].to_ascii_lowercase() == first && window.eq_ignore_ascii_case(part.as_bytes()))
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
fn shown_time(unix_seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(unix_seconds))
}
