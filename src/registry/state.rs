//! What the lock guards: the nodes, and everything that is kept in step with them.

use std::time::{Duration, Instant};

use super::attributes::later;
use super::catalogue::{Catalogue, Index, Summary};
use super::node::{Fleet, Node, NodeReport};
use super::order::{Order, Place};
use super::pending::TypeNames;
use super::promises::{Cell, ClientPromise, ClientPromises, Extras};
use super::resources::Holders;
use super::select::{Adjusted, Seen, View};
use super::speed::{FleetSpeed, Record, Time, Work};
use super::{Health, NodeId, NodeRecord, PromisePolicy, Rank, Standing};
use crate::client::Client;
use crate::node::{ContainerId, NodeAddr, Running};
use crate::util::arena::Arena;

#[derive(Debug)]
pub(super) struct State {
    is_on: bool,
    fleet: Fleet,
    pub(super) nodes: Arena<Node>,
    /// Number of removed nodes. A view older than the last removal may name a removed node.
    removal_epoch: u64,
    round: u64,
    pub(super) catalogue: Catalogue,
    clients: ClientPromises,
    pub(super) holders: Holders,
    extras: Extras,
    type_names: TypeNames,
    /// Promises made since the start.
    promises_made: u64,
    /// Nodes with an `as=` address.
    pub(super) aliases: usize,
}

/// The client of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// The cell in which the promises of the client's subnet are counted.
    pub(super) cell: Cell,
    /// The client, if its view ignores its last promise.
    pub(super) undoing_for: Option<Client>,
}

/// What a node had in the registry before it was marked down: enough to put it back as it was.
#[derive(Clone, Debug)]
pub struct Withdrawn {
    pub(super) tie: u32,
    pub(super) running: Vec<Running>,
}

impl State {
    pub(super) fn new(policy: PromisePolicy, interval: Duration) -> Self {
        let (is_on, weight, max_speedup) = match policy {
            PromisePolicy::On { weight, max_speedup } => (true, weight.max(1), max_speedup),
            PromisePolicy::Off => (false, 1, None),
        };
        Self {
            is_on,
            fleet: Fleet {
                weight,
                max_speedup,
                interval,
                speed: FleetSpeed::new(interval),
            },
            nodes: Arena::default(),
            removal_epoch: 0,
            round: 0,
            catalogue: Catalogue::default(),
            clients: ClientPromises::default(),
            holders: Holders::default(),
            extras: Extras::default(),
            type_names: TypeNames::default(),
            promises_made: 0,
            aliases: 0,
        }
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn removal_epoch(&self) -> u64 {
        self.removal_epoch
    }

    pub(super) fn promises_made(&self) -> u64 {
        self.promises_made
    }

    pub(super) fn summaries(&self, after: Option<&ContainerId>, most: usize) -> Vec<Summary> {
        self.catalogue.summaries(after, most)
    }

    /// The records of at most `most` slots from `from` on, each with whether the node is listed; `None` after the last.
    pub(super) fn records(&self, from: usize, most: usize) -> Option<Vec<(bool, Record)>> {
        let record = |node: &Node| Some((node.record.rank.is_listed(), node.work.record()?));
        (from < self.nodes.places()).then(|| self.nodes.from(from).take(most).flatten().filter_map(record).collect())
    }

    /// Begins a round. Without any record the last fleet speed is kept.
    pub(super) fn begin_round(&mut self, speed: Option<FleetSpeed>) {
        self.round += 1;
        self.fleet.speed = speed.unwrap_or(self.fleet.speed);
    }

    pub(super) fn standing(&self, id: NodeId, now: Time) -> Option<Standing> {
        let node = self.nodes.get(id)?;
        Some(Standing {
            promises: node.promised(self.fleet.interval),
            speed: self.is_on.then(|| node.work.speed()),
            is_learned: node.work.record().is_some(),
            finish: self.is_on.then(|| node.work.finish().since(now)),
        })
    }

    pub(super) fn begin_probe(&mut self, id: NodeId, now: Time) -> u32 {
        self.nodes.get_mut(id).map_or(0, |node| {
            node.last_sent = node.last_sent.wrapping_add(1);
            node.work.probe_sent(now);
            node.last_sent
        })
    }

    pub(super) fn insert(&mut self, record: NodeRecord) -> NodeId {
        self.nodes.insert(Node {
            record,
            removal_epoch: self.removal_epoch,
            last_sent: 0,
            last_reported: 0,
            pending: 0,
            work: Work::new(&self.fleet.speed),
            promises: None,
            place: None,
            withheld: None,
            runs: Box::default(),
            images: Box::default(),
            resources: None,
        })
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        let _ = self.leave_orders(id);
        if let Some(node) = self.nodes.remove(id) {
            self.removal_epoch += 1;
            self.aliases -= usize::from(node.record.attributes.public.is_some());
            let crowded = node.crowded(self.fleet.interval);
            crowded.iter().for_each(|cell| self.extras.clear(*cell, id.index()));
            self.remove_resources(id, &node);
        }
    }

    /// Changes the address and the rank of a node. Returns the former rank if one of them changed.
    pub(super) fn relist(&mut self, id: NodeId, addr: NodeAddr, rank: Rank) -> Option<Rank> {
        let node = self.nodes.get_mut(id)?;
        let record = &mut node.record;
        let is_same = record.rank == rank && record.addr.as_listed() == addr.as_listed();
        record.addr = addr;
        let former = std::mem::replace(&mut record.rank, rank);
        if former != rank {
            node.runs
                .iter()
                .for_each(|index| self.catalogue.rerank(*index, id, rank));
            self.rerank_resources(id, former, rank);
        }
        (!is_same).then_some(former)
    }

    /// The records of the nodes in `most` slots from `from` on, or `None` after the last slot.
    pub(super) fn visit(&self, from: usize, most: usize, visit: &mut impl FnMut(NodeId, &NodeRecord)) -> Option<()> {
        let slots = from..self.nodes.places().min(from + most);
        let ids = slots.clone().filter_map(|slot| self.nodes.key_at(slot as u32));
        for id in ids {
            self.nodes.get(id).iter().for_each(|node| visit(id, &node.record));
        }
        (!slots.is_empty()).then_some(())
    }

    pub(super) fn record(&self, id: NodeId) -> Option<&NodeRecord> {
        Some(&self.nodes.get(id)?.record)
    }

    pub(super) fn record_mut(&mut self, id: NodeId) -> Option<&mut NodeRecord> {
        Some(&mut self.nodes.get_mut(id)?.record)
    }

    /// Applies a report and returns how many of its containers the full catalogue omitted.
    pub(super) fn up(&mut self, id: NodeId, report: NodeReport<'_>, time: Time, now: Instant) -> usize {
        let Some(node) = self.nodes.get_mut(id) else {
            return 0;
        };
        let interval = self.fleet.interval;
        let crowded = node.crowded(interval);
        node.apply(&report, &self.fleet, time);
        node.record.change(now, |record| record.health = Health::Up);
        crowded.iter().for_each(|cell| self.extras.clear(*cell, id.index()));
        for cell in node.crowded(interval) {
            self.extras.set(cell, id.index(), node.extra_nanos(cell, interval));
        }
        let omitted = self.enter(id, report.tie, report.running);
        let count = omitted.len();
        if let Some(record) = self.record_mut(id) {
            record.omitted = omitted.into_iter().next();
        }
        count
    }

    /// Stores the pending jobs of a report by type.
    pub(super) fn set_pending(&mut self, id: NodeId, pending: &[(String, u64)]) {
        if let Some(node) = self.nodes.get_mut(id) {
            // First, so that names that only this node reported are free.
            node.record.pending = None;
            node.record.pending = Some(self.type_names.keep(pending));
        }
    }

    /// Gives a node its place in the orders of exactly these containers, or keeps them for later while the node is
    /// draining. Returns the containers that the full catalogue omitted.
    pub(super) fn enter(&mut self, id: NodeId, tie: u32, containers: &[Running]) -> Vec<ContainerId> {
        let mut omitted = Vec::new();
        let Some(node) = self.nodes.get_mut(id) else {
            return omitted;
        };
        if node.record.attributes.is_draining {
            let running = containers.to_vec();
            node.withheld = Some(Withdrawn { tie, running });
            return omitted;
        }
        let rank = node.record.rank;
        let place = Place {
            key: node.key(self.is_on),
            tie,
            node: id.index(),
        };
        let mut running: Vec<(Index, &Running)> = Vec::with_capacity(containers.len());
        for container in containers {
            match self.catalogue.enter(&container.id, rank) {
                Some(index) => running.push((index, container)),
                None => omitted.push(container.id.clone()),
            }
        }
        running.sort_unstable_by_key(|(index, _)| *index);
        self.set_place(id, place, &running);
        omitted
    }

    /// Moves a node to `place` in the orders of exactly these containers.
    fn set_place(&mut self, id: NodeId, place: Place, running: &[(Index, &Running)]) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let rank = node.record.rank;
        let old_place = node.place.replace(place);
        let ran = std::mem::replace(&mut node.runs, running.iter().map(|(index, _)| *index).collect());
        let has_changed = ran != node.runs;
        self.catalogue.release_images(&ran, &node.images);
        node.images = running
            .iter()
            .map(|(index, container)| self.catalogue.claim_image(*index, container.image.as_ref()))
            .collect();
        for (index, reported) in running {
            if let Some(container) = self.catalogue.get_mut(*index) {
                if let Some(old_place) = old_place {
                    container.order.remove(old_place);
                }
                container.order.insert(place);
                self.catalogue.describe(*index, id, rank, reported.description.as_ref());
            }
        }
        let gone = ran
            .iter()
            .filter(|index| running.binary_search_by_key(*index, |(i, _)| *i).is_err());
        if let Some(old_place) = old_place {
            gone.for_each(|index| self.catalogue.leave(*index, id, rank, old_place));
        }
        if has_changed {
            self.retain_resources(id);
        }
    }

    /// Sets the health of a node. A node that becomes unavailable leaves all orders. Returns what it had there.
    /// Only [`State::up`] and [`State::put_back`] make a node available.
    pub(super) fn set_health(&mut self, id: NodeId, health: Health, now: Instant) -> Option<Withdrawn> {
        let node = self.nodes.get_mut(id)?;
        if health.is_available() && node.place.is_none() && node.withheld.is_none() {
            return None;
        }
        node.record.change(now, |record| record.health = health);
        if health.is_available() {
            self.update_key(id);
            return None;
        }
        node.record.pending = None;
        self.leave_orders(id)
    }

    pub(super) fn leave_orders(&mut self, id: NodeId) -> Option<Withdrawn> {
        let node = self.nodes.get_mut(id)?;
        let Some(old_place) = node.place.take() else {
            return node.withheld.take();
        };
        let rank = node.record.rank;
        let (runs, images) = (std::mem::take(&mut node.runs), std::mem::take(&mut node.images));
        let running = runs.iter().zip(&images);
        let running = running
            .filter_map(|(index, image)| self.catalogue.running(*index, id, *image))
            .collect();
        self.catalogue.release_images(&runs, &images);
        for index in runs {
            self.catalogue.leave(index, id, rank, old_place);
        }
        let tie = old_place.tie;
        Some(Withdrawn { tie, running })
    }

    /// Makes a node that was marked down available again, as [`Health::Doubted`].
    pub(super) fn put_back(&mut self, id: NodeId, withdrawn: &Withdrawn, now: Instant) {
        if let Some(node) = self
            .nodes
            .get_mut(id)
            .filter(|node| node.place.is_none() && node.withheld.is_none())
        {
            node.record.change(now, |record| record.health = Health::Doubted);
            self.enter(id, withdrawn.tie, &withdrawn.running);
        }
    }

    /// What a response is made from; `None` if no node runs one of the containers.
    pub(super) fn view<'a>(&self, containers: impl Iterator<Item = &'a str>, asking: Asking) -> Option<View> {
        let mut orders = Vec::new();
        for id in containers {
            orders.push(self.catalogue.find(id)?.order.clone());
        }
        orders.sort_by_key(Order::len);
        Some(View {
            orders,
            adjusted: self.adjusted(asking),
            is_private: self.extras.has(asking.cell),
            removal_epoch: self.removal_epoch,
        })
    }

    /// The open promise that the client's view ignores, with its node.
    fn undone(&self, asking: Asking) -> Option<(ClientPromise, &Node)> {
        let promise = self.clients.last_promise(asking.undoing_for?)?;
        let node = self.nodes.get(promise.node)?;
        node.is_open(promise.last_sent).then_some((promise, node))
    }

    fn adjusted(&self, asking: Asking) -> Option<Adjusted> {
        let (promise, node) = self.undone(asking)?;
        let actual = node.place?;
        (!promise.is_extra).then_some(Adjusted {
            actual,
            seen: Place {
                key: node.reclassed(promise.old_place.key),
                ..actual
            },
        })
    }

    /// The nodes at these places of a view as a client sees them.
    pub(super) fn seen(&self, places: &[Place], asking: Asking) -> Vec<Seen> {
        let undone = self.undone(asking).filter(|(promise, _)| promise.is_extra);
        let undone = undone.map(|(promise, node)| {
            let extra = node.extra(asking.cell, self.fleet.interval).saturating_sub(1);
            (promise.node.index(), node.work.nanos_of(extra))
        });
        let seen = |place: &Place| {
            let nanos = match undone {
                Some((slot, nanos)) if slot == place.node => nanos,
                _ => self.extras.nanos(asking.cell, place.node),
            };
            Seen {
                private_key: later(place.key, nanos),
                place: *place,
            }
        };
        places.iter().map(seen).collect()
    }

    /// Whether the client still sees this node in this place.
    pub(super) fn is_seen(&self, seen: Seen, asking: Asking) -> bool {
        let node = self.nodes.key_at(seen.place.node).and_then(|key| self.nodes.get(key));
        node.is_some_and(|node| node.place == Some(seen.place)) && self.seen(&[seen.place], asking) == [seen]
    }

    /// The nodes at the places of a view, without removed nodes. Another node may have the number of a removed one.
    pub(super) fn still_there(&self, selected: &[Seen], removal_epoch: u64) -> Vec<NodeId> {
        let key = |seen: &Seen| {
            let key = self.nodes.key_at(seen.place.node)?;
            self.nodes
                .get(key)
                .is_some_and(|node| node.removal_epoch <= removal_epoch)
                .then_some(key)
        };
        selected.iter().filter_map(key).collect()
    }

    /// Promises a node to a client whose subnet is counted in `cell`.
    pub(super) fn promise(&mut self, id: NodeId, client: Client, cell: Cell, now: Time) {
        let interval = self.fleet.interval;
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let is_extra = node.promise(cell, interval, now);
        let last_sent = node.last_sent;
        if is_extra {
            self.extras.set(cell, id.index(), node.extra_nanos(cell, interval));
        } else {
            self.promises_made += 1;
        }
        if let Some(old_place) = self.update_key(id) {
            let promise = ClientPromise {
                node: id,
                last_sent,
                old_place,
                is_extra,
            };
            self.clients.set(client, promise);
        }
    }

    /// Moves a node to its current place, and returns the old one.
    pub(super) fn update_key(&mut self, id: NodeId) -> Option<Place> {
        let node = self.nodes.get_mut(id)?;
        let key = node.key(self.is_on);
        let place = node.place.as_mut()?;
        let old_place = *place;
        place.key = key;
        for run in &node.runs {
            if let Some(container) = self.catalogue.get_mut(*run) {
                container.order.remove(old_place);
                container.order.insert(*place);
            }
        }
        Some(old_place)
    }
}

#[cfg(test)]
impl State {
    /// Number of nodes with promises above the cap, summed over the cells.
    pub(super) fn crowded(&self) -> usize {
        self.extras.len()
    }

    pub(super) fn place(&self, id: NodeId) -> Option<Place> {
        self.nodes.get(id)?.place
    }

    /// The key of the node's place, computed again.
    pub(super) fn key(&self, id: NodeId) -> Option<u64> {
        Some(self.nodes.get(id)?.key(self.is_on))
    }
}
