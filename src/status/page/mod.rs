//! Renders the status report as one HTML page, without script and without requests elsewhere.
//!
//! All text from outside passes through [`text::shown`], which escapes and truncates it, so that the markup around the
//! rows stays below 20 KiB.

mod nodes;
mod problems;
mod text;

use super::Filter;
use super::report::{Moment, StatusReport};
use text::{Link, grouped, plural, shown, span, time};

pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// The browser loads nothing and runs nothing, even if escaping should fail (CSP level 3).
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// Seconds between two refreshes by a browser.
const REFRESH: u32 = 5;
/// Maximum length of untrusted text in a list, in bytes of HTML: an id, an image, a setting, an invalid line.
const SHORT: usize = 120;
/// Maximum length of a reason in bytes of HTML.
const LONG: usize = 400;
/// Maximum length of the list of containers in bytes of HTML.
const MAX_CONTAINERS_BYTES: usize = 3 * 1024;
const STYLE: &str = include_str!("style.css");

/// What the page shows.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    report: &'a StatusReport,
    filter: &'a Filter,
    /// A paused page does not refresh itself and has the filter form.
    is_paused: bool,
}

impl View<'_> {
    /// A link to this view.
    fn link(&self) -> Link {
        Link {
            filter: self.filter.clone(),
            is_paused: self.is_paused,
        }
    }
}

/// Returns the page.
pub(crate) fn to_html(report: &StatusReport, filter: &Filter, is_paused: bool) -> String {
    let view = View {
        report,
        filter,
        is_paused,
    };
    let problems = problems::items(&view);
    let headline = headline(report);
    let refresh = match is_paused {
        true => String::new(),
        false => format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">"),
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{refresh}\
         <title>{headline} - Infernet Router</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\
         <body><main><header class=\"{}\"><h1>{headline}</h1><p>{}</p></header>{}{}{}{}{}</main></body></html>\n",
        level(report, &problems),
        about(&view),
        problems::section(&problems),
        totals(&view),
        containers(&view),
        nodes::section(&view),
        sources(report),
    )
}

fn headline(report: &StatusReport) -> String {
    let (available, all) = (report.totals.available, report.totals.nodes);
    let nodes = if all == 1 { "node serves" } else { "nodes serve" };
    format!("{} of {} {nodes}", grouped(available), grouped(all))
}

/// The CSS class of the headline.
fn level(report: &StatusReport, problems: &str) -> &'static str {
    match report.totals.available {
        0 => "bad",
        _ if problems.is_empty() => "good",
        _ => "warn",
    }
}

fn about(view: &View<'_>) -> String {
    let report = view.report;
    let mut link = view.link();
    link.is_paused = !view.is_paused;
    let action = if view.is_paused {
        "Resume refresh"
    } else {
        "Pause and filter"
    };
    format!(
        "Infernet Router {} · up {} · {} · <a href=\"{link}\">{action}</a>",
        report.version,
        span(report.started.age.as_secs()),
        report.time.text,
    )
}

fn totals(view: &View<'_>) -> String {
    let totals = &view.report.totals;
    let fact = |count: u64, name: &str| format!("<li><b>{}</b> {name}", grouped(count as usize));
    format!(
        "<ul class=\"facts\" aria-label=\"Totals\">{}{}{}</ul>",
        fact(totals.pending_jobs, "jobs pending"),
        fact(totals.requests, "requests since the start"),
        fact(totals.errors, "errors since the start"),
    )
}

/// The containers with the number of their nodes, as links to these nodes.
fn containers(view: &View<'_>) -> String {
    let totals = &view.report.totals;
    let (mut items, mut listed) = (String::new(), 0);
    for container in &totals.containers {
        let mut link = view.link();
        link.filter.container = Some(container.id.clone());
        link.filter.offset = 0;
        let (id, nodes) = (shown(&container.id, SHORT), grouped(container.nodes));
        let item = format!("<li><a href=\"{link}\">{id}</a> {nodes}");
        if items.len() + item.len() > MAX_CONTAINERS_BYTES {
            break;
        }
        items += &item;
        listed += 1;
    }
    if listed < totals.container_ids {
        items += &format!("<li>and {} more", grouped(totals.container_ids - listed));
    }
    match items.is_empty() {
        true => items,
        false => format!("<h2>Containers and the number of their nodes</h2><ul class=\"facts\">{items}</ul>"),
    }
}

/// The lists of nodes and the changed settings.
fn sources(report: &StatusReport) -> String {
    let last = |what: &str, at: &Option<Moment>| match at {
        Some(at) => format!("{what} {} ago", time(at)),
        None => format!("never {what}"),
    };
    let file = &report.ips_file;
    let (path, nodes) = (shown(&file.path, SHORT), plural(file.nodes, "node"));
    let mut lists = format!("<dt>{path}<dd>{nodes}, {}", last("read", &file.read_at));
    if let Some(explorer) = &report.explorer {
        let (url, nodes) = (shown(&explorer.url, SHORT), plural(explorer.nodes, "node"));
        let answered = last("updated", &explorer.last_success);
        lists += &format!("<dt>Explorer {url}<dd>{nodes}, {answered}");
    }
    let settings = report.settings.iter();
    let settings = settings.map(|(name, value)| format!("<dt>{}<dd>{}", shown(name, SHORT), shown(value, SHORT)));
    let settings: String = settings.collect();
    format!("<h2>Lists</h2><dl>{lists}</dl><h2>Settings that differ from their defaults</h2><dl>{settings}</dl>")
}

#[cfg(test)]
mod tests;
