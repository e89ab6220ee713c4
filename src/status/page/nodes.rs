//! The table of nodes with its filters.

use super::text::{attribute, grouped, link_target, plural, shown, span, time};
use super::{LONG, SHORT, View};
use crate::registry::NodeState;
use crate::status::CERTIFICATE_DAYS;
use crate::status::report::{NodeRow, SpeedReport};

/// Containers of a node in its row and in its details.
const MAX_IDS: usize = 5;
const MAX_IDS_IN_DETAILS: usize = 50;

/// Returns the filters and the table.
pub(super) fn section(view: &View<'_>) -> String {
    let filters = match view.is_paused {
        true => form(view),
        false => active_filters(view),
    };
    format!(
        "<h2 id=\"nodes\">Nodes</h2>{}{filters}{}{}",
        states(view),
        table(view),
        pages(view)
    )
}

fn states(view: &View<'_>) -> String {
    let totals = &view.report.totals;
    let tab = |name: &str, state: Option<NodeState>, count: usize| {
        let mut link = view.link();
        link.filter.state = state;
        link.filter.offset = 0;
        let chosen = if view.filter.state == state {
            " aria-current=\"true\""
        } else {
            ""
        };
        format!("<a href=\"{link}\"{chosen}>{name} {}</a>", grouped(count))
    };
    let states = totals.states.iter();
    let tabs: String = states
        .filter(|(state, count)| **count > 0 || view.filter.state == Some(**state))
        .map(|(state, count)| tab(state.name(), Some(*state), *count))
        .collect();
    format!(
        "<nav aria-label=\"State\">{}{tabs}</nav>",
        tab("all", None, totals.nodes)
    )
}

/// The filters in effect, each with a link that removes it.
fn active_filters(view: &View<'_>) -> String {
    let filter = view.filter;
    let mut active = String::new();
    let mut item = |what: &str, value: &Option<String>, remove: fn(&mut crate::status::Filter)| {
        if let Some(value) = value {
            let mut link = view.link();
            remove(&mut link.filter);
            link.filter.offset = 0;
            active += &format!(
                "<li>{what} <q>{}</q> <a href=\"{link}\">remove</a>",
                shown(value, SHORT)
            );
        }
    };
    item("address contains", &filter.part, |filter| filter.part = None);
    item("runs", &filter.container, |filter| filter.container = None);
    match active.is_empty() {
        true => active,
        false => format!("<ul class=\"facts\" aria-label=\"Filters\">{active}</ul>"),
    }
}

fn form(view: &View<'_>) -> String {
    let filter = view.filter;
    let options: String = NodeState::ALL
        .iter()
        .map(|state| {
            let chosen = if filter.state == Some(*state) { " selected" } else { "" };
            format!("<option{chosen}>{}", state.name())
        })
        .collect();
    let value = |value: &Option<String>| attribute(value.as_deref().unwrap_or_default());
    format!(
        "<form><input type=\"hidden\" name=\"refresh\" value=\"off\"><input type=\"hidden\" name=\"n\" value=\"{}\">\
         <label>State <select name=\"state\"><option value=\"\">any{options}</select></label>\
         <label>Address contains <input name=\"q\" value=\"{}\"></label>\
         <label>Container <input name=\"container\" value=\"{}\"></label><button>Filter</button></form>",
        filter.n,
        value(&filter.part),
        value(&filter.container),
    )
}

fn table(view: &View<'_>) -> String {
    if view.report.nodes.is_empty() {
        return "<p>No node to show.</p>".to_owned();
    }
    let rows: String = view.report.nodes.iter().map(row).collect();
    format!(
        "<table><caption>{}</caption><thead><tr><th scope=\"col\">Node<th scope=\"col\">State\
         <th scope=\"col\">Reason or containers<th scope=\"col\" class=\"n\">Jobs<th scope=\"col\" class=\"n\">Latency\
         <th scope=\"col\" class=\"n\">Probed<th scope=\"col\">More</thead><tbody>{rows}</tbody></table>",
        range(view)
    )
}

fn range(view: &View<'_>) -> String {
    let (first, last) = (view.filter.offset + 1, view.filter.offset + view.report.nodes.len());
    let matched = plural(view.report.matched, "node");
    format!(
        "{} to {} of {matched}, nodes with a problem first",
        grouped(first),
        grouped(last)
    )
}

fn row(row: &NodeRow) -> String {
    let (link, address) = (attribute(&link_target(&row.address)), shown(&row.address, LONG));
    let name = row
        .name
        .as_deref()
        .map_or(String::new(), |name| format!(" <small>{}</small>", shown(name, SHORT)));
    let jobs = row.pending.as_ref().map_or(String::new(), |pending| {
        let jobs = pending.values().fold(0u64, |sum, jobs| sum.saturating_add(*jobs));
        grouped(jobs as usize)
    });
    let latency = row.latency.map_or(String::new(), |millis| format!("{millis:.1} ms"));
    let probed = row
        .probed
        .as_ref()
        .map_or(String::new(), |at| format!("{} ago", time(at)));
    format!(
        "<tr><th scope=\"row\"><a href=\"{link}\" rel=\"noreferrer\">{address}</a>{name}<td>{}<td class=\"why\">{}\
         <td class=\"n j\">{jobs}<td class=\"n\">{latency}<td class=\"n p\">{probed}\
         <td><details><summary>more</summary><dl>{}</dl></details>\n",
        badges(row),
        reason_and_containers(row),
        details(row),
    )
}

fn badges(row: &NodeRow) -> String {
    let class = match row.state {
        NodeState::Up => "good",
        NodeState::New => "dim",
        NodeState::Down => "bad",
        NodeState::Suspect | NodeState::Limited | NodeState::Doubted => "warn",
    };
    let draining = if row.draining {
        "<b class=\"warn\">draining</b> "
    } else {
        ""
    };
    let backup = if row.backup { "<b class=\"dim\">backup</b> " } else { "" };
    let (state, since) = (row.state.name(), time(&row.since));
    format!("<b class=\"{class}\">{state}</b> {draining}{backup}<small>{since}</small>")
}

fn reason_and_containers(row: &NodeRow) -> String {
    let reason = row.reason.as_deref().map(|reason| shown(reason, LONG));
    let mut reason = reason.map_or(String::new(), |reason| format!("<div>{reason}</div>"));
    if let Some(days) = row.certificate_days.filter(|days| *days < CERTIFICATE_DAYS) {
        reason += &format!("<div>certificate expires in {days} days</div>");
    }
    match ids(row, MAX_IDS) {
        ids if ids.is_empty() => reason,
        ids => format!("{reason}<div class=\"c\">{ids}</div>"),
    }
}

fn ids(row: &NodeRow, max: usize) -> String {
    let ids = row.containers.iter().take(max).map(|id| shown(id, SHORT));
    let ids = ids.collect::<Vec<_>>().join(", ");
    match row.containers.len().saturating_sub(max) + row.containers_left_out {
        0 => ids,
        more => format!("{ids} and {} more", grouped(more)),
    }
}

fn details(row: &NodeRow) -> String {
    let pending = row.pending.iter().flatten();
    let pending: Vec<String> = pending
        .map(|(name, jobs)| format!("{} {}", grouped(*jobs as usize), shown(name, SHORT)))
        .collect();
    let facts = [
        ("List", Some(row.source.name().to_owned())),
        ("State since", Some(row.since.text.clone())),
        (
            "Clients get",
            row.public_address.as_deref().map(|address| shown(address, LONG)),
        ),
        ("Pending jobs", (!pending.is_empty()).then(|| pending.join(", "))),
        ("Promises", Some(grouped(row.promises as usize))),
        ("Speed", row.speed.map(speed)),
        ("Jobs finished in", row.finish.map(|seconds| span(seconds as u64))),
        (
            "Certificate until",
            row.certificate_expires.as_ref().map(|at| at.text.clone()),
        ),
        (
            "Resources",
            row.resources.as_deref().map(|resources| shown(resources, LONG)),
        ),
        (
            "Containers",
            (row.containers.len() > MAX_IDS).then(|| ids(row, MAX_IDS_IN_DETAILS)),
        ),
    ];
    let facts = facts.into_iter().filter_map(|(name, value)| Some((name, value?)));
    facts.map(|(name, value)| format!("<dt>{name}<dd>{value}")).collect()
}

fn speed(speed: SpeedReport) -> String {
    let origin = if speed.learned { "learned" } else { "assumed" };
    format!("{:.1} jobs/min ({origin})", speed.jobs_per_minute)
}

/// Links to the previous and the next page.
fn pages(view: &View<'_>) -> String {
    let filter = view.filter;
    let page = |name: &str, offset: usize| {
        let mut link = view.link();
        link.filter.offset = offset;
        format!("<a href=\"{link}#nodes\">{name}</a>")
    };
    let mut pages = String::new();
    if filter.offset > 0 {
        pages += &page("previous", filter.offset.saturating_sub(filter.n.max(1)));
    }
    let next = filter.offset + view.report.nodes.len();
    if next < view.report.matched && filter.n > 0 {
        pages += &page("next", next);
    }
    match pages.is_empty() {
        true => pages,
        false => format!("<nav aria-label=\"Pages\">{pages}</nav>"),
    }
}
