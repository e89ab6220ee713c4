//! The list of problems at the top of the page.

use super::text::{around, shown, time, when};
use super::{LONG, SHORT};
use crate::status::Filter;
use crate::status::numbers::{grouped, plural};
use crate::status::report::{ExplorerReport, IpsFileReport, Moment, StatusReport};

/// Groups of nodes, invalid lines and conflicts that are listed one by one.
const MAX_LISTED: usize = 5;

/// Returns a list item for each problem, empty without problems.
pub(super) fn items(report: &StatusReport, filter: &Filter) -> String {
    let mut items: Vec<String> = report.notes().iter().map(|note| shown(note, LONG)).collect();
    items.extend(nodes(report, filter));
    items.extend(ips_file(&report.ips_file));
    items.extend(report.explorer.iter().flat_map(explorer));
    items.extend(conflicts(report));
    items.into_iter().map(|item| format!("<li>{item}")).collect()
}

/// Nodes with a problem, grouped by reason.
fn nodes(report: &StatusReport, filter: &Filter) -> Vec<String> {
    let states = report.totals.states.iter().filter(|(state, _)| state.is_problem());
    let mut unlisted: usize = states.map(|(_, count)| count).sum();
    let mut items = Vec::new();
    for problem in report.problems.iter().take(MAX_LISTED) {
        let nodes = format!("{} {}", plural(problem.nodes, "node"), problem.state.name());
        let nodes = filter.anchor(&nodes, |to| to.state = Some(problem.state));
        let (reason, since) = (shown(&problem.reason, LONG), time(&problem.since));
        let longest = when(problem.nodes > 1, "up to ");
        items.push(format!("{nodes}: {reason} <small>(for {longest}{since})</small>"));
        unlisted = unlisted.saturating_sub(problem.nodes);
    }
    items.extend((unlisted > 0).then(|| format!("{} for other reasons", plural(unlisted, "node"))));
    items
}

fn ips_file(file: &IpsFileReport) -> impl Iterator<Item = String> {
    let (path, count) = (shown(&file.path, SHORT), file.skipped_count);
    let lines = file.skipped.iter().map(|line| {
        let (text, reason) = (shown(&line.text, SHORT), shown(&line.reason.to_string(), SHORT));
        format!("line {}: <q>{text}</q>: {reason}", line.number)
    });
    let skipped = format!(
        "{path}: {} skipped{}",
        plural(count, "invalid line"),
        some(lines, count)
    );
    let failure = failure(&path, file.problem.as_deref(), file.read_at.as_ref());
    failure.into_iter().chain((count > 0).then_some(skipped))
}

fn explorer(explorer: &ExplorerReport) -> impl Iterator<Item = String> {
    let (name, count) = (format!("Explorer {}", shown(&explorer.url, SHORT)), explorer.skipped);
    let entries = grouped(count as u64);
    let skipped = format!("{name}: entries skipped, without a valid or permitted address: {entries}");
    let failure = failure(&name, explorer.problem.as_deref(), explorer.last_success.as_ref());
    failure.into_iter().chain((count > 0).then_some(skipped))
}

/// The problem of a list, and which list stays in effect.
fn failure(name: &str, problem: Option<&str>, accepted: Option<&Moment>) -> Option<String> {
    let kept = match accepted {
        Some(at) => format!("the list of {} ago stays in effect", time(at)),
        None => "no list is in effect".to_owned(),
    };
    Some(format!("{name}: {}; {kept}", shown(problem?, LONG)))
}

fn conflicts(report: &StatusReport) -> Option<String> {
    let count = report.totals.conflicting_containers;
    let lines = report.conflicting_containers.iter();
    let lines = lines.map(|conflict| {
        let (id, images) = (shown(&conflict.id, SHORT), conflict.images_text());
        format!("{id}: {}", shown(&images, LONG))
    });
    let (ids, runs) = (plural(count, "container id"), if count == 1 { "runs" } else { "run" });
    let what = format!("{ids} {runs} with different images: a job may reach any of them");
    (count > 0).then(|| what + &some(lines, count))
}

/// The first of `count` items as a list.
fn some(items: impl Iterator<Item = String>, count: usize) -> String {
    let items: String = items.take(MAX_LISTED).map(|item| format!("<li>{item}")).collect();
    let more = match count.saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!("<li>and {} more", grouped(more as u64)),
    };
    around("<ul>", &(items + &more), "</ul>")
}
