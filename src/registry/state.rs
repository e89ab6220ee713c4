//! What the lock guards: the nodes, and everything that is kept in step with them.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use thunderdome::Arena;

use super::catalogue::{Catalogue, Index, Run};
use super::node::{Fleet, Node};
use super::order::{Order, Place};
use super::promises::{Cell, ClientPromise, ClientPromises, Extras};
use super::record::{MAX_KEY, later};
use super::select::{Seen, View};
use super::speed::{FleetSpeed, Time};
use super::{NodeId, PromisePolicy};
use crate::client::Client;
use crate::node::{ContainerId, Running};

#[derive(Debug)]
pub(super) struct State {
    pub(super) fleet: Fleet,
    pub(super) nodes: Arena<Node>,
    /// Number of the node that was inserted last.
    pub(super) newest: u64,
    pub(super) round: u64,
    /// Makes the order of equal nodes unpredictable.
    ties: RandomState,
    pub(super) catalogue: Catalogue,
    clients: ClientPromises,
    /// Bytes of the resources of all nodes.
    pub(super) resource_bytes: usize,
    pub(super) extras: Extras,
    /// Promises made since the start.
    pub(super) promises_made: u64,
    /// Whether a node has had an `as=` address.
    pub(super) has_aliases: bool,
}

impl State {
    pub(super) fn new(policy: PromisePolicy, interval: Duration) -> Self {
        Self {
            fleet: Fleet {
                policy,
                interval,
                speed: FleetSpeed::new(interval),
            },
            nodes: Arena::default(),
            newest: 0,
            round: 0,
            ties: RandomState::new(),
            catalogue: Catalogue::default(),
            clients: ClientPromises::default(),
            resource_bytes: 0,
            extras: Extras::default(),
            promises_made: 0,
            has_aliases: false,
        }
    }

    /// The containers that an available node runs, sorted.
    pub(super) fn runs(&self, id: NodeId) -> Option<Vec<ContainerId>> {
        let node = self.nodes.get(id).filter(|node| node.routing.place.is_some())?;
        let mut runs: Vec<ContainerId> = node
            .routing
            .runs
            .iter()
            .filter_map(|(run, _)| self.catalogue.id(*run))
            .collect();
        runs.sort_unstable();
        Some(runs)
    }

    /// Gives a node its place in the orders of exactly these containers, or keeps them while the node is not available.
    /// Returns how many containers the full catalogue omitted.
    pub(super) fn enter(&mut self, id: NodeId, containers: &[Running]) -> usize {
        let Some(node) = self.nodes.get_mut(id) else {
            return 0;
        };
        node.record.omitted = None;
        node.routing.withheld = None;
        if !node.record.is_available() {
            node.routing.withheld = Some(containers.to_vec());
            return 0;
        }
        let place = Place {
            key: node.key(self.fleet.policy),
            tie: self.ties.hash_one((self.round, id.slot())) as u32,
            node: id.slot(),
        };
        let from = node.routing.place.replace(place);
        let former = std::mem::take(&mut node.routing.runs);
        let (mut runs, mut omitted) = (Vec::with_capacity(containers.len()), 0);
        for container in containers {
            match self.catalogue.enter(container, id, node.record.rank, from, place) {
                Some(run) => runs.push(run),
                None => {
                    omitted += 1;
                    node.record.omitted.get_or_insert_with(|| container.id.clone());
                }
            }
        }
        runs.sort_unstable_by_key(|(run, _)| *run);
        node.routing.runs = runs.into();
        let indices = |runs: &[Run]| -> Vec<Index> { runs.iter().map(|(run, _)| *run).collect() };
        if indices(&former) != indices(&node.routing.runs) {
            for run in former.into_iter().filter(|(run, _)| !node.routing.runs(*run)) {
                from.and_then(|from| self.catalogue.leave(run, id, from));
            }
            if !node.routing.resources.entries.is_empty() {
                self.retain_resources(id);
            }
        }
        omitted
    }

    /// Takes a node out of all orders. Returns what it has or had there.
    pub(super) fn leave(&mut self, id: NodeId) -> Option<Vec<Running>> {
        let node = self.nodes.get_mut(id)?;
        let Some(place) = node.routing.place.take() else {
            return node.routing.withheld.take();
        };
        let runs = std::mem::take(&mut node.routing.runs).into_iter();
        Some(runs.filter_map(|run| self.catalogue.leave(run, id, place)).collect())
    }

    /// Gives a node its place again after its health, its rank or its attributes have changed.
    pub(super) fn reenter(&mut self, id: NodeId) {
        if let Some(running) = self.leave(id) {
            self.enter(id, &running);
        }
    }

    /// What a response is made from; `None` if no node runs one of the containers. The subnet's promises are counted in
    /// `cell`. The view of `undoing_for` ignores the last promise to this client.
    pub(super) fn view<'a>(
        &self,
        containers: impl Iterator<Item = &'a str>,
        cell: Cell,
        undoing_for: Option<Client>,
    ) -> Option<View> {
        let mut orders = Vec::new();
        for id in containers {
            orders.push(self.catalogue.order(id)?.clone());
        }
        orders.sort_by_key(Order::len);
        Some(View {
            orders,
            undone: undoing_for.and_then(|client| self.undone(client, cell)),
            is_private: !self.extras.of(cell).is_empty(),
            has_aliases: self.has_aliases,
            newest: self.newest,
        })
    }

    /// The place of the node of the client's last promise, and the node as if the promise were not made.
    fn undone(&self, client: Client, cell: Cell) -> Option<(Place, Seen)> {
        let promise = self.clients.last_promise(client)?;
        let node = self.nodes.get(promise.node)?;
        let actual = node.routing.place.filter(|_| node.routing.is_open(promise.last_sent))?;
        let extra = node.routing.extra(cell, self.fleet.interval);
        let (key, extra) = match promise.is_extra {
            true => (actual.key, extra.saturating_sub(1)),
            false => (node.in_class(promise.old_key & MAX_KEY), extra),
        };
        let seen = Seen {
            private_key: later(key, node.routing.work.nanos_of(extra)),
            place: Place { key, ..actual },
        };
        Some((actual, seen))
    }

    /// Sets the private keys of nodes for the subnets of a cell.
    pub(super) fn see(&self, nodes: &mut [Seen], cell: Cell) {
        let extras = self.extras.of(cell);
        for seen in nodes {
            let nanos = extras.get(&seen.place.node).copied().unwrap_or_default();
            seen.private_key = later(seen.place.key, nanos);
        }
    }

    /// Whether the client still sees this node in this place.
    pub(super) fn is_seen(&self, seen: Seen, cell: Cell) -> bool {
        let node = self.nodes.get_by_slot(seen.place.node);
        let is_there = node.is_some_and(|(_, node)| node.routing.place == Some(seen.place));
        let mut now = [seen];
        self.see(&mut now, cell);
        is_there && now == [seen]
    }

    /// The nodes at the places of a view, without removed nodes. A node newer than the view may have the slot of a
    /// removed one.
    pub(super) fn still_there(&self, selected: &[Seen], newest: u64) -> Vec<NodeId> {
        let nodes = selected.iter();
        let nodes = nodes.filter_map(|seen| self.nodes.get_by_slot(seen.place.node));
        let known = nodes.filter(|(_, node)| node.routing.number <= newest);
        known.map(|(id, _)| id).collect()
    }

    /// Promises a node to a client whose subnet is counted in `cell`, unless promises are off.
    pub(super) fn promise(&mut self, id: NodeId, client: Client, cell: Cell, now: Time) {
        let node = self.nodes.get_mut(id);
        let Some(node) = node.filter(|_| self.fleet.policy != PromisePolicy::Off) else {
            return;
        };
        let extra = node.routing.promise(cell, self.fleet.interval, now);
        let (last_sent, is_extra) = (node.routing.last_sent, extra.is_some());
        match extra {
            Some(nanos) => self.extras.set(cell, id.slot(), nanos),
            None => self.promises_made += 1,
        }
        if let Some(old_key) = self.update_key(id) {
            let promise = ClientPromise {
                node: id,
                last_sent,
                old_key,
                is_extra,
            };
            self.clients.set(client, promise);
        }
    }

    /// Moves a node to its current place, and returns its old key.
    pub(super) fn update_key(&mut self, id: NodeId) -> Option<u64> {
        let node = self.nodes.get_mut(id)?;
        let key = node.key(self.fleet.policy);
        let place = node.routing.place.as_mut()?;
        let old_place = *place;
        place.key = key;
        // A promise above the cap moves nothing.
        if *place != old_place {
            for (run, _) in &node.routing.runs {
                self.catalogue.move_node(*run, old_place, *place);
            }
        }
        Some(old_place.key)
    }
}

#[cfg(test)]
impl State {
    /// Number of nodes with promises above the cap, summed over the cells.
    pub(super) fn crowded(&self) -> usize {
        self.extras.len()
    }

    pub(super) fn place(&self, id: NodeId) -> Option<Place> {
        self.nodes.get(id)?.routing.place
    }

    /// The key of the node's place, computed again.
    pub(super) fn key(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes.get(id)?.key(self.fleet.policy))
    }
}
