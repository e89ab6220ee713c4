//! Limits log lines of one kind: a burst, then a steady rate. The rest is counted, and the next line reports the count.

use std::time::{Duration, Instant};

use log::kv::{ToValue, Value};

/// The rate of lines of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRate {
    /// Lines in a row, at least one.
    pub(crate) burst: u32,
    /// Time in which one more line becomes free.
    pub(crate) refill: Duration,
}

/// For problems that occur with every connection or every probe.
pub(crate) const ONE_A_MINUTE: LogRate = LogRate {
    burst: 1,
    refill: Duration::from_secs(60),
};

/// Decides for each line of one kind whether it is written. Writes nothing.
#[derive(Clone, Debug)]
pub(crate) struct LogThrottle {
    rate: LogRate,
    /// Lines that may be written now.
    free: u32,
    /// Until when refills have been counted; `None` before the first line.
    refilled: Option<Instant>,
    suppressed: u64,
}

/// The number of lines that were suppressed before a line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed(u64);

/// The value of the key `suppressed`, which goes last. A line without suppressed lines omits the key.
impl ToValue for Suppressed {
    fn to_value(&self) -> Value<'_> {
        match self.0 {
            0 => Value::null(),
            count => count.into(),
        }
    }
}

impl LogThrottle {
    pub(crate) fn new(rate: LogRate) -> Self {
        Self {
            rate,
            free: rate.burst,
            refilled: None,
            suppressed: 0,
        }
    }

    /// Returns the suppressed count if a line may be written now. Otherwise counts the line.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Suppressed> {
        self.refill(now);
        if self.free == 0 {
            self.suppressed += 1;
            return None;
        }
        self.free -= 1;
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
    }

    /// Returns the suppressed count if a line about it may be written now: no other line may follow.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        if self.suppressed == 0 || self.free == 0 {
            return None;
        }
        self.free -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.refilled.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_nanos() / self.rate.refill.as_nanos().max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.free = self.free.saturating_add(back).min(self.rate.burst);
        let refilled = match self.free == self.rate.burst {
            // A full bucket waits for no refill.
            true => now,
            false => since + self.rate.refill * back,
        };
        self.refilled = Some(refilled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LogRate = LogRate {
        burst: 3,
        refill: Duration::from_secs(1),
    };

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn throttle() -> (LogThrottle, Instant) {
        (LogThrottle::new(RATE), Instant::now())
    }

    fn admitted(throttle: &mut LogThrottle, lines: usize, now: Instant) -> usize {
        (0..lines).filter(|_| throttle.admit(now).is_some()).count()
    }

    #[test]
    fn burst_is_followed_by_one_line_per_refill() {
        let (mut throttle, start) = throttle();
        assert_eq!(admitted(&mut throttle, 5, start), 3);
        assert_eq!(
            admitted(&mut throttle, 1, start + RATE.refill - Duration::from_nanos(1)),
            0
        );
        assert_eq!(admitted(&mut throttle, 2, start + RATE.refill), 1);
        assert_eq!(admitted(&mut throttle, 5, start + RATE.refill * 3), 2);
        assert_eq!(
            admitted(&mut throttle, 9, start + RATE.refill * 86_400),
            3,
            "never above the burst"
        );
    }

    #[test]
    fn next_line_has_the_suppressed_count() {
        let (mut throttle, start) = throttle();
        assert_eq!(throttle.admit(start), Some(Suppressed(0)));
        assert_eq!(admitted(&mut throttle, 3, start), 2);
        let later = start + RATE.refill;
        assert_eq!(throttle.admit(later), Some(Suppressed(1)));
        assert_eq!(admitted(&mut throttle, 2, later), 0);
        assert_eq!(throttle.admit(later + RATE.refill), Some(Suppressed(2)));
    }

    #[test]
    fn overdue_returns_the_count_without_a_line() {
        let (mut throttle, start) = throttle();
        assert_eq!(throttle.overdue(start), None);
        admitted(&mut throttle, 5, start);
        assert_eq!(throttle.overdue(start), None, "no room");
        assert_eq!(throttle.overdue(start + RATE.refill), Some(2));
        assert_eq!(admitted(&mut throttle, 1, start + RATE.refill), 0, "that was a line");
    }
}
