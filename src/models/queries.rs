//! The rate of queries: to all nodes, to one node, and in flight.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::Query;
use crate::node::NodeAddr;

/// Queries to all nodes in [`RATE_WINDOW`]: each loads containers, so this is the worst that attackers can cause.
pub(super) const MAX_IN_RATE_WINDOW: usize = 10;
/// A tenth more than a second, so that the rate holds at the nodes too, whatever the network does to the time between.
const RATE_WINDOW: Duration = Duration::from_millis(1_100);
/// Queries to one node in [`NODE_WINDOW`]: each can make a service call an external system.
pub(super) const MAX_TO_NODE: usize = 6;
/// A second more than a minute, for the same reason as [`RATE_WINDOW`].
pub(super) const NODE_WINDOW: Duration = Duration::from_secs(61);
/// Queries in flight. Ten per second that take 3 s each would be 30; half of the nodes may hang for that long.
pub(crate) const MAX_IN_FLIGHT: usize = 16;

/// The queries of the last [`NODE_WINDOW`], at most 560, and those in flight.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    /// Oldest first.
    pub(super) sent: VecDeque<(Instant, NodeAddr)>,
    pub(super) in_flight: Vec<Query>,
}

impl Queries {
    /// Returns the instant from which the rate allows another query, if that is later than now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let first = self.sent.len().checked_sub(MAX_IN_RATE_WINDOW)?;
        let next_at = self.sent[first].0 + RATE_WINDOW;
        (next_at > now).then_some(next_at)
    }

    /// Returns whether as many queries are in flight as may be.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight.len() >= MAX_IN_FLIGHT
    }

    /// Returns the nodes that must not be queried now because of their own rate.
    pub(super) fn exhausted(&mut self, now: Instant) -> HashSet<NodeAddr> {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= NODE_WINDOW;
        while self.sent.front().is_some_and(|(at, _)| is_old(*at)) {
            self.sent.pop_front();
        }
        let mut counts: HashMap<&NodeAddr, usize> = HashMap::new();
        self.sent
            .iter()
            .for_each(|(_, addr)| *counts.entry(addr).or_default() += 1);
        let exhausted = counts.into_iter().filter(|(_, count)| *count >= MAX_TO_NODE);
        exhausted.map(|(addr, _)| addr.clone()).collect()
    }

    pub(super) fn begin(&mut self, query: Query, now: Instant) {
        self.sent.push_back((now, query.addr.clone()));
        self.in_flight.push(query);
    }

    pub(crate) fn end(&mut self, query: &Query) {
        self.in_flight.retain(|other| other != query);
    }
}
