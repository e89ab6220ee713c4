//! `infernet-router check`: reads the lists as the router does, probes every node once, and reports the state of each.
//! It shows why a node is not listed.

use std::io;
use std::time::Instant;

use serde::Serialize;

use super::table::{self, Format, Printout, Row};
use crate::config::{Config, PendingWeights};
use crate::lists;
use crate::net::Fetcher;
use crate::node::{Attributes, ExplorerList, NodeAddr, NodeList, Rank, Source};
use crate::poller::{Outcome, Probe, probe};
use crate::registry::{PromisePolicy, Registry};
use crate::status::{Conflict, natural_key};
use crate::util::limits;
use crate::util::pool::{Done, Pool};

/// Container ids with several images that are reported.
const MAX_CONFLICTS: usize = 100;

/// The result for lists and nodes.
#[derive(Serialize)]
struct CheckReport {
    lists: Vec<List>,
    nodes: Vec<Row>,
    /// Container ids that available nodes run with different images.
    #[serde(rename = "conflicting_containers", skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<Conflict>,
}

/// One list of nodes and its problem.
#[derive(Serialize)]
struct List {
    source: Source,
    /// Path or URL.
    name: String,
    nodes: usize,
    #[serde(rename = "trouble", skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A node as the lists describe it.
type Node = (NodeAddr, (Rank, Attributes));

/// Reads the lists and probes every node once, at most `MAX_PROBES` concurrently. Calls `progress` with the number of
/// probed nodes and of all nodes.
///
/// # Errors
/// The system cannot start a thread.
pub fn check(config: &Config, format: Format, progress: impl FnMut(usize, usize)) -> io::Result<Printout> {
    let fetcher = Fetcher::of_config(config);
    let (file, problem) = value_and_error(lists::read(&config.ips_file));
    let left_out = (file.left_out > 0).then(|| format!("{} more are skipped: too many nodes", file.left_out));
    let mut lists = vec![List {
        source: Source::IpsFile,
        name: config.ips_file.display().to_string(),
        nodes: file.nodes.len(),
        problem: problem.or(left_out),
    }];
    let mut named = ExplorerList::default();
    if let Some(url) = &config.api_url {
        let problem;
        (named, problem) = value_and_error(lists::fetch(url, &fetcher));
        let skipped =
            (named.skipped > 0).then(|| format!("{} entries without a valid address and port", named.skipped));
        lists.push(List {
            source: Source::Explorer,
            name: url.shown.clone(),
            nodes: named.nodes.len(),
            problem: problem.or(skipped),
        });
    }
    let nodes = lists::merge(&file.nodes, &named.nodes, |host| fetcher.resolver().known(host));
    let (rows, conflicts) = probe_all(nodes.into_iter().collect(), &fetcher, config, progress)?;
    let report = CheckReport {
        lists,
        nodes: skipped(&file, &named).chain(rows).collect(),
        conflicts,
    };
    Ok(report.print(format))
}

fn value_and_error<T: Default>(list: Result<T, String>) -> (T, Option<String>) {
    list.map_or_else(|error| (T::default(), Some(error)), |list| (list, None))
}

/// Probes each node once. Returns the nodes, problems first, and the conflicts between them.
fn probe_all(
    nodes: Vec<Node>,
    fetcher: &Fetcher,
    config: &Config,
    mut progress: impl FnMut(usize, usize),
) -> io::Result<(Vec<Row>, Vec<Conflict>)> {
    #[expect(clippy::disallowed_methods, reason = "when the check begins")]
    let now = Instant::now();
    let registry = Registry::new(PromisePolicy::Off, config.refresh_interval, now);
    let (_, probes) = limits::fit(0, config.max_probes);
    let fetcher = fetcher.clone();
    let run = move |(addr, (rank, _)): &Node| probe(&fetcher, addr, rank.source());
    let (all, mut rows) = (nodes.len(), Vec::new());
    let (mut pool, reports) = Pool::new("probe", all, run, now);
    pool.resize(probes.min(all), now)?;
    for node in nodes {
        pool.send(node);
    }
    for report in reports.iter().take(all) {
        rows.push(row(report, &config.weights, &registry, now));
        progress(rows.len(), all);
    }
    let is_fine = |row: &Row| [table::AVAILABLE, table::DRAINING].contains(&row.state);
    rows.sort_by_cached_key(|row| (is_fine(row), natural_key(&row.address)));
    let conflicts = registry.conflicts();
    Ok((rows, conflicts.iter().take(MAX_CONFLICTS).map(Conflict::from).collect()))
}

/// The lines and the entries that are not valid nodes.
fn skipped(file: &NodeList, named: &ExplorerList) -> impl Iterator<Item = Row> {
    let lines = file
        .bad
        .iter()
        .map(|bad| table::skipped_line(&bad.text, bad.number, &bad.reason));
    let entries = named.refused.iter().map(|(socket, why)| Row {
        reason: Some(format!("the Explorer must not name this address: {why}")),
        ..Row::new(socket.to_string(), Source::Explorer, table::SKIPPED)
    });
    lines.chain(entries)
}

/// Returns the row of a node, and applies the report of an available node to the registry.
fn row(report: Done<Node, Probe>, weights: &PendingWeights, registry: &Registry, now: Instant) -> Row {
    let (addr, (rank, attributes)) = report.job;
    let probe = report.result.unwrap_or_else(Probe::panicked);
    let redirect = |to| format!("responds through a redirect to \"{to}\": POST requests of clients do not follow it");
    let limited = "status 429: the node is alive but rate-limits its clients".to_owned();
    let (state, reason) = match &probe.outcome {
        Outcome::Up(_) if attributes.is_draining => (table::DRAINING, probe.redirected_to.map(redirect)),
        Outcome::Up(_) => (table::AVAILABLE, probe.redirected_to.map(redirect)),
        Outcome::Limited => ("limited", Some(limited)),
        Outcome::Failed(reason) => ("down", Some(reason.clone())),
        // A local error prevented the probe.
        Outcome::LocalError(reason) => ("unknown", Some(reason.clone())),
    };
    let public = attributes.public.as_ref().map(NodeAddr::as_listed);
    let (name, is_draining, is_backup) = (attributes.name.as_deref(), attributes.is_draining, attributes.is_backup);
    let mut row = Row {
        latency_ms: Some(report.took.as_micros() as f64 / 1_000.0),
        reason: table::details(name, is_draining, is_backup, public, reason.as_deref()),
        ..Row::new(addr.as_listed().to_owned(), rank.source(), state)
    };
    if let Outcome::Up(info) = probe.outcome {
        row.pending = Some(info.load(|job| weights.weight(job)));
        let ids = info.containers.iter().map(|container| container.id.as_str().to_owned());
        row.containers = Some(ids.collect());
        let id = registry.insert(addr, rank, now);
        registry.begin_probe(id, now);
        registry.up(id, &info.containers, 0, now);
    }
    row
}

impl CheckReport {
    fn print(&self, format: Format) -> Printout {
        let available = self.nodes.iter().filter(|row| row.state == table::AVAILABLE).count();
        let nodes = self.nodes.iter().filter(|row| row.state != table::SKIPPED).count();
        let lists = self.lists.iter();
        let lists = lists.map(|list| table::list_note(&list.name, list.nodes, list.problem.as_deref()));
        let notes: Vec<String> = lists.chain(self.conflicts.iter().map(Conflict::to_string)).collect();
        let table = table::to_text(&notes, &self.nodes, available, nodes);
        Printout::new(format, self, table, available)
    }
}
