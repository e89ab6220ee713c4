//! Keeps lines of one kind from becoming a flood: a burst, then a steady rate; the rest is counted, and the next line says
//! how many there were.

use std::fmt;
use std::time::{Duration, Instant};

use log::kv::{ToValue, Value};

/// How many lines of one kind the log may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRate {
    /// Lines at once, at least one.
    pub(crate) burst: u32,
    /// Time in which one more line becomes free.
    pub(crate) refill: Duration,
}

/// For trouble that tends to come with every connection or every probe.
pub(crate) const ONE_A_MINUTE: LogRate = LogRate {
    burst: 1,
    refill: Duration::from_secs(60),
};

/// Says of each line of one kind whether it is written. One for each kind; it writes nothing itself.
#[derive(Clone, Debug)]
pub(crate) struct LogThrottle {
    rate: LogRate,
    /// Lines that may be written now.
    free: u32,
    /// Until when refills have been counted; none before the first line.
    refilled: Option<Instant>,
    suppressed: u64,
}

/// How many lines were left out before one that is written. Shown behind it; nothing where there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed(u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (one line of this kind was left out before)"),
            more => write!(f, " ({more} lines of this kind were left out before)"),
        }
    }
}

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

    /// Whether a line may be written now, and what is to be shown at its end. A line that may not is counted.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Suppressed> {
        self.refill(now);
        if self.free == 0 {
            self.suppressed += 1;
            return None;
        }
        self.free -= 1;
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
    }

    /// How many lines were left out, when there is room for a line that says so: for when no other one may follow.
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
            // A full one has nothing to wait for: the time until its next line is of no use to it.
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
    fn a_burst_is_written_then_one_line_for_each_refill() {
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
    fn the_next_line_says_how_many_were_left_out() {
        let (mut throttle, start) = throttle();
        let shown = |throttle: &mut LogThrottle, now| throttle.admit(now).map(|left_out| left_out.to_string());
        assert_eq!(shown(&mut throttle, start), Some(String::new()));
        admitted(&mut throttle, 2, start);
        assert_eq!(admitted(&mut throttle, 1, start), 0);
        let later = start + RATE.refill;
        let one = " (one line of this kind was left out before)";
        assert_eq!(shown(&mut throttle, later).as_deref(), Some(one));
        assert_eq!(admitted(&mut throttle, 2, later), 0);
        let two = " (2 lines of this kind were left out before)";
        assert_eq!(shown(&mut throttle, later + RATE.refill).as_deref(), Some(two));
    }

    #[test]
    fn what_was_left_out_is_said_when_no_other_line_follows() {
        let (mut throttle, start) = throttle();
        assert_eq!(throttle.overdue(start), None);
        admitted(&mut throttle, 5, start);
        assert_eq!(throttle.overdue(start), None, "no room");
        assert_eq!(throttle.overdue(start + RATE.refill), Some(2));
        assert_eq!(admitted(&mut throttle, 1, start + RATE.refill), 0, "that was a line");
    }
}
