//! The list of problems at the top of the page.

use super::text::{grouped, plural, shown, time};
use super::{LONG, SHORT, View};
use crate::status::CERTIFICATE_DAYS;
use crate::status::conflict::Conflict;
use crate::status::report::{ExplorerReport, IpsFileReport, Moment, StatusReport};

/// Groups of nodes, invalid lines and conflicts that are listed one by one.
const MAX_LISTED: usize = 5;

/// Returns the section with these items.
pub(super) fn section(items: &str) -> String {
    match items.is_empty() {
        true => "<p class=\"fine\">Nothing is wrong.</p>".to_owned(),
        false => format!("<section class=\"box\"><h2>Problems</h2><ul>{items}</ul></section>"),
    }
}

/// Returns a list item for each problem, empty without problems.
pub(super) fn items(view: &View<'_>) -> String {
    let report = view.report;
    let mut items = router(report);
    items += &nodes(view);
    items += &ips_file(&report.ips_file);
    items += &report.explorer.as_ref().map_or(String::new(), explorer);
    items += &conflicts(&report.conflicting_containers, report.totals.conflicting_containers);
    items
}

fn router(report: &StatusReport) -> String {
    let mut items = String::new();
    if report.totals.nodes == 0 {
        items += "<li>No node is listed: clients get empty responses";
    } else if report.totals.available == 0 {
        items += "<li>No node is available: clients get empty responses";
    }
    if let Some(since) = &report.doubt.since {
        items += &format!(
            "<li>Mass failure suspected for {}: nodes that fail stay available, ranked below all that respond",
            time(since)
        );
    }
    if let Some(problem) = &report.name_server {
        items += &format!("<li>{}; the last known addresses stay in use", shown(problem, LONG));
    }
    if report.totals.expiring_certificates > 0 {
        let nodes = plural(report.totals.expiring_certificates, "node");
        items += &format!("<li>{nodes} with a certificate that expires within {CERTIFICATE_DAYS} days");
    }
    if report.omitted_containers.nodes > 0 {
        let nodes = plural(report.omitted_containers.nodes, "node");
        let ids = report.omitted_containers.ids.iter().take(MAX_LISTED);
        let ids: Vec<String> = ids.map(|id| shown(id, SHORT)).collect();
        let ids = ids.join(", ");
        items += &format!("<li>Container ids of {nodes} omitted because a quota was reached, such as {ids}");
    }
    if report.pool_too_small {
        items += "<li>The probe pool cannot probe all nodes within one interval: raise MAX_PROBES or REFRESH_INTERVAL";
    }
    items
}

/// Nodes with a problem, grouped by reason.
fn nodes(view: &View<'_>) -> String {
    let problems = &view.report.problems;
    let listed = problems.iter().take(MAX_LISTED);
    let mut items: String = listed
        .map(|problem| {
            let mut link = view.link();
            link.filter.state = Some(problem.state);
            link.filter.offset = 0;
            let (state, nodes) = (problem.state.name(), plural(problem.nodes, "node"));
            let (reason, since) = (shown(&problem.reason, LONG), time(&problem.since));
            let longest = if problem.nodes == 1 { "" } else { "up to " };
            format!("<li><a href=\"{link}\">{nodes} {state}</a>: {reason} <small>(for {longest}{since})</small>")
        })
        .collect();
    let states = view.report.totals.states.iter();
    let failing = states.filter(|(state, _)| state.is_problem()).map(|(_, count)| count);
    let listed = problems.iter().take(MAX_LISTED).map(|problem| problem.nodes);
    let more = failing.sum::<usize>().saturating_sub(listed.sum());
    if more > 0 {
        items += &format!("<li>{} for other reasons", plural(more, "node"));
    }
    items
}

fn ips_file(file: &IpsFileReport) -> String {
    let path = shown(&file.path, SHORT);
    let mut items = String::new();
    if let Some(problem) = &file.problem {
        items += &format!("<li>{path}: {}; {}", shown(problem, LONG), kept(file.read_at.as_ref()));
    }
    if file.skipped_count > 0 {
        let lines = file.skipped.iter().map(|line| {
            let (text, reason) = (shown(&line.text, SHORT), shown(&line.reason, SHORT));
            format!("<li>line {}: <q>{text}</q>: {reason}", line.number)
        });
        let (count, lines) = (
            plural(file.skipped_count, "invalid line"),
            some(lines, file.skipped_count),
        );
        items += &format!("<li>{path}: {count} skipped{lines}");
    }
    items
}

fn explorer(explorer: &ExplorerReport) -> String {
    let url = shown(&explorer.url, SHORT);
    let mut items = String::new();
    if let Some(problem) = &explorer.problem {
        let kept = kept(explorer.last_success.as_ref());
        items += &format!("<li>Explorer {url}: {}; {kept}", shown(problem, LONG));
    }
    if explorer.skipped > 0 {
        let count = grouped(explorer.skipped);
        items += &format!("<li>Explorer {url}: entries skipped, without a valid or permitted address: {count}");
    }
    items
}

fn kept(at: Option<&Moment>) -> String {
    match at {
        Some(at) => format!("the list of {} ago stays in effect", time(at)),
        None => "no list is in effect".to_owned(),
    }
}

fn conflicts(conflicts: &[Conflict], count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let lines = conflicts.iter().map(|conflict| {
        let images = conflict.images.iter();
        let images = images.map(|image| format!("{} ({})", shown(&image.image, SHORT), plural(image.nodes, "node")));
        format!(
            "<li>{}: {}",
            shown(&conflict.id, SHORT),
            images.collect::<Vec<_>>().join(", ")
        )
    });
    let ids = if count == 1 {
        "container id runs"
    } else {
        "container ids run"
    };
    let (count, lines) = (grouped(count), some(lines, count));
    format!("<li>{count} {ids} with different images: a job may reach any of them{lines}")
}

/// The first of `count` items as a list.
fn some(items: impl Iterator<Item = String>, count: usize) -> String {
    let items: String = items.take(MAX_LISTED).collect();
    match count.saturating_sub(MAX_LISTED) {
        0 => format!("<ul>{items}</ul>"),
        more => format!("<ul>{items}<li>and {} more</ul>", grouped(more)),
    }
}
