//! Updates the set of nodes from the lists.

use std::time::Instant;

use ::log::Level;

use super::log::{Keys, Subject};
use super::{Poller, Probing};
use crate::lists::{self, Update};
use crate::node::{Attributes, NodeAddr, Rank, Source};
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
        for (addr, (rank, attributes)) in ranked {
            match self.by_addr.get(&addr) {
                Some(id) => self.keep(*id, addr, rank, attributes, now),
                None => new.push((rank, addr, attributes)),
            }
        }
        new.sort_unstable_by_key(|(rank, ..)| *rank);
        for (rank, addr, attributes) in new {
            let id = self.registry.insert(addr.clone(), rank, now);
            self.registry.set_attributes(id, attributes);
            self.by_addr.insert(addr, id);
            self.nodes.insert(id, Probing::new(rank.source()));
            self.schedule.add_new(id, rank.source());
            self.unanswered += 1;
        }
        let nodes = &self.nodes;
        let is_new = |probing: &Probing, source: Source| probing.last_sent.is_none() && probing.source == source;
        self.schedule.retain(
            |id, source| nodes.get(&id).is_some_and(|probing| is_new(probing, source)),
            |id| nodes.contains_key(&id),
        );
    }

    fn keep(&mut self, id: NodeId, addr: NodeAddr, rank: Rank, attributes: Attributes, now: Instant) {
        let is_draining = attributes.is_draining;
        let former = self.registry.relist(id, addr, rank);
        let was_draining = self.registry.set_attributes(id, attributes);
        let Some(probing) = self.nodes.get_mut(&id) else {
            return;
        };
        probing.source = rank.source();
        if probing.last_sent.is_none() && former.source() != rank.source() {
            self.schedule.add_new(id, rank.source());
        }
        // A draining node counts in no mass failure.
        let before = (!was_draining).then_some(former.source());
        let after = (!is_draining).then_some(rank.source());
        if before != after {
            self.move_to_list(id, before, after.map(|_| rank), now);
        }
    }

    /// Moves a node from the mass failure of one list to that of another one.
    fn move_to_list(&mut self, id: NodeId, before: Option<Source>, after: Option<Rank>, now: Instant) {
        if let Some(source) = before {
            self.mass_failures.of(source).removed(id);
        }
        let Some(health) = self.registry.health(id).filter(|health| health.is_available()) else {
            return;
        };
        if let Some(rank) = after {
            self.mass_failures.of(rank.source()).responded(id, rank);
        }
        if health != Health::Up {
            self.registry.set_health(id, Health::Suspect, now);
            if let Some(rank) = after {
                self.mass_failures.of(rank.source()).failed_once(id);
            }
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
        self.resources.iter_mut().for_each(|resources| resources.removed(id));
        if let (Some((node, health)), Some(probing)) = (node, self.nodes.remove(&id)) {
            if health == Health::New {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if let Some((class, _)) = probing.in_flight {
                self.orphans.insert(id, class);
            }
            if let Some(last_sent) = probing.last_sent {
                self.schedule.dequeue(id, last_sent);
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
