//! One listed node as the poller sees it.

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::schedule::Class;
use crate::metrics::StateLabel;
use crate::node::{NodeAddr, Rank, Source};
use crate::util::log_throttle::{LogRate, LogThrottle};

/// What one node adds to the jobs pending in all at most: a liar's number must not hide everybody else's.
const MAX_COUNTED_PENDING: u64 = 1_000_000;
/// Lines about single nodes: those of a large fleet at the start, then one a second. A hostile Explorer can name 100,000
/// others each interval, and a fleet that changes for good must not fill the disk.
const NODE_RATE: LogRate = LogRate {
    burst: 1_000,
    refill: Duration::from_secs(1),
};
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
    /// Up, though its probes fail: so do those of too many others at once.
    Doubted,
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
    /// Whether it was said that the node answers by a redirect.
    warned_of_redirect: bool,
    /// When it answered 429, and nothing else since.
    pub(super) limited_since: Option<Instant>,
    /// Whether that has lasted for long enough to be told.
    pub(super) is_limited: bool,
    /// Jobs that it last reported as pending.
    pub(super) pending: u64,
    /// As what `/metrics` counts it now.
    pub(super) counted: Option<Counted>,
}

/// What `/metrics` counts of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) source: Source,
    pub(super) state: StateLabel,
    /// A node in state limited may be or not.
    pub(super) is_available: bool,
    pub(super) pending: u64,
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
            warned_of_redirect: false,
            limited_since: None,
            is_limited: false,
            pending: 0,
            counted: None,
        }
    }

    /// Whether clients are sent to it.
    pub(super) fn is_available(&self) -> bool {
        matches!(self.health, Health::Up | Health::Suspect | Health::Doubted)
    }

    pub(super) fn state(&self) -> StateLabel {
        match self.health {
            Health::Doubted => StateLabel::Doubted,
            _ if self.is_limited => StateLabel::Limited,
            Health::Up | Health::Suspect => StateLabel::Up,
            Health::New | Health::Down => StateLabel::Down,
        }
    }

    pub(super) fn to_be_counted(&self) -> Counted {
        Counted {
            source: self.rank.source(),
            state: self.state(),
            is_available: self.is_available(),
            pending: if self.is_available() {
                self.pending.min(MAX_COUNTED_PENDING)
            } else {
                0
            },
        }
    }

    pub(super) fn class(&self) -> Class {
        match self.health {
            Health::Up | Health::Suspect => Class::Up,
            Health::New | Health::Doubted | Health::Down => Class::Other,
        }
    }

    /// Logs why a probe failed, when that changed.
    pub(super) fn explain(&mut self, reason: String, lines: &mut NodeLines, now: Instant) {
        if !is_same_reason(&self.reason, &reason) {
            let addr = self.addr.as_listed();
            self.log(
                lines,
                Level::Warn,
                format_args!("a probe of node {addr:?} failed: {reason}"),
                now,
            );
            self.reason = reason;
        }
    }

    /// Notes a 429, and logs it: when it begins, and when it has lasted for long.
    pub(super) fn answered_429(&mut self, long: Duration, lines: &mut NodeLines, now: Instant) {
        let since = *self.limited_since.get_or_insert(now);
        let addr = self.addr.as_listed();
        if !self.is_limited && now.duration_since(since) >= long {
            self.is_limited = true;
            let line = format_args!(
                "node {addr:?} is limited: it has answered nothing but 429, too many requests, for {} s; \
                 others may ask it in this router's name, or REFRESH_INTERVAL is too short",
                long.as_secs_f64()
            );
            return self.log(lines, Level::Warn, line, now);
        }
        let reason = "429, too many requests: it stays what it was".to_owned();
        if !is_same_reason(&self.reason, &reason) {
            let line = format_args!("node {addr:?} answered {reason}");
            self.log(lines, Level::Warn, line, now);
            self.reason = reason;
        }
    }

    /// Notes an answer, or none, that is no 429. True where that ends a time in which the node was limited.
    pub(super) fn answered_otherwise(&mut self) -> bool {
        self.limited_since = None;
        std::mem::take(&mut self.is_limited)
    }

    /// Logs once that the node answers by a redirect.
    pub(super) fn warn_of_redirect(&mut self, to: &str, lines: &mut NodeLines, now: Instant) {
        if !self.warned_of_redirect {
            self.warned_of_redirect = true;
            let addr = self.addr.as_listed();
            let line = format_args!(
                "node {addr:?} answers by a redirect to \"{to}\", which the POST requests of clients will not follow: \
                 list where it leads instead"
            );
            self.log(lines, Level::Warn, line, now);
        }
    }

    /// Logs a line about the node, or counts it where there were too many; all of them are there at level debug.
    pub(super) fn log(&self, lines: &mut NodeLines, level: Level, line: fmt::Arguments<'_>, now: Instant) {
        match lines.of(self.rank.source()).admit(now) {
            Some(suppressed) => log::log!(target: TARGET, level, "{line}{suppressed}"),
            None => log::debug!(target: TARGET, "{line}"),
        }
    }

    /// Logs that the node is down, with the reason.
    pub(super) fn give_up(&mut self, reason: String, lines: &mut NodeLines, now: Instant) {
        let addr = self.addr.as_listed();
        self.log(lines, Level::Warn, format_args!("node {addr:?} is down: {reason}"), now);
        self.health = Health::Down;
        self.reason = reason;
    }
}

/// Lines about nodes. Those of ips.txt have their own, so that no flood of the Explorer's keeps them out of the log.
#[derive(Debug)]
pub(super) struct NodeLines {
    listed: LogThrottle,
    named: LogThrottle,
}

impl NodeLines {
    pub(super) fn new() -> Self {
        Self {
            listed: LogThrottle::new(NODE_RATE),
            named: LogThrottle::new(NODE_RATE),
        }
    }

    fn of(&mut self, source: Source) -> &mut LogThrottle {
        match source {
            Source::IpsFile => &mut self.listed,
            Source::Explorer => &mut self.named,
        }
    }

    /// Says how many lines were left out, where no other line may follow.
    pub(super) fn log_overdue(&mut self, now: Instant) {
        for lines in [&mut self.listed, &mut self.named] {
            if let Some(suppressed) = lines.overdue(now) {
                log::warn!(target: TARGET, "{suppressed} changes of nodes are not in the log: there are too many");
            }
        }
    }
}

/// Whether two reasons differ in nothing but their numbers: dates, counts, ports.
fn is_same_reason(one: &str, other: &str) -> bool {
    let is_kept = |char: &char| !char.is_ascii_digit();
    one.chars().filter(is_kept).eq(other.chars().filter(is_kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn a_flood_of_lines_about_nodes_of_the_explorer_keeps_none_about_those_of_ips_txt_out() {
        let (mut lines, now) = (NodeLines::new(), Instant::now());
        while lines.of(Source::Explorer).admit(now).is_some() {}
        assert!(lines.of(Source::IpsFile).admit(now).is_some());
    }

    #[test]
    fn a_reason_is_the_same_when_its_numbers_alone_changed() {
        assert!(is_same_reason(
            "expired 3 days ago, at 2026-01-09",
            "expired 14 days ago, at 2026-01-20"
        ));
        assert!(is_same_reason("", ""));
        assert!(!is_same_reason("connection refused", "connection reset"));
        assert!(!is_same_reason("", "connection refused"));
    }
}
