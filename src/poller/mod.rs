//! The pulse: whom to ask when, and what changed. The only writer of what the registry says nodes are.
//!
//! One thread, one `select!`: news of the lists, reports of probes, the clock. It never waits for a probe to be taken
//! (it counts those under way, and the pool has room for all of them) and never for a list.

mod schedule;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use crate::config::PendingWeights;
use crate::discovery::Update;
use crate::metrics::Metrics;
use crate::node::{NodeAddr, NodeInfo};
use crate::probe::{Job, Outcome, Pool, Prober, Report, Trust};
use crate::registry::{MAX_CONTAINERS, NodeId, Rank, Registry};
use crate::threads::{self, Alarm, Joined};
use schedule::{Class, Overdue, Schedule, Turn};

/// Least time between two lines about trouble on our side, which tends to come with every probe.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What the poller is told when it starts.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) interval: Duration,
    pub(crate) max_probes: usize,
    pub(crate) weights: PendingWeights,
    /// Whether a first list of the Explorer is to come.
    pub(crate) expects_explorer: bool,
}

/// Starts the poller; it ends when `stop` closes. The receiver it returns closes when every node of the first lists
/// has answered or failed to.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    settings: Settings,
    prober: Prober,
    registry: Arc<Registry>,
    updates: Receiver<Update>,
    stop: Receiver<()>,
    metrics: Arc<Metrics>,
    alarm: &Alarm,
) -> io::Result<(Joined, Receiver<()>)> {
    let (ready, is_ready) = bounded(0);
    let (mut pool, reports) = Pool::new(prober, settings.max_probes);
    pool.grow(1)?;
    let thread = threads::spawn_vital("poller", alarm, move || {
        #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
        let clock = Instant::now;
        let mut poller = Poller::new(settings, registry, pool, metrics, ready, clock());
        loop {
            let wake = poller.act(clock());
            select_biased! {
                recv(stop) -> _ => return,
                recv(reports) -> report => match report {
                    Ok(report) => poller.report(report, clock()),
                    Err(_) => return,
                },
                recv(updates) -> update => match update {
                    Ok(update) => poller.update(update),
                    Err(_) => return,
                },
                default(wake.saturating_duration_since(clock())) => {}
            }
        }
    })?;
    Ok((thread, is_ready))
}

/// How a node fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Not asked yet, or not answered.
    New,
    Up,
    /// Up, but its last probe failed: one more and it is down.
    Suspect,
    Down,
}

/// One listed node.
#[derive(Debug)]
struct Tracked {
    addr: NodeAddr,
    rank: Rank,
    health: Health,
    asked: Option<Instant>,
    under_way: Option<Class>,
    /// The last reason for a failure that was logged; the same one is not logged again before the node flips.
    reason: String,
}

impl Tracked {
    fn class(&self) -> Class {
        match self.health {
            Health::Up | Health::Suspect => Class::Up,
            Health::New | Health::Down => Class::Other,
        }
    }
}

#[derive(Debug)]
struct Poller {
    settings: Settings,
    registry: Arc<Registry>,
    pool: Pool,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    nodes: HashMap<NodeId, Tracked>,
    by_addr: HashMap<NodeAddr, NodeId>,
    listed: Option<Vec<NodeAddr>>,
    explorer: Option<Vec<NodeAddr>>,
    /// Probes of nodes that left the lists meanwhile.
    orphans: HashMap<NodeId, Class>,
    ready: Option<Sender<()>>,
    /// Nodes of the first lists that have not been asked yet.
    unanswered: usize,
    warned_of_pool: bool,
    warned_of_catalogue: bool,
    complained: Option<Instant>,
}

impl Poller {
    fn new(
        settings: Settings,
        registry: Arc<Registry>,
        pool: Pool,
        metrics: Arc<Metrics>,
        ready: Sender<()>,
        now: Instant,
    ) -> Self {
        Self {
            schedule: Schedule::new(settings.interval, settings.max_probes, now),
            settings,
            registry,
            pool,
            metrics,
            nodes: HashMap::new(),
            by_addr: HashMap::new(),
            listed: None,
            explorer: None,
            orphans: HashMap::new(),
            ready: Some(ready),
            unanswered: 0,
            warned_of_pool: false,
            warned_of_catalogue: false,
            complained: None,
        }
    }

    /// Does all that is due and returns when there is more to do.
    fn act(&mut self, now: Instant) -> Instant {
        let demand = self.schedule.demand(now).min(self.settings.max_probes);
        if let Err(error) = self.pool.grow(demand) {
            self.complain(&error.to_string(), now);
        }
        loop {
            match self.schedule.turn(now) {
                Turn::Ask(id) => self.ask(id, now),
                Turn::Round => self.begin_round(now),
                Turn::Wait(until) => return until,
            }
        }
    }

    fn ask(&mut self, id: NodeId, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.under_way.is_some() {
            return;
        }
        let class = node.class();
        let trust = match node.rank {
            Rank::Listed(_) => Trust::Listed,
            Rank::Explorer(_) => Trust::Explorer,
        };
        let job = Job {
            id,
            probe: self.registry.begin_probe(id),
            addr: node.addr.clone(),
            trust,
        };
        if self.pool.send(job) {
            node.asked = Some(now);
            node.under_way = Some(class);
            self.schedule.sent(class);
        } else {
            self.schedule.recheck(id, class, now);
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.registry.begin_round();
        let mut nodes: Vec<(&NodeId, &Tracked)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.under_way.is_none() && node.asked.is_some())
            .collect();
        nodes.sort_by_key(|(_, node)| (node.asked, node.rank));
        let (up, other): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(_, node)| node.class() == Class::Up);
        let ids = |nodes: Vec<(&NodeId, &Tracked)>| nodes.into_iter().map(|(id, _)| *id).collect();
        let overdue = self.schedule.begin_round(ids(up), ids(other), now);
        self.tell_of_pool(overdue);
    }

    fn tell_of_pool(&mut self, overdue: Overdue) {
        let waiting = overdue.up + overdue.other;
        self.metrics.pool_too_small.set(u64::from(waiting > 0));
        match (waiting, self.warned_of_pool) {
            (1.., false) => log::warn!(
                "MAX_PROBES={} and REFRESH_INTERVAL={} are too small for {} nodes: {} that are up and {} that are not \
                 were not asked in this interval; raise one of them",
                self.settings.max_probes,
                self.settings.interval.as_secs_f64(),
                self.nodes.len(),
                overdue.up,
                overdue.other
            ),
            (0, true) => log::info!("all nodes are asked in an interval again"),
            _ => {}
        }
        self.warned_of_pool = waiting > 0;
    }

    /// Takes over what a probe found, if the node was listed all the while.
    fn report(&mut self, report: Report, now: Instant) {
        self.count(&report);
        if let Some(class) = self.orphans.remove(&report.id) {
            return self.schedule.ended(class);
        }
        let Some(node) = self.nodes.get_mut(&report.id) else {
            return;
        };
        if let Some(class) = node.under_way.take() {
            self.schedule.ended(class);
        }
        log::debug!(
            "probe of {:?}: {} in {:?}",
            node.addr.as_listed(),
            brief(&report.outcome),
            report.took
        );
        if node.health == Health::New && !matches!(report.outcome, Outcome::Ours(_)) {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        match report.outcome {
            Outcome::Up(info) => self.up(report.id, report.probe, &info),
            Outcome::Limited => self.limited(report.id),
            Outcome::Failed(reason) => self.failed(report.id, reason, now),
            Outcome::Ours(reason) => {
                let class = node.class();
                self.schedule.recheck(report.id, class, now);
                self.complain(&reason, now);
            }
        }
        self.tell_ready();
    }

    fn count(&self, report: &Report) {
        let counter = match report.outcome {
            Outcome::Up(_) => &self.metrics.probes_up,
            Outcome::Limited => &self.metrics.probes_limited,
            Outcome::Failed(_) => &self.metrics.probes_failed,
            Outcome::Ours(_) => &self.metrics.probes_ours,
        };
        counter.add(1);
        self.metrics.probe_time.observe(report.took);
    }

    fn up(&mut self, id: NodeId, probe: u32, info: &NodeInfo) {
        let pending = info.load(|job| self.settings.weights.weight(job));
        let crowded_out = self.registry.up(id, probe, &info.containers, pending);
        if crowded_out > 0 && !self.warned_of_catalogue {
            self.warned_of_catalogue = true;
            log::warn!(
                "more than {MAX_CONTAINERS} distinct container ids: those that only the Explorer's nodes run are left out"
            );
        }
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if matches!(node.health, Health::New | Health::Down) {
            node.reason.clear();
            log::info!(
                "node {:?} is up: {} containers, {pending} pending",
                node.addr.as_listed(),
                info.containers.len()
            );
        }
        node.health = Health::Up;
    }

    /// A 429 says nothing of how the node is; one that was never up has to wait for a better answer.
    fn limited(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.explain("answered 429, too many requests: the state stays".to_owned());
            if node.health == Health::New {
                node.health = Health::Down;
            }
        }
    }

    fn failed(&mut self, id: NodeId, reason: String, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        match node.health {
            Health::Up => {
                node.health = Health::Suspect;
                node.explain(reason);
                self.schedule.recheck(id, Class::Up, now);
            }
            Health::Suspect => {
                node.health = Health::Down;
                log::warn!("node {:?} is down: {reason}", node.addr.as_listed());
                node.reason = reason;
                self.registry.down(id);
            }
            Health::New => {
                node.health = Health::Down;
                log::warn!("node {:?} is down: {reason}", node.addr.as_listed());
                node.reason = reason;
                self.schedule.recheck(id, Class::Other, now);
            }
            Health::Down => node.explain(reason),
        }
    }

    fn complain(&mut self, reason: &str, now: Instant) {
        let quiet = self
            .complained
            .is_some_and(|last| now.duration_since(last) < COMPLAINT_INTERVAL);
        if !quiet {
            self.complained = Some(now);
            log::error!("probes fail for a lack of ours, which is no verdict on any node: {reason}");
        }
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Listed(nodes) => self.listed = Some(nodes),
            Update::Explorer(nodes) => self.explorer = Some(nodes),
            Update::ExplorerFailed => {
                self.explorer.get_or_insert_default();
                return self.tell_ready();
            }
        }
        self.relist();
        self.tell_ready();
    }

    /// Brings the nodes in line with the lists: those that stay keep their state.
    fn relist(&mut self) {
        let ranked = merge(
            self.listed.as_deref().unwrap_or_default(),
            self.explorer.as_deref().unwrap_or_default(),
        );
        let gone: Vec<NodeAddr> = self
            .by_addr
            .keys()
            .filter(|addr| !ranked.contains_key(*addr))
            .cloned()
            .collect();
        gone.iter().for_each(|addr| self.drop_node(addr));
        let mut new = Vec::new();
        for (addr, rank) in ranked {
            match self.by_addr.get(&addr) {
                Some(id) => self.keep(*id, addr, rank),
                None => new.push((rank, addr)),
            }
        }
        new.sort_unstable();
        for (rank, addr) in new {
            let id = self.registry.insert(addr.clone(), rank);
            self.by_addr.insert(addr.clone(), id);
            let node = Tracked {
                addr,
                rank,
                health: Health::New,
                asked: None,
                under_way: None,
                reason: String::new(),
            };
            self.nodes.insert(id, node);
            self.schedule.add_new(id);
            self.unanswered += 1;
        }
    }

    fn keep(&mut self, id: NodeId, addr: NodeAddr, rank: Rank) {
        if let Some(node) = self.nodes.get_mut(&id)
            && (node.rank != rank || node.addr.as_listed() != addr.as_listed())
        {
            self.registry.relist(id, addr.clone(), rank);
            (node.addr, node.rank) = (addr, rank);
        }
    }

    fn drop_node(&mut self, addr: &NodeAddr) {
        let Some(id) = self.by_addr.remove(addr) else {
            return;
        };
        self.registry.remove(id);
        if let Some(node) = self.nodes.remove(&id) {
            if node.health == Health::New {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if let Some(class) = node.under_way {
                self.orphans.insert(id, class);
            }
            log::info!("node {:?} is not listed any more", addr.as_listed());
        }
    }

    /// Lets serving begin when every node of the first lists was heard of.
    fn tell_ready(&mut self) {
        let has_lists = self.listed.is_some() && (self.explorer.is_some() || !self.settings.expects_explorer);
        if has_lists && self.unanswered == 0 {
            self.ready = None;
        }
    }
}

impl Tracked {
    /// Logs why a probe failed, when that changed.
    fn explain(&mut self, reason: String) {
        if self.reason != reason {
            log::warn!("a probe of node {:?} failed: {reason}", self.addr.as_listed());
            self.reason = reason;
        }
    }
}

/// Both lists as one: a node in both is as ips.txt has it.
pub(crate) fn merge(listed: &[NodeAddr], explorer: &[NodeAddr]) -> HashMap<NodeAddr, Rank> {
    let mut ranked = HashMap::with_capacity(listed.len() + explorer.len());
    for (line, addr) in listed.iter().enumerate() {
        ranked.entry(addr.clone()).or_insert(Rank::Listed(line as u32));
    }
    for addr in explorer {
        if let Some(socket) = addr.socket_addr() {
            ranked.entry(addr.clone()).or_insert(Rank::Explorer(socket));
        }
    }
    ranked
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Up(info) => format!("up, {} containers", info.containers.len()),
        Outcome::Limited => "answered 429".to_owned(),
        Outcome::Failed(reason) | Outcome::Ours(reason) => reason.clone(),
    }
}
