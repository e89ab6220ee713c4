//! Whom to ask when, pure: rounds over all nodes, those that are up first, with rechecks and new nodes between.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::node::Source;
use crate::registry::NodeId;

/// A failed node that was up is asked again after this; with 3 s for each of two probes it is lost within an
/// interval and 9 s.
const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// A round takes this part of the interval, so that all counts are of nearly the same moment.
const ROUND_SHARE: u32 = 10;
/// And no longer than this, though the pool and 2,000 probes a second may need more: when nodes come and go, the slots
/// of others move within a round, and that must not break the bound above.
const MAX_ROUND: Duration = Duration::from_secs(3);
/// Most probes a second in a round: a small core and a small uplink have something else to do.
const MAX_PROBES_PER_SECOND: u32 = 2_000;
/// A slot that is noticed late by no more than this is made up for.
const CATCH_UP: Duration = Duration::from_millis(20);

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
    /// Ask this node, if it is still listed.
    Ask(NodeId),
    /// Ask this node, if it never was.
    New(NodeId),
    /// The same a second after a probe of it failed, unless it has been asked since.
    Recheck(NodeId),
    /// A round begins: call `begin_round`.
    Round,
    /// Nothing before this instant, unless something ends or arrives.
    Wait(Instant),
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Nodes that are up and did not get their turn.
    pub(super) up: usize,
    /// Nodes that are not, and did not.
    pub(super) other: usize,
}

/// What one class waits for, and has.
#[derive(Debug)]
struct ClassQueue {
    /// Nodes that wait for their slot in the round.
    nodes: VecDeque<NodeId>,
    next_slot: Instant,
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
    /// Time between two slots of this round.
    spacing: Duration,
    up: ClassQueue,
    other: ClassQueue,
    /// Never asked yet: at once, without slots. Those that the operator listed don't wait behind the Explorer's.
    new_listed: VecDeque<NodeId>,
    new_named: VecDeque<NodeId>,
    /// How many of them were there when this round began.
    new_before_round: usize,
    /// Whose turn it is where the Explorer's new nodes and slots of the round are due: in turn, so that a flood of
    /// new ones keeps none that is back from being noticed.
    turn_of_new: bool,
}

impl Schedule {
    /// The first round begins an interval from now: what is listed first is new and asked at once.
    pub(super) fn new(interval: Duration, max_probes: usize, now: Instant) -> Self {
        Self {
            interval,
            max_probes,
            next_round: now + interval,
            spacing: Duration::ZERO,
            up: ClassQueue::new(now),
            other: ClassQueue::new(now),
            new_listed: VecDeque::new(),
            new_named: VecDeque::new(),
            new_before_round: 0,
            turn_of_new: true,
        }
    }

    pub(super) fn add_new(&mut self, id: NodeId, source: Source) {
        match source {
            Source::IpsFile => self.new_listed.push_back(id),
            Source::Explorer => self.new_named.push_back(id),
        }
    }

    /// Changes how many probes may be under way at once. Those that are go on.
    pub(super) fn set_max_probes(&mut self, max_probes: usize) {
        self.max_probes = max_probes;
    }

    fn new_nodes(&self) -> usize {
        self.new_listed.len() + self.new_named.len()
    }

    pub(super) fn recheck(&mut self, id: NodeId, class: Class, now: Instant) {
        self.lane(class).rechecks.push_back((now + RECHECK_AFTER, id));
    }

    /// A probe of this class was sent.
    pub(super) fn sent(&mut self, class: Class) {
        self.lane(class).under_way += 1;
    }

    /// A probe of this class ended.
    pub(super) fn ended(&mut self, class: Class) {
        self.lane(class).under_way -= 1;
    }

    fn lane(&mut self, class: Class) -> &mut ClassQueue {
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

    /// Nodes that wait for a place in the pool now, and those that have one: what the pool should have threads for.
    pub(super) fn demand(&self, now: Instant) -> usize {
        self.under_way() + self.up.rechecks_due(now) + self.other.rechecks_due(now) + self.new_nodes() + 1
    }

    /// Begins a round over these nodes, given in the order in which they were last asked, longest ago first.
    /// Returns how many the last one left behind.
    pub(super) fn begin_round(&mut self, up: Vec<NodeId>, other: Vec<NodeId>, now: Instant) -> Overdue {
        let overdue = Overdue {
            up: self.up.nodes.len(),
            other: self.other.nodes.len() + self.new_before_round,
        };
        self.new_before_round = self.new_nodes();
        // Late by more than an interval (the machine slept): go on from now instead of catching up.
        let next = self.next_round + self.interval;
        self.next_round = if next > now { next } else { now + self.interval };
        let nodes = (up.len() + other.len()).max(1) as u32;
        let fastest = Duration::from_secs(1) / MAX_PROBES_PER_SECOND;
        self.spacing = ((self.interval / ROUND_SHARE).min(MAX_ROUND) / nodes).max(fastest);
        self.other.next_slot = now + self.spacing * up.len() as u32;
        self.up.next_slot = now;
        self.up.nodes = up.into();
        self.other.nodes = other.into();
        overdue
    }

    /// What is to be done at `now`. Call it again after each thing done.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if now >= self.next_round {
            return Turn::Round;
        }
        let mut wait = self.next_round;
        for class in [Class::Up, Class::Other] {
            if !self.has_room(class) {
                continue;
            }
            if let Some(turn) = self.next(class, now) {
                return turn;
            }
            wait = self.lane(class).next_due().map_or(wait, |due| wait.min(due));
        }
        Turn::Wait(wait)
    }

    fn next(&mut self, class: Class, now: Instant) -> Option<Turn> {
        let spacing = self.spacing;
        match class {
            Class::Up => {
                let recheck = self.up.take_recheck(now).map(Turn::Recheck);
                recheck.or_else(|| self.up.take(now, spacing).map(Turn::Ask))
            }
            // Rechecks come last: a node that was not up is still none, while one that is new or back may be.
            Class::Other => self
                .take_new_listed()
                .or_else(|| self.take_slot_or_new_named(now))
                .or_else(|| self.other.take_recheck(now).map(Turn::Recheck)),
        }
    }

    fn take_new_listed(&mut self) -> Option<Turn> {
        let id = self.new_listed.pop_front()?;
        self.new_before_round = self.new_before_round.saturating_sub(1);
        Some(Turn::New(id))
    }

    fn take_slot_or_new_named(&mut self, now: Instant) -> Option<Turn> {
        let slot = match self.turn_of_new && !self.new_named.is_empty() {
            true => None,
            false => self.other.take(now, self.spacing),
        };
        self.turn_of_new = slot.is_some();
        slot.map(Turn::Ask).or_else(|| {
            let id = self.new_named.pop_front()?;
            self.new_before_round = self.new_before_round.saturating_sub(1);
            Some(Turn::New(id))
        })
    }
}

impl ClassQueue {
    fn new(now: Instant) -> Self {
        Self {
            nodes: VecDeque::new(),
            next_slot: now,
            rechecks: VecDeque::new(),
            under_way: 0,
        }
    }

    fn rechecks_due(&self, now: Instant) -> usize {
        self.rechecks.iter().take_while(|(due, _)| *due <= now).count()
    }

    fn take_recheck(&mut self, now: Instant) -> Option<NodeId> {
        let (due, id) = *self.rechecks.front()?;
        (due <= now).then(|| {
            self.rechecks.pop_front();
            id
        })
    }

    /// The next node, if its slot has come. A slot that comes late delays the ones behind it: no burst makes up for it.
    fn take(&mut self, now: Instant, spacing: Duration) -> Option<NodeId> {
        if self.next_slot > now {
            return None;
        }
        let id = self.nodes.pop_front()?;
        // A timer that fires some milliseconds late is made up for, a pool that was full for long is not.
        self.next_slot = self.next_slot.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + spacing;
        Some(id)
    }

    /// When there is a next node, unless it is a new one.
    fn next_due(&self) -> Option<Instant> {
        let recheck = self.rechecks.front().map(|(due, _)| *due);
        let slot = (!self.nodes.is_empty()).then_some(self.next_slot);
        recheck.into_iter().chain(slot).min()
    }
}

#[cfg(test)]
mod tests;
