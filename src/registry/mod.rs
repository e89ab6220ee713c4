//! The `Mutex`-guarded registry: what the probes found, and who was promised what since.
//!
//! Only the poller writes what nodes are; only an answer adds a promise. The lock is held for microseconds: a reader
//! copies the orders it needs (a pointer each), chooses without the lock, and takes it once more to make its promise.
//! No socket, no thread, no clock here.

mod catalogue;
mod order;
mod promises;
mod select;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limiter::Client;
use crate::node::{NodeAddr, Running};
use crate::slots::{Key, Slots};
use catalogue::{Catalogue, Entered, Index};
pub use catalogue::{MAX_CONTAINERS, Summary};
use order::Place;
use promises::{Own, Owners, Promises, subnet};
pub use select::{MAX_PAGE, Page};
use select::{Moved, View, select};

/// How often an answer is chosen again because its first node changed meanwhile; then it is given as it is.
const MAX_ATTEMPTS: usize = 4;
/// Containers summarised under one hold of the lock.
const SUMMARIES_AT_ONCE: usize = 256;

/// A node in the registry, from `insert` to `remove`.
pub type NodeId = Key;

/// Which of several nodes comes first where one must: those of ips.txt in its order, then the Explorer's by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Position in ips.txt.
    Listed(u32),
    /// Named by the Explorer only.
    Explorer(SocketAddr),
}

impl Rank {
    fn is_listed(self) -> bool {
        matches!(self, Rank::Listed(_))
    }
}

/// Whether, and with what weight, addresses that were handed out count as pending jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromisePolicy {
    /// `PROMISES=on`: a promise counts as this many weighted pending jobs, at least 1.
    Weighing(u32),
    /// `PROMISES=off`: order by pending jobs alone.
    Off,
}

/// What one answer does besides being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A GET: its first address is a promise.
    Route,
    /// A HEAD: looks, and promises nothing.
    Look,
}

/// How many nodes there are, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Available nodes of ips.txt.
    pub listed_up: usize,
    /// All nodes of ips.txt.
    pub listed: usize,
    /// Available nodes that only the Explorer names.
    pub explorer_up: usize,
    /// All nodes that only the Explorer names.
    pub explorer: usize,
    /// Promises made since the start that counted.
    pub promises: u64,
}

/// What is known of all nodes.
#[derive(Debug)]
pub struct Registry {
    policy: PromisePolicy,
    /// Which cell a subnet is counted in and which of equal nodes comes first can't be foretold.
    keys: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Slots<Node>,
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

impl Registry {
    /// An empty registry.
    pub fn new(policy: PromisePolicy) -> Self {
        Self {
            policy,
            keys: RandomState::new(),
            state: Mutex::default(),
        }
    }

    /// A panic elsewhere leaves the state usable: each change is complete or not begun.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weight(&self) -> u64 {
        match self.policy {
            PromisePolicy::Weighing(weight) => u64::from(weight.max(1)),
            PromisePolicy::Off => 0,
        }
    }

    /// Adds a node of which nothing is known yet. The caller keeps nodes distinct.
    pub fn insert(&self, addr: NodeAddr, rank: Rank) -> NodeId {
        self.lock().insert(addr, rank)
    }

    /// Forgets a node.
    pub fn remove(&self, id: NodeId) {
        let mut state = self.lock();
        state.withdraw(id);
        if let Some(node) = state.nodes.remove(id) {
            state.departures += 1;
            state.count(node.rank, usize::wrapping_sub);
        }
    }

    /// Changes what a node is listed as: its spelling and its rank.
    pub fn relist(&self, id: NodeId, addr: NodeAddr, rank: Rank) {
        self.lock().relist(id, addr, rank);
    }

    /// Begins a round: equal nodes are put in another order, and each client's free answers start anew.
    pub fn begin_round(&self) {
        let forgotten = {
            let mut state = self.lock();
            state.round += 1;
            state.owners.begin_round()
        };
        drop(forgotten);
    }

    /// Notes that a probe is about to be sent to a node and returns its number. Promises made from now on are not in
    /// what that probe will report.
    pub fn begin_probe(&self, id: NodeId) -> u32 {
        let mut state = self.lock();
        state.nodes.get_mut(id).map_or(0, |node| {
            node.begun = node.begun.wrapping_add(1);
            node.begun
        })
    }

    /// Takes over what probe number `probe` found: the node is available, runs these containers, and has this much
    /// weighted work pending. Returns how many containers the full catalogue had no room for.
    pub fn up(&self, id: NodeId, probe: u32, running: &[Running], pending: u64) -> usize {
        let mut state = self.lock();
        let tie = self.keys.hash_one((state.round, id.index())) as u32;
        state.up(id, probe, running, pending, tie, self.weight())
    }

    /// A node is not available any more. What was promised on it stays until it reports again.
    pub fn down(&self, id: NodeId) {
        self.lock().withdraw(id);
    }

    /// The nodes of a page that run all of `containers`, least busy first as `client` sees it.
    /// The first is promised, unless this is only a look.
    pub fn answer<'a>(
        &self,
        containers: impl Iterator<Item = &'a str> + Clone,
        page: Page,
        client: Client,
        purpose: Purpose,
    ) -> Vec<NodeAddr> {
        for attempt in 1.. {
            let Some(view) = self.lock().view(containers.clone(), client, self.weight()) else {
                break;
            };
            let places = select(&view, page);
            let Some(first) = places.first().map(|place| view.standing(*place)) else {
                break;
            };
            let departures = view.departures;
            // A change of an order copies what a reader still holds.
            drop(view);
            let mut state = self.lock();
            let unchanged = state.departures == departures && (purpose == Purpose::Look || state.stands(first));
            if unchanged || attempt == MAX_ATTEMPTS {
                let answer = state.addresses(&places);
                if purpose == Purpose::Route && self.policy != PromisePolicy::Off {
                    state.promise(first, client, self.keys.hash_one(subnet(client)), self.weight());
                }
                return answer;
            }
        }
        Vec::new()
    }

    /// What runs on available nodes, by id.
    pub fn containers(&self) -> Vec<Summary> {
        let mut all: Vec<Summary> = Vec::new();
        loop {
            let some = self
                .lock()
                .catalogue
                .summaries(all.last().map(|last| &last.id), SUMMARIES_AT_ONCE);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// How many nodes there are and how many promises were made.
    pub fn totals(&self) -> Totals {
        self.lock().totals
    }
}

impl State {
    /// The node that stands at a place.
    fn at(&self, place: Place) -> Option<&Node> {
        self.nodes.get(self.nodes.key_at(place.node)?)
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

    fn insert(&mut self, addr: NodeAddr, rank: Rank) -> NodeId {
        self.count(rank, usize::wrapping_add);
        self.nodes.insert(Node {
            addr,
            rank,
            begun: 0,
            settled: 0,
            pending: 0,
            promises: None,
            place: None,
            runs: Box::default(),
        })
    }

    fn relist(&mut self, id: NodeId, addr: NodeAddr, rank: Rank) {
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

    fn up(&mut self, id: NodeId, probe: u32, running: &[Running], pending: u64, tie: u32, weight: u64) -> usize {
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
    fn withdraw(&mut self, id: NodeId) {
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
    fn forget(&mut self, displaced: Index, order: &order::Order) {
        for place in order.iter() {
            let key = self.nodes.key_at(place.node);
            if let Some(node) = key.and_then(|key| self.nodes.get_mut(key)) {
                node.runs = node.runs.iter().copied().filter(|index| *index != displaced).collect();
            }
        }
    }

    /// What an answer is made from; none when nobody runs one of the containers.
    fn view<'a>(&self, containers: impl Iterator<Item = &'a str>, client: Client, weight: u64) -> Option<View> {
        let mut orders = Vec::new();
        for id in containers {
            orders.push(self.catalogue.find(id)?.order.clone());
        }
        orders.sort_by_key(order::Order::len);
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

    fn stands(&self, place: Place) -> bool {
        self.at(place).is_some_and(|node| node.place == Some(place))
    }

    fn addresses(&self, places: &[Place]) -> Vec<NodeAddr> {
        places
            .iter()
            .filter_map(|place| self.at(*place))
            .map(|node| node.addr.clone())
            .collect()
    }

    fn promise(&mut self, first: Place, client: Client, subnet_hash: u64, weight: u64) {
        let Some(id) = self.nodes.key_at(first.node) else {
            return;
        };
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
