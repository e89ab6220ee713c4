//! Promises: addresses given to clients first, each a job until a probe that was sent later has counted it. A promise ends
//! with the report of such a probe or with its node; a node that goes down keeps its promises until it reports again.
//!
//! [`Promises`] counts them for one node, [`ClientPromises`] remembers whom each client was promised last, so that the pages
//! behind a first one continue its order.

use std::collections::HashMap;
use std::mem;

use super::NodeId;
use super::order::Place;
use crate::client::Client;

/// Cells that the promises of one node are counted in, by subnet of the client: one subnet always falls into one cell.
const CELLS: usize = 64;
/// Most that one cell, and so one IPv4 /24 or IPv6 /48, counts on one node: nobody can paint a rival busy.
const MAX_OF_SUBNET: u8 = 32;
/// ClientPromises remembered in each of two generations, 48 bytes each: 3 MiB in all. Past it the older generation is
/// forgotten, and pages of its clients see their own promise.
pub(super) const MAX_CLIENTS: usize = 16_384;

/// What decides which cell of a node a client's promises are counted in: its IPv4 /24 or IPv6 /48.
pub(super) fn subnet(client: Client) -> u64 {
    match client {
        Client::V4(addr) => u64::from(addr >> 8) | 1 << 63,
        Client::V6(net) => net >> 16,
    }
}

/// The open promises of one node. Boxed by the registry, and only while there are any.
#[derive(Debug)]
pub(super) struct Promises {
    /// Made before the probe that is under way was sent: its report ends them.
    before: [u8; CELLS],
    /// Made after probe number `since` was sent: only a later one can know of them.
    after: [u8; CELLS],
    since: u32,
}

impl Promises {
    pub(super) fn new(since: u32) -> Self {
        Self {
            before: [0; CELLS],
            after: [0; CELLS],
            since,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.before.iter().chain(&self.after).map(|cell| u64::from(*cell)).sum()
    }

    /// Adds a promise made after probe number `last_sent` was sent. False when its subnet has its fill on this node.
    pub(super) fn add(&mut self, subnet_hash: u64, last_sent: u32) -> bool {
        if self.since != last_sent {
            for (before, after) in self.before.iter_mut().zip(&mut self.after) {
                *before += mem::take(after);
            }
            self.since = last_sent;
        }
        let cell = (subnet_hash % CELLS as u64) as usize;
        if self.before[cell] + self.after[cell] >= MAX_OF_SUBNET {
            return false;
        }
        self.after[cell] += 1;
        true
    }

    /// Ends what was promised before probe number `probe` was sent.
    pub(super) fn end_before(&mut self, probe: u32) {
        self.before = [0; CELLS];
        if self.since < probe {
            self.after = [0; CELLS];
        }
    }
}

/// The last promise that a client was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientPromise {
    pub(super) node: NodeId,
    /// The number of the last probe sent to the node when it was made.
    pub(super) last_sent: u32,
    /// Where the node stood before it: where that client's first page had it.
    pub(super) old_place: Place,
}

/// Whom each client was promised last.
#[derive(Debug, Default)]
pub(super) struct ClientPromises {
    recent: HashMap<Client, ClientPromise>,
    older: HashMap<Client, ClientPromise>,
}

impl ClientPromises {
    pub(super) fn last_promise(&self, client: Client) -> Option<ClientPromise> {
        self.recent.get(&client).or_else(|| self.older.get(&client)).copied()
    }

    /// Notes what a first page promised; none where nothing that counts.
    pub(super) fn set(&mut self, client: Client, promise: Option<ClientPromise>) {
        self.older.remove(&client);
        let Some(promise) = promise else {
            self.recent.remove(&client);
            return;
        };
        if self.recent.len() >= MAX_CLIENTS && !self.recent.contains_key(&client) {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(client, promise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_counts_thirty_two_at_most_and_others_still_count() {
        let mut promises = Promises::new(0);
        let counted = (0..40).filter(|_| promises.add(7, 0)).count();
        assert_eq!((counted, promises.count()), (32, 32));
        assert!(promises.add(8, 0));
        assert_eq!(promises.count(), 33);
    }

    #[test]
    fn a_report_ends_what_was_promised_before_its_probe_was_sent() {
        let mut promises = Promises::new(0);
        promises.add(1, 0);
        promises.add(2, 1);
        promises.end_before(1);
        assert_eq!(promises.count(), 1);
        promises.end_before(2);
        assert_eq!(promises.count(), 0);
    }

    #[test]
    fn the_cap_of_a_subnet_spans_the_probe_under_way() {
        let mut promises = Promises::new(0);
        (0..20).for_each(|_| assert!(promises.add(1, 0)));
        let counted = (0..20).filter(|_| promises.add(1, 1)).count();
        assert_eq!((counted, promises.count()), (12, 32));
    }

    #[test]
    fn clients_are_bounded_and_those_that_asked_last_are_remembered() {
        let mut clients = ClientPromises::default();
        let promise = ClientPromise {
            node: NodeId::default(),
            last_sent: 0,
            old_place: Place::default(),
        };
        let count = 3 * MAX_CLIENTS as u32 + 1;
        for client in 0..count {
            clients.set(Client::V4(client), Some(promise));
        }
        assert_eq!((clients.recent.len(), clients.older.len()), (1, MAX_CLIENTS));
        let is_known = |client: u32| clients.last_promise(Client::V4(client)).is_some();
        assert!(!is_known(count - MAX_CLIENTS as u32 - 2));
        assert!((count - MAX_CLIENTS as u32 - 1..count).all(is_known));
    }

    #[test]
    fn an_answer_that_promised_nothing_ends_what_was_remembered() {
        let mut clients = ClientPromises::default();
        let promise = ClientPromise {
            node: NodeId::default(),
            last_sent: 0,
            old_place: Place::default(),
        };
        clients.set(Client::V4(1), Some(promise));
        clients.set(Client::V4(1), None);
        assert!(clients.last_promise(Client::V4(1)).is_none());
    }
}
