//! Counts promises: a response names a node first, so one job is expected there until a probe sent later counts it.
//! The report of such a probe, or the removal of the node, ends the promise. A node that goes down keeps its promises
//! until it reports again.
//!
//! [`Promises`] counts them for one node. [`ClientPromises`] stores the last promise of each client, so that later
//! pages continue the order of the first one.
//!
//! A subnet moves the shared order of a node by its cap at most (`speed::Work::cap`). The cap bounds what unused
//! promises do to a *busy* node. They still lower the share of an *idle* one: with three idle nodes and the default
//! rate limit, one address that sends no job lowers the share of one node from 0.29 to 0.12 of the responses to
//! others.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use super::NodeId;
use crate::client::Client;

/// Cells in which the promises of one node are counted, by subnet of the client: 256 bytes per node. Subnets that share
/// a cell share its cap.
pub(super) const CELLS: usize = 64;
/// Clients stored in each of two generations, 56 bytes each: under 4 MiB in all. Above this the older generation is
/// evicted, and the pages of its clients see their own promise.
pub(super) const MAX_CLIENTS: usize = 16_384;

/// The cell in which a subnet's promises are counted, the same one on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell(usize);

impl Cell {
    pub(super) const fn of(subnet_hash: u64) -> Self {
        Self((subnet_hash % CELLS as u64) as usize)
    }
}

/// The open promises of one node. Boxed by the registry, and only while there are any.
#[derive(Debug)]
pub(super) struct Promises {
    /// Made before the last probe was sent: its report ends them. Saturates.
    before: [u16; CELLS],
    /// Made since: only a later probe can count them. Saturates.
    after: [u16; CELLS],
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            before: [0; CELLS],
            after: [0; CELLS],
        }
    }
}

impl Promises {
    fn cells(&self) -> impl Iterator<Item = u16> + '_ {
        let cells = self.before.iter().zip(&self.after);
        cells.map(|(before, after)| before.saturating_add(*after))
    }

    /// Promises in the shared order: those of each cell up to the cap.
    pub(super) fn count(&self, cap: u16) -> u64 {
        self.cells().map(|cell| u64::from(cell.min(cap))).sum()
    }

    /// Promises of one cell above the cap.
    pub(super) fn extra(&self, Cell(cell): Cell, cap: u16) -> u16 {
        self.before[cell].saturating_add(self.after[cell]).saturating_sub(cap)
    }

    /// The cells with promises above the cap, each with their number.
    pub(super) fn extras(&self, cap: u16) -> impl Iterator<Item = (Cell, u16)> + '_ {
        let cells = self.cells().enumerate();
        let above = cells.filter(move |(_, count)| *count > cap);
        above.map(move |(cell, count)| (Cell(cell), count - cap))
    }

    pub(super) fn add(&mut self, cell: Cell) {
        let after = &mut self.after[cell.0];
        *after = after.saturating_add(1);
    }

    /// The report of a probe that is sent now will end all promises made so far.
    pub(super) fn probe_sent(&mut self) {
        for (before, after) in self.before.iter_mut().zip(&mut self.after) {
            *before = before.saturating_add(mem::take(after));
        }
    }

    /// Ends the promises made before the last probe was sent, and returns their number.
    pub(super) fn end_before(&mut self) -> u64 {
        mem::replace(&mut self.before, [0; CELLS]).map(u64::from).iter().sum()
    }
}

/// For each cell, the nodes on which it has promises above the cap: by slot, the nanoseconds that these jobs take. A
/// response compares up to 256 nodes, so that a lookup must not read the nodes.
#[derive(Debug)]
pub(super) struct Extras([ExtraNanos; CELLS]);

type ExtraNanos = HashMap<u32, u64, BuildHasherDefault<SlotHasher>>;

impl Default for Extras {
    fn default() -> Self {
        Self(std::array::from_fn(|_| HashMap::default()))
    }
}

impl Extras {
    pub(super) fn of(&self, cell: Cell) -> &ExtraNanos {
        &self.0[cell.0]
    }

    pub(super) fn set(&mut self, cell: Cell, slot: u32, nanos: u64) {
        self.0[cell.0].insert(slot, nanos);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }

    /// Replaces the entries of a node.
    pub(super) fn replace(&mut self, slot: u32, nanos: impl IntoIterator<Item = (Cell, u64)>) {
        for nodes in &mut self.0 {
            nodes.remove(&slot);
        }
        nanos.into_iter().for_each(|(cell, nanos)| self.set(cell, slot, nanos));
    }
}

/// Spreads the slots of nodes, which no client chooses, by a multiplication (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, slot: u32) {
        self.0 = (self.0 ^ u64::from(slot)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The last promise that a client received.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientPromise {
    pub(super) node: NodeId,
    /// The number of the last probe sent to the node when it was made.
    pub(super) last_sent: u32,
    /// The key of the node in the shared order before the promise.
    pub(super) old_key: u64,
    /// Whether it was above the cap of the client's subnet.
    pub(super) is_extra: bool,
}

/// The last promise of each client.
#[derive(Debug, Default)]
pub(super) struct ClientPromises {
    recent: HashMap<Client, ClientPromise>,
    older: HashMap<Client, ClientPromise>,
}

impl ClientPromises {
    pub(super) fn last_promise(&self, client: Client) -> Option<ClientPromise> {
        self.recent.get(&client).or_else(|| self.older.get(&client)).copied()
    }

    /// Stores what a first page promised.
    pub(super) fn set(&mut self, client: Client, promise: ClientPromise) {
        self.older.remove(&client);
        if self.recent.len() >= MAX_CLIENTS && !self.recent.contains_key(&client) {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(client, promise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: u16 = 8;

    /// Promises by cell, made before and after a probe was sent.
    fn promises(before: &[usize], after: &[usize]) -> Promises {
        let mut promises = Promises::default();
        before.iter().for_each(|cell| promises.add(Cell(*cell)));
        promises.probe_sent();
        after.iter().for_each(|cell| promises.add(Cell(*cell)));
        promises
    }

    #[test]
    fn above_the_cap_promises_are_extra() {
        let promises = promises(&[7; 10], &[8]);
        assert_eq!(promises.count(CAP), 9);
        assert_eq!(promises.extra(Cell(7), CAP), 2);
        assert_eq!(promises.extra(Cell(8), CAP), 0);
        assert!(promises.extras(CAP).eq([(Cell(7), 2)]));
    }

    #[test]
    fn at_the_cap_no_promise_is_extra() {
        let promises = promises(&[7; 4], &[7; 4]);
        assert_eq!((promises.count(CAP), promises.extras(CAP).count()), (8, 0));
    }

    #[test]
    fn report_ends_promises_made_before_its_probe() {
        let mut promises = promises(&[1], &[2]);
        assert_eq!(promises.end_before(), 1);
        assert_eq!(promises.count(CAP), 1);
        promises.probe_sent();
        assert_eq!(promises.end_before(), 1);
        assert_eq!(promises.count(CAP), 0);
    }

    #[test]
    fn cap_spans_the_probe_in_progress() {
        let mut promises = promises(&[1; 6], &[1; 6]);
        assert_eq!((promises.count(CAP), promises.extra(Cell(1), CAP)), (8, 4));
        assert_eq!(promises.end_before(), 6);
        assert_eq!((promises.count(CAP), promises.extra(Cell(1), CAP)), (6, 0));
    }

    #[test]
    fn counters_saturate() {
        let mut promises = promises(&[1; 70_000], &[1; 70_000]);
        assert_eq!(promises.extra(Cell(1), CAP), u16::MAX - CAP);
        assert_eq!(promises.end_before(), u64::from(u16::MAX));
        assert_eq!(promises.end_before(), 0);
    }

    #[test]
    fn above_the_limit_older_clients_are_evicted() {
        let mut clients = ClientPromises::default();
        let promise = ClientPromise {
            node: NodeId::DANGLING,
            last_sent: 0,
            old_key: 0,
            is_extra: false,
        };
        let count = 3 * MAX_CLIENTS as u32 + 1;
        for client in 0..count {
            clients.set(Client::V4(client), promise);
        }
        assert_eq!((clients.recent.len(), clients.older.len()), (1, MAX_CLIENTS));
        let is_known = |client: u32| clients.last_promise(Client::V4(client)).is_some();
        assert!(!is_known(count - MAX_CLIENTS as u32 - 2));
        assert!((count - MAX_CLIENTS as u32 - 1..count).all(is_known));
    }
}
