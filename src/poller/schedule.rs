//! Decides which node to probe when: each node once per interval, spread evenly over the interval, available nodes
//! before others, with rechecks and new nodes between. Pure.
//!
//! Each node has a fixed phase in the interval, so nodes that come and go never delay it. Phases are multiples of the
//! golden ratio: any number of consecutive multiples divides the interval almost evenly.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::due::DueQueues;
use crate::node::Source;
use crate::registry::NodeId;

/// Delay of the second probe after a failure. With 3 s for each of two probes and `MAX_DELAY`, a node goes down within
/// one interval and 9 s.
pub(super) const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// A turn that is late by more than this breaks the bound above: the pool is too small for the nodes.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// The same as a part of a short interval.
const DELAY_SHARE: u32 = 16;
/// Minimum time between two probes: at most 2,000 per second, because a small processor and a small uplink have other
/// work. First probes of listed nodes are exempt.
const MIN_SPACING: Duration = Duration::from_micros(500);
/// A delay up to this is caught up with.
const CATCH_UP: Duration = Duration::from_millis(20);
/// If available nodes alone would use all probes, every fourth probe is for the others.
const UP_IN_A_ROW: u32 = 3;
/// The fractional part of the golden ratio, as a part of 2^32.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;

/// A queue of waiting nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Available nodes: they may use the whole pool.
    Up,
    /// Nodes that are down or doubted. These and new nodes use at most three quarters of the pool, so that hanging
    /// nodes cannot fill it.
    Other,
    /// Nodes that never were probed. They are overdue after an interval. Listed nodes do not wait for Explorer nodes.
    NewListed,
    NewExplorer,
}

impl Queue {
    fn of_new(source: Source) -> Self {
        match source {
            Source::IpsFile => Self::NewListed,
            Source::Explorer => Self::NewExplorer,
        }
    }
}

/// What the poller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Probe this node.
    Probe(NodeId),
    /// An interval is over: call `begin_round`.
    Round,
    /// Do nothing before this instant, unless a probe finishes or a list arrives.
    Wait(Instant),
}

#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    /// Maximum number of concurrent probes.
    pub(super) max_probes: usize,
    began: Instant,
    next_round: Instant,
    pub(super) waiting: DueQueues<4>,
    /// Probes in flight, also of nodes that are no longer listed, each with the time when it was sent.
    pub(super) in_flight: HashMap<NodeId, (Queue, Instant)>,
    /// When `MIN_SPACING` allows the next probe.
    next_send: Instant,
    up_in_a_row: u32,
    /// New Explorer nodes and other nodes alternate, so that a flood of new nodes does not delay a recovery.
    is_turn_of_new: bool,
}

impl Schedule {
    /// Creates an empty schedule. The first round ends an interval from now.
    pub(super) fn new(interval: Duration, max_probes: usize, now: Instant) -> Self {
        Self {
            interval,
            max_probes,
            began: now,
            next_round: now + interval,
            waiting: DueQueues::new(),
            in_flight: HashMap::new(),
            next_send: now,
            up_in_a_row: 0,
            is_turn_of_new: true,
        }
    }

    pub(super) fn add_new(&mut self, id: NodeId, source: Source, now: Instant) {
        self.waiting
            .set(id, Queue::of_new(source) as usize, now + self.interval);
    }

    /// A node has changed lists.
    pub(super) fn relist(&mut self, id: NodeId, source: Source) {
        let queue = self.waiting.get(id);
        if let Some((_, due)) = queue.filter(|(queue, _)| *queue >= Queue::NewListed as usize) {
            self.waiting.set(id, Queue::of_new(source) as usize, due);
        }
    }

    /// Queues a node whose probe has finished: for its next turn, or for a recheck.
    pub(super) fn enqueue(&mut self, id: NodeId, queue: Queue, is_recheck: bool, now: Instant) {
        let due = match is_recheck {
            true => now + RECHECK_AFTER.min(self.interval),
            false => self.next_turn(id, now),
        };
        self.waiting.set(id, queue as usize, due);
    }

    /// Probes a waiting node in a second, if its turn does not come earlier.
    pub(super) fn recheck(&mut self, id: NodeId, now: Instant) {
        let at = now + RECHECK_AFTER;
        if let Some((queue, _)) = self.waiting.get(id).filter(|(_, due)| *due > at) {
            self.waiting.set(id, queue, at);
        }
    }

    /// The first instant after `now` that has the phase of the node.
    fn next_turn(&self, id: NodeId, now: Instant) -> Instant {
        let part = id.slot().wrapping_mul(GOLDEN_RATIO);
        let first = self.began + self.interval.mul_f64(f64::from(part) / 2_f64.powi(32));
        let Some(since) = now.checked_duration_since(first) else {
            return first;
        };
        let intervals = since.as_nanos() / self.interval.as_nanos() + 1;
        first + self.interval * u32::try_from(intervals).unwrap_or(u32::MAX)
    }

    /// Begins a probe of a node.
    pub(super) fn begin(&mut self, id: NodeId, queue: Queue, now: Instant) {
        self.waiting.remove(id);
        self.in_flight.insert(id, (queue, now));
    }

    /// Ends a probe. Returns when it was sent.
    pub(super) fn finish(&mut self, id: NodeId) -> Option<Instant> {
        Some(self.in_flight.remove(&id)?.1)
    }

    fn has_room(&self, queue: Queue) -> bool {
        let share = (self.max_probes * 3 / 4).max(1);
        let others = || self.in_flight.values().filter(|(queue, _)| *queue != Queue::Up);
        self.in_flight.len() < self.max_probes && (queue == Queue::Up || others().count() < share)
    }

    /// Begins a round. Returns the numbers of available nodes and of others that had no turn in the last one.
    pub(super) fn begin_round(&mut self, now: Instant) -> (usize, usize) {
        let delay = MAX_DELAY.min(self.interval / DELAY_SHARE);
        let overdue = |queue: Queue| {
            let waits = |(due, _): &(Instant, NodeId)| *due + delay < now;
            self.waiting.of(queue as usize).take_while(waits).count()
        };
        let others = [Queue::Other, Queue::NewListed, Queue::NewExplorer].map(overdue);
        let overdue = (overdue(Queue::Up), others.iter().sum());
        // After a delay of more than an interval (the machine slept), continue from now instead of catching up.
        let next = self.next_round + self.interval;
        self.next_round = if next > now { next } else { now + self.interval };
        overdue
    }

    /// Returns what to do at `now`. The caller repeats the call after each turn.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let mut wait = self.next_round;
        for queue in self.queues() {
            let first = self.waiting.of(queue as usize).next();
            let Some((due, id)) = first.filter(|_| self.has_room(queue)) else {
                continue;
            };
            let due = match queue {
                Queue::NewListed => now,
                Queue::NewExplorer => self.next_send,
                Queue::Up | Queue::Other => due.max(self.next_send),
            };
            if due <= now {
                self.take(id, queue, now);
                return Turn::Probe(id);
            }
            wait = wait.min(due);
        }
        // Last, so that a node is overdue only if the pool is full.
        match now < self.next_round {
            true => Turn::Wait(wait),
            false => Turn::Round,
        }
    }

    /// The queues in the order of this turn.
    fn queues(&self) -> [Queue; 4] {
        let mut queues = [Queue::Up, Queue::NewListed, Queue::NewExplorer, Queue::Other];
        if !self.is_turn_of_new {
            queues.swap(2, 3);
        }
        if self.up_in_a_row >= UP_IN_A_ROW {
            queues.rotate_left(1);
        }
        queues
    }

    fn take(&mut self, id: NodeId, queue: Queue, now: Instant) {
        self.up_in_a_row = if queue == Queue::Up { self.up_in_a_row + 1 } else { 0 };
        match queue {
            Queue::Other => self.is_turn_of_new = true,
            Queue::NewExplorer => self.is_turn_of_new = false,
            Queue::Up | Queue::NewListed => {}
        }
        if queue != Queue::NewListed {
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            self.next_send = self.next_send.max(earliest) + MIN_SPACING;
        }
        self.begin(id, queue, now);
    }
}

#[cfg(test)]
mod tests;
