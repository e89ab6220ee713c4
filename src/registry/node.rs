//! One node as the registry knows it.

use super::catalogue::Index;
use super::order::Place;
use super::promises::Promises;
use super::speed::{Count, FleetSpeed, Time, Work};
use crate::node::{NodeAddr, Rank, Running};

/// The keys of doubted nodes begin here. Others stay below: as nanoseconds it is 292 years.
const BEHIND: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) addr: NodeAddr,
    pub(super) rank: Rank,
    /// Nodes that had left before it was inserted.
    pub(super) removal_epoch: u64,
    /// Number of probes sent to it, and of the last one that reported.
    pub(super) last_sent: u32,
    pub(super) last_reported: u32,
    /// Weighted.
    pub(super) pending: u64,
    pub(super) work: Work,
    pub(super) promises: Option<Box<Promises>>,
    /// Present while the node is available; then it stands there in the order of each container that it runs.
    pub(super) place: Option<Place>,
    /// Whether it stands behind all nodes that are not doubted.
    pub(super) is_doubted: bool,
    /// Sorted.
    pub(super) runs: Box<[Index]>,
}

/// What a probe found.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeReport<'a> {
    pub(super) probe: u32,
    pub(super) running: &'a [Running],
    /// Weighted.
    pub(super) pending: u64,
    /// Which of equal nodes comes first.
    pub(super) tie: u32,
}

impl Node {
    pub(super) fn promised(&self) -> u64 {
        self.promises.as_ref().map_or(0, |promises| promises.count())
    }

    pub(super) fn key(&self, is_on: bool) -> u64 {
        self.behind(match is_on {
            true => self.work.next_done().0,
            false => self.pending,
        })
    }

    /// The key, and where the node is doubted one behind all keys of nodes that are not.
    pub(super) fn behind(&self, key: u64) -> u64 {
        match self.is_doubted {
            true => key | BEHIND,
            false => key.min(BEHIND - 1),
        }
    }

    /// Whether a promise that was made after this probe was sent may not be in a count yet.
    pub(super) fn is_open(&self, last_sent: u32) -> bool {
        last_sent.wrapping_sub(self.last_reported) as i32 >= 0
    }

    pub(super) fn take_over(&mut self, report: &NodeReport<'_>, weight: u32, fleet: &mut FleetSpeed, now: Time) {
        let promised = self.promised();
        self.last_reported = report.probe;
        self.pending = report.pending;
        if let Some(promises) = &mut self.promises {
            promises.end_before(report.probe);
        }
        let after = self.promised();
        if after == 0 {
            self.promises = None;
        }
        let count = Count {
            pending: report.pending as f64 / f64::from(weight),
            before: promised - after,
            after,
            is_listed: self.rank.is_listed(),
        };
        self.work.count(count, fleet, now);
    }
}
