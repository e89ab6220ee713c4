//! Whom to ask when, pure: each node once an interval, spread evenly over it, those that are up before those that are
//! down, with rechecks and new nodes between.
//!
//! The node that was asked longest ago is next. With n nodes, one is asked every nth part of the interval, so that
//! each is asked an interval after the last time; one that has waited for a whole interval is asked at once. So a node may
//! be asked early, as when others join, but nodes that come and go never delay it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::node::Source;
use crate::registry::NodeId;

/// A failed node that was up is asked again after this; with 3 s for each of two probes and `MAX_DELAY` it is lost
/// within an interval and 9 s.
pub(super) const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// A turn that is late by more than this breaks the bound above: the pool is too small, or nodes are too many.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// And by more than this part of a short interval.
const DELAY_SHARE: u32 = 16;
/// Between two probes, but for the first ones of nodes of ips.txt, which are asked at once: 2,000 a second at most. A
/// small core and a small uplink have something else to do.
const MIN_SPACING: Duration = Duration::from_micros(500);
/// A turn that is noticed late by no more than this is made up for.
const CATCH_UP: Duration = Duration::from_millis(20);
/// Where nodes that are up would take all probes a second, every fourth one is for the others.
const UP_IN_A_ROW: u32 = 3;

/// Whose turn it is in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nodes that are up: always have a turn.
    Up,
    /// Nodes that are down or not known yet: three quarters of the pool at most, so that hanging ones can't take it all.
    Other,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ask this node.
    Ask(NodeId),
    /// Ask this node, if it never was.
    New(NodeId),
    /// The same a second after a probe of it failed, unless it has been asked since.
    Recheck(NodeId),
    /// An interval is over: call `begin_round`.
    Round,
    /// Nothing before this instant, unless something ends or arrives.
    Wait(Instant),
}

/// Nodes that have waited for longer than an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Nodes that are up.
    pub(super) up: usize,
    /// Nodes that are not.
    pub(super) other: usize,
}

/// What one class waits for, and has.
#[derive(Debug)]
struct ClassQueue {
    /// Nodes that wait for their turn, by when they were asked last.
    nodes: BTreeSet<(Instant, NodeId)>,
    last_turn: Instant,
    /// In the order in which they fall due. Each class has its own, so that one whose share of the pool is taken
    /// keeps nobody else waiting.
    rechecks: VecDeque<(Instant, NodeId)>,
    under_way: usize,
}

#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    max_probes: usize,
    next_round: Instant,
    up: ClassQueue,
    other: ClassQueue,
    /// Never asked yet. Those that the operator listed don't wait behind the Explorer's.
    new_listed: VecDeque<NodeId>,
    new_named: VecDeque<NodeId>,
    /// How many of them were there when this round began.
    new_before_round: usize,
    /// When `MIN_SPACING` allows the next probe.
    next_send: Instant,
    up_in_a_row: u32,
    /// Whose turn it is where the Explorer's new nodes and nodes that are down are due: in turn, so that a flood of
    /// new ones keeps none that is back from being noticed.
    is_turn_of_new: bool,
}

impl Schedule {
    /// What is listed first is new and asked at once; the first round ends an interval from now.
    pub(super) fn new(interval: Duration, max_probes: usize, now: Instant) -> Self {
        Self {
            interval,
            max_probes,
            next_round: now + interval,
            up: ClassQueue::new(now),
            other: ClassQueue::new(now),
            new_listed: VecDeque::new(),
            new_named: VecDeque::new(),
            new_before_round: 0,
            next_send: now,
            up_in_a_row: 0,
            is_turn_of_new: true,
        }
    }

    pub(super) fn add_new(&mut self, id: NodeId, source: Source) {
        match source {
            Source::IpsFile => self.new_listed.push_back(id),
            Source::Explorer => self.new_named.push_back(id),
        }
    }

    /// Keeps new nodes that `is_new` in this list, and rechecks of nodes that `is_listed`: a list that changes often makes no
    /// queue longer than itself, and nodes that come and go take no turn from those that stay.
    pub(super) fn retain(&mut self, is_new: impl Fn(NodeId, Source) -> bool, is_listed: impl Fn(NodeId) -> bool) {
        let before = self.new_count();
        self.new_listed.retain(|id| is_new(*id, Source::IpsFile));
        self.new_named.retain(|id| is_new(*id, Source::Explorer));
        self.new_before_round = self.new_before_round.saturating_sub(before - self.new_count());
        for queue in [&mut self.up, &mut self.other] {
            queue.rechecks.retain(|(_, id)| is_listed(*id));
        }
    }

    fn new_count(&self) -> usize {
        self.new_listed.len() + self.new_named.len()
    }

    /// Changes how many probes may be under way at once. Those that are go on.
    pub(super) fn set_max_probes(&mut self, max_probes: usize) {
        self.max_probes = max_probes;
    }

    /// A node whose probe has ended waits for its next turn.
    pub(super) fn enqueue(&mut self, id: NodeId, class: Class, asked: Instant) {
        self.queue(class).nodes.insert((asked, id));
    }

    /// A node that is asked out of turn, or not listed any more, waits no longer.
    pub(super) fn dequeue(&mut self, id: NodeId, asked: Instant) {
        self.up.nodes.remove(&(asked, id));
        self.other.nodes.remove(&(asked, id));
    }

    pub(super) fn recheck(&mut self, id: NodeId, class: Class, now: Instant) {
        self.queue(class).rechecks.push_back((now + RECHECK_AFTER, id));
    }

    /// A probe of this class was sent.
    pub(super) fn sent(&mut self, class: Class) {
        self.queue(class).under_way += 1;
    }

    /// A probe of this class ended.
    pub(super) fn ended(&mut self, class: Class) {
        self.queue(class).under_way -= 1;
    }

    fn queue(&mut self, class: Class) -> &mut ClassQueue {
        match class {
            Class::Up => &mut self.up,
            Class::Other => &mut self.other,
        }
    }

    fn under_way(&self) -> usize {
        self.up.under_way + self.other.under_way
    }

    fn has_room(&self, class: Class) -> bool {
        let share = (self.max_probes * 3 / 4).max(1);
        self.under_way() < self.max_probes && (class == Class::Up || self.other.under_way < share)
    }

    /// Nodes that are to be asked at once, and those that are being asked: what the pool should have threads for.
    pub(super) fn demand(&self, now: Instant) -> usize {
        self.under_way() + self.up.rechecks_due(now) + self.other.rechecks_due(now) + self.new_listed.len() + 1
    }

    /// Begins a round, and returns who did not get a turn in the last one.
    pub(super) fn begin_round(&mut self, now: Instant) -> Overdue {
        let overdue = Overdue {
            up: self.up.overdue(self.interval, now),
            other: self.other.overdue(self.interval, now) + self.new_before_round,
        };
        self.new_before_round = self.new_count();
        // Late by more than an interval (the machine slept): go on from now instead of catching up.
        let next = self.next_round + self.interval;
        self.next_round = if next > now { next } else { now + self.interval };
        overdue
    }

    /// What is to be done at `now`. Call it again after each thing done.
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
        // Last, so that only those are overdue for which there is no room.
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
                recheck.or_else(|| self.up.take(self.interval, now).map(Turn::Ask))
            }
            // Rechecks come last: a node that was not up is still none, while one that is new or back may be.
            Class::Other => self
                .take_turn_or_new_named(now)
                .or_else(|| self.other.take_recheck(now).map(Turn::Recheck)),
        }?;
        self.next_send = self.next_send.max(earlier(now)) + MIN_SPACING;
        Some(turn)
    }

    /// When a node of this class is due, unless it is a new one of ips.txt.
    fn next_due(&self, class: Class) -> Option<Instant> {
        match class {
            Class::Up => self.up.next_due(self.interval),
            Class::Other if self.new_named.is_empty() => self.other.next_due(self.interval),
            Class::Other => Some(self.next_send),
        }
    }

    fn take_new_listed(&mut self, now: Instant) -> Option<Turn> {
        let id = self.new_listed.pop_front()?;
        Some(self.take_new(id, now))
    }

    fn take_turn_or_new_named(&mut self, now: Instant) -> Option<Turn> {
        let turn = match self.is_turn_of_new && !self.new_named.is_empty() {
            true => None,
            false => self.other.take(self.interval, now),
        };
        self.is_turn_of_new = turn.is_some();
        turn.map(Turn::Ask).or_else(|| {
            let id = self.new_named.pop_front()?;
            Some(self.take_new(id, now))
        })
    }

    /// The turns of all are counted from the last new node on: those that were just asked need none.
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
            under_way: 0,
        }
    }

    fn overdue(&self, interval: Duration, now: Instant) -> usize {
        let delay = MAX_DELAY.min(interval / DELAY_SHARE);
        let waits = |(asked, _): &&(Instant, NodeId)| *asked + interval + delay < now;
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

    /// When the next of the evenly spread turns is.
    fn next_turn(&self, interval: Duration) -> Instant {
        let nodes = (self.nodes.len() + self.under_way).max(1);
        self.last_turn + interval / nodes as u32
    }

    /// The node that was asked longest ago, if its turn has come.
    fn take(&mut self, interval: Duration, now: Instant) -> Option<NodeId> {
        let next_turn = self.next_turn(interval);
        let (asked, _) = *self.nodes.first()?;
        if now < next_turn && now < asked + interval {
            return None;
        }
        // A timer that fires some milliseconds late is made up for, a pool that was full for long is not.
        self.last_turn = next_turn.clamp(earlier(now), now);
        self.nodes.pop_first().map(|(_, id)| id)
    }

    /// When the next node is due, unless it is a new one.
    fn next_due(&self, interval: Duration) -> Option<Instant> {
        let recheck = self.rechecks.front().map(|(due, _)| *due);
        let turn = self
            .nodes
            .first()
            .map(|(asked, _)| self.next_turn(interval).min(*asked + interval));
        recheck.into_iter().chain(turn).min()
    }
}

/// From when on what is noticed late is made up for.
fn earlier(now: Instant) -> Instant {
    now.checked_sub(CATCH_UP).unwrap_or(now)
}

#[cfg(test)]
mod tests;
