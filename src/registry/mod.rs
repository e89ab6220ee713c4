//! The `Mutex`-guarded registry: probe results, the promises made since, and the orders of nodes.
//!
//! **The rule**: earliest expected completion first. Each node has a time at which it should finish its work. A
//! response that names it first (a promise) moves that time by one job. A count sets it again. The duration of a job is
//! learned from the node's counts (`speed`). The node that would finish one more job first ranks first. That is an
//! absolute time, so only a promise on a node or its report changes its position: the orders never go stale.
//!
//! Only the poller writes what nodes are. Only a response adds a promise. The lock is held for microseconds: a reader
//! copies the orders it needs (a pointer each), selects without the lock, and locks once more to make its promise.
//! A promise and a report move the node in the order of each container that it runs, at most 256.
//! No socket, no thread, no clock here: `now` is an argument.

mod all_resources;
mod catalogue;
mod node;
mod order;
mod pending;
mod promises;
mod record;
mod resources;
mod select;
mod speed;
mod standing;
mod state;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thunderdome::Index as Key;

use crate::client::Client;
use crate::node::{Attributes, NodeAddr, Rank, Running};
pub use catalogue::{MAX_CONTAINERS, Summary};
use node::Node;
use order::Place;
pub use pending::PendingByType;
use promises::Cell;
pub use record::{NodeRecord, NodeState};
pub use resources::{KnownEntry, ResourceFailure, ResourceReport};
pub use select::{MAX_PAGE, MAX_SEARCHES, Page};
use select::{Seen, View, select};
use speed::{FleetSpeed, Time};
pub use standing::NodeView;
use state::State;

/// How often a response is selected if its first node changes meanwhile. The last selection is returned as it is.
const MAX_ATTEMPTS: usize = 4;
/// Containers summarised, and nodes whose records are read, under one hold of the lock: some microseconds.
const READ_AT_ONCE: usize = 256;

/// A node in the registry, from `insert` to `remove`.
pub type NodeId = Key;

/// How nodes are ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PromisePolicy {
    /// `PROMISES=on`: earliest expected completion first.
    On {
        /// The number of weighted pending jobs that a promise is charged as; 0 is treated as 1.
        weight: u32,
        /// `MAX_SPEEDUP`: the maximum speed of a listed node, relative to the typical speed. `None`: the speed that a
        /// quarter of all nodes reach.
        max_speedup: Option<f64>,
    },
    /// `PROMISES=off`: order by weighted pending jobs alone.
    Off,
}

/// What one response does besides being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A GET: the first address of a first page is a promise.
    Route,
    /// A HEAD: promises nothing.
    Look,
}

/// Highest number of pending jobs that one node adds to the sum: a lying node must not hide the others.
const MAX_COUNTED_PENDING: u64 = 1_000_000;

/// Sums over all nodes, computed when they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By list, by state, and by whether the nodes are draining.
    pub nodes: [[[usize; 2]; NodeState::ALL.len()]; 2],
    /// Available nodes.
    pub available: usize,
    /// Pending jobs that available nodes report.
    pub pending: u64,
    /// Start of the longest suspected mass failure.
    pub doubted_since: Option<Instant>,
    /// Container ids that available nodes run with different images.
    pub conflicting_containers: usize,
    /// Promises made since the start.
    pub promises: u64,
}

impl Totals {
    /// Counts a node.
    pub(crate) fn count(&mut self, record: &NodeRecord) {
        let in_state = &mut self.nodes[record.rank.source() as usize][record.state() as usize];
        in_state[usize::from(record.attributes.is_draining)] += 1;
        if record.is_available() {
            self.available += 1;
            let pending = record.pending.as_ref().map_or(0, PendingByType::total);
            self.pending += pending.min(MAX_COUNTED_PENDING);
        }
        if record.health == NodeState::Doubted {
            let since = self.doubted_since.get_or_insert(record.since);
            *since = record.since.min(*since);
        }
    }
}

/// All nodes and what is known of them.
#[derive(Debug)]
pub struct Registry {
    began: Instant,
    /// Makes the cell of a subnet unpredictable.
    keys: RandomState,
    state: Mutex<State>,
}

impl Registry {
    /// Creates an empty registry. `interval` is the time between two probes of a node: before anything is learned, a
    /// job is assumed to take as long.
    pub fn new(policy: PromisePolicy, interval: Duration, now: Instant) -> Self {
        Self {
            began: now,
            keys: RandomState::new(),
            state: Mutex::new(State::new(policy, interval)),
        }
    }

    /// A panic elsewhere leaves the state usable: each change is complete or not begun.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self, now: Instant) -> Time {
        let nanos = now.saturating_duration_since(self.began).as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Adds a node of which nothing is known yet. The caller keeps nodes distinct.
    pub fn insert(&self, addr: NodeAddr, rank: Rank, now: Instant) -> NodeId {
        let mut state = self.lock();
        state.newest += 1;
        let node = Node::new(NodeRecord::new(addr, rank, now), state.newest, &state.fleet.speed);
        state.nodes.insert(node)
    }

    /// Removes a node. Returns what was known of it.
    pub fn remove(&self, id: NodeId) -> Option<NodeRecord> {
        let mut state = self.lock();
        let _ = state.leave(id);
        let node = state.nodes.remove(id)?;
        state.resource_bytes -= node.routing.resources.bytes();
        state.extras.replace(id.slot(), []);
        Some(node.record)
    }

    /// Changes what a node is listed as. The node keeps its state and its speed. Returns the record before.
    pub fn relist(
        &self,
        id: NodeId,
        addr: NodeAddr,
        rank: Rank,
        attributes: Attributes,
        now: Instant,
    ) -> Option<NodeRecord> {
        self.change(id, now, |record| {
            (record.addr, record.rank, record.attributes) = (addr, rank, attributes);
        })
    }

    /// Begins a round: learns from the records what is typical, and draws another order of equal nodes. Without any
    /// record the last fleet speed is kept.
    pub fn begin_round(&self) {
        let (mut listed, mut explorer) = (Vec::new(), Vec::new());
        self.visit_nodes(|_, node| match node.record.rank.is_listed() {
            true => listed.extend(node.routing.work.record()),
            false => explorer.extend(node.routing.work.record()),
        });
        // Sorts without the lock.
        let speed = FleetSpeed::of(listed, explorer);
        let mut state = self.lock();
        state.round += 1;
        state.fleet.speed = speed.unwrap_or(state.fleet.speed);
    }

    /// Records that a probe is about to be sent to a node. That probe will not report promises made from now on.
    pub fn begin_probe(&self, id: NodeId, now: Instant) {
        if let Some(node) = self.lock().nodes.get_mut(id) {
            node.routing.probe_sent(self.time(now));
        }
    }

    /// Applies the report of the last probe: the node is available, runs these containers, and has this much
    /// weighted work pending. Returns how many containers the full catalogue omitted.
    pub fn up(&self, id: NodeId, running: &[Running], pending: u64, now: Instant) -> usize {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(node) = state.nodes.get_mut(id) else {
            return 0;
        };
        let is_listed = node.record.rank.is_listed();
        node.routing.apply(pending, is_listed, &state.fleet, self.time(now));
        node.record.change(now, |record| record.health = NodeState::Up);
        state
            .extras
            .replace(id.slot(), node.routing.extras(state.fleet.interval));
        state.enter(id, running)
    }

    /// What is known of a node.
    pub fn record(&self, id: NodeId) -> Option<NodeRecord> {
        Some(self.lock().nodes.get(id)?.record.clone())
    }

    /// The health of a node.
    pub fn health(&self, id: NodeId) -> Option<NodeState> {
        Some(self.lock().nodes.get(id)?.record.health)
    }

    /// Sets the health of a node.
    pub fn set_health(&self, id: NodeId, health: NodeState, now: Instant) {
        self.change(id, now, |record| record.health = health);
    }

    /// Changes the record of a node. A node that becomes unavailable leaves all orders, and keeps its promises until it
    /// reports again. A node that becomes available again within an interval returns with its last containers. Returns
    /// the record before.
    pub fn change(&self, id: NodeId, now: Instant, change: impl FnOnce(&mut NodeRecord)) -> Option<NodeRecord> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Node { record, routing } = state.nodes.get_mut(id)?;
        let former = record.clone();
        record.change(now, change);
        state.has_aliases |= record.attributes.public.is_some();
        if !record.health.is_available() {
            // The pending jobs of a success are recorded before the node is up.
            if former.health.is_available() {
                record.pending = None;
            }
            // Untrusted nodes that are down must not fill the memory.
            let is_over = now.saturating_duration_since(record.since) > state.fleet.interval;
            routing.withheld = routing.withheld.take().filter(|_| !is_over);
        }
        if record.rank == former.rank && record.is_available() == routing.place.is_some() {
            state.update_key(id);
        } else {
            state.reenter(id);
        }
        Some(former)
    }

    /// Shows each record to `visit`, in no order. The lock is released between the slices.
    pub fn visit(&self, mut visit: impl FnMut(NodeId, &NodeRecord)) {
        self.visit_nodes(|id, node| visit(id, &node.record));
    }

    fn visit_nodes(&self, mut visit: impl FnMut(NodeId, &Node)) {
        for from in (0..).step_by(READ_AT_ONCE) {
            let state = self.lock();
            if from >= state.nodes.capacity() {
                return;
            }
            let slots = from as u32..(from + READ_AT_ONCE) as u32;
            let nodes = slots.filter_map(|slot| state.nodes.get_by_slot(slot));
            nodes.for_each(|(id, node)| visit(id, node));
        }
    }

    /// Returns the nodes of a page that run all of `containers`, earliest expected completion first. Promises the first
    /// address of a first page, unless `purpose` is a look. Later pages continue the order of the client's last first
    /// page: they ignore the promise that it made. Returns `None` if many containers and a large offset take too many
    /// searches.
    pub fn answer<'a>(
        &self,
        containers: impl Iterator<Item = &'a str> + Clone,
        page: Page,
        client: Client,
        purpose: Purpose,
        now: Instant,
    ) -> Option<Vec<NodeAddr>> {
        let promises = purpose == Purpose::Route && page.offset == 0;
        let cell = Cell::of(self.keys.hash_one(client.subnet()));
        let undoing_for = (page.offset > 0).then_some(client);
        for attempt in 1.. {
            let Some(view) = self.lock().view(containers.clone(), cell, undoing_for) else {
                break;
            };
            let selected = self.select(&view, page, cell)?;
            let Some(first) = selected.first().copied() else {
                break;
            };
            let newest = view.newest;
            // A change of an order copies what a reader still holds.
            drop(view);
            let mut state = self.lock();
            let ids = state.still_there(&selected, newest);
            let is_unchanged = ids.len() == selected.len() && (!promises || state.is_seen(first, cell));
            if is_unchanged || attempt == MAX_ATTEMPTS {
                let nodes = ids.iter().filter_map(|id| state.nodes.get(*id));
                let answer = nodes.map(|node| node.record.public_addr().clone()).collect();
                if promises && let Some(first) = ids.first() {
                    state.promise(*first, client, cell, self.time(now));
                }
                return Some(answer);
            }
        }
        Some(Vec::new())
    }

    /// Selects the nodes of a page. Of several nodes with one address for clients, the first in the shared order is
    /// selected. Returns `None` if the page takes too many searches.
    fn select(&self, view: &View, page: Page, cell: Cell) -> Option<Vec<Seen>> {
        let mut addrs = HashSet::new();
        // The lock is released after each node.
        let is_first = |place: Place| {
            let state = self.lock();
            let node = state.nodes.get_by_slot(place.node);
            node.is_some_and(|(_, node)| addrs.insert(node.record.public_addr().clone()))
        };
        let private = |some: &mut [Seen]| self.lock().see(some, cell);
        match view.has_aliases {
            true => select(view, page, private, is_first),
            false => select(view, page, private, |_| true),
        }
    }

    /// What runs on available nodes, by id.
    pub fn containers(&self) -> Vec<Summary> {
        let mut all: Vec<Summary> = Vec::new();
        loop {
            let some = self
                .lock()
                .catalogue
                .summaries(all.last().map(|last| &last.id), READ_AT_ONCE);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// The containers that available nodes run with different images, by id.
    pub fn conflicts(&self) -> Vec<Summary> {
        let mut containers = self.containers();
        containers.retain(|container| container.images.len() > 1);
        containers
    }

    /// Sums over all nodes, read slice by slice.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            conflicting_containers: self.conflicts().len(),
            promises: self.lock().promises_made,
            ..Totals::default()
        };
        self.visit(|_, record| totals.count(record));
        totals
    }
}

#[cfg(test)]
mod tests;
