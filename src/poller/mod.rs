//! Decides which node to probe when, and writes the results to the registry. No other module changes the health of a
//! node.
//!
//! One thread with one `select!`: updates of the lists, reports of probes, the clock. The thread never blocks on the
//! pool, which has room for all probes in flight, and never on a list.

mod due;
mod lists;
mod log;
mod mass_failure;
mod observe;
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
use crate::config::Config;
use crate::lists::Update;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::net::Fetcher;
use crate::node::{ExplorerList, NodeAddr, NodeList, Source};
use crate::registry::{NodeId, NodeState, Registry};
use crate::status::Conflict;
use crate::util::log_throttle::{LogThrottle, ONE_A_MINUTE};
use crate::util::pool::{Done, Pool};
use crate::util::threads::{self, Alarm, Joined};
use mass_failure::MassFailure;
use probe::ProbeJob;
pub(crate) use probe::{Outcome, Probe, probe};
use resources::ResourcePoller;
use schedule::{Queue, Schedule, Turn};

/// Intervals of only 429 responses after which a node is shown as `limited`.
const LIMITED_INTERVALS: u32 = 10;

/// Lines about what changes with a round: a burst at startup, then one per minute. A pool near its limit, and untrusted
/// nodes with conflicting images, can cause such changes.
const ROUND_RATE: LogThrottle = LogThrottle::new(20, Duration::from_secs(60));

type ProbePool = Pool<ProbeJob, Probe>;
/// A finished probe.
type Report = Done<ProbeJob, Probe>;

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
    config: Config,
    outputs: Outputs,
    updates: Receiver<Update>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<(Joined, Receiver<()>)> {
    let (ready, is_ready) = bounded(0);
    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    let clock = Instant::now;
    let prober = outputs.fetcher.clone();
    let run = move |job: &ProbeJob| probe(&prober, &job.addr, job.source);
    let (mut pool, reports) = ProbePool::new("probe", config.max_probes, run, clock());
    pool.resize(1, clock())?;
    let (resources, answers) = ResourcePoller::new(&config, &outputs, clock()).unzip();
    let answers = answers.unwrap_or_else(never);
    let woken = outputs
        .models
        .as_ref()
        .map_or_else(never, |models| models.woken.clone());
    let thread = threads::spawn_vital("poller", alarm, move || {
        let mut poller = Poller::new(config, outputs, pool, ready, clock());
        poller.resources = resources;
        loop {
            let wake = poller.act(clock());
            select_biased! {
                recv(stop) -> _ => return,
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
    config: Config,
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
    /// The resolver's count of changes when the lists were merged.
    name_changes: u64,
    ready: Option<Sender<()>>,
    /// By the list.
    mass_failures: [MassFailure; 2],
    /// The last probe over each address family to which a node responded, by the time when it was sent.
    last_response: [Option<(Instant, NodeId)>; 2],
    /// The first of the last local errors in a row, of nodes whose last probe had one.
    local_errors: HashMap<NodeId, Instant>,
    /// Nodes without a result yet.
    unanswered: HashSet<NodeId>,
    warned_of_catalogue: bool,
    local_error_lines: LogThrottle,
    pool_lines: LogThrottle,
    conflict_lines: LogThrottle,
    thread_lines: LogThrottle,
    node_lines: NodeLines,
    /// Container ids whose images differed in the last round.
    conflicting: BTreeSet<String>,
}

/// Also if the poller panics: the exit must not wait for the requests to nodes and lists.
impl Drop for Poller {
    fn drop(&mut self) {
        self.fetcher.shutdown();
    }
}

impl Poller {
    fn new(config: Config, outputs: Outputs, pool: ProbePool, ready: Sender<()>, now: Instant) -> Self {
        Self {
            schedule: Schedule::new(config.refresh_interval, config.max_probes, now),
            registry: outputs.registry,
            metrics: outputs.metrics,
            fetcher: outputs.fetcher,
            pool,
            resources: None,
            by_addr: HashMap::new(),
            listed: None,
            explorer: None,
            name_changes: 0,
            ready: Some(ready),
            mass_failures: [Source::IpsFile, Source::Explorer]
                .map(|source| MassFailure::new(source, config.refresh_interval)),
            last_response: [None; 2],
            config,
            local_errors: HashMap::new(),
            unanswered: HashSet::new(),
            warned_of_catalogue: false,
            local_error_lines: ONE_A_MINUTE,
            pool_lines: ROUND_RATE,
            conflict_lines: ROUND_RATE,
            thread_lines: ONE_A_MINUTE,
            node_lines: NodeLines::new(),
            conflicting: BTreeSet::new(),
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
        let doubts = self.mass_failures.iter().filter_map(|failures| failures.until);
        doubts.fold(wake, Instant::min)
    }

    /// Provides a thread for each probe in flight and a spare one. While the system gives no more threads, no more
    /// probes are sent than there are threads, so that available nodes keep their turn.
    fn resize_pool(&mut self, now: Instant) {
        let max_probes = self.config.max_probes;
        let demand = (self.schedule.in_flight.len() + 1).min(max_probes);
        let resized = self.pool.resize(demand, now);
        let threads = self.pool.thread_limit();
        self.schedule.max_probes = threads.unwrap_or(max_probes);
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

    /// The queue of a node that was probed.
    fn queue(&self, id: NodeId) -> Queue {
        match self.registry.health(id) {
            Some(NodeState::Up | NodeState::Suspect) => Queue::Up,
            _ => Queue::Other,
        }
    }

    fn send(&mut self, id: NodeId, now: Instant) {
        self.registry.begin_probe(id, now);
        let is_sent = self.registry.record(id).is_some_and(|record| {
            self.pool.send(ProbeJob {
                id,
                source: record.rank.source(),
                addr: record.addr,
            })
        });
        if !is_sent {
            self.schedule.finish(id);
            self.schedule.enqueue(id, self.queue(id), true, now);
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.registry.begin_round();
        self.follow_names(now);
        let overdue = self.schedule.begin_round(now);
        self.log_pool(overdue, now);
        self.log_conflicts(now);
    }

    fn log_pool(&mut self, (overdue_up, overdue_other): (usize, usize), now: Instant) {
        let is_too_small = overdue_up + overdue_other > 0;
        let was_too_small = self.metrics.pool_too_small.get() > 0;
        self.metrics.pool_too_small.set(is_too_small.into());
        if is_too_small
            && !was_too_small
            && let Some(suppressed) = self.pool_lines.admit(now)
        {
            let interval_s = self.config.refresh_interval.as_secs_f64();
            ::log::warn!(
                nodes = self.by_addr.len(), overdue_up, overdue_other,
                max_probes = self.config.max_probes, interval_s, suppressed;
                "pool too small: nodes missed their probe; raise MAX_PROBES or REFRESH_INTERVAL"
            );
        }
    }

    /// Logs the container ids that have come to have several images, or have one image again.
    fn log_conflicts(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.conflicting);
        for conflict in self.registry.conflicts().iter().map(Conflict::from) {
            if !before.contains(&conflict.id)
                && let Some(suppressed) = self.conflict_lines.admit(now)
            {
                ::log::warn!(
                    container = conflict.id.as_str(), images = conflict.images_text().as_str(), suppressed;
                    "image conflict: jobs for the container reach any of its images"
                );
            }
            self.conflicting.insert(conflict.id);
        }
        for id in before.difference(&self.conflicting) {
            if let Some(suppressed) = self.conflict_lines.admit(now) {
                ::log::info!(container = id.as_str(), suppressed; "image conflict ended: the container has one image again");
            }
        }
    }
}
