//! Polls the resources of available nodes and sends the queries of surveys: the second kind of jobs, with a separate
//! pool, so that probes and these requests do not wait for each other. The outcome never changes the health of a node.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Outputs;
use super::due::DueQueues;
use super::probe::bounds;
use crate::config::Config;
use crate::metrics::{Metrics, ResourcesOutcome};
use crate::models::{self, Models, Query};
use crate::net::Fetcher;
use crate::node::{ContainerId, NodeAddr, Source, parse_resources, parse_support};
use crate::registry::{NodeId, Registry, ResourceFailure, ResourceReport};
use crate::util::pool::{Done, Pool};

/// Longest body. Three services of a real node have some 30 KiB.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// Time between two polls: a tenth less than 50 per second, so that the rate holds at the nodes too, whatever the
/// network does to the time between. 10,000 nodes that come up together are polled within 220 s.
const POLL_SPACING: Duration = Duration::from_millis(22);
/// A poll begins while fewer requests than this are in flight. Nodes respond within 40 ms, so these are for 16 nodes
/// that hang.
const MAX_POLLS: usize = 16;
/// Time until the next poll of a node older than 1.4.0.
const NOT_FOUND_INTERVAL: Duration = Duration::from_secs(3600);
/// Minimum time between two polls of a node that goes down and comes back.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Waits after the first polls of a node that came up, while a container is missing: services often fail their first
/// request. The second wait ends 120 s after the first poll.
const RETRIES: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(90)];

/// One request to a node.
#[derive(Debug)]
pub(super) struct ResourceJob {
    id: NodeId,
    addr: NodeAddr,
    source: Source,
    /// The containers that the node runs, sorted.
    runs: Vec<ContainerId>,
    /// Which of the containers support a model. `None`: what the containers can run.
    query: Option<Query>,
}

pub(super) type ResourceDone = Done<ResourceJob, ResourceReport>;

/// Sends one request, bounded as a probe is.
fn fetch(fetcher: &Fetcher, job: &ResourceJob) -> ResourceReport {
    let url = match &job.query {
        None => job.addr.url() + "/resources",
        Some(query) => job.addr.support_url(&query.id),
    };
    let failed = |error: &dyn fmt::Display| ResourceFailure::Failed(error.to_string());
    let response = fetcher.get(&url, bounds(job.source, MAX_BODY_BYTES));
    let response = response.map_err(|error| match error.is_local() {
        true => ResourceFailure::LocalError(error.to_string()),
        false => failed(&error),
    })?;
    if response.status == 404 {
        return Err(ResourceFailure::NotFound);
    }
    let body = response.into_body().map_err(|error| failed(&error))?;
    let reading = match job.query {
        None => parse_resources(&body, &job.runs),
        Some(_) => parse_support(&body, &job.runs),
    };
    reading.map_err(|error| failed(&error))
}

/// The polls of a node.
#[derive(Debug)]
struct Polling {
    source: Source,
    last: Option<Instant>,
    /// Polls since the node came up, as long as a container was missing in each.
    retries: u8,
}

/// The nodes to poll, pure.
#[derive(Debug)]
pub(super) struct PollQueue {
    interval: Duration,
    nodes: HashMap<NodeId, Polling>,
    /// Listed nodes and Explorer nodes, which anyone can register.
    waiting: DueQueues<2>,
    /// One request to a node at a time.
    in_flight: HashSet<NodeId>,
    next_slot: Instant,
}

impl PollQueue {
    fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            nodes: HashMap::new(),
            waiting: DueQueues::new(),
            in_flight: HashSet::new(),
            next_slot: now,
        }
    }

    /// A node has come up: it is polled soon.
    pub(super) fn up(&mut self, id: NodeId, source: Source, now: Instant) {
        let polling = self.nodes.entry(id).or_insert(Polling {
            source,
            last: None,
            retries: 0,
        });
        (polling.source, polling.retries) = (source, 0);
        let due = polling.last.map_or(now, |last| now.max(last + MIN_INTERVAL));
        self.enqueue(id, due);
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        self.waiting.remove(id);
    }

    fn enqueue(&mut self, id: NodeId, due: Instant) {
        if let Some(polling) = self.nodes.get(&id) {
            self.waiting.set(id, polling.source as usize, due);
        }
    }

    /// The node to poll now, or the time of the next check. Of the nodes that are due, listed nodes rank first: many
    /// Explorer nodes that hang would otherwise delay them.
    fn turn(&self, now: Instant) -> Result<NodeId, Instant> {
        let first_free = |queue| self.waiting.of(queue).find(|(_, id)| self.is_free(*id));
        let firsts = [Source::IpsFile, Source::Explorer].map(|source| first_free(source as usize));
        let first = firsts.into_iter().flatten().min_by_key(|(due, _)| now.max(*due));
        match first.map(|(due, id)| (due.max(self.next_slot), id)) {
            Some((begin, _)) if begin > now => Err(begin),
            Some((_, id)) if self.in_flight.len() < MAX_POLLS => Ok(id),
            _ => Err(now + self.interval),
        }
    }

    /// Begins the poll that is due.
    fn begin(&mut self, id: NodeId, now: Instant) {
        self.waiting.remove(id);
        self.in_flight.insert(id);
        self.next_slot = now + POLL_SPACING;
        if let Some(polling) = self.nodes.get_mut(&id) {
            polling.last = Some(now);
        }
    }

    /// Ends a poll. `is_missing`: it did not bring an entry of each container.
    fn end(&mut self, id: NodeId, is_missing: bool, is_not_found: bool, now: Instant) {
        self.in_flight.remove(&id);
        let Some(polling) = self.nodes.get_mut(&id) else {
            return;
        };
        let retry = RETRIES
            .get(usize::from(polling.retries))
            .filter(|_| is_missing && !is_not_found);
        polling.retries = retry.map_or(u8::MAX, |_| polling.retries + 1);
        let interval = match is_not_found {
            true => self.interval.max(NOT_FOUND_INTERVAL),
            false => self.interval,
        };
        self.enqueue(id, now + *retry.unwrap_or(&interval));
    }

    fn is_free(&self, id: NodeId) -> bool {
        !self.in_flight.contains(&id)
    }
}

/// The driver of resource polls and surveys; part of the poller's thread.
pub(super) struct ResourcePoller {
    pub(super) queue: PollQueue,
    pool: Pool<ResourceJob, ResourceReport>,
    models: Arc<Models>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    has_warned_of_room: bool,
}

impl ResourcePoller {
    pub(super) fn new(config: &Config, outputs: &Outputs, now: Instant) -> Option<(Self, Receiver<ResourceDone>)> {
        let (interval, models) = config.resources_interval.zip(outputs.models.clone())?;
        let fetcher = outputs.fetcher.clone();
        let run = move |job: &ResourceJob| fetch(&fetcher, job);
        let (pool, results) = Pool::new("resources", MAX_POLLS + models::MAX_IN_FLIGHT, run, now);
        let poller = Self {
            queue: PollQueue::new(interval, now),
            pool,
            models,
            registry: Arc::clone(&outputs.registry),
            metrics: Arc::clone(&outputs.metrics),
            has_warned_of_room: false,
        };
        Some((poller, results))
    }

    /// Does all that is due and returns when there is more to do.
    pub(super) fn act(&mut self, by_addr: &HashMap<NodeAddr, NodeId>, now: Instant) -> Instant {
        let next = self.poll(now).min(self.query(by_addr, now));
        if let Err(error) = self.pool.resize(self.queue.in_flight.len(), now) {
            ::log::debug!(error:%; "resources delayed: no thread available");
        }
        next.min(self.pool.resize_at())
    }

    fn poll(&mut self, now: Instant) -> Instant {
        loop {
            match self.queue.turn(now) {
                Err(until) => return until,
                Ok(id) if self.send(id, None) => self.queue.begin(id, now),
                // It is down, and its next success makes it due.
                Ok(id) => self.queue.enqueue(id, now + self.queue.interval),
            }
        }
    }

    fn query(&mut self, by_addr: &HashMap<NodeAddr, NodeId>, now: Instant) -> Instant {
        let (registry, models) = (Arc::clone(&self.registry), Arc::clone(&self.models));
        let candidates = || {
            let mut all = Vec::new();
            registry.visit_resources(&[], |node, order, _| all.push((order, node.addr.clone())));
            all
        };
        models.plan(candidates, now);
        loop {
            let is_free = |addr: &NodeAddr| by_addr.get(addr).is_some_and(|id| self.queue.is_free(*id));
            let query = match models.surveys().next(is_free, now) {
                Ok(query) => query,
                Err(until) => return until.unwrap_or(now + self.queue.interval),
            };
            let id = by_addr.get(&query.addr).copied();
            match id.filter(|id| self.send(*id, Some(query.clone()))) {
                Some(id) => drop(self.queue.in_flight.insert(id)),
                // The node is not available.
                None => models.surveys().queries.end(&query),
            }
        }
    }

    /// Queues a request. Returns false if the node is not available.
    fn send(&self, id: NodeId, query: Option<Query>) -> bool {
        let (Some(record), Some(runs)) = (self.registry.record(id), self.registry.runs(id)) else {
            return false;
        };
        self.pool.send(ResourceJob {
            id,
            source: record.rank.source(),
            addr: record.addr,
            runs,
            query,
        })
    }

    /// Applies the outcome of a request.
    pub(super) fn report(&mut self, done: ResourceDone, now: Instant) {
        let job = done.job;
        let panicked = || Err(ResourceFailure::Failed("the request panicked".to_owned()));
        let outcome = done.result.unwrap_or_else(panicked);
        self.log(&job, &outcome);
        if let Some(query) = job.query {
            self.queue.in_flight.remove(&job.id);
            return self.models.surveys().answered(&query, job.source, outcome, now);
        }
        let count = outcome.as_ref().map_or(0, |reading| reading.entries.len());
        let is_not_found = outcome == Err(ResourceFailure::NotFound);
        self.queue.end(job.id, count < job.runs.len(), is_not_found, now);
        let is_kept = self.registry.set_resources(job.id, outcome);
        if !is_kept && !std::mem::replace(&mut self.has_warned_of_room, true) {
            ::log::warn!("resources truncated: storage full, nodes that rank last lose their entries");
        }
    }

    fn log(&self, job: &ResourceJob, outcome: &ResourceReport) {
        let (label, result) = match outcome {
            Ok(reading) => (ResourcesOutcome::Ok, reading.left_out.as_deref().unwrap_or("complete")),
            Err(ResourceFailure::Failed(reason)) => (ResourcesOutcome::Failed, reason.as_str()),
            Err(ResourceFailure::LocalError(reason)) => (ResourcesOutcome::Local, reason.as_str()),
            Err(ResourceFailure::NotFound) => (ResourcesOutcome::NotFound, "status 404"),
        };
        self.metrics.resources_requests[label].add(1);
        let model = job.query.as_ref().map_or("", |query| &*query.id);
        ::log::debug!(node:% = job.addr.as_listed(), model, result; "resources requested: result received");
    }
}

#[cfg(test)]
mod tests;
