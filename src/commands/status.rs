//! `infernet-router status`: what the serving router knows of its nodes, in the form of `check`. Contacts no node.

use std::io;
use std::time::Duration;

use super::request;
use super::table::{self, Format, Printout, Row};
use crate::config::{Config, PendingWeights};
use crate::net::Bounds;
use crate::registry::{MAX_PAGE, NodeState};
use crate::status::{NodeRow, StatusReport};

const BOUNDS: Bounds = Bounds {
    // The router builds a page within some milliseconds. A machine that is too busy for this limit is an error.
    timeout: Duration::from_secs(10),
    // 1,000 nodes of 1 KiB, and 1 MiB of container ids, each byte of which may be escaped.
    max_body_bytes: 16 * 1024 * 1024,
    max_redirects: 0,
};

/// Requests the status of the router that `HOST` and `PORT` name, page by page.
///
/// # Errors
/// No response or not a router's; 404 if `METRICS_FROM` does not name this machine.
pub fn request(config: &Config, format: Format) -> io::Result<Printout> {
    let mut report = page(config, 0)?;
    while report.nodes.len() < report.matched {
        let more = page(config, report.nodes.len())?.nodes;
        // The rest has been removed meanwhile.
        if more.is_empty() {
            break;
        }
        report.nodes.extend(more);
    }
    let table = table(&report, &config.weights);
    Ok(Printout::new(format, &report, table, report.totals.available))
}

fn page(config: &Config, offset: usize) -> io::Result<StatusReport> {
    let target = format!("/status.json?n={MAX_PAGE}&offset={offset}");
    request::get(config, &target, BOUNDS, |body| serde_json::from_slice(body))
}

/// Lists and problems, then a row for each node, problems first.
fn table(report: &StatusReport, weights: &PendingWeights) -> String {
    let file = &report.ips_file;
    let mut notes = vec![table::list_note(&file.path, file.nodes, file.problem.as_deref())];
    if let Some(explorer) = &report.explorer {
        let skipped = (explorer.skipped > 0).then(|| format!("{} entries are skipped", explorer.skipped));
        let problem = explorer.problem.clone().or(skipped);
        notes.push(table::list_note(&explorer.url, explorer.nodes, problem.as_deref()));
    }
    notes.extend(report.notes());
    notes.extend(report.conflicting_containers.iter().map(ToString::to_string));
    let skipped = file.skipped.iter();
    let skipped = skipped.map(|line| table::skipped_line(&line.text, line.number, &line.reason));
    let nodes = report.nodes.iter().map(|node| row(node, weights));
    let rows: Vec<Row> = skipped.chain(nodes).collect();
    table::to_text(&notes, &rows, report.totals.available, report.totals.nodes)
}

fn row(node: &NodeRow, weights: &PendingWeights) -> Row {
    let weighted = |(kind, jobs): (&String, &u64)| jobs.saturating_mul(weights.weight(kind).into());
    let pending = node.pending.as_ref();
    let state = match node.state {
        NodeState::Up if node.draining => table::DRAINING,
        NodeState::Up => table::AVAILABLE,
        state => state.name(),
    };
    let (name, public) = (node.name.as_deref(), node.public_address.as_deref());
    let reason = node.reason.as_deref();
    Row {
        latency_ms: node.latency,
        pending: pending.map(|jobs| jobs.iter().map(weighted).fold(0, u64::saturating_add)),
        containers: (!node.containers.is_empty()).then(|| node.containers.clone()),
        reason: table::details(name, node.draining, node.backup, public, reason),
        ..Row::new(node.address.clone(), node.source, state)
    }
}
