//! `/status`: the report as one HTML page, without a script and without a request elsewhere.
//!
//! Everything foreign goes through [`shown`], which escapes it and cuts it, so that the page around the rows stays short.

/// Writing to a String can't fail.
macro_rules! put {
    ($page:expr, $($argument:tt)*) => { let _ = write!($page, $($argument)*); };
}

mod text;
mod wrong;

use std::fmt::Write;
use std::time::Instant;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::report::{Row, ShownSpeed};
use super::{Board, Filter, StatusReport};
use crate::metrics::Metrics;
use crate::registry::{NodeState, PendingByType, Registry};
use crate::resources::Resources;
use crate::status::shown_time;
use text::{age, attribute, grouped, lasting, shown, span, when};
use wrong::wrong;

pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// Nothing is loaded and nothing runs, whatever came through the escaping (CSP level 3).
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// Seconds between two looks of a browser.
const REFRESH: u32 = 5;
/// Longest foreign text in bytes of HTML, where one of many stands: an id, an image, a setting, a bad line.
const SHORT: usize = 120;
/// Longest reason in bytes of HTML.
const LONG: usize = 400;
/// Containers shown of one node.
const MAX_IDS: usize = 5;

const STYLE: &str = include_str!("style.css");
const COLUMNS: [&str; 11] = [
    "Address",
    "State",
    "For",
    "Latency",
    "Pending",
    "Promises",
    "Speed",
    "Through in",
    "Containers",
    "Resources",
    "Reason",
];

/// The page as it is at `now`; one that is paused does not refresh itself, so that a filter can be typed in peace.
pub(crate) fn to_html(
    board: &Board,
    registry: &Registry,
    resources: Option<&Resources>,
    metrics: &Metrics,
    filter: &Filter,
    is_paused: bool,
    now: Instant,
) -> String {
    let report = StatusReport::new(board, registry, resources, metrics, filter, now);
    let mut page = String::with_capacity(16 * 1024);
    head(&mut page, &report, is_paused);
    wrong(&mut page, &report);
    filters(&mut page, &report, filter, is_paused);
    table(&mut page, &report);
    pages(&mut page, &report, filter, is_paused);
    foot(&mut page, &report);
    page.push_str("</body></html>\n");
    page
}

fn head(page: &mut String, report: &StatusReport, is_paused: bool) {
    let refresh = match is_paused {
        true => String::new(),
        false => format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">"),
    };
    let (available, all) = (grouped(report.totals.available), grouped(report.totals.nodes));
    let nodes = if report.totals.nodes == 1 {
        "node serves"
    } else {
        "nodes serve"
    };
    let class = if report.totals.available == 0 { "bad" } else { "" };
    put!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{refresh}\
         <title>{available} of {all} {nodes} - Infernet Router</title><link rel=\"icon\" href=\"data:,\">\
         <style>{STYLE}</style></head><body><h1 class=\"{class}\">{available} of {all} {nodes}</h1>\
         <p class=\"dim\">Infernet Router {}, up {}; as of {}</p>",
        report.version,
        age(report.now, report.started),
        shown_time(report.now),
    );
}

fn filters(page: &mut String, report: &StatusReport, filter: &Filter, is_paused: bool) {
    page.push_str("<nav>");
    let mut link = |name: &str, query: &str, count: usize, is_chosen: bool| {
        let count = grouped(count);
        match is_chosen {
            true => {
                put!(page, "<b>{name} {count}</b>");
            }
            false => {
                put!(page, "<a href=\"?{query}\">{name} {count}</a>");
            }
        }
    };
    link("all", "", report.totals.nodes, filter.state.is_none());
    for state in NodeState::ALL {
        let name = state.name();
        let count = report.totals.states.get(name).copied().unwrap_or_default();
        link(name, &format!("state={name}"), count, filter.state == Some(state));
    }
    let (word, other) = match is_paused {
        true => ("refresh every 5 s", false),
        false => ("pause", true),
    };
    put!(
        page,
        "<a href=\"?{}\">{word}</a></nav><form><select name=\"state\" aria-label=\"state\"><option value=\"\">any state",
        query(filter, filter.offset, other)
    );
    for state in NodeState::ALL {
        let (name, chosen) = (state.name(), if filter.state == Some(state) { " selected" } else { "" });
        put!(page, "<option{chosen}>{name}");
    }
    let part = attribute(filter.part.as_deref().unwrap_or_default());
    let container = attribute(filter.container.as_deref().unwrap_or_default());
    put!(
        page,
        "</select><input name=\"q\" placeholder=\"part of the address\" aria-label=\"part of the address\" value=\"{part}\">\
         <input name=\"container\" placeholder=\"container\" aria-label=\"container\" value=\"{container}\">\
         <button>Show</button></form>"
    );
}

fn table(page: &mut String, report: &StatusReport) {
    if report.nodes.is_empty() {
        page.push_str("<p class=\"dim\">No node to show.</p>");
        return;
    }
    page.push_str("<table><thead><tr>");
    for column in COLUMNS {
        put!(page, "<th>{column}");
    }
    page.push_str("</thead><tbody>");
    for row in &report.nodes {
        page.push_str("<tr>");
        for (column, cell) in COLUMNS.iter().zip(cells(row, report.now)) {
            put!(page, "<td data-l=\"{column}\">{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>");
}

/// One row, as HTML.
fn cells(row: &Row, now: u64) -> [String; COLUMNS.len()] {
    let class = match row.state {
        NodeState::Up => "good",
        NodeState::New => "dim",
        NodeState::Down => "bad",
        NodeState::Suspect | NodeState::Limited | NodeState::Doubted => "warn",
    };
    [
        shown(&row.address, LONG),
        format!("<span class=\"{class}\">{}</span>", row.state.name()),
        lasting(now, row.since),
        row.latency.map_or(String::new(), |millis| format!("{millis:.1} ms")),
        row.pending.as_ref().map_or(String::new(), pending),
        row.promises.to_string(),
        row.speed.map_or(String::new(), speed),
        row.finish.map_or(String::new(), through_in),
        containers(row),
        row.resources
            .as_deref()
            .map_or(String::new(), |resources| shown(resources, LONG)),
        row.reason
            .as_deref()
            .map_or(String::new(), |reason| shown(reason, LONG)),
    ]
}

fn pending(by_type: &PendingByType) -> String {
    let jobs = by_type.iter().filter(|(_, jobs)| *jobs > 0);
    let jobs: Vec<String> = jobs
        .map(|(name, jobs)| format!("{jobs} {}", shown(name, SHORT)))
        .collect();
    match jobs.is_empty() {
        true => "0".to_owned(),
        false => jobs.join(", "),
    }
}

fn through_in(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        _ => span(seconds as u64),
    }
}

fn speed(speed: ShownSpeed) -> String {
    let how = if speed.learned { "" } else { " (assumed)" };
    format!("{:.1}/min{how}", speed.jobs_per_minute)
}

fn containers(row: &Row) -> String {
    let ids = row.containers.iter().take(MAX_IDS);
    let ids: Vec<String> = ids.map(|id| shown(id.as_str(), SHORT)).collect();
    let more = row.containers.len().saturating_sub(MAX_IDS) + row.containers_left_out;
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    ids.join(", ") + &more
}

/// Which of the nodes are shown, and the way to the others.
fn pages(page: &mut String, report: &StatusReport, filter: &Filter, is_paused: bool) {
    let (first, last) = (filter.offset + 1, filter.offset + report.nodes.len());
    page.push_str("<nav>");
    if filter.offset > 0 {
        let before = query(filter, filter.offset.saturating_sub(filter.n.max(1)), is_paused);
        put!(page, "<a href=\"?{before}\">before</a>");
    }
    if !report.nodes.is_empty() {
        put!(
            page,
            "<span class=\"dim\">{} to {} of {}</span>",
            grouped(first),
            grouped(last),
            grouped(report.matched)
        );
    }
    if last < report.matched && filter.n > 0 {
        let next = query(filter, last, is_paused);
        put!(page, "<a href=\"?{next}\">next</a>");
    }
    page.push_str("</nav>");
}

fn foot(page: &mut String, report: &StatusReport) {
    let file = &report.ips_file;
    let last = |what: &str, at: Option<u64>| match at {
        Some(at) => format!("{what} {}", when(report.now, at)),
        None => format!("never {what}"),
    };
    put!(
        page,
        "<h2>Where the nodes come from</h2><dl><dt>{}<dd>{} nodes, {}",
        shown(&file.path, SHORT),
        grouped(file.nodes),
        last("read", file.read_at)
    );
    if let Some(explorer) = &report.explorer {
        let (url, nodes) = (shown(&explorer.url, SHORT), grouped(explorer.nodes));
        put!(
            page,
            "<dt>Explorer {url}<dd>{nodes} nodes, {}",
            last("answered", explorer.last_success)
        );
    }
    page.push_str("</dl><h2>Settings that differ from their defaults</h2><dl>");
    for (name, value) in &report.settings {
        put!(page, "<dt>{name}<dd>{}", shown(value, SHORT));
    }
    page.push_str("</dl>");
}

/// The query that keeps the filter and shows another page of it.
fn query(filter: &Filter, offset: usize, is_paused: bool) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut query = format!("n={}&amp;offset={offset}", filter.n);
    if let Some(state) = filter.state {
        put!(query, "&amp;state={}", state.name());
    }
    if let Some(part) = &filter.part {
        put!(query, "&amp;q={}", encoded(part));
    }
    if let Some(container) = &filter.container {
        put!(query, "&amp;container={}", encoded(container));
    }
    if is_paused {
        query.push_str("&amp;refresh=off");
    }
    query
}
