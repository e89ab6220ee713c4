//! How fast a node is, learned from its own counts, and when it should be through with its work. Pure arithmetic.
//!
//! One job here is the weight of one promise: counts are divided by it before they come here. Times are whole
//! nanoseconds, so that places are compared exactly and in a total order; all the rest is floats, since speeds span many
//! orders of magnitude. None can become NaN or infinite: a typical speed lies between `MIN_SPEED` and `MAX_SPEED` and
//! each divisor is at least that, counts are below 2^64, times below 2^64 ns, and what is added to a record is bounded
//! by both. A conversion to whole nanoseconds saturates.

use std::time::Duration;

/// Slowest and fastest typical node that is believed, in jobs a second: a job of eleven days, or of a microsecond.
const MIN_SPEED: f64 = 1e-6;
const MAX_SPEED: f64 = 1e6;
/// Seconds after which a record counts for 1/e. Long enough to tell speeds from noise; a node that gets no jobs for
/// being slow is forgotten and tried again with one.
const MEMORY: f64 = 600.0;
/// How many times as much as the typical node one counted node may have done, or got behind our back, and how many times
/// slower than the typical node one may count as. Keeps one restart (1,000 to 0 pending) or a lie from spoiling its
/// record.
const MAX_FACTOR: f64 = 8.0;
/// Largest squared miss of one count that tells of the noise, so that one liar can't freeze the learning of all.
const MAX_SQUARED_MISS: f64 = 100.0;
/// Jobs at the typical speed that each record begins with, when counts miss by one job squared for each job done: the
/// more noise, the more record it takes to call a node special. From 20 to 60 do nearly the same.
const PRIOR_JOBS: f64 = 40.0;
/// Nodes of ips.txt that must have a record for these alone to say what is typical: enough for a median. Anybody may
/// register at the Explorer, and in numbers.
const MIN_LISTED: usize = 4;

/// A point in time, in nanoseconds since the registry was made. Ends after 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) u64);

impl Time {
    /// So many seconds later.
    fn after(self, seconds: f64) -> Self {
        Self(self.0.saturating_add((seconds * 1e9) as u64))
    }

    /// Seconds from `earlier` until this; 0 where that is not earlier.
    fn seconds_since(self, earlier: Time) -> f64 {
        self.since(earlier).as_secs_f64()
    }

    /// The same as a duration.
    pub(super) fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What one node's record says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) is_listed: bool,
    /// Jobs a second.
    pub(super) speed: f64,
}

/// What is known of all nodes together.
#[derive(Debug)]
pub(super) struct FleetSpeed {
    max_speedup: Option<f64>,
    /// Jobs a second of the middle node, and of one that is faster than three quarters of all.
    typical: f64,
    fast: f64,
    /// How far counts were from what was expected, squared, and jobs that were done, both fading like the records.
    squared_miss: f64,
    jobs: f64,
    noted: Time,
}

impl FleetSpeed {
    /// Before anything is learned a node does one job an interval.
    pub(super) fn new(interval: Duration, max_speedup: Option<f64>) -> Self {
        let typical = within(1.0 / interval.as_secs_f64(), MIN_SPEED, MAX_SPEED);
        Self {
            max_speedup,
            typical,
            fast: typical,
            squared_miss: 0.0,
            jobs: 0.0,
            noted: Time::default(),
        }
    }

    /// Takes over what the records of all nodes say. Without any the last ones stay.
    pub(super) fn set(&mut self, (typical, fast): (f64, f64)) {
        (self.typical, self.fast) = (typical, fast);
    }

    /// Slowest and fastest that a node may count as.
    fn bounds(&self, is_listed: bool) -> (f64, f64) {
        let fastest = match self.max_speedup {
            Some(times) if is_listed => self.typical * times,
            Some(times) => self.fast.min(self.typical * times),
            None => self.fast,
        };
        (self.typical / MAX_FACTOR, fastest)
    }

    /// Jobs at the typical speed that each record begins with.
    fn prior_jobs(&self) -> f64 {
        (PRIOR_JOBS * (self.squared_miss + 1.0) / (self.jobs + 1.0)).max(1.0)
    }

    fn note(&mut self, miss: f64, done: f64, now: Time) {
        let keep = keep(now.seconds_since(self.noted));
        self.noted = now;
        self.squared_miss = self.squared_miss * keep + (miss * miss).min(MAX_SQUARED_MISS);
        self.jobs = (self.jobs * keep + done).max(0.0);
    }
}

/// The typical and the fast speed that these records make, if there are any: their median (the mean of the middle two of
/// an even number) and their upper quartile, at an index at which no single node of three or more sets it alone; never
/// below the median. A sort of all nodes: not for under a lock.
pub(super) fn typical_and_fast(mut records: Vec<Record>) -> Option<(f64, f64)> {
    if records.iter().filter(|record| record.is_listed).count() >= MIN_LISTED {
        records.retain(|record| record.is_listed);
    }
    let mut speeds: Vec<f64> = records.iter().map(|record| record.speed).collect();
    speeds.sort_unstable_by(f64::total_cmp);
    let last = speeds.len().checked_sub(1)?;
    let at = |index: usize| within(speeds[index], MIN_SPEED, MAX_SPEED);
    let median = (at(last / 2) + at(last.div_ceil(2))) / 2.0;
    Some((median, at(last * 3 / 4).max(median)))
}

/// What one node has to do, and how fast it does it.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// When it should be through with all that it has.
    finish: Time,
    /// Jobs a second that it counts as.
    speed: f64,
    /// Jobs that it did, and seconds that it was believed to be busy meanwhile; both fade.
    done: f64,
    busy: f64,
    /// Its last count, and when the probe that brought it was sent; none before the first.
    count: f64,
    counted: Option<Time>,
    /// When the last probe was sent, and how many jobs it was believed to have then.
    sent: Time,
    expected: f64,
}

/// What a probe found: a count of jobs, with the promises made since the last count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) pending: f64,
    /// Promises that were made before the probe was sent, and after.
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) is_listed: bool,
}

impl Work {
    pub(super) fn new(fleet: &FleetSpeed) -> Self {
        Self {
            finish: Time::default(),
            speed: fleet.typical,
            done: 0.0,
            busy: 0.0,
            count: 0.0,
            counted: None,
            sent: Time::default(),
            expected: 0.0,
        }
    }

    /// When it would be through with one job more: what nodes are ordered by.
    pub(super) fn next_done(&self) -> Time {
        self.finish.after(1.0 / self.speed)
    }

    pub(super) fn finish(&self) -> Time {
        self.finish
    }

    pub(super) fn speed(&self) -> f64 {
        self.speed
    }

    pub(super) fn promise(&mut self, now: Time) {
        self.finish = self.finish.max(now).after(1.0 / self.speed);
    }

    pub(super) fn probe_sent(&mut self, now: Time) {
        self.sent = now;
        self.expected = self.finish.seconds_since(now) * self.speed;
    }

    /// What its record says, once it has done a job.
    pub(super) fn record(&self, is_listed: bool) -> Option<Record> {
        let is_known = self.done >= 1.0 && self.busy > 0.0;
        is_known.then(|| Record {
            is_listed,
            speed: self.done / self.busy,
        })
    }

    /// Takes over what the probe that was sent last found.
    pub(super) fn count(&mut self, count: Count, fleet: &mut FleetSpeed, now: Time) {
        if let Some(counted) = self.counted {
            self.learn(count, counted, fleet, now);
        }
        let prior = fleet.prior_jobs();
        let speed = (self.done + prior) / (self.busy + prior / fleet.typical);
        let (slowest, fastest) = fleet.bounds(count.is_listed);
        self.speed = within(speed, slowest, fastest);
        self.count = count.pending;
        self.counted = Some(self.sent);
        self.finish = now.after((count.pending + count.after as f64) / self.speed);
    }

    fn learn(&mut self, count: Count, counted: Time, fleet: &mut FleetSpeed, now: Time) {
        let span = self.sent.seconds_since(counted);
        let had = self.count + count.before as f64;
        let most = MAX_FACTOR * fleet.typical * span;
        let done = within(had - count.pending, -most, most);
        let busy = ((had - self.expected).max(0.0) / self.speed).min(span);
        let keep = keep(span);
        self.done = (self.done * keep + done).max(0.0);
        self.busy = self.busy * keep + busy;
        fleet.note(self.expected - count.pending, done, now);
    }
}

/// What is left of a record after so many seconds.
fn keep(seconds: f64) -> f64 {
    (-seconds / MEMORY).exp()
}

/// Unlike `clamp`, without a panic for bounds that are crossed.
fn within(value: f64, least: f64, most: f64) -> f64 {
    value.max(least).min(most)
}

#[cfg(test)]
mod tests;
