//! What the running router knows, and why it responds as it does: `/status` and `/status.json`.
//!
//! Nodes are read from the registry, slice by slice. The board has what the lists report about themselves.

mod images;
mod page;
mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::config::Config;
use crate::lists::Lists;
use crate::node::NodeAddr;
use crate::registry::{NodeId, NodeRecord, NodeState, Registry};
use crate::util::calendar::rfc3339;
pub(crate) use images::{Conflict, conflict_line};
pub(crate) use page::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, to_html};
pub(crate) use report::StatusReport;

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

/// What `/status` shows beside the nodes.
#[derive(Debug)]
pub(crate) struct Board {
    started: Instant,
    interval: Duration,
    /// Settings that differ from their defaults, by name, without secrets.
    settings: Vec<(&'static str, String)>,
    lists: Lists,
}

/// The nodes of one page, and what the same pass over all nodes found.
struct Found {
    ids: Vec<NodeId>,
    /// Number of nodes that pass the filter.
    matched: usize,
    /// For each state that is a problem, the start of the longest time in it.
    longest: Vec<(NodeState, Instant)>,
}

impl Board {
    pub(crate) fn new(config: &Config, lists: Lists, now: Instant) -> Self {
        Self {
            started: now,
            interval: config.refresh_interval,
            settings: config.changed.clone(),
            lists,
        }
    }
}

/// Finds the nodes of a page: problems first, each group by address.
fn find(filter: &Filter, registry: &Registry) -> Found {
    let runners = filter.container.as_deref().map(|id| registry.runners(id));
    let part = filter.part.as_deref().map(str::to_ascii_lowercase);
    let passes = |id: NodeId, record: &NodeRecord| {
        filter.state.is_none_or(|state| record.state() == state)
            && runners.as_ref().is_none_or(|runners| runners.contains(id))
            && part.as_ref().is_none_or(|part| has_part(record.addr.as_listed(), part))
    };
    let mut passed: Vec<(bool, NodeAddr, NodeId)> = Vec::new();
    let mut longest = BTreeMap::new();
    registry.visit(|id, record| {
        let state = record.state();
        if state.is_problem() {
            let since = longest.entry(state).or_insert(record.since);
            *since = record.since.min(*since);
        }
        if passes(id, record) {
            passed.push((!state.is_problem(), record.addr.clone(), id));
        }
    });
    let matched = passed.len();
    Found {
        ids: page(passed, filter),
        matched,
        longest: longest.into_iter().collect(),
    }
}

/// Sorts no more nodes than the page needs.
fn page(mut nodes: Vec<(bool, NodeAddr, NodeId)>, filter: &Filter) -> Vec<NodeId> {
    let order = |(is_fine, addr, _): &(bool, NodeAddr, NodeId), other: &(bool, NodeAddr, NodeId)| {
        (is_fine, addr.as_listed()).cmp(&(&other.0, other.1.as_listed()))
    };
    let end = filter.offset.saturating_add(filter.n).min(nodes.len());
    if (1..nodes.len()).contains(&end) {
        nodes.select_nth_unstable_by(end - 1, order);
    }
    nodes.truncate(end);
    nodes.sort_unstable_by(order);
    nodes.into_iter().skip(filter.offset).map(|(_, _, id)| id).collect()
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
