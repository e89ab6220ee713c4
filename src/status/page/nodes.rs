//! The table of nodes with its filters.

use super::text::{around, attribute, shown, time, when};
use super::{LONG, SHORT};
use crate::registry::NodeState;
use crate::status::numbers::{grouped, plural, span};
use crate::status::report::{NodeRow, StatusReport};
use crate::status::{CERTIFICATE_DAYS, Filter};

/// Containers of a node in its row and in its details.
const MAX_IDS: usize = 5;
const MAX_IDS_IN_DETAILS: usize = 50;

/// Returns the filters and the table.
pub(super) fn section(report: &StatusReport, filter: &Filter) -> String {
    let filters = match filter.is_paused {
        true => form(filter),
        false => active_filters(filter),
    };
    let (states, table, pages) = (states(report, filter), table(report, filter), pages(report, filter));
    format!("<h2 id=\"nodes\">Nodes</h2>{states}{filters}{table}{pages}")
}

fn states(report: &StatusReport, filter: &Filter) -> String {
    let tab = |state: Option<NodeState>, count: usize| {
        let name = state.map_or("all", NodeState::name);
        let (link, count) = (filter.link(|to| to.state = state), grouped(count as u64));
        let chosen = when(filter.state == state, " aria-current=\"true\"");
        format!("<a href=\"{link}\"{chosen}>{name} {count}</a>")
    };
    let states = report.totals.states.iter();
    let states = states.filter(|(state, count)| **count > 0 || filter.state == Some(**state));
    let tabs: String = states.map(|(state, count)| tab(Some(*state), *count)).collect();
    let all = tab(None, report.totals.nodes);
    format!("<nav aria-label=\"State\">{all}{tabs}</nav>")
}

/// The filters in effect, each with a link that removes it.
fn active_filters(filter: &Filter) -> String {
    let active = |what: &str, value: &Option<String>, remove: fn(&mut Filter)| {
        let (value, remove) = (shown(value.as_deref()?, SHORT), filter.anchor("remove", remove));
        Some(format!("<li>{what} <q>{value}</q> {remove}"))
    };
    let part = active("address contains", &filter.part, |to| to.part = None);
    let container = active("runs", &filter.container, |to| to.container = None);
    let filters: String = part.into_iter().chain(container).collect();
    around("<ul class=\"facts\" aria-label=\"Filters\">", &filters, "</ul>")
}

fn form(filter: &Filter) -> String {
    let option = |state: NodeState| {
        let chosen = when(filter.state == Some(state), " selected");
        format!("<option{chosen}>{}", state.name())
    };
    let options = NodeState::ALL.map(option).concat();
    let value = |value: &Option<String>| attribute(value.as_deref().unwrap_or_default());
    let (n, part, container) = (filter.n, value(&filter.part), value(&filter.container));
    format!(
        "<form><input type=\"hidden\" name=\"refresh\" value=\"off\"><input type=\"hidden\" name=\"n\" value=\"{n}\">\
         <label>State <select name=\"state\"><option value=\"\">any{options}</select></label>\
         <label>Address contains <input name=\"q\" value=\"{part}\"></label>\
         <label>Container <input name=\"container\" value=\"{container}\"></label><button>Filter</button></form>"
    )
}

fn table(report: &StatusReport, filter: &Filter) -> String {
    if report.nodes.is_empty() {
        return "<p>No node to show.</p>".to_owned();
    }
    let (first, last) = (filter.offset + 1, filter.offset + report.nodes.len());
    let [first, last] = [first, last].map(|number| grouped(number as u64));
    let matched = plural(report.matched, "node");
    let rows: String = report.nodes.iter().map(row).collect();
    format!(
        "<table><caption>{first} to {last} of {matched}, nodes with a problem first</caption><thead><tr>\
         <th scope=\"col\">Node<th scope=\"col\">State\
         <th scope=\"col\">Reason or containers<th scope=\"col\" class=\"n\">Jobs<th scope=\"col\" class=\"n\">Latency\
         <th scope=\"col\" class=\"n\">Probed<th scope=\"col\">More</thead><tbody>{rows}</tbody></table>"
    )
}

fn row(row: &NodeRow) -> String {
    let scheme = when(!row.address.contains("://"), "http://");
    let (link, address) = (attribute(&row.address), shown(&row.address, LONG));
    let name = row
        .name
        .iter()
        .map(|name| format!(" <small>{}</small>", shown(name, SHORT)));
    let name: String = name.collect();
    let jobs = row
        .pending
        .iter()
        .map(|jobs| jobs.values().fold(0, |sum: u64, jobs| sum.saturating_add(*jobs)));
    let jobs: String = jobs.map(grouped).collect();
    let latency: String = row.latency.iter().map(|millis| format!("{millis:.1} ms")).collect();
    let probed: String = row.probed.iter().map(|at| format!("{} ago", time(at))).collect();
    let (badges, why, details) = (badges(row), reason_and_containers(row), details(row));
    format!(
        "<tr><th scope=\"row\"><a href=\"{scheme}{link}/info\" rel=\"noreferrer\">{address}</a>{name}<td>{badges}\
         <td class=\"why\">{why}<td class=\"n j\">{jobs}<td class=\"n\">{latency}<td class=\"n p\">{probed}\
         <td><details><summary>more</summary><dl>{details}</dl></details>\n"
    )
}

fn badges(row: &NodeRow) -> String {
    let class = match row.state {
        NodeState::Up => "good",
        NodeState::New => "dim",
        NodeState::Down => "bad",
        NodeState::Suspect | NodeState::Limited | NodeState::Doubted => "warn",
    };
    let draining = when(row.draining, "<b class=\"warn\">draining</b> ");
    let backup = when(row.backup, "<b class=\"dim\">backup</b> ");
    let (state, since) = (row.state.name(), time(&row.since));
    format!("<b class=\"{class}\">{state}</b> {draining}{backup}<small>{since}</small>")
}

fn reason_and_containers(row: &NodeRow) -> String {
    let days = row.certificate_days.filter(|days| *days < CERTIFICATE_DAYS);
    let expiry = days.map(|days| match days {
        0.. => format!("certificate expires in {days} days"),
        _ => "certificate has expired".to_owned(),
    });
    let reason = row.reason.iter().map(|reason| shown(reason, LONG)).chain(expiry);
    let reason: String = reason.map(|text| format!("<div>{text}</div>")).collect();
    reason + &around("<div class=\"c\">", &ids(row, MAX_IDS), "</div>")
}

fn ids(row: &NodeRow, max: usize) -> String {
    let ids = row.containers.iter().take(max).map(|id| shown(id, SHORT));
    let ids = ids.collect::<Vec<_>>().join(", ");
    match row.containers.len().saturating_sub(max) + row.containers_left_out {
        0 => ids,
        more => format!("{ids} and {} more", grouped(more as u64)),
    }
}

fn details(row: &NodeRow) -> String {
    let public = row.public_address.as_deref().unwrap_or_default();
    let pending = row.pending.iter().flatten();
    let pending = pending.map(|(name, jobs)| format!("{} {}", grouped(*jobs), shown(name, SHORT)));
    let containers = ids(row, MAX_IDS_IN_DETAILS);
    let containers = when(row.containers.len() > MAX_IDS, &containers);
    let finish = row.finish.map(|seconds| span(seconds as u64));
    let speed = row.speed.iter().map(|speed| {
        let origin = if speed.learned { "learned" } else { "assumed" };
        format!("{:.1} jobs/min ({origin})", speed.jobs_per_minute)
    });
    let facts = [
        ("List", row.source.name().to_owned()),
        ("State since", row.since.text.clone()),
        ("Clients get", shown(public, LONG)),
        ("Pending jobs", pending.collect::<Vec<_>>().join(", ")),
        ("Promises", grouped(row.promises)),
        ("Speed", speed.collect()),
        ("Jobs finished in", finish.unwrap_or_default()),
        ("Certificate until", row.certificate_expires.clone().unwrap_or_default()),
        ("Resources", shown(row.resources.as_deref().unwrap_or_default(), LONG)),
        ("Containers", containers.to_owned()),
    ];
    let facts = facts.map(|(name, value)| around(&format!("<dt>{name}<dd>"), &value, ""));
    facts.concat()
}

/// Links to the previous and the next page.
fn pages(report: &StatusReport, filter: &Filter) -> String {
    let page = |name: &str, offset: usize| {
        let link = filter.link(|to| to.offset = offset);
        format!("<a href=\"{link}#nodes\">{name}</a>")
    };
    let previous = filter.offset.saturating_sub(filter.n.max(1));
    let next = filter.offset + report.nodes.len();
    let previous = (filter.offset > 0).then(|| page("previous", previous));
    let next = (next < report.matched && filter.n > 0).then(|| page("next", next));
    let pages: String = previous.into_iter().chain(next).collect();
    around("<nav aria-label=\"Pages\">", &pages, "</nav>")
}
