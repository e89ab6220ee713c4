//! `infernet-router check`: reads the lists as the router would, asks every node once, and says how each fares.
//! The tool for "why is my node not listed?".

use std::cmp::Reverse;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::Config;
use crate::fetch::Fetcher;
use crate::lists::{self, Explorer};
use crate::node::{ExplorerList, NodeAddr, NodeList, Rank, Source};
use crate::probe::{Job, Outcome, Pool, Report as ProbeReport};
use crate::util::arena::Arena;
use crate::util::descriptors;

/// Longest column of container ids in the table; `--json` has all of them.
const MAX_CONTAINERS_CHARS: usize = 40;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    lists: Vec<List>,
    nodes: Vec<Row>,
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
enum State {
    /// The probe failed.
    Down,
    /// It could not be asked, for a lack of ours.
    Unknown,
    /// A line or an entry that the router does not take for a node.
    Skipped,
    /// It answered 429, which is no verdict.
    Limited,
    Available,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Unknown => "unknown",
            State::Skipped => "skipped",
            State::Limited => "limited",
            State::Available => "available",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    address: String,
    source: Source,
    state: State,
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
pub fn check(config: &Config, mut progress: impl FnMut(usize, usize)) -> io::Result<Report> {
    let fetcher = Fetcher::of_config(config);
    let file = lists::read(&config.ips_file);
    let explorer = config.api_url.clone().map(|url| Explorer::new(url, &fetcher));
    let named = explorer.as_ref().map(Explorer::fetch);

    let mut report = Report {
        lists: vec![List::of_file(config, &file)],
        nodes: Vec::new(),
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

    let ranked = lists::merge(&file.nodes, &named.nodes).into_iter().collect();
    let probes = descriptors::make_room(0, config.max_probes).probes;
    let weigh = |job: &str| config.weights.weight(job);
    report
        .nodes
        .extend(ask(ranked, &fetcher, probes, weigh, &mut progress)?);
    report.nodes.sort_by(|a, b| a.trouble().cmp(&b.trouble()));
    Ok(report)
}

/// Asks each node once.
fn ask(
    nodes: Vec<(NodeAddr, Rank)>,
    fetcher: &Fetcher,
    probes: usize,
    weight: impl Fn(&str) -> u32,
    progress: &mut impl FnMut(usize, usize),
) -> io::Result<Vec<Row>> {
    let (mut pool, reports) = Pool::new(fetcher.clone(), probes);
    pool.grow(probes.min(nodes.len()).max(1))?;
    let (all, mut rows, mut under_way) = (nodes.len(), Vec::new(), Arena::default());
    let mut nodes = nodes.into_iter();
    while rows.len() < all {
        for (addr, rank) in nodes.by_ref().take(probes - under_way.len()) {
            let id = under_way.insert((addr.clone(), rank));
            let probe = 0;
            let source = rank.source();
            pool.send(Job {
                id,
                probe,
                addr,
                source,
            });
        }
        let report = reports.recv().map_err(io::Error::other)?;
        if let Some((addr, rank)) = under_way.remove(report.id) {
            rows.push(Row::of_probe(&addr, rank, report, &weight));
            progress(rows.len(), all);
        }
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
            trouble: list.as_ref().err().cloned(),
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
            state: State::Skipped,
            latency: None,
            pending: None,
            containers: None,
            reason: Some(reason),
        }
    }

    fn of_probe(addr: &NodeAddr, rank: Rank, report: ProbeReport, weight: impl Fn(&str) -> u32) -> Self {
        let mut row = Self {
            address: addr.as_listed().to_owned(),
            source: rank.source(),
            state: State::Available,
            latency: Some(report.took),
            pending: None,
            containers: None,
            reason: None,
        };
        match report.outcome {
            Outcome::Up(info) => {
                row.pending = Some(info.load(weight));
                let ids = info.containers.iter().map(|container| container.id.as_str().to_owned());
                row.containers = Some(ids.collect());
                row.reason = report.redirected_to.map(|to| {
                    format!("answers by a redirect to \"{to}\", which POST requests of clients will not follow")
                });
            }
            Outcome::Limited => {
                row.state = State::Limited;
                row.reason = Some("answered 429, too many requests: no verdict".to_owned());
            }
            Outcome::Failed(reason) => (row.state, row.reason) = (State::Down, Some(reason)),
            Outcome::LocalError(reason) => (row.state, row.reason) = (State::Unknown, Some(reason)),
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

    fn cells(&self) -> [String; 7] {
        let latency = self
            .latency
            .map(|latency| format!("{:.1} ms", latency.as_secs_f64() * 1_000.0));
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.address.clone(),
            self.source.name().to_owned(),
            self.state.name().to_owned(),
            shown(latency),
            shown(self.pending.map(|pending| pending.to_string())),
            shown(self.containers.as_deref().map(brief)),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

/// Ids are foreign text: escaped, and no longer than a column should be.
fn brief(ids: &[String]) -> String {
    let all = ids.join(",");
    let mut brief: String = all
        .chars()
        .take(MAX_CONTAINERS_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if all.chars().nth(MAX_CONTAINERS_CHARS).is_some() {
        brief.push('…');
    }
    brief
}

impl Report {
    /// Whether a client would be sent anywhere.
    pub fn any_available(&self) -> bool {
        self.nodes.iter().any(|row| row.state == State::Available)
    }

    /// For people: the lists, then a row for each node, those in trouble first.
    pub fn to_table(&self) -> String {
        let mut text = String::new();
        for List {
            name, nodes, trouble, ..
        } in &self.lists
        {
            let trouble = trouble.as_ref().map_or(String::new(), |trouble| format!("; {trouble}"));
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name}: {nodes} nodes{trouble}");
        }
        text.push('\n');
        let head = [
            "ADDRESS",
            "SOURCE",
            "STATE",
            "LATENCY",
            "PENDING",
            "CONTAINERS",
            "REASON",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.nodes.iter().map(Row::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// For programs: `{"lists":[…],"nodes":[…]}`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |json| json + "\n")
    }
}
