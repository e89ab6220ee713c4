//! `infernet-router status`: what the serving router knows of its nodes, in the form of `check`. Contacts no node.

use std::time::Duration;

use super::request::{self, RequestError};
use super::table::{self, Row};
use crate::config::{Config, PendingWeights};
use crate::net::Bounds;
use crate::node::Source;
use crate::registry::{MAX_PAGE, NodeState};
use crate::status::{NodeRow, SkippedLine, StatusReport};

/// The router builds a page within some milliseconds. A machine that is too busy for this limit is an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest page: 1,000 nodes of 1 KiB, and 1 MiB of container ids, each byte of which may be escaped.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// The router's `/status.json`, all pages in one.
#[derive(Clone, Debug)]
pub struct ServedStatus {
    report: StatusReport,
    weights: PendingWeights,
}

/// Requests the status of the router that `HOST` and `PORT` name, page by page.
///
/// # Errors
/// No response or not a router's; 404 if `METRICS_FROM` does not name this machine.
pub fn request(config: &Config) -> Result<ServedStatus, RequestError> {
    let mut report = page(config, 0)?;
    while report.nodes.len() < report.matched {
        let more = page(config, report.nodes.len())?.nodes;
        // The rest has been removed meanwhile.
        if more.is_empty() {
            break;
        }
        report.nodes.extend(more);
    }
    Ok(ServedStatus {
        report,
        weights: config.weights.clone(),
    })
}

fn page(config: &Config, offset: usize) -> Result<StatusReport, RequestError> {
    let bounds = Bounds {
        timeout: TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: 0,
    };
    let target = format!("/status.json?n={MAX_PAGE}&offset={offset}");
    let (url, body) = request::get(config, &target, bounds)?;
    serde_json::from_slice(&body).map_err(|error| RequestError::NotARouter(url, error.to_string()))
}

impl ServedStatus {
    /// Whether a client gets an address.
    pub fn any_available(&self) -> bool {
        self.report.totals.available > 0
    }

    /// For programs: `/status.json` with all nodes.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.report).map_or_else(|error| error.to_string(), |json| json + "\n")
    }

    /// For people: lists and problems, then a row for each node, problems first.
    pub fn to_table(&self) -> String {
        let totals = &self.report.totals;
        let skipped = self.report.ips_file.skipped.iter().map(skipped_line);
        let nodes = self.report.nodes.iter().map(|node| self.row(node));
        let rows: Vec<Row> = skipped.chain(nodes).collect();
        table::to_text(&self.notes(), &rows, totals.available, totals.nodes)
    }

    fn notes(&self) -> Vec<String> {
        let report = &self.report;
        let file = &report.ips_file;
        let mut notes = vec![table::list_note(&file.path, file.nodes, file.problem.as_deref())];
        if let Some(explorer) = &report.explorer {
            let skipped = (explorer.skipped > 0).then(|| format!("{} entries are skipped", explorer.skipped));
            let problem = explorer.problem.clone().or(skipped);
            notes.push(table::list_note(&explorer.url, explorer.nodes, problem.as_deref()));
        }
        let name_server = report.name_server.iter();
        notes.extend(name_server.map(|reason| format!("lookups of host names fail: {reason}")));
        let since = report.doubt.since.iter();
        notes.extend(since.map(|since| format!("a mass failure is suspected since {}", since.text)));
        if report.pool_too_small {
            let remedy = "raise MAX_PROBES or REFRESH_INTERVAL";
            notes.push(format!("the router can't probe all nodes in an interval: {remedy}"));
        }
        notes.extend(report.conflicting_containers.iter().map(ToString::to_string));
        notes
    }

    fn row(&self, node: &NodeRow) -> Row {
        let weight = |kind: &str| u64::from(self.weights.weight(kind));
        let weighted = |(kind, jobs): (&String, &u64)| jobs.saturating_mul(weight(kind));
        let pending = node.pending.as_ref();
        let state = match node.state {
            NodeState::Up if node.draining => "draining",
            NodeState::Up => "available",
            state => state.name(),
        };
        Row {
            latency_ms: node.latency,
            pending: pending.map(|jobs| jobs.iter().map(weighted).fold(0, u64::saturating_add)),
            containers: (!node.containers.is_empty()).then(|| node.containers.clone()),
            ..Row::new(node.address.clone(), node.source, state, details(node))
        }
    }
}

/// The name of the node, its attributes and the reason of its state.
fn details(node: &NodeRow) -> Option<String> {
    let attributes = [
        node.name.clone(),
        node.draining.then(|| "draining".to_owned()),
        node.backup.then(|| "backup".to_owned()),
        node.public_address.as_ref().map(|address| format!("as={address}")),
        node.reason.clone(),
    ];
    let details: Vec<String> = attributes.into_iter().flatten().collect();
    (!details.is_empty()).then(|| details.join("; "))
}

fn skipped_line(line: &SkippedLine) -> Row {
    let reason = format!("line {}: {}", line.number, line.reason);
    Row::new(line.text.clone(), Source::IpsFile, "skipped", Some(reason))
}
