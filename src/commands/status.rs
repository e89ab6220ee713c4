//! `infernet-router status`: what the serving router knows of its nodes, in the form of `check`. Contacts no node.

use std::time::Duration;

use serde_json::Value;

use super::request::{self, RequestError};
use super::table::{Cells, Table};
use crate::config::{Config, PendingWeights};
use crate::net::Bounds;
use crate::registry::MAX_PAGE;
use crate::status::conflict_line;

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
        let mut table = Table::default();
        let (file, explorer) = (&self.report["ips_file"], &self.report["explorer"]);
        table.list(&text(&file["path"]), count(&file["nodes"]), file["trouble"].as_str());
        if explorer.is_object() {
            let skipped = format!("{} entries are skipped", explorer["skipped"]);
            let skipped = Some(skipped.as_str()).filter(|_| count(&explorer["skipped"]) > 0);
            let problem = explorer["trouble"].as_str().or(skipped);
            table.list(&text(&explorer["url"]), count(&explorer["nodes"]), problem);
        }
        if let Some(since) = self.report["doubt"]["since"].as_str() {
            table.note(&format!("a mass failure is suspected since {since}"));
        }
        if self.report["pool_too_small"] == true {
            table.note("the router can't probe all nodes in an interval: raise MAX_PROBES or REFRESH_INTERVAL");
        }
        for conflict in items(&self.report["conflicting_containers"]) {
            let images = items(&conflict["images"]);
            let images: Vec<_> = images
                .map(|image| (text(&image["image"]), count(&image["nodes"])))
                .collect();
            let images = images.iter().map(|(image, nodes)| (image.as_str(), *nodes));
            table.note(&conflict_line(&text(&conflict["id"]), images));
        }
        items(&file["skipped"]).for_each(|line| table.row(skipped_line(line)));
        items(&self.report["nodes"]).for_each(|node| table.row(self.cells(node)));
        table.into_text(self.count("available"), self.count("nodes"))
    }

    fn count(&self, total: &str) -> usize {
        count(&self.report["totals"][total])
    }

    fn cells(&self, node: &Value) -> Cells {
        let weighted = |(kind, jobs): (&String, &Value)| {
            let weight = u64::from(self.weights.weight(kind));
            jobs.as_u64().unwrap_or_default().saturating_mul(weight)
        };
        let pending = node["pending"].as_object();
        let containers: Vec<&str> = items(&node["containers"]).filter_map(Value::as_str).collect();
        Cells {
            address: text(&node["address"]),
            source: text(&node["source"]).replace('_', " "),
            state: text(&node["state"]).replace("up", "available"),
            latency_ms: node["latency"].as_f64(),
            pending: pending.map(|jobs| jobs.iter().map(weighted).fold(0, u64::saturating_add)),
            containers: (!containers.is_empty()).then(|| containers.join(",")),
            reason: node["reason"].as_str().map(str::to_owned),
        }
    }
}

fn skipped_line(line: &Value) -> Cells {
    Cells {
        address: text(&line["text"]),
        source: "ips file".to_owned(),
        state: "skipped".to_owned(),
        reason: Some(format!("line {}: {}", line["number"], text(&line["reason"]))),
        ..Cells::default()
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
