//! `infernet-router check`: reads the lists as the router does, probes every node once, and reports the state of each.
//! It shows why a node is not listed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::Serialize;

use super::table::{self, Row};
use crate::config::Config;
use crate::lists;
use crate::net::Fetcher;
use crate::node::{Attributes, ExplorerList, NodeAddr, NodeList, Rank, Source};
use crate::poller::{Outcome, Probe, probe};
use crate::registry::{PromisePolicy, Registry};
use crate::status::Conflict;
use crate::util::pool::{Done, Pool};
use crate::util::{descriptors, threads};

/// Container ids with several images that are reported.
const MAX_CONFLICTS: usize = 100;
/// Longest wait for the list.
const MAX_READ_TIME: Duration = Duration::from_secs(3);

/// The result for lists and nodes.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    lists: Vec<List>,
    nodes: Vec<Row>,
    /// Container ids that available nodes run with different images.
    #[serde(rename = "conflicting_containers", skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<Conflict>,
}

/// One list of nodes and its problem.
#[derive(Clone, Debug, Serialize)]
struct List {
    source: Source,
    /// Path or URL.
    name: String,
    nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// The states of the rows, in the order of the table: problems first.
const STATES: [&str; 6] = [DOWN, UNKNOWN, SKIPPED, LIMITED, DRAINING, AVAILABLE];
const DOWN: &str = "down";
/// The node is available, but `drain` in ips.txt withholds it from clients.
const DRAINING: &str = "draining";
/// A local error prevented the probe.
const UNKNOWN: &str = "unknown";
/// A line or an entry that is not a valid node.
const SKIPPED: &str = "skipped";
/// The node returned 429.
const LIMITED: &str = "limited";
const AVAILABLE: &str = "available";

/// Reads the lists and probes every node once, at most `MAX_PROBES` concurrently. Calls `progress` with the number of
/// probed nodes and of all nodes.
///
/// # Errors
/// The system cannot start a thread.
pub fn check(config: &Config, mut progress: impl FnMut(usize, usize)) -> io::Result<CheckReport> {
    let fetcher = Fetcher::of_config(config);
    let file = read_list(&config.ips_file)?;
    let named = config.api_url.as_ref().map(|url| lists::fetch(url, &fetcher));

    let mut report = CheckReport {
        lists: vec![List::of_file(config, &file)],
        nodes: Vec::new(),
        conflicts: Vec::new(),
    };
    let file = file.unwrap_or_default();
    report.nodes.extend(bad_lines(&file));
    let named = match (&config.api_url, named) {
        (Some(url), Some(named)) => {
            report.lists.push(List::of_explorer(url.to_string(), &named));
            named.unwrap_or_default()
        }
        _ => ExplorerList::default(),
    };
    report.nodes.extend(refused_entries(&named));

    let ranked = lists::merge(&file.nodes, &named.nodes, |host| fetcher.resolver().known(host));
    let listed =
        |(addr, (_, attributes)): (&NodeAddr, &(Rank, Attributes))| (addr.as_listed().to_owned(), attributes.clone());
    let attributes: HashMap<String, Attributes> = ranked.iter().map(listed).collect();
    let ranked = ranked.into_iter().map(|(addr, (rank, _))| (addr, rank)).collect();
    let probes = descriptors::fit_limits(0, config.max_probes).probes;
    let weigh = |job: &str| config.weights.weight(job);
    #[expect(clippy::disallowed_methods, reason = "when the check begins")]
    let now = Instant::now();
    let registry = Registry::new(PromisePolicy::Off, config.refresh_interval, now);
    let mut rows = probe_all(ranked, &fetcher, probes, weigh, &registry, &mut progress)?;
    for row in &mut rows {
        if let Some(attributes) = attributes.get(&row.address) {
            describe(row, attributes);
        }
    }
    report.nodes.extend(rows);
    let conflicts = registry.conflicts().into_iter().take(MAX_CONFLICTS);
    report.conflicts = conflicts.map(Conflict::from).collect();
    report.nodes.sort_by(|a, b| rank(a).cmp(&rank(b)));
    Ok(report)
}

/// Reads the list, but waits no longer than the router does without a warning: a disk may hang.
fn read_list(path: &Path) -> io::Result<Result<NodeList, String>> {
    let (results, result) = bounded(1);
    let owned = path.to_owned();
    // A read on a hung disk cannot be interrupted.
    threads::spawn_detached("list", move || drop(results.send(lists::read(&owned))))?;
    let result = result.recv_timeout(MAX_READ_TIME);
    Ok(result.unwrap_or_else(|_| {
        Err(format!(
            "not read within {} s: the disk does not respond",
            MAX_READ_TIME.as_secs()
        ))
    }))
}

/// Probes each node once.
fn probe_all(
    nodes: Vec<(NodeAddr, Rank)>,
    fetcher: &Fetcher,
    probes: usize,
    weight: impl Fn(&str) -> u32,
    registry: &Registry,
    progress: &mut impl FnMut(usize, usize),
) -> io::Result<Vec<Row>> {
    let fetcher = fetcher.clone();
    let run = move |(addr, rank): &(NodeAddr, Rank)| probe(&fetcher, addr, rank.source());
    #[expect(clippy::disallowed_methods, reason = "when the pool is created")]
    let now = Instant::now();
    let (mut pool, reports) = Pool::new("probe", probes, run, now);
    pool.resize(probes.min(nodes.len()), now)?;
    let (all, mut sent, mut rows) = (nodes.len(), 0, Vec::new());
    let mut nodes = nodes.into_iter();
    while rows.len() < all {
        let unused = probes - (sent - rows.len());
        sent += nodes
            .by_ref()
            .take(unused)
            .filter(|node| pool.send(node.clone()))
            .count();
        let report = reports.recv().map_err(io::Error::other)?;
        if let Some(Probe {
            outcome: Outcome::Up(info),
            ..
        }) = &report.result
        {
            let (addr, rank) = report.job.clone();
            let id = registry.insert(addr, rank, now);
            registry.up(id, registry.begin_probe(id, now), &info.containers, 0, now);
        }
        rows.push(of_probe(report, &weight));
        progress(rows.len(), all);
    }
    Ok(rows)
}

fn bad_lines(list: &NodeList) -> impl Iterator<Item = Row> + '_ {
    list.bad.iter().map(|bad| {
        let reason = format!("line {}: {}", bad.number, bad.reason);
        skipped(bad.text.clone(), Source::IpsFile, reason)
    })
}

fn refused_entries(list: &ExplorerList) -> impl Iterator<Item = Row> + '_ {
    list.refused.iter().map(|(socket, why)| {
        let reason = format!("the Explorer must not name this address: {why}");
        skipped(socket.to_string(), Source::Explorer, reason)
    })
}

impl List {
    fn of_file(config: &Config, list: &Result<NodeList, String>) -> Self {
        Self {
            source: Source::IpsFile,
            name: config.ips_file.display().to_string(),
            nodes: list.as_ref().map_or(0, |list| list.nodes.len()),
            trouble: match list {
                Ok(list) if list.left_out > 0 => Some(format!("{} more are skipped: too many nodes", list.left_out)),
                list => list.as_ref().err().cloned(),
            },
        }
    }

    fn of_explorer(name: String, list: &Result<ExplorerList, String>) -> Self {
        let skipped = list.as_ref().map_or(0, |list| list.skipped);
        let skipped = (skipped > 0).then(|| format!("{skipped} entries without a valid address and port"));
        Self {
            source: Source::Explorer,
            name,
            nodes: list.as_ref().map_or(0, |list| list.nodes.len()),
            trouble: list.as_ref().err().cloned().or(skipped),
        }
    }
}

fn skipped(address: String, source: Source, reason: String) -> Row {
    Row::new(address, source, SKIPPED, Some(reason))
}

fn of_probe(report: Done<(NodeAddr, Rank), Probe>, weight: impl Fn(&str) -> u32) -> Row {
    let (addr, rank) = report.job;
    let probe = report.result.unwrap_or_else(Probe::panicked);
    let redirect = |to| format!("responds through a redirect to \"{to}\": POST requests of clients do not follow it");
    let limited = || "status 429: the node is alive but rate-limits its clients".to_owned();
    let (state, reason) = match &probe.outcome {
        Outcome::Up(_) => (AVAILABLE, probe.redirected_to.map(redirect)),
        Outcome::Limited => (LIMITED, Some(limited())),
        Outcome::Failed(reason) => (DOWN, Some(reason.clone())),
        Outcome::LocalError(reason) => (UNKNOWN, Some(reason.clone())),
    };
    let mut row = Row::new(addr.as_listed().to_owned(), rank.source(), state, reason);
    row.latency_ms = Some(report.took.as_micros() as f64 / 1_000.0);
    if let Outcome::Up(info) = probe.outcome {
        row.pending = Some(info.load(weight));
        let ids = info.containers.iter().map(|container| container.id.as_str().to_owned());
        row.containers = Some(ids.collect());
    }
    row
}

/// Adds the attributes of a node to its row.
fn describe(row: &mut Row, attributes: &Attributes) {
    if attributes.is_draining && row.state == AVAILABLE {
        row.state = DRAINING.to_owned();
    }
    let details = [
        attributes.name.as_deref().map(str::to_owned),
        attributes.is_draining.then(|| "draining".to_owned()),
        attributes.is_backup.then(|| "backup".to_owned()),
        attributes.public.as_ref().map(|addr| format!("as={addr}")),
        row.reason.take(),
    ];
    let details: Vec<String> = details.into_iter().flatten().collect();
    row.reason = (!details.is_empty()).then(|| details.join("; "));
}

/// Ranks a row: by its state, then the busiest and the slowest node first.
fn rank(row: &Row) -> impl Ord + '_ {
    let micros = row.latency_ms.map(|millis| (millis * 1_000.0) as u64);
    (
        STATES.iter().position(|state| *state == row.state),
        Reverse(row.pending),
        Reverse(micros.filter(|_| row.pending.is_some())),
        row.source,
        &row.address,
    )
}

impl CheckReport {
    /// Whether a client gets an address.
    pub fn any_available(&self) -> bool {
        self.available() > 0
    }

    fn available(&self) -> usize {
        self.nodes.iter().filter(|row| row.state == AVAILABLE).count()
    }

    /// For people: the lists, then a row for each node, problems first.
    pub fn to_table(&self) -> String {
        let lists = self.lists.iter();
        let lists = lists.map(|list| table::list_note(&list.name, list.nodes, list.trouble.as_deref()));
        let notes: Vec<String> = lists.chain(self.conflicts.iter().map(Conflict::to_string)).collect();
        let nodes = self.nodes.iter().filter(|row| row.state != SKIPPED).count();
        table::to_text(&notes, &self.nodes, self.available(), nodes)
    }

    /// For programs: `{"lists":[…],"nodes":[…]}`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |json| json + "\n")
    }
}
