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
mod attributes;
mod catalogue;
mod health;
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

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::node::{NodeAddr, Rank, Running, Source};
use crate::util::arena::Key;
pub use all_resources::ResourceNode;
pub use catalogue::{MAX_CONTAINERS, MAX_TEXT_BYTES, Summary};
pub use health::{Health, NodeState};
use node::Node;
pub use pending::PendingByType;
use promises::Cell;
pub use record::NodeRecord;
pub use resources::{KnownEntries, ResourceFailure, ResourceReport};
pub use select::{MAX_PAGE, Page, TooDeep};
use speed::{FleetSpeed, Time};
pub use standing::NodeView;
pub use state::Withdrawn;
use state::{Asking, State};

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
    /// By list and state: all nodes, and the draining ones of them.
    nodes: [[(usize, usize); NodeState::ALL.len()]; 2],
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
        let (all, draining) = &mut self.nodes[record.rank.source() as usize][record.state() as usize];
        *all += 1;
        *draining += usize::from(record.attributes.is_draining);
        if record.is_available() {
            self.available += 1;
            let pending = record.pending.as_ref().map_or(0, PendingByType::total);
            self.pending += pending.min(MAX_COUNTED_PENDING);
        }
        if record.health() == Health::Doubted {
            let since = self.doubted_since.get_or_insert(record.since);
            *since = record.since.min(*since);
        }
    }

    /// Nodes of a list in a state.
    pub fn nodes(&self, source: Source, state: NodeState) -> usize {
        self.nodes[source as usize][state as usize].0
    }

    /// Draining nodes of a list in a state.
    pub fn draining(&self, source: Source, state: NodeState) -> usize {
        self.nodes[source as usize][state as usize].1
    }

    /// All nodes in a state.
    pub fn in_state(&self, state: NodeState) -> usize {
        self.nodes.iter().map(|of_source| of_source[state as usize].0).sum()
    }
}

/// What determines the position of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Promises that no probe has counted yet.
    pub promises: u64,
    /// Assumed jobs per second, each with the weight of a promise; `None` with `PROMISES=off`.
    pub speed: Option<f64>,
    /// Whether the node has a record. Without one it is treated as a typical node.
    pub is_learned: bool,
    /// Time from now until the node should finish its work; `None` with `PROMISES=off`.
    pub finish: Option<Duration>,
}

/// All nodes and what is known of them.
#[derive(Debug)]
pub struct Registry {
    began: Instant,
    /// Makes the cell of a subnet and the order of equal nodes unpredictable.
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
        let node = Node::new(
            NodeRecord::new(addr, rank, now),
            state.removal_epoch,
            &state.fleet.speed,
        );
        state.nodes.insert(node)
    }

    /// Removes a node.
    pub fn remove(&self, id: NodeId) {
        let mut state = self.lock();
        let _ = state.leave(id);
        if let Some(node) = state.nodes.remove(id) {
            state.removal_epoch += 1;
            state.aliases -= usize::from(node.record.attributes.public.is_some());
            state.resource_bytes -= node.routing.resources.as_ref().map_or(0, |resources| resources.bytes());
            state.extras.replace(id.index(), []);
        }
    }

    /// Changes what a node is listed as: its spelling and its rank. Returns its former rank.
    pub fn relist(&self, id: NodeId, addr: NodeAddr, rank: Rank) -> Rank {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(id) else {
            return rank;
        };
        node.record.addr = addr;
        let former = std::mem::replace(&mut node.record.rank, rank);
        if former != rank {
            state.reenter(id);
        }
        former
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

    /// Records that a probe is about to be sent to a node, and returns its number. That probe will not report promises
    /// made from now on.
    pub fn begin_probe(&self, id: NodeId, now: Instant) -> u32 {
        self.lock().nodes.get_mut(id).map_or(0, |node| {
            node.routing.last_sent = node.routing.last_sent.wrapping_add(1);
            node.routing.work.probe_sent(self.time(now));
            node.routing.last_sent
        })
    }

    /// Applies the report of probe number `probe`: the node is available, runs these containers, and has this much
    /// weighted work pending. Returns how many containers the full catalogue omitted.
    pub fn up(&self, id: NodeId, probe: u32, running: &[Running], pending: u64, now: Instant) -> usize {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(node) = state.nodes.get_mut(id) else {
            return 0;
        };
        let is_listed = node.record.rank.is_listed();
        node.routing
            .apply(probe, pending, is_listed, &state.fleet, self.time(now));
        node.record.change(now, |record| record.health = Health::Up);
        state
            .extras
            .replace(id.index(), node.routing.extras(state.fleet.interval));
        let tie = self.keys.hash_one((state.round, id.index())) as u32;
        state.enter(id, tie, running)
    }

    /// The health of a node.
    pub fn health(&self, id: NodeId) -> Option<Health> {
        Some(self.lock().nodes.get(id)?.record.health())
    }

    /// Sets the health of a node. A node that becomes unavailable leaves all orders, and keeps its promises until it
    /// reports again. Returns what [`Registry::put_back`] needs. Only [`Registry::up`] and [`Registry::put_back`] make a
    /// node available.
    pub fn set_health(&self, id: NodeId, health: Health, now: Instant) -> Option<Withdrawn> {
        let mut state = self.lock();
        let record = &mut state.nodes.get_mut(id)?.record;
        record.change(now, |record| record.health = health);
        if health.is_available() {
            state.update_key(id);
            return None;
        }
        record.pending = None;
        state.leave(id)
    }

    /// Makes a node that was marked down available again, as [`Health::Doubted`].
    pub fn put_back(&self, id: NodeId, withdrawn: &Withdrawn, now: Instant) {
        let mut state = self.lock();
        let record = state.nodes.get_mut(id).map(|node| &mut node.record);
        if let Some(record) = record.filter(|record| !record.health.is_available()) {
            record.change(now, |record| record.health = Health::Doubted);
            state.enter(id, withdrawn.tie, &withdrawn.running);
        }
    }

    /// Changes the record of a node under the lock.
    pub fn note<T>(&self, id: NodeId, now: Instant, change: impl FnOnce(&mut NodeRecord) -> T) -> Option<T> {
        Some(self.lock().nodes.get_mut(id)?.record.change(now, change))
    }

    /// Shows each record to `visit`, in no order. The lock is released between the slices.
    pub fn visit(&self, mut visit: impl FnMut(NodeId, &NodeRecord)) {
        self.visit_nodes(|id, node| visit(id, &node.record));
    }

    fn visit_nodes(&self, mut visit: impl FnMut(NodeId, &Node)) {
        for from in (0..).step_by(READ_AT_ONCE) {
            let state = self.lock();
            let Some(nodes) = state.nodes.slice(from, READ_AT_ONCE) else {
                return;
            };
            nodes.for_each(|(id, node)| visit(id, node));
        }
    }

    /// Returns the nodes of a page that run all of `containers`, earliest expected completion first. Promises the first
    /// address of a first page, unless `purpose` is a look. Later pages continue the order of the client's last first
    /// page: they ignore the promise that it made.
    ///
    /// # Errors
    /// Many containers and a large offset take too many searches.
    pub fn answer<'a>(
        &self,
        containers: impl Iterator<Item = &'a str> + Clone,
        page: Page,
        client: Client,
        purpose: Purpose,
        now: Instant,
    ) -> Result<Vec<NodeAddr>, TooDeep> {
        let promises = purpose == Purpose::Route && page.offset == 0;
        let asking = Asking {
            cell: Cell::of(self.keys.hash_one(client.subnet())),
            undoing_for: (page.offset > 0).then_some(client),
        };
        for attempt in 1.. {
            let Some(view) = self.lock().view(containers.clone(), asking) else {
                break;
            };
            let selected = self.select_distinct(&view, page, asking.cell);
            let selected = selected.ok_or(TooDeep {
                containers: view.orders.len(),
                offset: page.offset,
            })?;
            let Some(first) = selected.first().copied() else {
                break;
            };
            let removal_epoch = view.removal_epoch;
            // A change of an order copies what a reader still holds.
            drop(view);
            let mut state = self.lock();
            let is_unchanged = state.removal_epoch == removal_epoch && (!promises || state.is_seen(first, asking.cell));
            if is_unchanged || attempt == MAX_ATTEMPTS {
                let ids = state.still_there(&selected, removal_epoch);
                let nodes = ids.iter().filter_map(|id| state.nodes.get(*id));
                let answer = nodes.map(|node| node.record.public_addr().clone()).collect();
                if promises && let Some(first) = ids.first() {
                    state.promise(*first, client, asking.cell, self.time(now));
                }
                return Ok(answer);
            }
        }
        Ok(Vec::new())
    }

    /// What determines the position of one node.
    pub fn standing(&self, id: NodeId, now: Instant) -> Option<Standing> {
        self.lock().standing(id, self.time(now))
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
