//! What the lock guards: the nodes, and everything that is kept in step with them.

use std::sync::Arc;

use super::catalogue::{Catalogue, Entered, Index, Summary};
use super::order::{Order, Place};
use super::promises::{Forgotten, Own, Owners, Promises};
use super::select::{Moved, View};
use super::{NodeId, Rank, Totals};
use crate::client::Client;
use crate::node::{ContainerId, NodeAddr, Running};
use crate::util::arena::Arena;

#[derive(Debug, Default)]
pub(super) struct State {
    nodes: Arena<Node>,
    /// Nodes that left; a view that is older than the last may name one of them.
    departures: u64,
    round: u64,
    catalogue: Catalogue,
    owners: Owners,
    totals: Totals,
}

#[derive(Debug)]
struct Node {
    addr: NodeAddr,
    rank: Rank,
    /// Nodes that had left before it was inserted.
    departures: u64,
    /// Number of probes sent to it, and of the last one that reported.
    begun: u32,
    settled: u32,
    /// Weighted.
    pending: u64,
    promises: Option<Box<Promises>>,
    /// Present while the node is available; then it stands there in the order of each container that it runs.
    place: Option<Place>,
    /// Sorted.
    runs: Box<[Index]>,
}

impl State {
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn departures(&self) -> u64 {
        self.departures
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn summaries(&self, after: Option<&ContainerId>, most: usize) -> Vec<Summary> {
        self.catalogue.summaries(after, most)
    }

    pub(super) fn begin_round(&mut self) -> Forgotten {
        self.round += 1;
        self.owners.begin_round()
    }

    pub(super) fn begin_probe(&mut self, id: NodeId) -> u32 {
        self.nodes.get_mut(id).map_or(0, |node| {
            node.begun = node.begun.wrapping_add(1);
            node.begun
        })
    }

    fn count(&mut self, rank: Rank, change: fn(usize, usize) -> usize) {
        match rank {
            Rank::Listed(_) => self.totals.listed = change(self.totals.listed, 1),
            Rank::Explorer(_) => self.totals.explorer = change(self.totals.explorer, 1),
        }
    }

    fn count_up(&mut self, rank: Rank, change: fn(usize, usize) -> usize) {
        match rank {
            Rank::Listed(_) => self.totals.listed_up = change(self.totals.listed_up, 1),
            Rank::Explorer(_) => self.totals.explorer_up = change(self.totals.explorer_up, 1),
        }
    }

    pub(super) fn insert(&mut self, addr: NodeAddr, rank: Rank) -> NodeId {
        self.count(rank, usize::wrapping_add);
        self.nodes.insert(Node {
            addr,
            rank,
            departures: self.departures,
            begun: 0,
            settled: 0,
            pending: 0,
            promises: None,
            place: None,
            runs: Box::default(),
        })
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        self.withdraw(id);
        if let Some(node) = self.nodes.remove(id) {
            self.departures += 1;
            self.count(node.rank, usize::wrapping_sub);
        }
    }

    pub(super) fn relist(&mut self, id: NodeId, addr: NodeAddr, rank: Rank) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.addr = addr;
        let was = std::mem::replace(&mut node.rank, rank);
        let up = node.place.is_some();
        if was != rank {
            self.count(was, usize::wrapping_sub);
            self.count(rank, usize::wrapping_add);
            if up {
                self.count_up(was, usize::wrapping_sub);
                self.count_up(rank, usize::wrapping_add);
            }
            let runs = self.nodes.get(id).map(|node| node.runs.clone()).unwrap_or_default();
            for index in runs {
                self.catalogue.rerank(index, id, was, rank);
            }
        }
    }

    pub(super) fn up(
        &mut self,
        id: NodeId,
        probe: u32,
        running: &[Running],
        pending: u64,
        tie: u32,
        weight: u64,
    ) -> usize {
        let Some(node) = self.nodes.get_mut(id) else {
            return 0;
        };
        let rank = node.rank;
        node.settled = probe;
        node.pending = pending;
        if let Some(promises) = &mut node.promises {
            promises.settle(probe);
            if promises.count() == 0 {
                node.promises = None;
            }
        }
        let place = Place {
            load: node.load(weight),
            tie,
            node: id.index(),
        };
        let mut entered: Vec<(Index, Option<&Arc<str>>)> = Vec::with_capacity(running.len());
        for container in running {
            match self.catalogue.enter(&container.id, rank) {
                Entered::Found(index) => entered.push((index, container.description.as_ref())),
                Entered::Replaced(index, displaced) => {
                    self.forget(index, &displaced);
                    entered.push((index, container.description.as_ref()));
                }
                Entered::Full => {}
            }
        }
        entered.sort_unstable_by_key(|(index, _)| *index);
        self.stand(id, place, &entered);
        running.len() - entered.len()
    }

    /// Moves a node to `place` in the orders of exactly these containers.
    fn stand(&mut self, id: NodeId, place: Place, running: &[(Index, Option<&Arc<str>>)]) {
        let runs: Box<[Index]> = running.iter().map(|(index, _)| *index).collect();
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let rank = node.rank;
        let stood = node.place.replace(place);
        let ran = std::mem::replace(&mut node.runs, runs);
        for (index, text) in running {
            if let Some(container) = self.catalogue.get(*index) {
                let known = stood.filter(|_| ran.binary_search(index).is_ok());
                if let Some(stood) = known {
                    container.order.remove(stood);
                }
                container.order.insert(place);
                match known {
                    Some(_) => self.catalogue.describe(*index, id, rank, *text),
                    None => self.catalogue.joined(*index, id, rank, *text),
                }
            }
        }
        let gone = ran
            .iter()
            .filter(|index| running.binary_search_by_key(*index, |(i, _)| *i).is_err());
        match stood {
            Some(stood) => gone.for_each(|index| self.catalogue.leave(*index, id, rank, stood)),
            None => self.count_up(rank, usize::wrapping_add),
        }
    }

    /// Takes a node out of all orders.
    pub(super) fn withdraw(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let (rank, runs) = (node.rank, std::mem::take(&mut node.runs));
        if let Some(stood) = node.place.take() {
            for index in runs {
                self.catalogue.leave(index, id, rank, stood);
            }
            self.count_up(rank, usize::wrapping_sub);
        }
    }

    /// The nodes of a displaced container run it no more.
    fn forget(&mut self, displaced: Index, order: &Order) {
        for place in order.iter() {
            let key = self.nodes.key_at(place.node);
            if let Some(node) = key.and_then(|key| self.nodes.get_mut(key)) {
                node.runs = node.runs.iter().copied().filter(|index| *index != displaced).collect();
            }
        }
    }

    /// What an answer is made from; none when nobody runs one of the containers.
    pub(super) fn view<'a>(
        &self,
        containers: impl Iterator<Item = &'a str>,
        client: Client,
        weight: u64,
    ) -> Option<View> {
        let mut orders = Vec::new();
        for id in containers {
            orders.push(self.catalogue.find(id)?.order.clone());
        }
        orders.sort_by_key(Order::len);
        Some(View {
            orders,
            moved: self.moved(client, weight),
            departures: self.departures,
        })
    }

    /// The nodes that stand elsewhere for this client, in the order in which it sees them.
    fn moved(&self, client: Client, weight: u64) -> Vec<Moved> {
        let mut moved: Vec<Moved> = Vec::new();
        for own in self.owners.own(client).iter().filter(|own| self.is_open(own)) {
            let Some(stands) = self.nodes.get(own.node).and_then(|node| node.place) else {
                continue;
            };
            match moved.iter_mut().find(|moved| moved.stands.node == stands.node) {
                Some(moved) => moved.seen.load = moved.seen.load.saturating_sub(weight),
                None => moved.push(Moved {
                    stands,
                    seen: Place {
                        load: stands.load.saturating_sub(weight),
                        ..stands
                    },
                }),
            }
        }
        moved.sort_by_key(|moved| moved.seen);
        moved
    }

    fn is_open(&self, own: &Own) -> bool {
        self.nodes
            .get(own.node)
            .is_some_and(|node| own.begun.wrapping_sub(node.settled) as i32 >= 0)
    }

    pub(super) fn stands(&self, place: Place) -> bool {
        let key = self.nodes.key_at(place.node);
        key.and_then(|key| self.nodes.get(key))
            .is_some_and(|node| node.place == Some(place))
    }

    /// The nodes at the places of a view, without those that left since; another one may have their number now.
    pub(super) fn still_there(&self, places: &[Place], departures: u64) -> Vec<NodeId> {
        let key = |place: &Place| {
            let key = self.nodes.key_at(place.node)?;
            self.nodes
                .get(key)
                .is_some_and(|node| node.departures <= departures)
                .then_some(key)
        };
        places.iter().filter_map(key).collect()
    }

    pub(super) fn addresses(&self, ids: &[NodeId]) -> Vec<NodeAddr> {
        let nodes = ids.iter().filter_map(|id| self.nodes.get(*id));
        nodes.map(|node| node.addr.clone()).collect()
    }

    pub(super) fn promise(&mut self, id: NodeId, client: Client, subnet_hash: u64, weight: u64) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let begun = node.begun;
        let promises = node.promises.get_or_insert_with(|| Box::new(Promises::new(begun)));
        let counted = promises.add(subnet_hash, begun);
        let own = Own { node: id, begun };
        if counted {
            self.totals.promises += 1;
            self.move_by_promise(id, weight);
        }
        let mut owners = std::mem::take(&mut self.owners);
        owners.answered(client, counted.then_some(own), |own| self.is_open(own));
        self.owners = owners;
    }

    fn move_by_promise(&mut self, id: NodeId, weight: u64) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let load = node.load(weight);
        let Some(place) = node.place.as_mut() else {
            return;
        };
        let stood = *place;
        place.load = load;
        for run in &node.runs {
            if let Some(container) = self.catalogue.get(*run) {
                container.order.remove(stood);
                container.order.insert(*place);
            }
        }
    }
}

impl Node {
    fn load(&self, weight: u64) -> u64 {
        let promised = self.promises.as_ref().map_or(0, |promises| promises.count());
        self.pending.saturating_add(promised.saturating_mul(weight))
    }
}
