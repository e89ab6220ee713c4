//! `infernet-router status`: what the router that serves with the same settings knows of its nodes, in the words of
//! `check`. It asks that router alone, no node.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::ask::{self, AskError};
use super::table::{Cells, Table};
use crate::config::{Config, PendingWeights};
use crate::net::Bounds;
use crate::node::Source;
use crate::registry::MAX_PAGE;
use crate::status::Conflict;

/// One page is made within some milliseconds; a machine that is too busy for this is told as such.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest page: 1,000 nodes of 1 KiB, and a MiB of container ids of which each byte may be escaped.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// What the router answered, all pages in one.
#[derive(Clone, Debug)]
pub struct ServedStatus {
    whole: Value,
    weights: PendingWeights,
}

/// What the table shows of it.
#[derive(Deserialize)]
struct Shown {
    ips_file: ShownFile,
    explorer: Option<ShownExplorer>,
    doubt: ShownDoubt,
    pool_too_small: bool,
    conflicting_containers: Vec<Conflict>,
    nodes: Vec<ShownNode>,
}

#[derive(Deserialize)]
struct ShownFile {
    path: String,
    nodes: usize,
    skipped: Vec<ShownLine>,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct ShownLine {
    number: usize,
    text: String,
    reason: String,
}

#[derive(Deserialize)]
struct ShownExplorer {
    url: String,
    nodes: usize,
    skipped: usize,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct ShownDoubt {
    since: Option<String>,
}

#[derive(Deserialize)]
struct ShownNode {
    address: String,
    source: Source,
    state: String,
    latency: Option<f64>,
    pending: Option<BTreeMap<String, u64>>,
    containers: Vec<String>,
    reason: Option<String>,
}

/// Asks the router that `HOST` and `PORT` name what it knows, a page at a time.
///
/// # Errors
/// When it does not answer, or not as a router does; 404 where `METRICS_FROM` leaves out this machine.
pub fn ask(config: &Config) -> Result<ServedStatus, AskError> {
    let mut whole = page(config, 0)?;
    let matched = whole["matched"].as_u64().unwrap_or_default();
    let mut nodes = take_nodes(&mut whole);
    while (nodes.len() as u64) < matched {
        let more = take_nodes(&mut page(config, nodes.len())?);
        // Nodes that left meanwhile.
        if more.is_empty() {
            break;
        }
        nodes.extend(more);
    }
    whole["nodes"] = nodes.into();
    Ok(ServedStatus {
        whole,
        weights: config.weights.clone(),
    })
}

fn page(config: &Config, offset: usize) -> Result<Value, AskError> {
    let url = ask::url(config, &format!("/status.json?n={MAX_PAGE}&offset={offset}"))?;
    let bounds = Bounds {
        timeout: TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: 0,
    };
    let body = ask::get(&url, bounds)?;
    let page: Value =
        serde_json::from_slice(&body).map_err(|error| AskError::NotOurs(url.clone(), error.to_string()))?;
    match Shown::deserialize(&page) {
        Ok(_) => Ok(page),
        Err(error) => Err(AskError::NotOurs(url, error.to_string())),
    }
}

fn take_nodes(page: &mut Value) -> Vec<Value> {
    match page["nodes"].take() {
        Value::Array(nodes) => nodes,
        _ => Vec::new(),
    }
}

impl ServedStatus {
    /// Whether a client would be sent anywhere.
    pub fn any_available(&self) -> bool {
        self.whole["totals"]["available"]
            .as_u64()
            .is_some_and(|count| count > 0)
    }

    /// For people: the lists and what is wrong, then a row for each node, those in trouble first.
    pub fn to_table(&self) -> String {
        match Shown::deserialize(&self.whole) {
            Ok(shown) => table(&shown, &self.weights).into_text(),
            Err(error) => format!("{error}\n"),
        }
    }

    /// For programs: what `/status.json` says, with all nodes.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.whole)
    }
}

fn table(shown: &Shown, weights: &PendingWeights) -> Table {
    let mut table = Table::default();
    let file = &shown.ips_file;
    table.list(&file.path, file.nodes, file.trouble.as_deref());
    if let Some(explorer) = &shown.explorer {
        let skipped = (explorer.skipped > 0).then(|| format!("{} entries are skipped", explorer.skipped));
        let trouble = explorer.trouble.clone().or(skipped);
        table.list(&explorer.url, explorer.nodes, trouble.as_deref());
    }
    if let Some(since) = &shown.doubt.since {
        table.note(&format!("a mass failure is doubted since {since}"));
    }
    if shown.pool_too_small {
        table.note("not all nodes are asked in an interval: raise MAX_PROBES or REFRESH_INTERVAL");
    }
    for conflict in &shown.conflicting_containers {
        table.conflict(conflict);
    }
    for line in &file.skipped {
        let reason = format!("line {}: {}", line.number, line.reason);
        table.row(Cells {
            address: &line.text.escape_debug().to_string(),
            source: Source::IpsFile.name(),
            state: "skipped",
            latency_ms: None,
            pending: None,
            containers: None,
            reason: Some(&reason),
        });
    }
    for node in &shown.nodes {
        table.row(cells(node, weights));
    }
    table
}

fn cells<'a>(node: &'a ShownNode, weights: &PendingWeights) -> Cells<'a> {
    let weighted = |jobs: &BTreeMap<String, u64>| {
        let weighted = jobs
            .iter()
            .map(|(kind, jobs)| jobs.saturating_mul(weights.weight(kind).into()));
        weighted.fold(0, u64::saturating_add)
    };
    Cells {
        address: &node.address,
        source: node.source.name(),
        state: match &*node.state {
            "up" => "available",
            other => other,
        },
        latency_ms: node.latency,
        pending: node.pending.as_ref().map(weighted),
        containers: (!node.containers.is_empty()).then_some(&node.containers),
        reason: node.reason.as_deref(),
    }
}
