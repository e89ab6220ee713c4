//! `infernet-router check`: reads the lists as the router would, asks every node once, and reports the state of each.
//! The tool for "why is my node not listed?".

use std::cmp::Reverse;
use std::io;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::table::{Cells, Table};
use crate::config::Config;
use crate::lists;
use crate::net::Fetcher;
use crate::node::{ExplorerList, NodeAddr, NodeList, Rank, Source};
use crate::poller::{Outcome, Probe, probe};
use crate::registry::{PromisePolicy, Registry};
use crate::status::Conflict;
use crate::util::descriptors;
use crate::util::pool::{Done, Pool};

/// Ids with several images that are told of.
const MAX_CONFLICTS: usize = 100;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    lists: Vec<List>,
    nodes: Vec<Row>,
    /// Container ids that available nodes run with different images.
    #[serde(rename = "conflicting_containers", skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<Conflict>,
}

/// One list of nodes, and whether it could be had.
#[derive(Clone, Debug, Serialize)]
struct List {
    source: Source,
    /// Path or address.
    name: String,
    nodes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// In the order of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckState {
    /// The probe failed.
    Down,
    /// It could not be asked, because this machine ran out of something.
    Unknown,
    /// A line or an entry that the router does not take for a node.
    Skipped,
    /// It answered 429, which is no verdict.
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

/// Reads the lists and asks every node once, as many at a time as `MAX_PROBES` allows. `progress` is told how many
/// nodes were asked, of how many.
///
/// # Errors
/// When the system has no room for a thread.
pub fn check(config: &Config, mut progress: impl FnMut(usize, usize)) -> io::Result<CheckReport> {
    let fetcher = Fetcher::of_config(config);
    let file = lists::read(&config.ips_file);
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
    let rows = ask(ranked, &fetcher, probes, weigh, &registry, &mut progress)?;
    report.nodes.extend(rows);
    let conflicts = registry.conflicts().into_iter().take(MAX_CONFLICTS);
    report.conflicts = conflicts.map(Conflict::from).collect();
    report.nodes.sort_by(|a, b| a.trouble().cmp(&b.trouble()));
    Ok(report)
}

/// Asks each node once.
fn ask(
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
        Row::skipped(bad.text.escape_debug().to_string(), Source::IpsFile, reason)
    })
}

fn refused_entries(list: &ExplorerList) -> impl Iterator<Item = Row> + '_ {
    list.refused.iter().map(|(socket, why)| {
        let reason = format!("the Explorer may not name it: {why}");
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
                Ok(list) if list.left_out > 0 => Some(format!("{} more are left out: too many", list.left_out)),
                list => list.as_ref().err().cloned(),
            },
        }
    }

    fn of_explorer(name: String, list: &Result<ExplorerList, String>) -> Self {
        let skipped = list.as_ref().map_or(0, |list| list.skipped);
        let skipped = (skipped > 0).then(|| format!("{skipped} entries are no address with a port"));
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
                    format!("answers by a redirect to \"{to}\", which POST requests of clients will not follow")
                });
            }
            Outcome::Limited => {
                row.state = CheckState::Limited;
                row.reason = Some("answered 429, too many requests: no verdict".to_owned());
            }
            Outcome::Failed(reason) => (row.state, row.reason) = (CheckState::Down, Some(reason)),
            Outcome::LocalError(reason) => (row.state, row.reason) = (CheckState::Unknown, Some(reason)),
        }
        row
    }

    /// What puts a row above another: its state, then how busy and how slow the node is.
    fn trouble(&self) -> impl Ord + '_ {
        (
            self.state,
            Reverse(self.pending),
            Reverse(self.latency.filter(|_| self.pending.is_some())),
            self.source,
            &self.address,
        )
    }

    fn cells(&self) -> Cells<'_> {
        Cells {
            address: &self.address,
            source: self.source.name(),
            state: self.state.name(),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1_000.0),
            pending: self.pending,
            containers: self.containers.as_deref(),
            reason: self.reason.as_deref(),
        }
    }
}

impl CheckReport {
    /// Whether a client would be sent anywhere.
    pub fn any_available(&self) -> bool {
        self.nodes.iter().any(|row| row.state == CheckState::Available)
    }

    /// For people: the lists, then a row for each node, those in trouble first.
    pub fn to_table(&self) -> String {
        let mut table = Table::default();
        for list in &self.lists {
            table.list(&list.name, list.nodes, list.trouble.as_deref());
        }
        self.conflicts
            .iter()
            .for_each(|conflict| table.note(&conflict.to_string()));
        self.nodes.iter().for_each(|row| table.row(row.cells()));
        table.into_text()
    }

    /// For programs: `{"lists":[…],"nodes":[…]}`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |json| json + "\n")
    }
}
