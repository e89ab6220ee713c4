//! Updates the set of nodes from the lists.

use std::time::Instant;

use ::log::Level;

use super::log::{Keys, Subject};
use super::{Poller, Probing};
use crate::lists::{self, Update};
use crate::node::{NodeAddr, Rank, Source};
use crate::registry::{Health, NodeId};

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

    /// Brings the nodes in line with the lists. Nodes that remain keep their state.
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
                Some(id) => self.keep(*id, addr, rank, now),
                None => new.push((rank, addr)),
            }
        }
        new.sort_unstable();
        for (rank, addr) in new {
            let id = self.registry.insert(addr.clone(), rank, now);
            self.by_addr.insert(addr, id);
            self.nodes.insert(id, Probing::new(rank.source()));
            self.schedule.add_new(id, rank.source());
            self.unanswered += 1;
        }
        let nodes = &self.nodes;
        let is_new = |probing: &Probing, source: Source| probing.asked.is_none() && probing.source == source;
        self.schedule.retain(
            |id, source| nodes.get(&id).is_some_and(|probing| is_new(probing, source)),
            |id| nodes.contains_key(&id),
        );
    }

    fn keep(&mut self, id: NodeId, addr: NodeAddr, rank: Rank, now: Instant) {
        let (Some(former), Some(probing)) = (self.registry.relist(id, addr, rank), self.nodes.get_mut(&id)) else {
            return;
        };
        if former.source() == rank.source() {
            return;
        }
        probing.source = rank.source();
        if probing.asked.is_none() {
            self.schedule.add_new(id, rank.source());
        }
        self.move_to_list(id, former, rank, now);
    }

    /// A node that changes lists counts in the mass failure of its new list.
    fn move_to_list(&mut self, id: NodeId, former: Rank, rank: Rank, now: Instant) {
        self.mass_failures.of(former.source()).removed(id);
        let Some(health) = self.registry.health(id).filter(|health| health.is_available()) else {
            return;
        };
        let failures = self.mass_failures.of(rank.source());
        failures.responded(id, rank);
        if health != Health::Up {
            failures.failed_once(id);
            self.registry.set_health(id, Health::Suspect, now);
        }
    }

    fn drop_node(&mut self, addr: &NodeAddr, now: Instant) {
        let Some(id) = self.by_addr.remove(addr) else {
            return;
        };
        let node = self
            .registry
            .note(id, now, |record| (Subject::of(record), record.health()));
        self.registry.remove(id);
        if let (Some((node, health)), Some(probing)) = (node, self.nodes.remove(&id)) {
            if health == Health::New {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if let Some((class, _)) = probing.in_flight {
                self.orphans.insert(id, class);
            }
            if let Some(asked) = probing.asked {
                self.schedule.dequeue(id, asked);
            }
            self.mass_failures.of(probing.source).removed(id);
            let event = "node removed: no longer listed";
            self.node_lines.log(Level::Info, event, &node, Keys::default(), now);
        }
    }

    /// Reports that serving may begin, once every node of the first lists has returned a result.
    pub(super) fn tell_ready(&mut self) {
        let has_lists = self.listed.is_some() && (self.explorer.is_some() || !self.settings.expects_explorer);
        if has_lists && self.unanswered == 0 {
            self.ready = None;
        }
    }
}
