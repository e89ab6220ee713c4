//! `infernet-router status`: what the serving router knows of its nodes, in the form of `check`. Contacts no node.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::request::{self, RequestError};
use super::table::{self, Row};
use crate::config::{Config, PendingWeights};
use crate::net::Bounds;
use crate::registry::MAX_PAGE;
use crate::status::Conflict;

/// The router builds a page within some milliseconds. A machine that is too busy for this limit is an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest page: 1,000 nodes of 1 KiB, and 1 MiB of container ids, each byte of which may be escaped.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// The router's `/status.json`, all pages in one. Read by field name, so that a router of another version is shown too.
#[derive(Clone, Debug)]
pub struct ServedStatus {
    report: Value,
    weights: PendingWeights,
}

/// Requests the status of the router that `HOST` and `PORT` name, page by page.
///
/// # Errors
/// No response or not a router's; 404 if `METRICS_FROM` does not name this machine.
pub fn request(config: &Config) -> Result<ServedStatus, RequestError> {
    let mut report = page(config, 0)?;
    let matched = report["matched"].as_u64().unwrap_or_default();
    let mut nodes = take_nodes(&mut report);
    while (nodes.len() as u64) < matched {
        let more = take_nodes(&mut page(config, nodes.len())?);
        // The rest has been removed meanwhile.
        if more.is_empty() {
            break;
        }
        nodes.extend(more);
    }
    report["nodes"] = nodes.into();
    Ok(ServedStatus {
        report,
        weights: config.weights.clone(),
    })
}

fn page(config: &Config, offset: usize) -> Result<Value, RequestError> {
    let bounds = Bounds {
        timeout: TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: 0,
    };
    let target = format!("/status.json?n={MAX_PAGE}&offset={offset}");
    let (url, body) = request::get(config, &target, bounds)?;
    let page: Value = serde_json::from_slice(&body).unwrap_or_default();
    match page["totals"]["available"].is_u64() && page["nodes"].is_array() {
        true => Ok(page),
        false => Err(RequestError::NotARouter(url, "expected a status report".to_owned())),
    }
}

fn take_nodes(page: &mut Value) -> Vec<Value> {
    match page["nodes"].take() {
        Value::Array(nodes) => nodes,
        _ => Vec::new(),
    }
}

impl ServedStatus {
    /// Whether a client gets an address.
    pub fn any_available(&self) -> bool {
        self.count("available") > 0
    }

    /// For programs: `/status.json` with all nodes.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.report)
    }

    /// For people: lists and problems, then a row for each node, problems first.
    pub fn to_table(&self) -> String {
        let (file, explorer) = (&self.report["ips_file"], &self.report["explorer"]);
        let problem = file["trouble"].as_str();
        let mut notes = vec![table::list_note(&text(&file["path"]), count(&file["nodes"]), problem)];
        if explorer.is_object() {
            let skipped = format!("{} entries are skipped", explorer["skipped"]);
            let skipped = Some(skipped.as_str()).filter(|_| count(&explorer["skipped"]) > 0);
            let problem = explorer["trouble"].as_str().or(skipped);
            notes.push(table::list_note(
                &text(&explorer["url"]),
                count(&explorer["nodes"]),
                problem,
            ));
        }
        let since = self.report["doubt"]["since"].as_str();
        notes.extend(since.map(|since| format!("a mass failure is suspected since {since}")));
        if self.report["pool_too_small"] == true {
            let remedy = "raise MAX_PROBES or REFRESH_INTERVAL";
            notes.push(format!("the router can't probe all nodes in an interval: {remedy}"));
        }
        let conflicts = items(&self.report["conflicting_containers"]);
        notes.extend(conflicts.filter_map(|conflict| Some(Conflict::deserialize(conflict).ok()?.to_string())));
        let skipped = items(&file["skipped"]).map(skipped_line);
        let nodes = items(&self.report["nodes"]).map(|node| self.row(node));
        let rows: Vec<Row> = skipped.chain(nodes).collect();
        table::to_text(&notes, &rows, self.count("available"), self.count("nodes"))
    }

    fn count(&self, total: &str) -> usize {
        count(&self.report["totals"][total])
    }

    fn row(&self, node: &Value) -> Row {
        let weighted = |(kind, jobs): (&String, &Value)| {
            let weight = u64::from(self.weights.weight(kind));
            jobs.as_u64().unwrap_or_default().saturating_mul(weight)
        };
        let pending = node["pending"].as_object();
        let containers: Vec<String> = items(&node["containers"]).map(text).collect();
        Row {
            address: text(&node["address"]),
            source: text(&node["source"]),
            state: text(&node["state"]).replace("up", "available"),
            latency_ms: node["latency"].as_f64(),
            pending: pending.map(|jobs| jobs.iter().map(weighted).fold(0, u64::saturating_add)),
            containers: (!containers.is_empty()).then_some(containers),
            reason: node["reason"].as_str().map(str::to_owned),
        }
    }
}

fn skipped_line(line: &Value) -> Row {
    Row {
        address: text(&line["text"]),
        source: "ips_file".to_owned(),
        state: "skipped".to_owned(),
        reason: Some(format!("line {}: {}", line["number"], text(&line["reason"]))),
        ..Row::default()
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn count(value: &Value) -> usize {
    value.as_u64().unwrap_or_default() as usize
}
