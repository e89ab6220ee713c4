//! What is wrong, at a glance.

use std::fmt::Write;

use super::text::{grouped, lasting, shown, when};
use super::{LONG, SHORT};
use crate::status::StatusReport;

/// Bad lines and conflicts that are shown one by one.
const MAX_SHOWN: usize = 5;

/// What is wrong, and since when.
pub(super) fn wrong(page: &mut String, report: &StatusReport) {
    let mut items = String::new();
    if report.totals.nodes == 0 {
        items.push_str("<li>No node is listed: clients get empty answers</li>");
    }
    if let Some(since) = report.doubt.since {
        put!(
            items,
            "<li>A mass failure is doubted for {}: nodes that fail together stay available, behind those that answer</li>",
            lasting(report.now, since)
        );
    }
    if report.pool_too_small {
        items.push_str("<li>Not all nodes are asked in an interval: raise MAX_PROBES or REFRESH_INTERVAL</li>");
    }
    for (state, since) in &report.longest {
        let count = report.totals.states.get(state.name()).copied().unwrap_or_default();
        let (count, nodes) = (grouped(count), if count == 1 { "node is" } else { "nodes are" });
        let (name, since) = (state.name(), lasting(report.now, *since));
        put!(
            items,
            "<li>{count} {nodes} <a href=\"?state={name}\">{name}</a>, the longest for {since}</li>"
        );
    }
    lists_wrong(&mut items, report);
    conflicts(&mut items, report);
    match items.is_empty() {
        true => page.push_str("<div class=\"box good\">Nothing is wrong.</div>"),
        false => {
            put!(page, "<div class=\"box\"><h2>What is wrong</h2><ul>{items}</ul></div>");
        }
    }
}

fn lists_wrong(items: &mut String, report: &StatusReport) {
    let file = &report.ips_file;
    let path = shown(&file.path, SHORT);
    if let Some(trouble) = &file.trouble {
        put!(
            items,
            "<li>{path}: {}; {}</li>",
            shown(trouble, LONG),
            kept(report.now, file.read_at)
        );
    }
    if file.skipped_count > 0 {
        put!(
            items,
            "<li>{path}: {} lines are no address and are skipped<ul>",
            grouped(file.skipped_count)
        );
        for line in file.skipped.iter().take(MAX_SHOWN) {
            let (number, text, reason) = (line.number, shown(&line.text, SHORT), shown(&line.reason, SHORT));
            put!(items, "<li>line {number}: <q>{text}</q>: {reason}</li>");
        }
        more(items, file.skipped_count);
    }
    let Some(explorer) = &report.explorer else {
        return;
    };
    let url = shown(&explorer.url, SHORT);
    if let Some(trouble) = &explorer.trouble {
        let kept = kept(report.now, explorer.last_success);
        put!(items, "<li>Explorer {url}: {}; {kept}</li>", shown(trouble, LONG));
    }
    if explorer.skipped > 0 {
        put!(
            items,
            "<li>Explorer {url}: {} entries are no address with a port, or one that it may not name</li>",
            grouped(explorer.skipped)
        );
    }
}

fn kept(now: u64, at: Option<u64>) -> String {
    match at {
        Some(at) => format!("the list of {} stays", when(now, at)),
        None => "there is no list yet".to_owned(),
    }
}

fn conflicts(items: &mut String, report: &StatusReport) {
    let count = report.totals.conflicting_containers;
    if count == 0 {
        return;
    }
    let ids = if count == 1 { "id runs" } else { "ids run" };
    put!(
        items,
        "<li>{} container {ids} with different images: jobs go to any of them<ul>",
        grouped(count)
    );
    for conflict in report.conflicting_containers.iter().take(MAX_SHOWN) {
        let id = shown(conflict.id.as_str(), SHORT);
        let image = |image: &crate::status::images::Image| {
            format!("{} ({} nodes)", shown(&image.image, SHORT), grouped(image.nodes))
        };
        let images: Vec<String> = conflict.images.iter().map(image).collect();
        put!(items, "<li>{id}: {}</li>", images.join(", "));
    }
    more(items, count);
}

/// Ends a list of which only some are shown.
fn more(items: &mut String, count: usize) {
    if count > MAX_SHOWN {
        put!(items, "<li>and {} more</li>", grouped(count - MAX_SHOWN));
    }
    items.push_str("</ul></li>");
}
