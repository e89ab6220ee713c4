//! Lines about single nodes, kept from becoming a flood: a hostile Explorer can name 100,000 others each interval, and
//! each line is written by the poller's thread.

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

/// Lines at once: all nodes of a large fleet at the start.
const BURST: u32 = 10_000;
/// Time in which one more line becomes free: 100 lines a second are some 15 KiB.
const REFILL: Duration = Duration::from_millis(10);

/// The lines are the poller's.
const TARGET: &str = "infernet_router::poller";

#[derive(Debug)]
pub(super) struct Chatter {
    left: u32,
    refilled: Instant,
    unsaid: u64,
}

impl Chatter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            refilled: now,
            unsaid: 0,
        }
    }

    /// Logs a line about a node, or counts it where there were too many.
    pub(super) fn tell(&mut self, level: Level, line: fmt::Arguments<'_>, now: Instant) {
        if self.take(now) {
            log::log!(target: TARGET, level, "{line}");
        } else {
            self.unsaid += 1;
            log::debug!(target: TARGET, "{line}");
        }
    }

    /// How many lines were left out since this was last asked.
    pub(super) fn take_unsaid(&mut self) -> u64 {
        std::mem::take(&mut self.unsaid)
    }

    fn take(&mut self, now: Instant) -> bool {
        let back = now.saturating_duration_since(self.refilled).as_nanos() / REFILL.as_nanos();
        let back = u32::try_from(back).unwrap_or(u32::MAX).min(BURST);
        self.left = (self.left + back).min(BURST);
        self.refilled = match self.left {
            BURST => now,
            _ => self.refilled + REFILL * back,
        };
        let is_free = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn a_burst_is_told_then_a_line_each_hundredth_of_a_second_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut chatter = Chatter::new(start);
        let tell = |chatter: &mut Chatter, now| {
            chatter.tell(Level::Trace, format_args!("node"), now);
            chatter.take_unsaid() == 0
        };
        assert!((0..BURST).all(|_| tell(&mut chatter, start)));
        assert!(!tell(&mut chatter, start + REFILL - Duration::from_nanos(1)));
        assert!(tell(&mut chatter, start + REFILL));
        assert!(!tell(&mut chatter, start + REFILL));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..200).filter(|_| tell(&mut chatter, later)).count(), 99);
        let much_later = start + Duration::from_secs(86_400);
        assert_eq!(
            (0..=BURST).filter(|_| tell(&mut chatter, much_later)).count(),
            BURST as usize
        );
    }
}
