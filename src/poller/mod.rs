//! Decides which node to probe when, and writes the results to the registry. No other module changes the health of a
//! node.
//!
//! One thread with one `select!`: updates of the lists, reports of probes, the clock. The thread never blocks on the
//! pool, which has room for all probes in flight, and never on a list.

mod due;
mod health;
mod lists;
mod log;
mod mass_failure;
mod probe;
mod reports;
mod resources;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select_biased};

use self::log::NodeLines;
use crate::config::PendingWeights;
use crate::lists::Update;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::net::Fetcher;
use crate::node::{ExplorerList, NodeAddr, NodeList, Source};
use crate::registry::{Health, NodeId, Registry};
use crate::status::Conflict;
use crate::util::log_throttle::{LogRate, LogThrottle, ONE_A_MINUTE};
use crate::util::pool::{Done, Pool};
use crate::util::threads::{self, Alarm, Joined};
use mass_failure::MassFailure;
use probe::ProbeJob;
pub(crate) use probe::{Outcome, Probe, probe};
use resources::ResourcePoller;
use schedule::{Class, Overdue, Schedule, Turn};

/// Lines about a pool that is too small: near its limit, this may change with each round.
const POOL_RATE: LogRate = LogRate {
    burst: 10,
    refill: Duration::from_secs(60),
};
/// Intervals of only 429 responses after which a node is shown as `limited`.
const LIMITED_INTERVALS: u32 = 10;

/// Lines about container ids with several images: a burst at startup, then one per minute, because untrusted nodes can
/// cause such conflicts.
const CONFLICT_RATE: LogRate = LogRate {
    burst: 20,
    refill: Duration::from_secs(60),
};

type ProbePool = Pool<ProbeJob, Probe>;
/// A finished probe.
type Report = Done<ProbeJob, Probe>;

/// The settings of the poller.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) interval: Duration,
    pub(crate) max_probes: usize,
    pub(crate) weights: PendingWeights,
    /// Whether startup waits for the first Explorer list.
    pub(crate) expects_explorer: bool,
    /// `RESOURCES_INTERVAL`; `None` if resources are never polled.
    pub(crate) resources_interval: Option<Duration>,
}

/// What the poller reads and writes.
pub(crate) struct Outputs {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fetcher: Fetcher,
    /// The surveys; `None` if resources are never polled.
    pub(crate) models: Option<Arc<Models>>,
}

/// Starts the poller, which runs until `stop` closes. The returned receiver closes when every node of the first lists
/// has returned a result.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn start(
    settings: Settings,
    outputs: Outputs,
    updates: Receiver<Update>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<(Joined, Receiver<()>)> {
    let (ready, is_ready) = bounded(0);
    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    let clock = Instant::now;
    let (fetcher, prober) = (outputs.fetcher.clone(), outputs.fetcher.clone());
    let run = move |job: &ProbeJob| probe(&prober, &job.addr, job.source);
    let (mut pool, reports) = ProbePool::new("probe", settings.max_probes, run, clock());
    pool.resize(1, clock())?;
    let (resources, answers) = ResourcePoller::new(&settings, &outputs, clock()).unzip();
    let (answers, woken) = (answers.unwrap_or_else(never), ResourcePoller::woken(resources.as_ref()));
    let thread = threads::spawn_vital("poller", alarm, move || {
        let mut poller = Poller::new(settings, outputs, pool, ready, clock());
        poller.resources = resources;
        loop {
            let wake = poller.act(clock());
            select_biased! {
                recv(stop) -> _ => return fetcher.shutdown(),
                // Before the lists: the rate of reports is bounded by that of probes, while lists of 100,000 nodes that
                // change all the time would delay reports forever.
                recv(reports) -> report => match report {
                    Ok(report) => poller.report(report, clock()),
                    Err(_) => return,
                },
                recv(updates) -> update => match update {
                    Ok(update) => poller.update(update, clock()),
                    Err(_) => return,
                },
                recv(answers) -> done => match (done, &mut poller.resources) {
                    (Ok(done), Some(resources)) => resources.report(done, clock()),
                    _ => return,
                },
                recv(woken) -> _ => {}
                default(wake.saturating_duration_since(clock())) => {}
            }
        }
    })?;
    Ok((thread, is_ready))
}

struct Poller {
    settings: Settings,
    registry: Arc<Registry>,
    pool: ProbePool,
    /// `None` if resources are never polled.
    resources: Option<ResourcePoller>,
    metrics: Arc<Metrics>,
    fetcher: Fetcher,
    schedule: Schedule,
    by_addr: HashMap<NodeAddr, NodeId>,
    listed: Option<Arc<NodeList>>,
    explorer: Option<Arc<ExplorerList>>,
    ready: Option<Sender<()>>,
    /// By the list.
    mass_failures: [MassFailure; 2],
    /// The last probe over each address family to which a node responded, by the time when it was sent.
    last_response: [Option<(Instant, NodeId)>; 2],
    /// The first of the last local errors in a row, of nodes whose last probe had one.
    local_errors: HashMap<NodeId, Instant>,
    /// Nodes without a result yet.
    unanswered: HashSet<NodeId>,
    /// Nodes that were reported to redirect.
    redirecting: HashSet<NodeId>,
    warned_of_pool: bool,
    warned_of_catalogue: bool,
    local_error_lines: LogThrottle,
    pool_lines: LogThrottle,
    thread_lines: LogThrottle,
    node_lines: NodeLines,
    /// Container ids whose images differed in the last round.
    conflicting: BTreeSet<String>,
    conflict_lines: LogThrottle,
}

impl Poller {
    fn new(settings: Settings, outputs: Outputs, pool: ProbePool, ready: Sender<()>, now: Instant) -> Self {
        Self {
            schedule: Schedule::new(settings.interval, settings.max_probes, now),
            registry: outputs.registry,
            metrics: outputs.metrics,
            fetcher: outputs.fetcher,
            pool,
            resources: None,
            by_addr: HashMap::new(),
            listed: None,
            explorer: None,
            ready: Some(ready),
            mass_failures: [Source::IpsFile, Source::Explorer]
                .map(|source| MassFailure::new(source, settings.interval)),
            last_response: [None; 2],
            settings,
            local_errors: HashMap::new(),
            unanswered: HashSet::new(),
            redirecting: HashSet::new(),
            warned_of_pool: false,
            warned_of_catalogue: false,
            local_error_lines: LogThrottle::new(ONE_A_MINUTE),
            pool_lines: LogThrottle::new(POOL_RATE),
            thread_lines: LogThrottle::new(ONE_A_MINUTE),
            node_lines: NodeLines::new(),
            conflicting: BTreeSet::new(),
            conflict_lines: LogThrottle::new(CONFLICT_RATE),
        }
    }

    /// Does all that is due. Returns when more is due.
    fn act(&mut self, now: Instant) -> Instant {
        self.end_doubts(now);
        let mut wake = loop {
            self.resize_pool(now);
            if let Some(until) = self.step(now) {
                break until.min(self.pool.resize_at());
            }
        };
        if let Some(resources) = &mut self.resources {
            wake = wake.min(resources.act(&self.by_addr, now));
        }
        let doubts = self.mass_failures.iter().filter_map(MassFailure::until);
        doubts.fold(wake, Instant::min)
    }

    /// Provides a thread for each probe in flight and a spare one. While the system gives no more threads, no more
    /// probes are sent than there are threads, so that available nodes keep their turn.
    fn resize_pool(&mut self, now: Instant) {
        let max_probes = self.settings.max_probes;
        let demand = (self.schedule.in_flight() + 1).min(max_probes);
        let resized = self.pool.resize(demand, now);
        let threads = self.pool.thread_limit();
        self.schedule.set_max_probes(threads.unwrap_or(max_probes));
        if let (Err(error), Some(threads)) = (resized, threads)
            && let Some(suppressed) = self.thread_lines.admit(now)
        {
            ::log::error!(
                threads, useful = demand, max_probes, reason:% = error, suppressed;
                "no thread: the system refuses threads for probes"
            );
        }
    }

    /// Does the next thing that is due. If nothing is, returns when something is.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        match self.schedule.turn(now) {
            Turn::Probe(id) => self.send(id, now),
            Turn::Round => self.begin_round(now),
            Turn::Wait(until) => return Some(until),
        }
        None
    }

    fn class(&self, id: NodeId) -> Class {
        match self.registry.health(id) {
            Some(Health::Up | Health::Suspect) => Class::Up,
            _ => Class::Other,
        }
    }

    fn send(&mut self, id: NodeId, now: Instant) {
        let listed = self
            .registry
            .note(id, now, |record| (record.addr.clone(), record.rank.source()));
        let is_sent = listed.is_some_and(|(addr, source)| {
            let number = self.registry.begin_probe(id, now);
            self.pool.send(ProbeJob {
                id,
                number,
                addr,
                source,
            })
        });
        if !is_sent {
            self.schedule.finish(id);
            self.schedule.enqueue(id, self.class(id), true, now);
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.registry.begin_round();
        let overdue = self.schedule.begin_round(now);
        self.log_pool(overdue, now);
        self.log_conflicts(now);
        self.node_lines.log_overdue(now);
    }

    fn log_pool(&mut self, overdue: Overdue, now: Instant) {
        let is_too_small = overdue.up + overdue.other > 0;
        self.metrics.pool_too_small.set(u64::from(is_too_small));
        if std::mem::replace(&mut self.warned_of_pool, is_too_small) == is_too_small {
            return;
        }
        let Some(suppressed) = self.pool_lines.admit(now) else {
            return;
        };
        let Settings {
            interval, max_probes, ..
        } = &self.settings;
        match is_too_small {
            true => ::log::warn!(
                nodes = self.by_addr.len(), overdue_up = overdue.up, overdue_other = overdue.other,
                max_probes = *max_probes, interval_s = interval.as_secs_f64(), suppressed;
                "pool too small: nodes missed their probe; raise MAX_PROBES or REFRESH_INTERVAL"
            ),
            false => ::log::info!(suppressed; "pool large enough: all nodes are probed in an interval again"),
        }
    }

    /// Logs the container ids that have come to have several images, or have one image again.
    fn log_conflicts(&mut self, now: Instant) {
        let conflicts: Vec<Conflict> = self.registry.conflicts().into_iter().map(Conflict::from).collect();
        for conflict in &conflicts {
            if !self.conflicting.contains(&conflict.id)
                && let Some(suppressed) = self.conflict_lines.admit(now)
            {
                ::log::warn!(
                    container = conflict.id.as_str(), images = conflict.images_text().as_str(), suppressed;
                    "image conflict: jobs for the container reach any of its images"
                );
            }
        }
        let ids = conflicts.into_iter().map(|conflict| conflict.id).collect();
        let before = std::mem::replace(&mut self.conflicting, ids);
        for id in before.difference(&self.conflicting) {
            if let Some(suppressed) = self.conflict_lines.admit(now) {
                ::log::info!(container = id.as_str(), suppressed; "image conflict ended: the container has one image again");
            }
        }
    }

    fn local_error(&mut self, reason: &str, now: Instant) {
        if let Some(suppressed) = self.local_error_lines.admit(now) {
            ::log::error!(reason:% = reason, suppressed; "probe error: the cause is on this machine, nodes keep their state");
        }
    }
}
