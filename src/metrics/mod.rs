//! The counters of the router. Any thread adds to them; `/metrics` reads them.

mod labels;
mod process;
mod text;

use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use labels::{Endpoint, Label, ProbeOutcome, Refused, ResourcesOutcome, Success, SurveyOutcome, Verdict};
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

/// Durations in buckets, of which the last one counts durations above all bounds.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BOUNDS + 1],
    sum_micros: Counter,
}

impl Histogram {
    fn observe(&self, bounds: &[u64; BOUNDS], took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bounds.partition_point(|bound| *bound < micros)].add(1);
        self.sum_micros.add(micros);
    }
}

/// Bounds of a histogram: inclusive, in microseconds.
const BOUNDS: usize = 8;
/// From a probe in the same data center to a probe that takes its whole 3 s.
const PROBE_BOUNDS: [u64; BOUNDS] = [1_000, 5_000, 20_000, 50_000, 100_000, 300_000, 1_000_000, 3_000_000];
/// From a response out of the registry to one that waited for a worker until its timeout.
const REQUEST_BOUNDS: [u64; BOUNDS] = [50, 100, 250, 1_000, 5_000, 25_000, 100_000, 1_000_000];

/// The statuses of worker responses.
const STATUSES: [u16; 8] = [200, 204, 400, 404, 405, 429, 500, 503];

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
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) probes: By<ProbeOutcome>,
    probe_time: Histogram,
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
    request_time: Histogram,
    /// First pages of `/api/v1/ips` without an available node.
    pub(crate) empty_answers: Counter,
    pub(crate) connections: Counter,
    /// Gauge: open client connections.
    pub(crate) connections_open: Counter,
    pub(crate) limiter: By<Endpoint, By<Verdict>>,
    pub(crate) refused: By<Refused>,
    /// By the position of their status in `STATUSES`.
    requests: By<Endpoint, [Counter; STATUSES.len()]>,
    pub(crate) resources_requests: By<ResourcesOutcome>,
    pub(crate) surveys: By<SurveyOutcome>,
}

impl Metrics {
    pub(crate) fn observe_probe(&self, took: Duration) {
        self.probe_time.observe(&PROBE_BOUNDS, took);
    }

    pub(crate) fn observe_request(&self, took: Duration) {
        self.request_time.observe(&REQUEST_BOUNDS, took);
    }

    pub(crate) fn count_request(&self, endpoint: Endpoint, status: u16) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.requests[endpoint][at].add(1);
        }
    }

    /// Returns the requests for endpoints below `/api/v1/`, and the responses with a status of 500 or above.
    pub(crate) fn api_requests_and_errors(&self) -> (u64, u64) {
        let lost = self.refused[Refused::Busy].get() + self.refused[Refused::Lost].get();
        let api = [Endpoint::Ips, Endpoint::Containers, Endpoint::Resources];
        let counts = api
            .iter()
            .flat_map(|endpoint| STATUSES.iter().zip(&self.requests[*endpoint]));
        counts.fold((lost, lost), |(requests, errors), (status, count)| {
            let is_error = u64::from(*status >= 500);
            (requests + count.get(), errors + is_error * count.get())
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
