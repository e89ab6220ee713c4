//! Which nodes may be asked about a model, and when.

use std::time::{Duration, Instant};

use super::{Node, Nodes};
use crate::node::NodeAddr;

/// Questions about models that a node is asked in `SUPPORT_WINDOW`: each can make a service call out.
pub(super) const MAX_SUPPORT_ASKS: usize = 6;
/// A second more than a minute, so that it holds at the node as well, whatever the network does to the time between.
pub(super) const SUPPORT_WINDOW: Duration = Duration::from_secs(61);

impl Nodes {
    /// Nodes to ask about a model, soonest done first, at most `most` of those that `is_open` lets through; and whether
    /// these are all.
    pub(in crate::resources) fn soonest(
        &self,
        most: usize,
        by: Instant,
        is_open: impl Fn(&NodeAddr) -> bool,
    ) -> (Vec<NodeAddr>, bool) {
        let open = self.holders.iter().filter(|(_, addr)| is_open(addr));
        let mut open: Vec<(u64, &NodeAddr)> = open
            .filter_map(|(_, addr)| Some((self.by_addr.get(addr)?.order, addr)))
            .collect();
        let all = open.len();
        open.retain(|(_, addr)| self.by_addr.get(*addr).is_some_and(|node| node.may_be_asked(by)));
        if open.len() > most {
            open.select_nth_unstable(most);
            open.truncate(most);
        }
        open.sort_unstable();
        let is_all = open.len() == all;
        (open.into_iter().map(|(_, addr)| addr.clone()).collect(), is_all)
    }

    /// Whether a node may be asked about a model now.
    pub(in crate::resources) fn is_free(&self, addr: &NodeAddr, now: Instant) -> bool {
        self.is_open(addr, now) && self.by_addr.get(addr).is_some_and(|node| !node.is_busy)
    }

    /// Whether a node may be asked about a model by then, if nothing else is asked of it.
    pub(in crate::resources) fn is_open(&self, addr: &NodeAddr, by: Instant) -> bool {
        let node = self.by_addr.get(addr);
        node.is_some_and(|node| node.is_available && node.may_be_asked(by))
    }

    /// Notes that a node is asked about a model.
    pub(in crate::resources) fn ask_support(&mut self, addr: &NodeAddr, now: Instant) {
        if let Some(node) = self.by_addr.get_mut(addr) {
            node.is_busy = true;
            node.support_asks.push_back(now);
            if node.support_asks.len() > MAX_SUPPORT_ASKS {
                node.support_asks.pop_front();
            }
        }
    }

    /// Notes that this is over.
    pub(in crate::resources) fn support_ended(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.by_addr.get_mut(addr) {
            node.is_busy = false;
        }
    }
}

impl Node {
    fn may_be_asked(&self, now: Instant) -> bool {
        self.support_asks.len() < MAX_SUPPORT_ASKS
            || self
                .support_asks
                .front()
                .is_some_and(|first| now.saturating_duration_since(*first) >= SUPPORT_WINDOW)
    }
}
