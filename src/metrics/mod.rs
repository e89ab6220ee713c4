//! The counters of the router. Any thread adds to them; `/metrics` reads them.

mod labels;
mod process;
mod text;

use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use labels::{
    Endpoint, Label, ProbeOutcome, Refused, ResourcesOutcome, Status, Success, SurveyOutcome, Verdict,
};
pub(crate) use text::CONTENT_TYPE;

/// A number that only grows, or a gauge that one thread sets.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations in buckets. `bounds` are their inclusive upper bounds in microseconds; `rest` counts longer ones.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [Counter; N],
    rest: Counter,
    sum_micros: Counter,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            rest: Counter::default(),
            sum_micros: Counter::default(),
        }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < micros);
        self.buckets.get(at).unwrap_or(&self.rest).add(1);
        self.sum_micros.add(micros);
    }
}

/// From a probe in the same data center to a probe that takes its whole 3 s.
const PROBE_BOUNDS: [u64; 8] = [1_000, 5_000, 20_000, 50_000, 100_000, 300_000, 1_000_000, 3_000_000];
/// From a response out of the registry to one that waited for a worker until its timeout.
const REQUEST_BOUNDS: [u64; 8] = [50, 100, 250, 1_000, 5_000, 25_000, 100_000, 1_000_000];

/// One value for each label.
#[derive(Debug)]
pub(crate) struct By<L, T = Counter>(Box<[T]>, PhantomData<L>);

impl<L: Label, T: Default> Default for By<L, T> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|_| T::default()).collect(), PhantomData)
    }
}

impl<L: Label, T> Index<L> for By<L, T> {
    type Output = T;

    fn index(&self, label: L) -> &T {
        &self.0[label.index()]
    }
}

impl<L: Label, T> By<L, T> {
    /// Returns each label with its value, in the order of the labels.
    fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::ALL.iter().copied().zip(&self.0)
    }
}

/// All counters of one router.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) probes: By<ProbeOutcome>,
    pub(crate) probe_time: Histogram<8>,
    /// Gauge: 1 while the pool cannot probe all nodes within one interval.
    pub(crate) pool_too_small: Counter,
    /// Gauge: Unix time of the last accepted Explorer list, in seconds; 0 before the first.
    pub(crate) explorer_success: Counter,
    pub(crate) explorer_requests: By<Success>,
    /// Gauge: 1 if the last Explorer list was accepted.
    pub(crate) explorer_ok: Counter,
    pub(crate) file_reads: By<Success>,
    /// Gauge: 1 if the last read of IPS_FILE was accepted.
    pub(crate) ips_file_ok: Counter,
    pub(crate) request_time: Histogram<8>,
    /// First pages of `/api/v1/ips` without an available node.
    pub(crate) empty_answers: Counter,
    pub(crate) connections: Counter,
    /// Gauge: open client connections.
    pub(crate) connections_open: Counter,
    pub(crate) limiter: By<Endpoint, By<Verdict>>,
    pub(crate) refused: By<Refused>,
    pub(crate) requests: By<Endpoint, By<Status>>,
    pub(crate) resources_requests: By<ResourcesOutcome>,
    pub(crate) surveys: By<SurveyOutcome>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            probes: By::default(),
            probe_time: Histogram::new(&PROBE_BOUNDS),
            pool_too_small: Counter::default(),
            explorer_success: Counter::default(),
            explorer_requests: By::default(),
            explorer_ok: Counter::default(),
            file_reads: By::default(),
            ips_file_ok: Counter::default(),
            request_time: Histogram::new(&REQUEST_BOUNDS),
            empty_answers: Counter::default(),
            connections: Counter::default(),
            connections_open: Counter::default(),
            limiter: By::default(),
            refused: By::default(),
            requests: By::default(),
            resources_requests: By::default(),
            surveys: By::default(),
        }
    }
}

impl Metrics {
    /// Returns the requests for endpoints below `/api/v1/`, and the responses with a status of 500 or above.
    pub(crate) fn api_requests_and_errors(&self) -> (u64, u64) {
        let api = [Endpoint::Ips, Endpoint::Containers, Endpoint::Resources];
        let by_status = api.iter().flat_map(|endpoint| self.requests[*endpoint].iter());
        let lost = self.refused[Refused::Busy].get() + self.refused[Refused::Lost].get();
        by_status.fold((lost, lost), |(requests, errors), (status, count)| {
            let is_error = matches!(status, Status::S500 | Status::S503);
            (requests + count.get(), errors + if is_error { count.get() } else { 0 })
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
