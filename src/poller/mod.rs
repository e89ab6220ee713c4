//! Decides which node to probe when, and records what changed. The only writer of what the registry says nodes are.
//!
//! One thread, one `select!`: news of the lists, reports of probes, the clock. It never waits for a probe to be taken
//! (it counts those under way, and the pool has room for all of them) and never for a list.

mod doubt;
mod lists;
mod publish;
mod reports;
mod schedule;
#[cfg(test)]
mod tests;
mod tracked;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use crate::config::PendingWeights;
use crate::lists::Update;
use crate::metrics::Metrics;
use crate::net::Fetcher;
use crate::node::{ExplorerList, NodeAddr, NodeList};
use crate::probe::{Probe, ProbeJob, probe};
use crate::registry::{NodeId, Registry};
use crate::status::Board;
use crate::util::log_throttle::{LogRate, LogThrottle, ONE_A_MINUTE};
use crate::util::pool::{Done, Pool};
use crate::util::threads::{self, Alarm, Joined};
use doubt::MassFailure;
use schedule::{Class, Overdue, Schedule, Turn};
use tracked::{Cause, Counted, NodeLines, Tracked};

/// Lines about a pool that is too small and then not: where it is at its limit, that may change with each round.
const POOL_RATE: LogRate = LogRate {
    burst: 10,
    refill: Duration::from_secs(60),
};
/// A node that has answered nothing but 429 for so many intervals is limited.
const LIMITED_INTERVALS: u32 = 10;

/// Lines about container ids with several images: those of a fleet that is new, then one a minute, since strangers can
/// make such conflicts.
const CONFLICT_RATE: LogRate = LogRate {
    burst: 20,
    refill: Duration::from_secs(60),
};

type ProbePool = Pool<ProbeJob, Probe>;
/// A finished probe.
type Report = Done<ProbeJob, Probe>;

/// What the poller is told when it starts.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) interval: Duration,
    pub(crate) max_probes: usize,
    pub(crate) weights: PendingWeights,
    /// Whether a first list of the Explorer is to come.
    pub(crate) expects_explorer: bool,
}

/// Where it writes what it found.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) registry: Arc<Registry>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fetcher: Fetcher,
}

/// Starts the poller; it ends when `stop` closes. The receiver it returns closes when every node of the first lists
/// has answered or failed to.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    settings: Settings,
    fetcher: Fetcher,
    outputs: Outputs,
    updates: Receiver<Update>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<(Joined, Receiver<()>)> {
    let (ready, is_ready) = bounded(0);
    #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
    let clock = Instant::now;
    let prober = fetcher.clone();
    let run = move |job: &ProbeJob| probe(&prober, &job.addr, job.source);
    let (mut pool, reports) = ProbePool::new("probe", settings.max_probes, run, clock());
    pool.resize(1, clock())?;
    let thread = threads::spawn_vital("poller", alarm, move || {
        let mut poller = Poller::new(settings, outputs, pool, ready, clock());
        loop {
            let wake = poller.act(clock());
            select_biased! {
                recv(stop) -> _ => return fetcher.shutdown(),
                // Before the lists: reports come as fast as probes are sent at most, while lists of 100,000 nodes that change
                // all the time would keep them waiting for good.
                recv(reports) -> report => match report {
                    Ok(report) => poller.report(report, clock()),
                    Err(_) => return,
                },
                recv(updates) -> update => match update {
                    Ok(update) => poller.update(update, clock()),
                    Err(_) => return,
                },
                default(wake.saturating_duration_since(clock())) => {}
            }
        }
    })?;
    Ok((thread, is_ready))
}

#[derive(Debug)]
struct Poller {
    settings: Settings,
    registry: Arc<Registry>,
    board: Arc<Board>,
    pool: ProbePool,
    metrics: Arc<Metrics>,
    fetcher: Fetcher,
    schedule: Schedule,
    nodes: HashMap<NodeId, Tracked>,
    by_addr: HashMap<NodeAddr, NodeId>,
    listed: Option<Arc<NodeList>>,
    explorer: Option<Arc<ExplorerList>>,
    /// Probes of nodes that left the lists meanwhile.
    orphans: HashMap<NodeId, Class>,
    ready: Option<Sender<()>>,
    mass_failure: MassFailure,
    /// How many nodes clients are sent to.
    available: usize,
    /// Nodes of the first lists that have not been asked yet.
    unanswered: usize,
    warned_of_pool: bool,
    warned_of_catalogue: bool,
    local_error_lines: LogThrottle,
    pool_lines: LogThrottle,
    thread_lines: LogThrottle,
    node_lines: NodeLines,
    conflict_lines: LogThrottle,
}

impl Poller {
    fn new(settings: Settings, outputs: Outputs, pool: ProbePool, ready: Sender<()>, now: Instant) -> Self {
        Self {
            schedule: Schedule::new(settings.interval, settings.max_probes, now),
            registry: outputs.registry,
            board: outputs.board,
            metrics: outputs.metrics,
            fetcher: outputs.fetcher,
            pool,
            nodes: HashMap::new(),
            by_addr: HashMap::new(),
            listed: None,
            explorer: None,
            orphans: HashMap::new(),
            ready: Some(ready),
            mass_failure: MassFailure::new(settings.interval),
            available: 0,
            settings,
            unanswered: 0,
            warned_of_pool: false,
            warned_of_catalogue: false,
            local_error_lines: LogThrottle::new(ONE_A_MINUTE),
            pool_lines: LogThrottle::new(POOL_RATE),
            thread_lines: LogThrottle::new(ONE_A_MINUTE),
            node_lines: NodeLines::new(),
            conflict_lines: LogThrottle::new(CONFLICT_RATE),
        }
    }

    /// Does all that is due and returns when there is more to do.
    fn act(&mut self, now: Instant) -> Instant {
        self.end_doubt(now);
        self.resize_pool(now);
        let wake = self.send_due(now).min(self.pool.resize_at());
        self.mass_failure.until().map_or(wake, |until| until.min(wake))
    }

    /// Provides threads for all that is due. While the system gives no more threads, no more probes are sent than there
    /// are threads, so that available nodes keep their turn.
    fn resize_pool(&mut self, now: Instant) {
        let max_probes = self.settings.max_probes;
        let demand = self.schedule.demand(now).min(max_probes);
        let resized = self.pool.resize(demand, now);
        let threads = self.pool.thread_limit();
        self.schedule.set_max_probes(threads.unwrap_or(max_probes));
        if let (Err(error), Some(threads)) = (resized, threads)
            && let Some(suppressed) = self.thread_lines.admit(now)
        {
            log::error!(
                "{threads} threads for probes where {demand} are of use (MAX_PROBES={max_probes}), and the system gives \
                 no more: {error}{suppressed}"
            );
        }
    }

    fn send_due(&mut self, now: Instant) -> Instant {
        loop {
            match self.schedule.turn(now) {
                Turn::Ask(id) => self.ask(id, Cause::Turn, now),
                Turn::New(id) if self.is_new(id) => self.ask(id, Cause::Turn, now),
                Turn::Recheck(id) if self.is_recheck_due(id) => self.ask(id, Cause::Recheck, now),
                Turn::New(_) | Turn::Recheck(_) => {}
                Turn::Round => self.begin_round(now),
                Turn::Wait(until) => return until,
            }
        }
    }

    fn is_new(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.asked.is_none())
    }

    fn is_recheck_due(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.is_recheck_due)
    }

    fn ask(&mut self, id: NodeId, cause: Cause, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.under_way.is_none()) else {
            return;
        };
        let class = node.class();
        if let Some(asked) = node.asked {
            self.schedule.dequeue(id, asked);
        }
        let job = ProbeJob {
            id,
            probe: self.registry.begin_probe(id, now),
            addr: node.addr.clone(),
            source: node.rank.source(),
        };
        node.is_recheck_due = false;
        node.asked = Some(now);
        if self.pool.send(job) {
            node.under_way = Some((class, cause));
            self.schedule.sent(class);
        } else {
            self.schedule.enqueue(id, class, now);
            self.recheck(id, now);
        }
    }

    /// Asks a node once more in a second.
    fn recheck(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_recheck_due) {
            node.is_recheck_due = true;
            self.schedule.recheck(id, node.class(), now);
        }
    }

    /// Brings what `/metrics` says in line with what a node is now.
    fn recount(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let counted = node.to_be_counted();
            if node.counted != Some(counted) {
                let before = node.counted.replace(counted);
                self.count(before, Some(counted));
            }
        }
    }

    fn count(&mut self, before: Option<Counted>, now: Option<Counted>) {
        let Metrics {
            nodes, pending_jobs, ..
        } = &*self.metrics;
        if let Some(now) = now {
            nodes[now.source][now.state].add(1);
            self.available += usize::from(now.is_available);
            pending_jobs.add(now.pending);
        }
        if let Some(before) = before {
            nodes[before.source][before.state].sub(1);
            self.available -= usize::from(before.is_available);
            pending_jobs.sub(before.pending);
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.registry.begin_round();
        let overdue = self.schedule.begin_round(now);
        self.log_pool(overdue, now);
        self.node_lines.log_overdue(now);
    }

    fn log_pool(&mut self, overdue: Overdue, now: Instant) {
        let is_too_small = overdue.up + overdue.other > 0;
        self.metrics.pool_too_small.set(u64::from(is_too_small));
        self.board.pool_too_small(is_too_small);
        if std::mem::replace(&mut self.warned_of_pool, is_too_small) == is_too_small {
            return;
        }
        let Some(suppressed) = self.pool_lines.admit(now) else {
            return;
        };
        match is_too_small {
            true => log::warn!(
                "MAX_PROBES={} and REFRESH_INTERVAL={} are too small for {} nodes: {} that are up and {} that are not \
                 were not asked in this interval; raise one of them{suppressed}",
                self.settings.max_probes,
                self.settings.interval.as_secs_f64(),
                self.nodes.len(),
                overdue.up,
                overdue.other
            ),
            false => log::info!("all nodes are asked in an interval again{suppressed}"),
        }
    }

    fn local_error(&mut self, reason: &str, now: Instant) {
        if let Some(suppressed) = self.local_error_lines.admit(now) {
            log::error!("probes fail on this machine, which is no verdict on any node: {reason}{suppressed}");
        }
    }
}
