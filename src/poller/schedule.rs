//! Decides which node to probe when: each node once per interval, spread evenly over the interval, available nodes
//! before others, with rechecks and new nodes between. Pure.
//!
//! The node with the oldest probe is next. With n nodes, one probe is sent every nth part of the interval, so each node
//! is probed an interval after its last probe. A node that has waited for a whole interval is probed immediately. A
//! node may thus be probed early, when other nodes join, but nodes that come and go never delay it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

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

/// The share of the pool that a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Available nodes: the whole pool.
    Up,
    /// Nodes that are down, doubted or new: at most three quarters of the pool, so that hanging nodes cannot fill it.
    Other,
}

/// What the poller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Probe this node.
    Probe(NodeId),
    /// Probe this node if it never was probed.
    New(NodeId),
    /// Probe this node, whose last probe failed a second ago, unless it was probed since.
    Recheck(NodeId),
    /// An interval is over: call `begin_round`.
    Round,
    /// Do nothing before this instant, unless a probe finishes or a list arrives.
    Wait(Instant),
}

/// Nodes that have waited for longer than an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Available nodes.
    pub(super) up: usize,
    /// Other nodes.
    pub(super) other: usize,
}

/// The nodes and probes of one class.
#[derive(Debug)]
struct ClassQueue {
    /// Nodes that wait for their turn, by the time of their last probe.
    nodes: BTreeSet<(Instant, NodeId)>,
    last_turn: Instant,
    /// Ordered by due time. Each class has a separate queue, so that a class without room delays no other.
    rechecks: VecDeque<(Instant, NodeId)>,
    in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    max_probes: usize,
    next_round: Instant,
    up: ClassQueue,
    other: ClassQueue,
    /// Nodes that never were probed. Listed nodes do not wait for Explorer nodes.
    new_listed: VecDeque<NodeId>,
    new_explorer: VecDeque<NodeId>,
    /// Number of new nodes when this round began.
    new_before_round: usize,
    /// When `MIN_SPACING` allows the next probe.
    next_send: Instant,
    up_in_a_row: u32,
    /// New Explorer nodes and nodes that are down alternate, so that a flood of new nodes does not delay a recovery.
    is_turn_of_new: bool,
}

impl Schedule {
    /// Creates an empty schedule. The first round ends an interval from now.
    pub(super) fn new(interval: Duration, max_probes: usize, now: Instant) -> Self {
        Self {
            interval,
            max_probes,
            next_round: now + interval,
            up: ClassQueue::new(now),
            other: ClassQueue::new(now),
            new_listed: VecDeque::new(),
            new_explorer: VecDeque::new(),
            new_before_round: 0,
            next_send: now,
            up_in_a_row: 0,
            is_turn_of_new: true,
        }
    }

    pub(super) fn add_new(&mut self, id: NodeId, source: Source) {
        match source {
            Source::IpsFile => self.new_listed.push_back(id),
            Source::Explorer => self.new_explorer.push_back(id),
        }
    }

    /// Removes new nodes that are not `is_new` in this list, and rechecks of nodes that are not `is_listed`. A list
    /// that changes often thus makes no queue longer than itself, and nodes that left take no turn.
    pub(super) fn retain(&mut self, is_new: impl Fn(NodeId, Source) -> bool, is_listed: impl Fn(NodeId) -> bool) {
        let before = self.new_count();
        self.new_listed.retain(|id| is_new(*id, Source::IpsFile));
        self.new_explorer.retain(|id| is_new(*id, Source::Explorer));
        self.new_before_round = self.new_before_round.saturating_sub(before - self.new_count());
        for queue in [&mut self.up, &mut self.other] {
            queue.rechecks.retain(|(_, id)| is_listed(*id));
        }
    }

    fn new_count(&self) -> usize {
        self.new_listed.len() + self.new_explorer.len()
    }

    /// Changes the maximum number of concurrent probes. Probes in flight continue.
    pub(super) fn set_max_probes(&mut self, max_probes: usize) {
        self.max_probes = max_probes;
    }

    /// Queues a node whose probe has finished.
    pub(super) fn enqueue(&mut self, id: NodeId, class: Class, last_sent: Instant) {
        self.queue(class).nodes.insert((last_sent, id));
    }

    /// Removes a node that is probed out of turn or no longer listed.
    pub(super) fn dequeue(&mut self, id: NodeId, last_sent: Instant) {
        self.up.nodes.remove(&(last_sent, id));
        self.other.nodes.remove(&(last_sent, id));
    }

    pub(super) fn recheck(&mut self, id: NodeId, class: Class, now: Instant) {
        self.queue(class).rechecks.push_back((now + RECHECK_AFTER, id));
    }

    /// Counts a sent probe.
    pub(super) fn sent(&mut self, class: Class) {
        self.queue(class).in_flight += 1;
    }

    /// Counts a finished probe.
    pub(super) fn finished(&mut self, class: Class) {
        self.queue(class).in_flight -= 1;
    }

    fn queue(&mut self, class: Class) -> &mut ClassQueue {
        match class {
            Class::Up => &mut self.up,
            Class::Other => &mut self.other,
        }
    }

    fn in_flight(&self) -> usize {
        self.up.in_flight + self.other.in_flight
    }

    fn has_room(&self, class: Class) -> bool {
        let share = (self.max_probes * 3 / 4).max(1);
        self.in_flight() < self.max_probes && (class == Class::Up || self.other.in_flight < share)
    }

    /// Number of useful threads: probes in flight, nodes due immediately and one spare.
    pub(super) fn demand(&self, now: Instant) -> usize {
        self.in_flight() + self.up.rechecks_due(now) + self.other.rechecks_due(now) + self.new_listed.len() + 1
    }

    /// Begins a round. Returns the numbers of nodes that had no turn in the last one.
    pub(super) fn begin_round(&mut self, now: Instant) -> Overdue {
        let overdue = Overdue {
            up: self.up.overdue(self.interval, now),
            other: self.other.overdue(self.interval, now) + self.new_before_round,
        };
        self.new_before_round = self.new_count();
        // After a delay of more than an interval (the machine slept), continue from now instead of catching up.
        let next = self.next_round + self.interval;
        self.next_round = if next > now { next } else { now + self.interval };
        overdue
    }

    /// Returns what to do at `now`. The caller repeats the call after each turn.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let mut wait = self.next_round;
        for class in self.classes() {
            if !self.has_room(class) {
                continue;
            }
            if let Some(turn) = self.next(class, now) {
                self.up_in_a_row = if class == Class::Up { self.up_in_a_row + 1 } else { 0 };
                return turn;
            }
            if let Some(due) = self.next_due(class) {
                wait = wait.min(due.max(self.next_send));
            }
        }
        // Last, so that a node is overdue only if the pool is full.
        match now < self.next_round {
            true => Turn::Wait(wait),
            false => Turn::Round,
        }
    }

    fn classes(&self) -> [Class; 2] {
        match self.up_in_a_row < UP_IN_A_ROW {
            true => [Class::Up, Class::Other],
            false => [Class::Other, Class::Up],
        }
    }

    fn next(&mut self, class: Class, now: Instant) -> Option<Turn> {
        if class == Class::Other
            && let Some(turn) = self.take_new_listed(now)
        {
            return Some(turn);
        }
        if now < self.next_send {
            return None;
        }
        let turn = match class {
            Class::Up => {
                let recheck = self.up.take_recheck(now).map(Turn::Recheck);
                recheck.or_else(|| self.up.take(self.interval, now).map(Turn::Probe))
            }
            // Rechecks rank last: they confirm a failure, while a new or recovered node may become available.
            Class::Other => self
                .take_turn_or_new_explorer(now)
                .or_else(|| self.other.take_recheck(now).map(Turn::Recheck)),
        }?;
        self.next_send = self.next_send.max(earlier(now)) + MIN_SPACING;
        Some(turn)
    }

    /// When the next node of this class is due. New listed nodes are not included.
    fn next_due(&self, class: Class) -> Option<Instant> {
        match class {
            Class::Up => self.up.next_due(self.interval),
            Class::Other if self.new_explorer.is_empty() => self.other.next_due(self.interval),
            Class::Other => Some(self.next_send),
        }
    }

    fn take_new_listed(&mut self, now: Instant) -> Option<Turn> {
        let id = self.new_listed.pop_front()?;
        Some(self.take_new(id, now))
    }

    fn take_turn_or_new_explorer(&mut self, now: Instant) -> Option<Turn> {
        let turn = match self.is_turn_of_new && !self.new_explorer.is_empty() {
            true => None,
            false => self.other.take(self.interval, now),
        };
        self.is_turn_of_new = turn.is_some();
        turn.map(Turn::Probe).or_else(|| {
            let id = self.new_explorer.pop_front()?;
            Some(self.take_new(id, now))
        })
    }

    /// All turns are counted from the last new node on: nodes that were just probed need none.
    fn take_new(&mut self, id: NodeId, now: Instant) -> Turn {
        self.new_before_round = self.new_before_round.saturating_sub(1);
        self.up.last_turn = now;
        self.other.last_turn = now;
        Turn::New(id)
    }
}

impl ClassQueue {
    fn new(now: Instant) -> Self {
        Self {
            nodes: BTreeSet::new(),
            last_turn: now,
            rechecks: VecDeque::new(),
            in_flight: 0,
        }
    }

    fn overdue(&self, interval: Duration, now: Instant) -> usize {
        let delay = MAX_DELAY.min(interval / DELAY_SHARE);
        let waits = |(last_sent, _): &&(Instant, NodeId)| *last_sent + interval + delay < now;
        self.nodes.iter().take_while(waits).count()
    }

    fn rechecks_due(&self, now: Instant) -> usize {
        self.rechecks.partition_point(|(due, _)| *due <= now)
    }

    fn take_recheck(&mut self, now: Instant) -> Option<NodeId> {
        let (due, id) = *self.rechecks.front()?;
        (due <= now).then(|| {
            self.rechecks.pop_front();
            id
        })
    }

    /// When the next of the evenly spread turns is due.
    fn next_turn(&self, interval: Duration) -> Instant {
        let nodes = (self.nodes.len() + self.in_flight).max(1);
        self.last_turn + interval / nodes as u32
    }

    /// Removes the node with the oldest probe if its turn has come.
    fn take(&mut self, interval: Duration, now: Instant) -> Option<NodeId> {
        let next_turn = self.next_turn(interval);
        let (last_sent, _) = *self.nodes.first()?;
        if now < next_turn && now < last_sent + interval {
            return None;
        }
        // A timer that fires some milliseconds late is caught up with. A pool that was full for long is not.
        self.last_turn = next_turn.clamp(earlier(now), now);
        self.nodes.pop_first().map(|(_, id)| id)
    }

    /// When the next node or recheck is due.
    fn next_due(&self, interval: Duration) -> Option<Instant> {
        let recheck = self.rechecks.front().map(|(due, _)| *due);
        let turn = self
            .nodes
            .first()
            .map(|(last_sent, _)| self.next_turn(interval).min(*last_sent + interval));
        recheck.into_iter().chain(turn).min()
    }
}

/// The earliest time from which delays are caught up with.
fn earlier(now: Instant) -> Instant {
    now.checked_sub(CATCH_UP).unwrap_or(now)
}

#[cfg(test)]
mod tests;
