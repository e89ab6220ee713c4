//! Renders the status report as one HTML page, without script and without requests elsewhere.
//!
//! `page.html`, `nodes.html` and `problems.html` are the templates. All text from outside passes through [`text::short`]
//! or [`text::long`], which escape and truncate it, so that the markup around the rows stays below 20 KiB. The templates
//! escape all other text.

mod row;
mod text;

use askama::Template;

use super::report::StatusReport;
use super::{Filter, numbers};
use crate::registry::NodeState;
use numbers::grouped;

pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";
/// The browser loads nothing and runs nothing, even if escaping should fail (CSP level 3).
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// Maximum length of the list of containers in bytes of HTML.
const MAX_CONTAINERS_BYTES: usize = 3 * 1024;
/// Groups of nodes, invalid lines and conflicts that are listed one by one.
const MAX_LISTED: usize = 5;
/// Containers of a node in its row and in its details.
const MAX_IDS: usize = 5;
const MAX_IDS_IN_DETAILS: usize = 50;

#[derive(Template)]
#[template(path = "page.html", config = "src/status/page/askama.toml")]
struct Page<'a> {
    report: &'a StatusReport,
    filter: &'a Filter,
    /// List items, empty without problems.
    problems: &'a str,
}

/// The list of problems at the top of the page.
#[derive(Template)]
#[template(path = "problems.html", config = "src/status/page/askama.toml")]
struct Problems<'a> {
    report: &'a StatusReport,
    filter: &'a Filter,
}

/// Returns the page.
pub(crate) fn to_html(report: &StatusReport, filter: &Filter) -> String {
    let problems = Problems { report, filter }.render();
    let page = problems.and_then(|problems| {
        let problems = problems.trim();
        Page {
            report,
            filter,
            problems,
        }
        .render()
    });
    page.expect("writing to a String cannot fail")
}

impl Page<'_> {
    fn headline(&self) -> String {
        let (available, all) = (self.report.totals.available, self.report.totals.nodes);
        let nodes = if all == 1 { "node serves" } else { "nodes serve" };
        format!("{} of {} {nodes}", grouped(available), grouped(all))
    }

    /// The containers with the number of their nodes, as links to these nodes.
    fn containers(&self) -> String {
        let mut items = String::new();
        let mut unlisted = self.report.totals.container_ids;
        for container in &self.report.totals.containers {
            let link = self.filter.link("container", &container.id);
            let (id, nodes) = (text::short(&container.id), grouped(container.nodes));
            let item = format!("<li><a href=\"{link}\">{id}</a> {nodes}");
            if items.len() + item.len() > MAX_CONTAINERS_BYTES {
                break;
            }
            items += &item;
            unlisted -= 1;
        }
        if unlisted > 0 {
            items += &format!("<li>and {} more", grouped(unlisted));
        }
        items
    }

    /// Position after the last shown node.
    fn end(&self) -> usize {
        self.filter.offset + self.report.nodes.len()
    }

    fn has_next(&self) -> bool {
        self.end() < self.report.matched && self.filter.n > 0
    }
}

impl Problems<'_> {
    /// Nodes with a problem whose group is not listed.
    fn unlisted(&self) -> usize {
        let report = self.report;
        let states = report.totals.states.iter();
        let problems = states.filter(|(state, _)| state.is_problem());
        let all: usize = problems.map(|(_, count)| count).sum();
        let listed = report.problems.iter().take(MAX_LISTED);
        all.saturating_sub(listed.map(|problem| problem.nodes).sum())
    }
}

#[cfg(test)]
mod tests;
