//! The record of one node.

use std::time::Duration;

use super::PromisePolicy;
use super::catalogue::{Index, Run};
use super::order::Place;
use super::promises::{Cell, Promises};
use super::record::{MAX_KEY, NodeRecord};
use super::resources::NodeResources;
use super::speed::{Count, FleetSpeed, Time, Work};
use crate::node::{ContainerId, Running};

/// What the registry knows of the whole fleet, and its settings.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) policy: PromisePolicy,
    pub(super) interval: Duration,
    pub(super) speed: FleetSpeed,
}

/// A node. A report on all nodes reads only the records, so the rest is apart from them.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) record: NodeRecord,
    pub(super) routing: Box<Routing>,
}

/// What determines the position of a node, and what clients find there.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Counts the nodes that were ever inserted. A later node has a higher number.
    pub(super) number: u64,
    /// Number of probes sent to it, and of the last one that reported.
    pub(super) last_sent: u32,
    pub(super) last_reported: u32,
    /// Weighted.
    pub(super) pending: u64,
    pub(super) work: Work,
    pub(super) promises: Option<Box<Promises>>,
    /// Present while the node is available: its place in the order of each container that it runs.
    pub(super) place: Option<Place>,
    /// The containers of the last report, while the node has no place in their orders.
    pub(super) withheld: Option<Vec<Running>>,
    /// Sorted.
    pub(super) runs: Box<[Run]>,
    pub(super) resources: NodeResources,
}

impl Routing {
    /// Whether the node is available and runs this container.
    pub(super) fn runs(&self, container: Index) -> bool {
        self.runs.binary_search_by_key(&container, |(run, _)| *run).is_ok()
    }

    /// Open promises in the shared order.
    pub(super) fn promised(&self, interval: Duration) -> u64 {
        let cap = self.work.cap(interval);
        self.promises.as_ref().map_or(0, |promises| promises.count(cap))
    }

    /// The cells with promises above their cap, each with the nanoseconds that these jobs take.
    pub(super) fn extras(&self, interval: Duration) -> impl Iterator<Item = (Cell, u64)> + '_ {
        let cap = self.work.cap(interval);
        let extras = self.promises.iter().flat_map(move |promises| promises.extras(cap));
        extras.map(|(cell, extra)| (cell, self.work.nanos_of(extra)))
    }

    /// Promises of one cell above its cap.
    pub(super) fn extra(&self, cell: Cell, interval: Duration) -> u16 {
        let cap = self.work.cap(interval);
        self.promises.as_ref().map_or(0, |promises| promises.extra(cell, cap))
    }

    /// Whether a promise that was made after this probe was sent may not be in a count yet.
    pub(super) fn is_open(&self, last_sent: u32) -> bool {
        last_sent.wrapping_sub(self.last_reported) as i32 >= 0
    }

    /// Records that a probe is about to be sent.
    pub(super) fn probe_sent(&mut self, now: Time) {
        self.last_sent = self.last_sent.wrapping_add(1);
        self.work.probe_sent(now);
        self.promises.iter_mut().for_each(|promises| promises.probe_sent());
    }

    /// Adds a promise. If it is above the cap of its cell, returns the nanoseconds that all such promises take.
    pub(super) fn promise(&mut self, cell: Cell, interval: Duration, now: Time) -> Option<u64> {
        self.promises.get_or_insert_default().add(cell);
        match self.extra(cell, interval) {
            0 => {
                self.work.promise(now);
                None
            }
            extra => Some(self.work.nanos_of(extra)),
        }
    }

    /// Applies the report of the last probe, with `pending` weighted jobs.
    pub(super) fn apply(&mut self, pending: u64, is_listed: bool, fleet: &Fleet, now: Time) {
        self.last_reported = self.last_sent;
        self.pending = pending;
        let PromisePolicy::On { weight, max_speedup } = fleet.policy else {
            return;
        };
        let promises = self.promises.as_mut();
        let count = Count {
            pending: pending as f64 / f64::from(weight.max(1)),
            promised: promises.map_or(0, |promises| promises.end_before()),
        };
        let bounds = fleet.speed.bounds(is_listed, max_speedup);
        self.work.learn(count, bounds, &fleet.speed);
        let after = self.promised(fleet.interval);
        if after == 0 {
            self.promises = None;
        }
        self.work.resume(after, now);
    }
}

impl Node {
    pub(super) fn new(record: NodeRecord, number: u64, speed: &FleetSpeed) -> Self {
        let routing = Routing {
            number,
            work: Work::new(speed),
            ..Routing::default()
        };
        Self {
            record,
            routing: Box::new(routing),
        }
    }

    /// The containers of a node that is not returned to clients only because it is draining.
    pub(super) fn withheld(&self) -> impl Iterator<Item = &ContainerId> {
        let withheld = self.routing.withheld.iter();
        let withheld = withheld.filter(|_| self.record.health.is_available());
        withheld.flatten().map(|running| &running.id)
    }

    /// What determines the position of the node in its class.
    pub(super) fn key(&self, policy: PromisePolicy) -> u64 {
        self.in_class(match policy {
            PromisePolicy::On { .. } => self.routing.work.next_done().0,
            PromisePolicy::Off => self.routing.pending,
        })
    }

    /// The key in the class of the node.
    pub(super) fn in_class(&self, key: u64) -> u64 {
        self.record.class() | key.min(MAX_KEY)
    }
}
