//! Renders the status report as one HTML page, without script and without requests elsewhere.
//!
//! All text from outside passes through [`text::shown`], which escapes and truncates it, so that the markup around the
//! rows stays below 20 KiB.

mod nodes;
mod problems;
mod text;

use super::Filter;
use super::numbers::{grouped, plural, span};
use super::report::{Moment, StatusReport};
use text::{around, shown, time, when};

pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// The browser loads nothing and runs nothing, even if escaping should fail (CSP level 3).
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// A browser refreshes the page every 5 s.
const REFRESH: &str = "<meta http-equiv=\"refresh\" content=\"5\">";
/// Maximum length of untrusted text in a list, in bytes of HTML: an id, an image, a setting, an invalid line.
const SHORT: usize = 120;
/// Maximum length of a reason in bytes of HTML.
const LONG: usize = 400;
/// Maximum length of the list of containers in bytes of HTML.
const MAX_CONTAINERS_BYTES: usize = 3 * 1024;
const STYLE: &str = include_str!("style.css");

/// Returns the page.
pub(crate) fn to_html(report: &StatusReport, filter: &Filter) -> String {
    let problems = problems::items(report, filter);
    let (available, all) = (report.totals.available, report.totals.nodes);
    let nodes = if all == 1 { "node serves" } else { "nodes serve" };
    let headline = format!("{} of {} {nodes}", grouped(available as u64), grouped(all as u64));
    let level = match (available, &*problems) {
        (0, _) => "bad",
        (_, "") => "good",
        _ => "warn",
    };
    let problems = match &*problems {
        "" => "<p class=\"fine\">Nothing is wrong.</p>".to_owned(),
        items => format!("<section class=\"box\"><h2>Problems</h2><ul>{items}</ul></section>"),
    };
    let refresh = when(!filter.is_paused, REFRESH);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{refresh}\
         <title>{headline} - Infernet Router</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\
         <body><main><header class=\"{level}\"><h1>{headline}</h1><p>{}</p></header>{problems}{}{}{}{}</main></body></html>\n",
        about(report, filter),
        totals(report),
        containers(report, filter),
        nodes::section(report, filter),
        sources(report),
    )
}

fn about(report: &StatusReport, filter: &Filter) -> String {
    let action = match filter.is_paused {
        true => "Resume refresh",
        false => "Pause and filter",
    };
    let action = filter.anchor(action, |to| {
        (to.offset, to.is_paused) = (filter.offset, !filter.is_paused)
    });
    let (version, up) = (&report.version, span(report.started.age.as_secs()));
    format!("Infernet Router {version} · up {up} · {} · {action}", report.time.text)
}

fn totals(report: &StatusReport) -> String {
    let totals = &report.totals;
    let [pending, requests, errors] = [totals.pending_jobs, totals.requests, totals.errors].map(grouped);
    format!(
        "<ul class=\"facts\" aria-label=\"Totals\"><li><b>{pending}</b> jobs pending\
         <li><b>{requests}</b> requests since the start<li><b>{errors}</b> errors since the start</ul>"
    )
}

/// The containers with the number of their nodes, as links to these nodes.
fn containers(report: &StatusReport, filter: &Filter) -> String {
    let mut items = String::new();
    let mut unlisted = report.totals.container_ids;
    for container in &report.totals.containers {
        let id = shown(&container.id, SHORT);
        let id = filter.anchor(&id, |to| to.container = Some(container.id.clone()));
        let item = format!("<li>{id} {}", grouped(container.nodes as u64));
        if items.len() + item.len() > MAX_CONTAINERS_BYTES {
            break;
        }
        items += &item;
        unlisted -= 1;
    }
    if unlisted > 0 {
        items += &format!("<li>and {} more", grouped(unlisted as u64));
    }
    let begin = "<h2>Containers and the number of their nodes</h2><ul class=\"facts\">";
    around(begin, &items, "</ul>")
}

/// The lists of nodes and the changed settings.
fn sources(report: &StatusReport) -> String {
    let list = |name: &str, nodes: usize, at: &Option<Moment>| {
        let age = at.as_ref();
        let age = age.map_or("never read".to_owned(), |at| format!("read {} ago", time(at)));
        format!("<dt>{}<dd>{}, {age}", shown(name, SHORT), plural(nodes, "node"))
    };
    let file = &report.ips_file;
    let mut lists = list(&file.path, file.nodes, &file.read_at);
    if let Some(explorer) = &report.explorer {
        let name = format!("Explorer {}", explorer.url);
        lists += &list(&name, explorer.nodes, &explorer.last_success);
    }
    let setting = |(name, value): (&String, &String)| format!("<dt>{name}<dd>{}", shown(value, SHORT));
    let settings: String = report.settings.iter().map(setting).collect();
    format!("<h2>Lists</h2><dl>{lists}</dl><h2>Settings that differ from their defaults</h2><dl>{settings}</dl>")
}

#[cfg(test)]
mod tests;
