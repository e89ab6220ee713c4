//! Limits log lines of one kind: a burst, then a steady rate. The rest is counted, and the next line reports the count.

use std::time::{Duration, Instant};

/// For problems that occur with every connection or every probe.
pub(crate) const ONE_A_MINUTE: LogThrottle = LogThrottle::new(1, Duration::from_secs(60));

/// For problems of the configuration, which any client can show.
pub(crate) const ONE_AN_HOUR: LogThrottle = LogThrottle::new(1, Duration::from_secs(3_600));

/// Decides for each line of one kind whether it is written. Writes nothing.
#[derive(Clone, Debug)]
pub(crate) struct LogThrottle {
    /// Lines in a row, at least one.
    burst: u32,
    /// Time in which one more line becomes free.
    refill: Duration,
    /// When the whole burst is free again; `None` before the first line.
    full_at: Option<Instant>,
    suppressed: u64,
}

/// The number of lines that were suppressed before a line that is written: the value of the key `suppressed`, which goes
/// last. A line omits the key if there are none.
pub(crate) type Suppressed = Option<u64>;

impl LogThrottle {
    pub(crate) const fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            full_at: None,
            suppressed: 0,
        }
    }

    /// Returns the suppressed count if a line may be written now. Otherwise counts the line.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Suppressed> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        if full_at.duration_since(now) > self.refill * (self.burst - 1) {
            self.suppressed += 1;
            return None;
        }
        self.full_at = Some(full_at + self.refill);
        let count = std::mem::take(&mut self.suppressed);
        Some((count > 0).then_some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFILL: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn throttle() -> (LogThrottle, Instant) {
        (LogThrottle::new(3, REFILL), Instant::now())
    }

    fn admitted(throttle: &mut LogThrottle, lines: usize, now: Instant) -> usize {
        (0..lines).filter(|_| throttle.admit(now).is_some()).count()
    }

    #[test]
    fn burst_is_followed_by_one_line_per_refill() {
        let (mut throttle, start) = throttle();
        assert_eq!(admitted(&mut throttle, 5, start), 3);
        assert_eq!(admitted(&mut throttle, 1, start + REFILL - Duration::from_nanos(1)), 0);
        assert_eq!(admitted(&mut throttle, 2, start + REFILL), 1);
        assert_eq!(admitted(&mut throttle, 5, start + REFILL * 3), 2);
        assert_eq!(
            admitted(&mut throttle, 9, start + REFILL * 86_400),
            3,
            "never above the burst"
        );
    }

    #[test]
    fn next_line_has_the_suppressed_count() {
        let (mut throttle, start) = throttle();
        assert_eq!(throttle.admit(start), Some(None));
        assert_eq!(admitted(&mut throttle, 3, start), 2);
        let later = start + REFILL;
        assert_eq!(throttle.admit(later), Some(Some(1)));
        assert_eq!(admitted(&mut throttle, 2, later), 0);
        assert_eq!(throttle.admit(later + REFILL), Some(Some(2)));
    }
}
