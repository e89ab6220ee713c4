//! Builds the status report from what the router knows. Sorts and counts without holding a lock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::report::{
    Clocks, Conflict, ContainerTotal, Doubt, ExplorerReport, IpsFileReport, MAX_IDS_CHARS, NodeProblem, NodeRow,
    OmittedContainers, SpeedReport, StatusReport, StatusTotals, to_second,
};
use super::{CERTIFICATE_DAYS, Filter};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::net::HostResolver;
use crate::node::{ExplorerList, NodeAddr, NodeList};
use crate::registry::{NodeId, NodeRecord, NodeState, NodeView, Registry, Summary, Totals};
use crate::util::polled::Polled;
use crate::util::text::quote;

/// Containers, conflicts and problems in the report: longer lists are not readable.
const MAX_CONTAINERS: usize = 100;
const MAX_CONFLICTS: usize = 100;
const MAX_OMITTED: usize = 10;
const MAX_PROBLEMS: usize = 20;
/// Bytes of container ids in one report: a page of 1,000 nodes with 256 long ids each would have 64 MiB.
const MAX_ID_BYTES: usize = 1024 * 1024;

/// Everything that the report is made from.
pub(crate) struct Reporter {
    pub(crate) registry: Arc<Registry>,
    pub(crate) lists: Lists,
    pub(crate) resolver: HostResolver,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    pub(crate) interval: Duration,
    /// The settings that differ from their defaults, without secrets.
    pub(crate) settings: BTreeMap<String, String>,
}

/// What one pass over all nodes finds.
#[derive(Debug, Default)]
struct Found {
    sums: Totals,
    /// The nodes that pass the filter.
    nodes: Vec<(Position, NodeId)>,
    /// For each state and reason the number of nodes and the start of the longest time in the state.
    problems: HashMap<(NodeState, Arc<str>), (usize, Instant)>,
    omitted: OmittedContainers,
    expiring_certificates: usize,
}

/// Whether the node is fine, whether the address is a name, the IP address and port, and the natural key of any other
/// address. A comparison reads no node, since that would read memory outside the caches.
type Position = (bool, bool, Option<SocketAddr>, Vec<u8>);

/// The position of a node in the report: nodes with a problem first, then IP addresses by value, then names in natural
/// order.
fn position(record: &NodeRecord) -> Position {
    let (is_fine, socket) = (!record.state().is_problem(), record.addr.socket_addr());
    let key = match socket.is_some() && !record.addr.has_path() {
        true => Vec::new(),
        false => natural_key(record.addr.as_listed()),
    };
    (is_fine, socket.is_none(), socket, key)
}

impl Reporter {
    /// Returns the report with the nodes that pass `filter`.
    pub(crate) fn report(&self, filter: &Filter, now: Instant) -> StatusReport {
        let wall = SystemTime::now();
        let clocks = Clocks { now, wall };
        let containers = self.registry.containers();
        let conflicts = containers.iter().filter(|container| container.images.len() > 1);
        let found = self.find(filter, clocks);
        let since = found.sums.doubted_since.map(|since| clocks.moment(since));
        let active = since.is_some();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: clocks.moment(now),
            started: clocks.moment(self.started),
            interval: self.interval.as_secs_f64(),
            settings: self.settings.clone(),
            ips_file: ips_file(&self.lists.file, clocks),
            explorer: self.lists.explorer.as_ref().map(|list| explorer(list, clocks)),
            name_server: self.resolver.problem(),
            doubt: Doubt { active, since },
            pool_too_small: self.metrics.pool_too_small.get() > 0,
            conflicting_containers: conflicts.take(MAX_CONFLICTS).map(Conflict::from).collect(),
            totals: self.totals(&found, containers),
            problems: found.problems(clocks),
            matched: found.nodes.len(),
            nodes: self.rows(found.nodes, filter, clocks),
            omitted_containers: found.omitted,
        }
    }

    /// Reads all nodes in slices.
    fn find(&self, filter: &Filter, clocks: Clocks) -> Found {
        let runners = filter.container.as_deref().map(|id| self.registry.runners(id));
        let part = filter.part.as_deref().map(str::to_ascii_lowercase);
        let has_part = |addr: &NodeAddr, part: &String| addr.as_listed().to_ascii_lowercase().contains(part);
        let mut found = Found::default();
        self.registry.visit(|id, record| {
            found.count(record, clocks);
            let state = record.state();
            if filter.state.is_none_or(|expected| state == expected)
                && runners.as_ref().is_none_or(|runners| runners.contains(&id))
                && part.as_ref().is_none_or(|part| has_part(&record.addr, part))
            {
                found.nodes.push((position(record), id));
            }
        });
        found
    }

    fn totals(&self, found: &Found, mut containers: Vec<Summary>) -> StatusTotals {
        let lists = &found.sums.nodes;
        let count = |state: NodeState| lists.iter().flat_map(|states| states[state as usize]).sum();
        let states = BTreeMap::from(NodeState::ALL.map(|state| (state, count(state))));
        let (requests, errors) = self.metrics.api_requests_and_errors();
        let conflicts = containers.iter().filter(|container| container.images.len() > 1);
        let conflicting_containers = conflicts.count();
        containers.sort_by_key(|container| Reverse(container.count));
        let total = |container: &Summary| ContainerTotal {
            id: container.id.as_str().to_owned(),
            nodes: container.count,
        };
        StatusTotals {
            nodes: states.values().sum(),
            available: found.sums.available,
            states,
            conflicting_containers,
            expiring_certificates: found.expiring_certificates,
            pending_jobs: found.sums.pending,
            requests,
            errors,
            container_ids: containers.len(),
            containers: containers.iter().take(MAX_CONTAINERS).map(total).collect(),
        }
    }

    /// Returns the page of the nodes. Sorts only as much as needed.
    fn rows(&self, mut nodes: Vec<(Position, NodeId)>, filter: &Filter, clocks: Clocks) -> Vec<NodeRow> {
        let end = filter.offset.saturating_add(filter.n);
        if end < nodes.len() {
            nodes.select_nth_unstable(end);
            nodes.truncate(end);
        }
        nodes.sort_unstable();
        let page: Vec<NodeId> = nodes.iter().skip(filter.offset).map(|(_, id)| *id).collect();
        let mut id_bytes_left = MAX_ID_BYTES;
        let views = self.registry.views(&page, clocks.now).into_iter();
        views.map(|view| row(view, &mut id_bytes_left, clocks)).collect()
    }
}

impl Found {
    fn count(&mut self, record: &NodeRecord, clocks: Clocks) {
        self.sums.count(record);
        if record.state().is_problem() {
            let group = self.problems.entry((record.state(), Arc::clone(&record.last_failure)));
            let (count, since) = group.or_insert((0, record.since));
            *count += 1;
            *since = record.since.min(*since);
        }
        let days = record.certificate_expires.map(|at| clocks.days_until(at));
        self.expiring_certificates += usize::from(days.is_some_and(|days| days < CERTIFICATE_DAYS));
        if let Some(id) = &record.omitted {
            let OmittedContainers { nodes, ids } = &mut self.omitted;
            *nodes += 1;
            if ids.len() < MAX_OMITTED && ids.iter().all(|known| known != id.as_str()) {
                ids.push(id.as_str().to_owned());
            }
        }
    }

    /// Returns the largest groups of nodes with the same state and reason.
    fn problems(&self, clocks: Clocks) -> Vec<NodeProblem> {
        let problem = |((state, reason), (nodes, since)): (&(NodeState, Arc<str>), &(usize, Instant))| NodeProblem {
            state: *state,
            reason: reason.to_string(),
            nodes: *nodes,
            since: clocks.moment(*since),
        };
        let mut problems: Vec<NodeProblem> = self.problems.iter().map(problem).collect();
        problems.sort_unstable_by(|a, b| (b.nodes, a.state, &a.reason).cmp(&(a.nodes, b.state, &b.reason)));
        problems.truncate(MAX_PROBLEMS);
        problems
    }
}

/// A key that orders addresses by their runs of digits as numbers, so that `.2` comes before `.10`: a run begins with a
/// zero and its length.
pub(crate) fn natural_key(addr: &str) -> Vec<u8> {
    let bytes = addr.as_bytes();
    let mut key = Vec::with_capacity(bytes.len());
    for run in bytes.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        if run[0].is_ascii_digit() {
            key.extend([0, run.len() as u8]);
        }
        key.extend_from_slice(run);
    }
    key
}

fn ips_file(polled: &Polled<NodeList>, clocks: Clocks) -> IpsFileReport {
    let snapshot = polled.snapshot();
    let list = snapshot.value.unwrap_or_default();
    IpsFileReport {
        path: polled.name().to_owned(),
        read_at: snapshot.accepted.map(|at| clocks.moment(at)),
        nodes: list.nodes.len(),
        skipped: list.bad.clone(),
        skipped_count: list.bad_count,
        problem: snapshot.problem,
    }
}

fn explorer(polled: &Polled<ExplorerList>, clocks: Clocks) -> ExplorerReport {
    let snapshot = polled.snapshot();
    let list = snapshot.value.unwrap_or_default();
    ExplorerReport {
        url: polled.name().to_owned(),
        last_success: snapshot.accepted.map(|at| clocks.moment(at)),
        nodes: list.nodes.len(),
        skipped: list.skipped + list.refused.len(),
        problem: snapshot.problem,
    }
}

fn row(view: NodeView, id_bytes_left: &mut usize, clocks: Clocks) -> NodeRow {
    let record = view.record;
    // Speed and finish time of a node that is down affect no response.
    let is_responding = !matches!(record.state(), NodeState::Down | NodeState::New);
    let speed = view.speed.filter(|_| is_responding).map(|speed| SpeedReport {
        jobs_per_minute: rounded(speed * 60.0, 100.0),
        learned: view.is_learned,
    });
    let finish = view.finish.filter(|_| is_responding);
    let ids = view.containers.iter().take_while(|id| {
        let left = id_bytes_left.checked_sub(id.as_str().len());
        *id_bytes_left = left.unwrap_or(0);
        left.is_some()
    });
    let containers: Vec<String> = ids.map(|id| id.as_str().to_owned()).collect();
    let pending = record.pending.as_ref().map(|pending| pending.iter());
    let public = record.attributes.public.as_ref();
    NodeRow {
        address: record.addr.as_listed().to_owned(),
        name: record.attributes.name.as_deref().map(str::to_owned),
        source: record.rank.source(),
        state: record.state(),
        since: clocks.moment(record.since),
        draining: record.attributes.is_draining,
        backup: record.attributes.is_backup,
        public_address: public.map(|addr| addr.as_listed().to_owned()),
        reason: reason(&record),
        probed: record.probed.map(|(at, _)| clocks.moment(at)),
        latency: record.probed.map(|(_, took)| millis(took)),
        pending: pending.map(|pending| pending.map(|(name, jobs)| (name.to_owned(), jobs)).collect()),
        promises: view.promises,
        speed,
        finish: finish.map(|finish| rounded(finish.as_secs_f64(), 10.0)),
        certificate_expires: record.certificate_expires.map(to_second),
        certificate_days: record.certificate_expires.map(|at| clocks.days_until(at)),
        containers_left_out: view.containers.len() - containers.len(),
        containers,
        resources: view.resources,
    }
}

/// Why the node is not available, or why some of its containers are not.
fn reason(record: &NodeRecord) -> Option<String> {
    let omitted = record.omitted.as_ref().map(|id| quote(id.as_str(), MAX_IDS_CHARS));
    match record.reason() {
        "" => omitted.map(|id| format!("container ids omitted because a quota was reached, such as {id}")),
        reason => Some(reason.to_owned()),
    }
}

/// Milliseconds to the tenth.
fn millis(took: Duration) -> f64 {
    rounded(took.as_secs_f64() * 1_000.0, 10.0)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_key_orders_digit_runs_as_numbers() {
        let sorted = [
            "10.0.0.2:80",
            "10.0.0.10:80",
            "10.0.0.10:443",
            "[2001:db8::1]:80",
            "a-2.example",
            "a-10.example",
        ];
        for pair in sorted.windows(2) {
            assert!(natural_key(pair[0]) < natural_key(pair[1]), "{pair:?}");
        }
    }
}
