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

/// The open promises of one node by cell: those made before the last probe was sent, which its report ends, and those
/// made since, which only a later probe can count. The numbers saturate. Empty without any.
#[derive(Debug, Default)]
pub(super) struct Promises(Box<[[u16; 2]]>);

impl Promises {
    fn cells(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().map(|[before, after]| before.saturating_add(*after))
    }

    /// Promises in the shared order: those of each cell up to the cap.
    pub(super) fn count(&self, cap: u16) -> u64 {
        self.cells().map(|cell| u64::from(cell.min(cap))).sum()
    }

    /// Promises of one cell above the cap.
    pub(super) fn extra(&self, Cell(cell): Cell, cap: u16) -> u16 {
        let counts = self.0.get(cell);
        counts.map_or(0, |[before, after]| before.saturating_add(*after).saturating_sub(cap))
    }

    /// The cells with promises above the cap.
    pub(super) fn crowded(&self, cap: u16) -> Cells {
        let bits = self.cells().enumerate().filter(|(_, count)| *count > cap);
        Cells(bits.fold(0, |cells, (cell, _)| cells | 1 << cell))
    }

    pub(super) fn add(&mut self, Cell(cell): Cell) {
        if self.0.is_empty() {
            self.0 = [[0; 2]; CELLS].into();
        }
        let [_, after] = &mut self.0[cell];
        *after = after.saturating_add(1);
    }

    /// The report of a probe that is sent now will end all promises made so far.
    pub(super) fn probe_sent(&mut self) {
        for [before, after] in &mut self.0 {
            *before = before.saturating_add(mem::take(after));
        }
    }

    /// Ends the promises made before the last probe was sent, and returns their number.
    pub(super) fn end_before(&mut self) -> u64 {
        let ended = self.0.iter_mut().map(|[before, _]| u64::from(mem::take(before))).sum();
        if self.cells().all(|count| count == 0) {
            self.0 = Box::default();
        }
        ended
    }
}

/// A set of cells, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells(u64);

impl Cells {
    pub(super) fn has(self, Cell(cell): Cell) -> bool {
        self.0 >> cell & 1 == 1
    }

    pub(super) fn add(&mut self, Cell(cell): Cell) {
        self.0 |= 1 << cell;
    }

    #[cfg(test)]
    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(super) fn add_all(&mut self, other: Cells) {
        self.0 |= other.0;
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

    fn cells(some: &[usize]) -> Cells {
        let mut cells = Cells::default();
        some.iter().for_each(|cell| cells.add(Cell(*cell)));
        cells
    }

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
        assert_eq!(promises.crowded(CAP), cells(&[7]));
    }

    #[test]
    fn at_the_cap_no_promise_is_extra() {
        let promises = promises(&[7; 4], &[7; 4]);
        assert_eq!((promises.count(CAP), promises.crowded(CAP)), (8, cells(&[])));
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
