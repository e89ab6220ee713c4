//! Updates the set of nodes from the lists.

use std::collections::HashMap;
use std::time::Instant;

use ::log::Level;

use super::Poller;
use crate::lists::{self, Update};
use crate::node::{Attributes, NodeAddr, Rank};
use crate::registry::{NodeId, NodeState};

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

    /// Merges the lists again if a name has other addresses than before: an Explorer node at the address of a listed
    /// name is the listed node.
    pub(super) fn follow_names(&mut self, now: Instant) {
        if self.explorer.is_some() && self.fetcher.resolver().changes() != self.name_changes {
            self.relist(now);
        }
    }

    /// Brings the nodes in line with the lists. Nodes that remain keep their state.
    fn relist(&mut self, now: Instant) {
        self.name_changes = self.fetcher.resolver().changes();
        let ranked = lists::merge(
            self.listed.as_ref().map_or(&[], |list| &list.nodes),
            self.explorer.as_ref().map_or(&[], |list| &list.nodes),
            |host| self.fetcher.resolver().known(host),
        );
        // The addresses of the former lists are freed.
        let mut former = std::mem::replace(&mut self.by_addr, HashMap::with_capacity(ranked.len()));
        let mut new = Vec::new();
        for (addr, (rank, attributes)) in ranked {
            match former.remove(&addr) {
                Some(id) => {
                    self.by_addr.insert(addr.clone(), id);
                    self.keep(id, addr, rank, attributes, now);
                }
                None => new.push((rank, addr, attributes)),
            }
        }
        former.into_values().for_each(|id| self.drop_node(id, now));
        new.sort_unstable_by_key(|(rank, ..)| *rank);
        for (rank, addr, attributes) in new {
            let id = self.registry.insert(addr.clone(), rank, now);
            self.registry.relist(id, addr.clone(), rank, attributes, now);
            self.by_addr.insert(addr, id);
            self.schedule.add_new(id, rank.source(), now);
            self.unanswered.insert(id);
        }
    }

    fn keep(&mut self, id: NodeId, addr: NodeAddr, rank: Rank, attributes: Attributes, now: Instant) {
        let listed = (rank.source(), attributes.is_draining);
        let former = self.registry.relist(id, addr, rank, attributes, now);
        if former.is_none_or(|former| (former.rank.source(), former.attributes.is_draining) == listed) {
            return;
        }
        // The failures of the node count in another list now. A draining node counts in none.
        self.schedule.relist(id, rank.source());
        self.mass_failures.iter_mut().for_each(|failures| failures.removed(id));
        if self.registry.health(id) == Some(NodeState::Doubted) {
            self.registry.set_health(id, NodeState::Suspect, now);
        }
    }

    fn drop_node(&mut self, id: NodeId, now: Instant) {
        let node = self.registry.remove(id);
        self.schedule.waiting.remove(id);
        self.unanswered.remove(&id);
        self.local_errors.remove(&id);
        self.resources
            .iter_mut()
            .for_each(|resources| resources.queue.remove(id));
        if let Some(node) = node {
            self.mass_failures[node.rank.source() as usize].removed(id);
            let event = "node removed: no longer listed";
            self.node_lines.log(Level::Info, event, &node, &[], now);
        }
    }

    /// Reports that serving may begin, once every node of the first lists has returned a result.
    pub(super) fn tell_ready(&mut self) {
        let has_lists = self.listed.is_some() && (self.explorer.is_some() || self.config.api_url.is_none());
        if has_lists && self.unanswered.is_empty() {
            self.ready = None;
        }
    }
}
