//! Updates the set of nodes from what the lists say.

use std::time::Instant;

use log::Level;

use super::Poller;
use super::tracked::{Health, Tracked};
use crate::lists::{self, Update};
use crate::node::{NodeAddr, Rank};
use crate::registry::NodeId;

impl Poller {
    pub(super) fn update(&mut self, update: Update, now: Instant) {
        match update {
            Update::Listed(nodes) => self.listed = Some(nodes),
            Update::Explorer(nodes) => self.explorer = Some(nodes),
            Update::ExplorerFailed => {
                self.explorer.get_or_insert_default();
                return self.tell_ready();
            }
        }
        self.relist(now);
        self.tell_ready();
    }

    /// Brings the nodes in line with the lists: those that stay keep their state.
    fn relist(&mut self, now: Instant) {
        let ranked = lists::merge(
            self.listed.as_ref().map_or(&[], |list| &list.nodes),
            self.explorer.as_ref().map_or(&[], |list| &list.nodes),
            |host| self.fetcher.resolver().known(host),
        );
        let gone: Vec<NodeAddr> = self
            .by_addr
            .keys()
            .filter(|addr| !ranked.contains_key(*addr))
            .cloned()
            .collect();
        gone.iter().for_each(|addr| self.drop_node(addr, now));
        let mut new = Vec::new();
        for (addr, (rank, _)) in ranked {
            match self.by_addr.get(&addr) {
                Some(id) => self.keep(*id, addr, rank),
                None => new.push((rank, addr)),
            }
        }
        new.sort_unstable();
        for (rank, addr) in new {
            let id = self.registry.insert(addr.clone(), rank);
            self.by_addr.insert(addr.clone(), id);
            self.board.listed(id, addr.clone(), rank.source());
            self.nodes.insert(id, Tracked::new(addr, rank));
            self.schedule.add_new(id, rank.source());
            self.unanswered += 1;
            self.recount(id);
        }
        let nodes = &self.nodes;
        let is_new = |node: &Tracked, source| node.asked.is_none() && node.rank.source() == source;
        self.schedule.retain(
            |id, source| nodes.get(&id).is_some_and(|node| is_new(node, source)),
            |id| nodes.contains_key(&id),
        );
    }

    fn keep(&mut self, id: NodeId, addr: NodeAddr, rank: Rank) {
        if let Some(node) = self.nodes.get_mut(&id)
            && (node.rank != rank || node.addr.as_listed() != addr.as_listed())
        {
            self.registry.relist(id, addr.clone(), rank);
            self.board.listed(id, addr.clone(), rank.source());
            let was = std::mem::replace(&mut node.rank, rank);
            node.addr = addr;
            if node.asked.is_none() && was.source() != rank.source() {
                self.schedule.add_new(id, rank.source());
            }
            self.recount(id);
        }
    }

    fn drop_node(&mut self, addr: &NodeAddr, now: Instant) {
        let Some(id) = self.by_addr.remove(addr) else {
            return;
        };
        self.registry.remove(id);
        let changes = self.board.removed(id);
        self.log_conflicts(changes, now);
        if let Some(node) = self.nodes.remove(&id) {
            if node.health == Health::New {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if let Some((class, _)) = node.under_way {
                self.orphans.insert(id, class);
            }
            if let Some(asked) = node.asked {
                self.schedule.dequeue(id, asked);
            }
            self.count(node.counted, None);
            self.mass_failure.removed(id);
            let addr = addr.as_listed();
            let line = format_args!("node {addr:?} is not listed any more");
            node.log(&mut self.node_lines, Level::Info, line, now);
        }
    }

    /// Lets serving begin when every node of the first lists was heard of.
    pub(super) fn tell_ready(&mut self) {
        let has_lists = self.listed.is_some() && (self.explorer.is_some() || !self.settings.expects_explorer);
        if has_lists && self.unanswered == 0 {
            self.ready = None;
        }
    }
}
