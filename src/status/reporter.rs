//! Builds the status report from what the router knows. Sorts and counts without holding a lock.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::report::{
    Clocks, ContainerTotal, Doubt, ExplorerReport, IpsFileReport, Moment, NodeProblem, NodeRow, OmittedContainers,
    SkippedLine, SpeedReport, StatusReport, StatusTotals,
};
use super::{CERTIFICATE_DAYS, Conflict, Filter};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::net::HostResolver;
use crate::node::{ExplorerList, NodeAddr, NodeList};
use crate::registry::{NodeId, NodeState, NodeView, Registry, Standing, Summary, Totals};
use crate::util::polled::Polled;

/// Containers, conflicts and problems in the report: longer lists are not readable.
const MAX_CONTAINERS: usize = 100;
const MAX_CONFLICTS: usize = 100;
const MAX_OMITTED: usize = 10;
const MAX_PROBLEMS: usize = 20;
/// Bytes of container ids in one report: a page of 1,000 nodes with 256 long ids each would have 64 MiB.
const MAX_ID_BYTES: usize = 1024 * 1024;

/// Everything that the report is made from.
#[derive(Debug)]
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

impl Reporter {
    /// Returns the report with the nodes that pass `filter`.
    pub(crate) fn report(&self, filter: &Filter, now: Instant) -> StatusReport {
        let wall = SystemTime::now();
        let clocks = Clocks { now, wall };
        let sums = self.registry.totals();
        let mut containers = self.registry.containers();
        containers.sort_by_key(|container| Reverse(container.count));
        let conflicts = self.registry.conflicts().into_iter();
        let found = self.find(filter, clocks);
        let matched = found.nodes.len();
        let doubted_since = sums.doubted_since.map(|since| clocks.moment(since));
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: clocks.moment(now),
            started: clocks.moment(self.started),
            interval: self.interval.as_secs_f64(),
            settings: self.settings.clone(),
            ips_file: ips_file(&self.lists.file, clocks),
            explorer: self.lists.explorer.as_ref().map(|list| explorer(list, clocks)),
            name_server: self.resolver.problem(),
            doubt: Doubt {
                active: doubted_since.is_some(),
                since: doubted_since,
            },
            pool_too_small: self.metrics.pool_too_small.get() > 0,
            totals: StatusTotals {
                expiring_certificates: found.expiring_certificates,
                ..self.totals(&sums, &containers)
            },
            omitted_containers: found.omitted,
            problems: problems(found.problems, clocks),
            conflicting_containers: conflicts.take(MAX_CONFLICTS).map(Conflict::from).collect(),
            matched,
            nodes: self.rows(&page_of(found.nodes, filter), clocks),
        }
    }

    /// Reads all nodes in slices.
    fn find(&self, filter: &Filter, clocks: Clocks) -> Found {
        let runners = filter.container.as_deref().map(|id| self.registry.runners(id));
        let part = filter.part.as_deref().map(str::to_ascii_lowercase);
        let mut found = Found::default();
        self.registry.visit(|id, record| {
            let state = record.state();
            if state.is_problem() {
                let group = found.problems.entry((state, record.reason().into()));
                let (count, since) = group.or_insert((0, record.since));
                *count += 1;
                *since = record.since.min(*since);
            }
            let days = record.certificate_expires.map(|at| clocks.days_until(at));
            found.expiring_certificates += usize::from(days.is_some_and(|days| days < CERTIFICATE_DAYS));
            if let Some(id) = &record.omitted {
                found.omitted.add(id.as_str());
            }
            if filter.state.is_none_or(|expected| state == expected)
                && runners.as_ref().is_none_or(|runners| runners.contains(id))
                && part
                    .as_deref()
                    .is_none_or(|part| record.addr.as_listed().to_ascii_lowercase().contains(part))
            {
                let addr = record.addr.clone();
                let is_fine = !state.is_problem();
                found.nodes.push(FoundNode { is_fine, addr, id });
            }
        });
        found
    }

    fn totals(&self, sums: &Totals, containers: &[Summary]) -> StatusTotals {
        let states = BTreeMap::from(NodeState::ALL.map(|state| (state, sums.in_state(state))));
        let (requests, errors) = self.metrics.api_requests_and_errors();
        StatusTotals {
            nodes: states.values().sum(),
            available: sums.available,
            states,
            conflicting_containers: sums.conflicting_containers,
            expiring_certificates: 0,
            pending_jobs: sums.pending,
            requests,
            errors,
            container_ids: containers.len(),
            containers: containers
                .iter()
                .take(MAX_CONTAINERS)
                .map(ContainerTotal::from)
                .collect(),
        }
    }

    fn rows(&self, ids: &[NodeId], clocks: Clocks) -> Vec<NodeRow> {
        let views: Vec<NodeView> = self.registry.views(ids, clocks.now).into_iter().flatten().collect();
        let mut id_bytes_left = MAX_ID_BYTES;
        let rows = views.into_iter().map(|view| row(view, &mut id_bytes_left, clocks));
        rows.collect()
    }
}

/// For each state and reason the number of nodes and the start of the longest time in the state.
type Problems = HashMap<(NodeState, Box<str>), (usize, Instant)>;

/// The nodes that pass the filter, and what the same pass over all nodes found.
#[derive(Debug, Default)]
struct Found {
    nodes: Vec<FoundNode>,
    problems: Problems,
    omitted: OmittedContainers,
    expiring_certificates: usize,
}

impl OmittedContainers {
    fn add(&mut self, id: &str) {
        self.nodes += 1;
        if self.ids.len() < MAX_OMITTED && self.ids.iter().all(|known| known != id) {
            self.ids.push(id.to_owned());
        }
    }
}

#[derive(Debug)]
struct FoundNode {
    is_fine: bool,
    addr: NodeAddr,
    id: NodeId,
}

/// Returns the nodes of the page: nodes with a problem first, then by address. Sorts only as much as needed.
fn page_of(mut nodes: Vec<FoundNode>, filter: &Filter) -> Vec<NodeId> {
    let start = filter.offset.min(nodes.len());
    let end = filter.offset.saturating_add(filter.n).min(nodes.len());
    if end < nodes.len() {
        nodes.select_nth_unstable_by(end, display_order);
        nodes.truncate(end);
    }
    if start < end {
        nodes.select_nth_unstable_by(start, display_order);
    }
    let page = &mut nodes[start..];
    page.sort_unstable_by(display_order);
    page.iter().map(|node| node.id).collect()
}

fn display_order(a: &FoundNode, b: &FoundNode) -> Ordering {
    let by_problem = a.is_fine.cmp(&b.is_fine);
    by_problem.then_with(|| natural_order(a.addr.as_listed(), b.addr.as_listed()))
}

/// Compares texts with their runs of digits as numbers, so that `.2` comes before `.10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(one), Some(other)) = (left.first(), right.first()) {
        let (order, lengths) = match (one.is_ascii_digit(), other.is_ascii_digit()) {
            (true, true) => {
                let (one, other) = (digits(left), digits(right));
                let order = one.len().cmp(&other.len()).then_with(|| one.cmp(other));
                (order, (one.len(), other.len()))
            }
            _ => (one.cmp(other), (1, 1)),
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (&left[lengths.0..], &right[lengths.1..]);
    }
    left.len().cmp(&right.len())
}

fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

/// Returns the largest groups of nodes with the same state and reason.
fn problems(groups: Problems, clocks: Clocks) -> Vec<NodeProblem> {
    let problem = |((state, reason), (nodes, since)): ((NodeState, Box<str>), (usize, Instant))| NodeProblem {
        state,
        reason: reason.into(),
        nodes,
        since: clocks.moment(since),
    };
    let mut problems: Vec<NodeProblem> = groups.into_iter().map(problem).collect();
    problems.sort_unstable_by(|a, b| (b.nodes, a.state, &a.reason).cmp(&(a.nodes, b.state, &b.reason)));
    problems.truncate(MAX_PROBLEMS);
    problems
}

fn ips_file(polled: &Polled<NodeList>, clocks: Clocks) -> IpsFileReport {
    let snapshot = polled.snapshot();
    let list = snapshot.value.unwrap_or_default();
    let skipped = list.bad.iter().map(|bad| SkippedLine {
        number: bad.number,
        text: bad.text.clone(),
        reason: bad.reason.to_string(),
    });
    IpsFileReport {
        path: polled.name().to_owned(),
        read_at: snapshot.accepted.map(|at| clocks.moment(at)),
        nodes: list.nodes.len(),
        skipped: skipped.collect(),
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
    let NodeView {
        record,
        standing,
        containers: mut ids,
        resources,
    } = view;
    // Speed and finish time of a node that is down affect no response.
    let is_responding = !matches!(record.state(), NodeState::Down | NodeState::New);
    let available = is_responding.then_some(standing);
    let all = ids.len();
    ids.retain(|id| {
        let fits = id.as_str().len() <= *id_bytes_left;
        *id_bytes_left = if fits { *id_bytes_left - id.as_str().len() } else { 0 };
        fits
    });
    let pending = record.pending.as_ref();
    NodeRow {
        address: record.addr.as_listed().to_owned(),
        name: record.attributes.name.as_deref().map(str::to_owned),
        source: record.rank.source(),
        state: record.state(),
        since: clocks.moment(record.since),
        draining: record.attributes.is_draining,
        backup: record.attributes.is_backup,
        public_address: record
            .attributes
            .public
            .as_ref()
            .map(|addr| addr.as_listed().to_owned()),
        reason: Some(record.reason().to_owned()).filter(|reason| !reason.is_empty()),
        probed: record.probed.map(|(at, _)| clocks.moment(at)),
        latency: record
            .probed
            .map(|(_, took)| rounded(took.as_secs_f64() * 1_000.0, 10.0)),
        pending: pending.map(|pending| pending.iter().map(|(name, jobs)| (name.to_owned(), jobs)).collect()),
        promises: standing.promises,
        speed: available.and_then(SpeedReport::of),
        finish: available.and_then(|standing| Some(rounded(standing.finish?.as_secs_f64(), 10.0))),
        certificate_expires: record.certificate_expires.map(Moment::from),
        certificate_days: record.certificate_expires.map(|at| clocks.days_until(at)),
        containers_left_out: all - ids.len(),
        containers: ids.iter().map(|id| id.as_str().to_owned()).collect(),
        resources,
    }
}

impl From<&Summary> for ContainerTotal {
    fn from(container: &Summary) -> Self {
        Self {
            id: container.id.as_str().to_owned(),
            nodes: container.count,
        }
    }
}

impl SpeedReport {
    fn of(standing: Standing) -> Option<Self> {
        Some(Self {
            jobs_per_minute: rounded(standing.speed? * 60.0, 100.0),
            learned: standing.is_learned,
        })
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order_compares_digit_runs_as_numbers() {
        let sorted = [
            "10.0.0.2:80",
            "10.0.0.10:80",
            "10.0.0.10:443",
            "[2001:db8::1]:80",
            "a-2.example",
            "a-10.example",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(natural_order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(natural_order(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(natural_order("a1", "a1"), Ordering::Equal);
    }
}
