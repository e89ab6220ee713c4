//! The `Mutex`-guarded registry: what the probes found, and who was promised what since.
//!
//! Only the poller writes what nodes are; only an answer adds a promise. The lock is held for microseconds: a reader
//! copies the orders it needs (a pointer each), chooses without the lock, and takes it once more to make its promise.
//! No socket, no thread, no clock here.

mod catalogue;
mod order;
mod promises;
mod select;
mod state;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client::Client;
use crate::node::{NodeAddr, Rank, Running};
use crate::util::arena::Key;
pub use catalogue::{MAX_CONTAINERS, MAX_TEXT_BYTES, Summary};
use promises::subnet;
use select::select;
pub use select::{MAX_PAGE, Page};
use state::State;

/// How often an answer is chosen again because its first node changed meanwhile; then it is given as it is.
const MAX_ATTEMPTS: usize = 4;
/// Containers summarised under one hold of the lock.
const SUMMARIES_AT_ONCE: usize = 256;

/// A node in the registry, from `insert` to `remove`.
pub type NodeId = Key;

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
        self.lock().remove(id);
    }

    /// Changes what a node is listed as: its spelling and its rank.
    pub fn relist(&self, id: NodeId, addr: NodeAddr, rank: Rank) {
        self.lock().relist(id, addr, rank);
    }

    /// Begins a round: equal nodes are put in another order, and each client's free answers start anew.
    pub fn begin_round(&self) {
        let forgotten = self.lock().begin_round();
        drop(forgotten);
    }

    /// Notes that a probe is about to be sent to a node and returns its number. Promises made from now on are not in
    /// what that probe will report.
    pub fn begin_probe(&self, id: NodeId) -> u32 {
        self.lock().begin_probe(id)
    }

    /// Takes over what probe number `probe` found: the node is available, runs these containers, and has this much
    /// weighted work pending. Returns how many containers the full catalogue had no room for.
    pub fn up(&self, id: NodeId, probe: u32, running: &[Running], pending: u64) -> usize {
        let mut state = self.lock();
        let tie = self.keys.hash_one((state.round(), id.index())) as u32;
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
            let unchanged = state.departures() == departures && (purpose == Purpose::Look || state.stands(first));
            if unchanged || attempt == MAX_ATTEMPTS {
                let ids = state.still_there(&places, departures);
                let answer = state.addresses(&ids);
                if purpose == Purpose::Route
                    && self.policy != PromisePolicy::Off
                    && let Some(first) = ids.first()
                {
                    state.promise(*first, client, self.keys.hash_one(subnet(client)), self.weight());
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
                .summaries(all.last().map(|last| &last.id), SUMMARIES_AT_ONCE);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// How many nodes there are and how many promises were made.
    pub fn totals(&self) -> Totals {
        self.lock().totals()
    }
}

#[cfg(test)]
mod tests;
