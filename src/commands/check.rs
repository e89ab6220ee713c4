//! `infernet-router check`: reads the lists as the router does, probes every node once, and reports the state of each.
//! It shows why a node is not listed.

use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::{Serialize, Serializer};

use super::table::{Cells, Table};
use crate::config::Config;
use crate::lists;
use crate::net::Fetcher;
use crate::node::{ExplorerList, NodeAddr, NodeList, Rank, Source};
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

/// The result for one node or line. The order is that of the table: problems first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckState {
    /// The probe failed.
    Down,
    /// A local error prevented the probe.
    Unknown,
    /// A line or an entry that is not a valid node.
    Skipped,
    /// The node returned 429.
    Limited,
    Available,
}

impl CheckState {
    fn name(self) -> &'static str {
        match self {
            CheckState::Down => "down",
            CheckState::Unknown => "unknown",
            CheckState::Skipped => "skipped",
            CheckState::Limited => "limited",
            CheckState::Available => "available",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    address: String,
    source: Source,
    state: CheckState,
    #[serde(
        rename = "latency_ms",
        skip_serializing_if = "Option::is_none",
        serialize_with = "millis"
    )]
    latency: Option<Duration>,
    /// Weighted, as the router orders by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn millis<S: Serializer>(latency: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = latency.unwrap_or_default().as_micros() as f64;
    serializer.serialize_f64(micros / 1_000.0)
}

/// Reads the lists and probes every node once, at most `MAX_PROBES` concurrently. Calls `progress` with the number of probed
/// nodes and of all nodes.
///
/// # Errors
/// The system can't start a thread.
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
    let ranked = ranked.into_iter().map(|(addr, (rank, _))| (addr, rank)).collect();
    let probes = descriptors::fit_limits(0, config.max_probes).probes;
    let weigh = |job: &str| config.weights.weight(job);
    #[expect(clippy::disallowed_methods, reason = "when the check begins")]
    let now = Instant::now();
    let registry = Registry::new(PromisePolicy::Off, config.refresh_interval, now);
    let rows = probe_all(ranked, &fetcher, probes, weigh, &registry, &mut progress)?;
    report.nodes.extend(rows);
    let conflicts = registry.conflicts().into_iter().take(MAX_CONFLICTS);
    report.conflicts = conflicts.map(Conflict::from).collect();
    report.nodes.sort_by(|a, b| a.rank().cmp(&b.rank()));
    Ok(report)
}

/// Reads the list, but waits no longer than the router does without a warning: a disk may hang.
fn read_list(path: &Path) -> io::Result<Result<NodeList, String>> {
    let (results, result) = bounded(1);
    let owned = path.to_owned();
    // A read on a hung disk can't be interrupted.
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
        rows.push(Row::of_probe(report, &weight));
        progress(rows.len(), all);
    }
    Ok(rows)
}

fn bad_lines(list: &NodeList) -> impl Iterator<Item = Row> + '_ {
    list.bad.iter().map(|bad| {
        let reason = format!("line {}: {}", bad.number, bad.reason);
        Row::skipped(bad.text.clone(), Source::IpsFile, reason)
    })
}

fn refused_entries(list: &ExplorerList) -> impl Iterator<Item = Row> + '_ {
    list.refused.iter().map(|(socket, why)| {
        let reason = format!("the Explorer must not name this address: {why}");
        Row::skipped(socket.to_string(), Source::Explorer, reason)
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

impl Row {
    fn skipped(address: String, source: Source, reason: String) -> Self {
        Self {
            address,
            source,
            state: CheckState::Skipped,
            latency: None,
            pending: None,
            containers: None,
            reason: Some(reason),
        }
    }

    fn of_probe(report: Done<(NodeAddr, Rank), Probe>, weight: impl Fn(&str) -> u32) -> Self {
        let (addr, rank) = report.job;
        let Probe {
            outcome, redirected_to, ..
        } = report.result.unwrap_or_else(Probe::panicked);
        let mut row = Self {
            address: addr.as_listed().to_owned(),
            source: rank.source(),
            state: CheckState::Available,
            latency: Some(report.took),
            pending: None,
            containers: None,
            reason: None,
        };
        match outcome {
            Outcome::Up(info) => {
                row.pending = Some(info.load(weight));
                let ids = info.containers.iter().map(|container| container.id.as_str().to_owned());
                row.containers = Some(ids.collect());
                row.reason = redirected_to.map(|to| {
                    format!("responds through a redirect to \"{to}\": POST requests of clients do not follow it")
                });
            }
            Outcome::Limited => {
                row.state = CheckState::Limited;
                row.reason = Some("status 429: the node is alive but rate-limits its clients".to_owned());
            }
            Outcome::Failed(reason) => (row.state, row.reason) = (CheckState::Down, Some(reason)),
            Outcome::LocalError(reason) => (row.state, row.reason) = (CheckState::Unknown, Some(reason)),
        }
        row
    }

    /// Ranks a row: by its state, then the busiest and the slowest node first.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.state,
            Reverse(self.pending),
            Reverse(self.latency.filter(|_| self.pending.is_some())),
            self.source,
            &self.address,
        )
    }

    fn cells(&self) -> Cells {
        Cells {
            address: self.address.clone(),
            source: self.source.name().to_owned(),
            state: self.state.name().to_owned(),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1_000.0),
            pending: self.pending,
            containers: self.containers.as_ref().map(|ids| ids.join(",")),
            reason: self.reason.clone(),
        }
    }
}

impl CheckReport {
    /// Whether a client gets an address.
    pub fn any_available(&self) -> bool {
        self.available() > 0
    }

    fn available(&self) -> usize {
        let available = self.nodes.iter().filter(|row| row.state == CheckState::Available);
        available.count()
    }

    /// For people: the lists, then a row for each node, problems first.
    pub fn to_table(&self) -> String {
        let mut table = Table::default();
        for list in &self.lists {
            table.list(&list.name, list.nodes, list.trouble.as_deref());
        }
        self.conflicts
            .iter()
            .for_each(|conflict| table.note(&conflict.to_string()));
        self.nodes.iter().for_each(|row| table.row(row.cells()));
        let nodes = self.nodes.iter().filter(|row| row.state != CheckState::Skipped);
        table.into_text(self.available(), nodes.count())
    }

    /// For programs: `{"lists":[…],"nodes":[…]}`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |json| json + "\n")
    }
}
