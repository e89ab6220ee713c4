//! The event loop's clock. Pure.

use std::time::{Duration, Instant};

/// The event loop never takes this long between two events, unless the process does not run.
const MAX_LAG: Duration = Duration::from_millis(500);

/// A clock that stops while the process is stopped (SIGSTOP, a paused VM): deadlines would otherwise be over before
/// what arrived in the meantime is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    last: Instant,
    stopped: Duration,
}

impl Clock {
    pub(super) fn new(real: Instant) -> Self {
        Self {
            last: real,
            stopped: Duration::ZERO,
        }
    }

    /// The time after a wait of at most `wait`; `None` is a wait without a limit.
    pub(super) fn advance(&mut self, real: Instant, wait: Option<Duration>) -> Instant {
        let passed = real.saturating_duration_since(self.last);
        self.last = real;
        if let Some(wait) = wait
            && passed > wait + MAX_LAG
        {
            self.stopped += passed - wait;
        }
        real.checked_sub(self.stopped).unwrap_or(real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn stopped_process_does_not_age_deadlines() {
        let begin = Instant::now();
        let (mut clock, tick) = (Clock::new(begin), Duration::from_millis(100));
        assert_eq!(clock.advance(begin + tick, Some(tick)), begin + tick);
        let busy = begin + tick * 2 + MAX_LAG;
        assert_eq!(clock.advance(busy, Some(tick)), busy);
        let pause = Duration::from_secs(60);
        assert_eq!(clock.advance(busy + pause, Some(tick)), busy + tick);
        assert_eq!(clock.advance(busy + pause + tick, Some(tick)), busy + tick * 2);
        assert_eq!(clock.advance(busy + pause * 2, None), busy + pause + tick);
    }
}
