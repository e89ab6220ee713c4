//! One listed node as the poller sees it.

use std::fmt;
use std::time::Instant;

use log::Level;

use super::schedule::Class;
use crate::node::{NodeAddr, Rank};
use crate::util::log_throttle::LogThrottle;

/// The lines are the poller's.
const TARGET: &str = "infernet_router::poller";

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Not asked yet, or not answered.
    New,
    Up,
    /// Up, but its last probe failed: one more and it is down.
    Suspect,
    Down,
}

/// Why a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its turn in the round, or the first time.
    Turn,
    /// Its last probe failed. One that fails as well is not repeated before the next round.
    Recheck,
}

/// One listed node.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) addr: NodeAddr,
    pub(super) rank: Rank,
    pub(super) health: Health,
    pub(super) asked: Option<Instant>,
    pub(super) under_way: Option<(Class, Cause)>,
    /// Whether a recheck is to come. Each node has one at most, so that failures can't multiply.
    pub(super) is_recheck_due: bool,
    /// The last reason for a failure that was logged; the same one is not logged again before the node flips.
    pub(super) reason: String,
}

impl Tracked {
    pub(super) fn new(addr: NodeAddr, rank: Rank) -> Self {
        Self {
            addr,
            rank,
            health: Health::New,
            asked: None,
            under_way: None,
            is_recheck_due: false,
            reason: String::new(),
        }
    }

    pub(super) fn class(&self) -> Class {
        match self.health {
            Health::Up | Health::Suspect => Class::Up,
            Health::New | Health::Down => Class::Other,
        }
    }

    /// Logs why a probe failed, when that changed.
    pub(super) fn explain(&mut self, reason: String, lines: &mut LogThrottle, now: Instant) {
        if self.reason != reason {
            let addr = self.addr.as_listed();
            log_node(
                lines,
                Level::Warn,
                format_args!("a probe of node {addr:?} failed: {reason}"),
                now,
            );
            self.reason = reason;
        }
    }

    /// Logs that the node is down, with the reason.
    pub(super) fn give_up(&mut self, reason: String, lines: &mut LogThrottle, now: Instant) {
        let addr = self.addr.as_listed();
        log_node(lines, Level::Warn, format_args!("node {addr:?} is down: {reason}"), now);
        self.health = Health::Down;
        self.reason = reason;
    }
}

/// Logs a line about a node, or counts it where there were too many; all of them are there at level debug.
pub(super) fn log_node(lines: &mut LogThrottle, level: Level, line: fmt::Arguments<'_>, now: Instant) {
    match lines.admit(now) {
        Some(suppressed) => log::log!(target: TARGET, level, "{line}{suppressed}"),
        None => log::debug!(target: TARGET, "{line}"),
    }
}
