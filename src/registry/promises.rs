//! Promises: addresses handed out whose jobs no probe has reported yet.
//!
//! [`Promises`] counts them for one node, [`Owners`] remembers who was promised what, so that a client's own asking
//! does not change the order that it sees.

use std::collections::HashMap;
use std::mem;

use super::NodeId;
use crate::client::Client;

/// Cells that the promises of one node are counted in, by subnet of the client: one subnet always falls into one cell.
const CELLS: usize = 64;
/// Most that one cell, and so one IPv4 /24 or IPv6 /48, counts on one node: nobody can paint a rival busy.
const MAX_OF_SUBNET: u8 = 32;

/// Answers of a client in a round for which its own promises don't count: enough to ask again or to read twelve pages.
pub(super) const FREE_ANSWERS: u8 = 12;
/// Clients remembered in each of two rounds; with 32 promises each they take 13 MiB. Past it a promise has no owner.
pub(super) const MAX_OWNERS: usize = 16_384;
/// Promises remembered for one client: two rounds of free answers and some. Past it a promise has no owner.
pub(super) const MAX_OWN: usize = 32;

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

    /// Adds a promise made after probe number `begun` was sent. False when its subnet has its fill on this node.
    pub(super) fn add(&mut self, subnet_hash: u64, begun: u32) -> bool {
        if self.since != begun {
            for (before, after) in self.before.iter_mut().zip(&mut self.after) {
                *before += mem::take(after);
            }
            self.since = begun;
        }
        let cell = (subnet_hash % CELLS as u64) as usize;
        if self.before[cell] + self.after[cell] >= MAX_OF_SUBNET {
            return false;
        }
        self.after[cell] += 1;
        true
    }

    /// Ends what was promised before probe number `probe` was sent.
    pub(super) fn settle(&mut self, probe: u32) {
        self.before = [0; CELLS];
        if self.since < probe {
            self.after = [0; CELLS];
        }
    }
}

/// One promise as its owner remembers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) node: NodeId,
    /// The number of the last probe sent to the node when it was made.
    pub(super) begun: u32,
}

#[derive(Debug, Default)]
struct Owner {
    round: u64,
    answers: u8,
    promises: Vec<Own>,
}

/// Who was promised what, for this round and the one before.
#[derive(Debug, Default)]
pub(super) struct Owners {
    round: u64,
    current: HashMap<Client, Owner>,
    previous: HashMap<Client, Owner>,
}

/// What a new round forgets; big when many clients asked, so it is dropped after the lock is.
pub(super) struct Forgotten {
    _owners: HashMap<Client, Owner>,
}

impl Owners {
    pub(super) fn begin_round(&mut self) -> Forgotten {
        self.round += 1;
        let current = mem::take(&mut self.current);
        Forgotten {
            _owners: mem::replace(&mut self.previous, current),
        }
    }

    /// The promises that don't count for `client` now: its own, in its first twelve answers of the round.
    pub(super) fn own(&self, client: Client) -> &[Own] {
        let owner = self.current.get(&client).or_else(|| self.previous.get(&client));
        match owner {
            Some(owner) if owner.round != self.round || owner.answers < FREE_ANSWERS => &owner.promises,
            _ => &[],
        }
    }

    /// Counts an answer to `client` and remembers its promise, if it was one that counts. `is_open` tells which of the
    /// older ones still stand.
    pub(super) fn answered(&mut self, client: Client, promise: Option<Own>, is_open: impl Fn(&Own) -> bool) {
        let known = self.previous.remove(&client);
        if self.current.len() >= MAX_OWNERS && !self.current.contains_key(&client) {
            return;
        }
        let owner = self.current.entry(client).or_insert_with(|| known.unwrap_or_default());
        if owner.round != self.round {
            (owner.round, owner.answers) = (self.round, 0);
        }
        owner.answers = owner.answers.saturating_add(1);
        owner.promises.retain(is_open);
        if owner.promises.len() < MAX_OWN {
            owner.promises.extend(promise);
        }
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
        promises.settle(1);
        assert_eq!(promises.count(), 1);
        promises.settle(2);
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
    fn owners_are_bounded_and_forgotten_after_two_rounds() {
        let mut owners = Owners::default();
        let own = Own {
            node: NodeId::default(),
            begun: 0,
        };
        for client in 0..MAX_OWNERS as u32 + 10 {
            owners.answered(Client::V4(client), Some(own), |_| true);
        }
        assert_eq!(owners.current.len(), MAX_OWNERS);
        assert!(owners.own(Client::V4(MAX_OWNERS as u32)).is_empty());
        assert_eq!(owners.own(Client::V4(0)).len(), 1);
        owners.begin_round();
        assert_eq!(owners.own(Client::V4(0)).len(), 1);
        owners.begin_round();
        assert!(owners.own(Client::V4(0)).is_empty());
    }

    #[test]
    fn own_promises_count_from_the_thirteenth_answer_until_the_next_round() {
        let mut owners = Owners::default();
        let (client, own) = (
            Client::V4(1),
            Own {
                node: NodeId::default(),
                begun: 0,
            },
        );
        for answer in 0..12 {
            assert_eq!(owners.own(client).len(), answer);
            owners.answered(client, Some(own), |_| true);
        }
        assert!(owners.own(client).is_empty());
        owners.begin_round();
        assert_eq!(owners.own(client).len(), 12);
    }
}
