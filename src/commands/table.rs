//! The table that `check` and `status` print: the lists, warnings, then a row for each node.

use std::fmt::Write;

use crate::status::Conflict;

/// Longest column of container ids; `--json` has all of them.
const MAX_CONTAINERS_CHARS: usize = 40;
const HEAD: [&str; 7] = [
    "ADDRESS",
    "SOURCE",
    "STATE",
    "LATENCY",
    "PENDING",
    "CONTAINERS",
    "REASON",
];

/// What there is to print.
#[derive(Debug, Default)]
pub(super) struct Table {
    notes: String,
    rows: Vec<[String; HEAD.len()]>,
}

/// One node, or a line that is none.
#[derive(Debug)]
pub(super) struct Cells<'a> {
    pub(super) address: &'a str,
    pub(super) source: &'a str,
    pub(super) state: &'a str,
    pub(super) latency_ms: Option<f64>,
    pub(super) pending: Option<u64>,
    pub(super) containers: Option<&'a [String]>,
    pub(super) reason: Option<&'a str>,
}

impl Table {
    /// A list of nodes by its path or address, and what is wrong with it.
    pub(super) fn list(&mut self, name: &str, nodes: usize, trouble: Option<&str>) {
        let trouble = trouble.map_or(String::new(), |trouble| format!("; {trouble}"));
        self.note(&format!("{name}: {nodes} nodes{trouble}"));
    }

    /// A line above the nodes.
    pub(super) fn note(&mut self, note: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.notes, "{note}");
    }

    /// A container id that available nodes run with different images, each with how many do.
    pub(super) fn conflict(&mut self, conflict: &Conflict) {
        self.note(&conflict.to_string());
    }

    pub(super) fn row(&mut self, cells: Cells<'_>) {
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        self.rows.push([
            cells.address.to_owned(),
            cells.source.to_owned(),
            cells.state.to_owned(),
            shown(cells.latency_ms.map(|millis| format!("{millis:.1} ms"))),
            shown(cells.pending.map(|pending| pending.to_string())),
            shown(cells.containers.map(brief)),
            cells.reason.unwrap_or_default().to_owned(),
        ]);
    }

    /// The text, with columns as wide as they need to be.
    pub(super) fn into_text(self) -> String {
        let mut text = self.notes + "\n";
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.rows);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Ids are foreign text: escaped, and no longer than a column should be.
fn brief(ids: &[String]) -> String {
    let all = ids.join(",");
    let mut brief: String = all
        .chars()
        .take(MAX_CONTAINERS_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if all.chars().nth(MAX_CONTAINERS_CHARS).is_some() {
        brief.push('…');
    }
    brief
}
