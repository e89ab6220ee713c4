//! Learns how fast a node is from its own counts, and computes when the node should finish its work. Pure arithmetic.
//!
//! One job here is the weight of one promise: the caller divides counts by it. Times are whole nanoseconds, so that
//! keys compare exactly. Everything else is a float, because speeds span many orders of magnitude. No float becomes NaN
//! or infinite: a typical speed lies between `MIN_SPEED` and `MAX_SPEED`, each divisor is at least that, counts are
//! below 2^64, and times are below 2^64 ns. A conversion to whole nanoseconds saturates.

use std::time::Duration;

/// Slowest and fastest typical speed that is accepted, in jobs per second: a job of eleven days, or of a microsecond.
const MIN_SPEED: f64 = 1e-6;
const MAX_SPEED: f64 = 1e6;
/// Seconds after which a record weighs 1/e. Long enough to distinguish speeds from noise. A slow node that gets no
/// jobs is retried with one job after this time.
const MEMORY: f64 = 600.0;
/// Factor that bounds one count and the slowest speed, relative to the typical node. It keeps one restart (1,000 to 0
/// pending) or one lie from spoiling the record.
const MAX_FACTOR: f64 = 8.0;
/// Largest squared miss of one count, so that one count does not determine a node's noise.
const MAX_SQUARED_MISS: f64 = 100.0;
/// Jobs at the typical speed that each record begins with, if counts miss by one job squared for each job done. Noisier
/// counts need a longer record before a node is treated as special. Values from 20 to 60 perform nearly the same.
const PRIOR_JOBS: f64 = 40.0;
/// Listed nodes with a record from which on only listed nodes determine what is typical: enough for a median. Anyone
/// may register many nodes at the Explorer.
const MIN_LISTED: usize = 4;
/// Bounds of the promises that one subnet may add to the shared order of a node between two counts. The lower bound
/// serves nodes that are slow or unknown. The upper bound limits what a lie about the speed gains.
const MIN_CAP: f64 = 8.0;
const MAX_CAP: f64 = 64.0;

/// A point in time, in nanoseconds since the registry was made. Ends after 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) u64);

impl Time {
    fn after(self, seconds: f64) -> Self {
        Self(self.0.saturating_add(nanos(seconds)))
    }

    /// Seconds since `earlier`; 0 if that is later.
    fn seconds_since(self, earlier: Time) -> f64 {
        self.since(earlier).as_secs_f64()
    }

    pub(super) fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// What one node's counts have shown, fading over `MEMORY`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// Jobs done, and seconds that the node was assumed busy meanwhile.
    done: f64,
    busy: f64,
    /// Squared differences between expected and reported counts.
    miss: f64,
}

impl Record {
    fn speed(&self) -> f64 {
        self.done / self.busy
    }
}

/// What the records of all nodes show together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FleetSpeed {
    /// Jobs per second: the median, and the upper quartile.
    typical: f64,
    fast: f64,
    /// Jobs at the typical speed that each record begins with.
    prior: f64,
}

impl FleetSpeed {
    /// One job per interval, before anything is learned.
    pub(super) fn new(interval: Duration) -> Self {
        let typical = within(1.0 / interval.as_secs_f64(), MIN_SPEED, MAX_SPEED);
        Self {
            typical,
            fast: typical,
            prior: PRIOR_JOBS,
        }
    }

    /// Computes the typical and the fast speed and the prior from the records of all nodes. Returns `None` without any.
    ///
    /// No single node of three or more determines `fast`. The noise comes from medians, so that a few nodes that lie
    /// cannot stop the learning of all. Sorts all nodes: call it without the lock.
    pub(super) fn of(listed: Vec<Record>, explorer: Vec<Record>) -> Option<Self> {
        let mut records = listed;
        if records.len() < MIN_LISTED {
            records.extend(explorer);
        }
        let last = records.len().checked_sub(1)?;
        let sorted = |of: fn(&Record) -> f64| {
            let mut values: Vec<f64> = records.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        let median = |values: &[f64]| (values[last / 2] + values[last.div_ceil(2)]) / 2.0;
        let speeds = sorted(|record| within(record.speed(), MIN_SPEED, MAX_SPEED));
        let typical = median(&speeds);
        let nodes = records.len() as f64;
        let misses = nodes * median(&sorted(|record| record.miss));
        let jobs = nodes * median(&sorted(|record| record.done));
        Some(Self {
            typical,
            fast: speeds[last * 3 / 4].max(typical),
            prior: (PRIOR_JOBS * (misses + 1.0) / (jobs + 1.0)).max(1.0),
        })
    }

    /// The slowest and the fastest speed that a node is assumed to have. `max_speedup` is the setting `MAX_SPEEDUP`.
    pub(super) fn bounds(&self, is_listed: bool, max_speedup: Option<f64>) -> (f64, f64) {
        let fastest = match max_speedup {
            Some(times) if is_listed => self.typical * times,
            Some(times) => self.fast.min(self.typical * times),
            None => self.fast,
        };
        (self.typical / MAX_FACTOR, fastest)
    }
}

/// What one node has to do, and how fast it does it.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// When the node should have finished its work.
    finish: Time,
    /// Jobs per second that it is assumed to do.
    speed: f64,
    record: Record,
    /// Its last count, and when the probe that brought it was sent; `None` before the first.
    count: f64,
    counted: Option<Time>,
    /// When the last probe was sent, and how many jobs the node was assumed to have then.
    sent: Time,
    expected: f64,
}

/// The jobs that a probe counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) pending: f64,
    /// Promises made since the last count and before the probe was sent, also those above the cap of a subnet.
    pub(super) promised: u64,
}

impl Work {
    pub(super) fn new(fleet: &FleetSpeed) -> Self {
        Self {
            speed: fleet.typical,
            ..Self::default()
        }
    }

    /// When it would finish one more job: the key of the order.
    pub(super) fn next_done(&self) -> Time {
        self.finish.after(1.0 / self.speed)
    }

    pub(super) fn finish(&self) -> Time {
        self.finish
    }

    pub(super) fn speed(&self) -> f64 {
        self.speed
    }

    /// The promises that one subnet may add between two counts: half of what the node does in an interval.
    pub(super) fn cap(&self, interval: Duration) -> u16 {
        within(self.speed * interval.as_secs_f64() / 2.0, MIN_CAP, MAX_CAP) as u16
    }

    /// Nanoseconds that this many jobs take.
    pub(super) fn nanos_of(&self, jobs: u16) -> u64 {
        nanos(f64::from(jobs) / self.speed)
    }

    pub(super) fn promise(&mut self, now: Time) {
        self.finish = self.finish.max(now).after(1.0 / self.speed);
    }

    pub(super) fn probe_sent(&mut self, now: Time) {
        self.sent = now;
        self.expected = self.finish.seconds_since(now) * self.speed;
    }

    /// The node's record, once it has done a job.
    pub(super) fn record(&self) -> Option<Record> {
        (self.record.done >= 1.0 && self.record.busy > 0.0).then_some(self.record)
    }

    /// Learns the speed from the count that the last probe brought. [`Work::resume`] follows.
    pub(super) fn learn(&mut self, count: Count, (slowest, fastest): (f64, f64), fleet: &FleetSpeed) {
        if let Some(counted) = self.counted {
            self.extend_record(count, counted, fleet);
        }
        let Record { done, busy, .. } = self.record;
        let speed = (done + fleet.prior) / (busy + fleet.prior / fleet.typical);
        self.speed = within(speed, slowest, fastest);
        self.count = count.pending;
        self.counted = Some(self.sent);
    }

    /// Sets the finish time from the last count and the promises made after its probe was sent.
    pub(super) fn resume(&mut self, after: u64, now: Time) {
        self.finish = now.after((self.count + after as f64) / self.speed);
    }

    fn extend_record(&mut self, count: Count, counted: Time, fleet: &FleetSpeed) {
        let span = self.sent.seconds_since(counted);
        let had = self.count + count.promised as f64;
        let most = MAX_FACTOR * fleet.typical * span;
        let done = within(had - count.pending, -most, most);
        let busy = ((had - self.expected).max(0.0) / self.speed).min(span);
        let miss = self.expected - count.pending;
        let keep = (-span / MEMORY).exp();
        let record = &mut self.record;
        record.done = (record.done * keep + done).max(0.0);
        record.busy = record.busy * keep + busy;
        record.miss = record.miss * keep + (miss * miss).min(MAX_SQUARED_MISS);
    }
}

/// Unlike `clamp`, does not panic if the bounds are crossed.
fn within(value: f64, least: f64, most: f64) -> f64 {
    value.max(least).min(most)
}

#[cfg(test)]
mod tests;
