//! The table that `check` and `status` print: lists and notes, a row for each node, and a summary. It fits 80 columns.

use std::fmt::{Display, Write};

use serde::Serialize;

use crate::node::Source;
use crate::util::text;

/// Width of a terminal.
const MAX_WIDTH: usize = 80;
/// Longest address in a row: IPv4 with a port has 21. The cells of a longer one follow on the next line.
const MAX_ADDRESS_CHARS: usize = 28;
/// Indents reasons.
const INDENT: &str = "    ";
/// Longest reason or address: three lines.
const MAX_TEXT_CHARS: usize = 220;
const HEADINGS: [&str; 5] = ["ADDRESS", "SOURCE", "STATE", "LATENCY", "PENDING"];

/// The states of a row besides the names of node states.
pub(super) const AVAILABLE: &str = "available";
/// The node is available, but `drain` in ips.txt withholds it from clients.
pub(super) const DRAINING: &str = "draining";
/// A line or an entry that is not a valid node.
pub(super) const SKIPPED: &str = "skipped";

/// The form in which a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What a command prints to stdout.
#[derive(Debug)]
pub struct Printout {
    /// Complete lines.
    pub text: String,
    /// Whether a client gets an address.
    pub any_available: bool,
}

impl Printout {
    pub(super) fn new(format: Format, report: &impl Serialize, table: String, available: usize) -> Self {
        let json = serde_json::to_string_pretty(report).map(|json| json + "\n");
        Self {
            text: match format {
                Format::Table => table,
                Format::Json => json.unwrap_or_else(|error| error.to_string()),
            },
            any_available: available > 0,
        }
    }
}

/// One node, or a line that is not a node.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) address: String,
    pub(super) source: Source,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<f64>,
    /// Weighted, as the router orders by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) containers: Option<Vec<String>>,
    /// Shown below the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Row {
    pub(super) fn new(address: String, source: Source, state: &'static str) -> Self {
        Self {
            address,
            source,
            state,
            latency_ms: None,
            pending: None,
            containers: None,
            reason: None,
        }
    }
}

/// An invalid line of ips.txt.
pub(super) fn skipped_line(text: &str, number: usize, reason: &impl Display) -> Row {
    Row {
        reason: Some(format!("line {number}: {reason}")),
        ..Row::new(text.to_owned(), Source::IpsFile, SKIPPED)
    }
}

/// The name of a node, its attributes and the reason of its state.
pub(super) fn details(
    name: Option<&str>,
    is_draining: bool,
    is_backup: bool,
    public: Option<&str>,
    reason: Option<&str>,
) -> Option<String> {
    let (draining, backup) = (is_draining.then_some("draining"), is_backup.then_some("backup"));
    let public = public.map(|address| format!("as={address}"));
    let details = [name, draining, backup, public.as_deref(), reason];
    let details: Vec<&str> = details.into_iter().flatten().collect();
    (!details.is_empty()).then(|| details.join("; "))
}

/// A list of nodes by its path or URL, and its problem.
pub(super) fn list_note(name: &str, nodes: usize, problem: Option<&str>) -> String {
    let problem = problem.map_or(String::new(), |problem| format!("; {problem}"));
    format!("{name}: {nodes} nodes{problem}")
}

/// The notes, the rows with columns as wide as needed, and a summary of `available` of `nodes` nodes.
pub(super) fn to_text(notes: &[String], rows: &[Row], available: usize, nodes: usize) -> String {
    let mut cells = vec![HEADINGS.map(str::to_owned)];
    cells.extend(rows.iter().map(columns));
    let widths = widths(&cells);
    let mut text = String::new();
    notes.iter().for_each(|note| push_wrapped(&mut text, "", note));
    text.push('\n');
    push_row(&mut text, &cells[0], "CONTAINERS", &widths);
    for (cells, row) in cells[1..].iter().zip(rows) {
        let containers = row.containers.as_ref().map_or("-".to_owned(), |ids| ids.join(","));
        push_row(&mut text, cells, &containers, &widths);
        if let Some(reason) = &row.reason {
            push_wrapped(&mut text, INDENT, &text::shorten(reason, MAX_TEXT_CHARS));
        }
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{available} of {nodes} nodes available");
    text
}

/// All columns but the containers, which get the rest of the line.
fn columns(row: &Row) -> [String; HEADINGS.len()] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        text::shorten(&row.address, MAX_TEXT_CHARS),
        row.source.name().to_owned(),
        row.state.to_owned(),
        or_dash(row.latency_ms.map(|millis| format!("{millis:.1} ms"))),
        or_dash(row.pending.map(|pending| pending.to_string())),
    ]
}

fn widths(rows: &[[String; HEADINGS.len()]]) -> Vec<usize> {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        let widths = widths.filter(|width| column > 0 || *width <= MAX_ADDRESS_CHARS);
        widths.max().unwrap_or(0)
    };
    (0..HEADINGS.len()).map(width).collect()
}

fn push_row(text: &mut String, row: &[String; HEADINGS.len()], containers: &str, widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        match cell.chars().count() > *width {
            // A long address has a separate line.
            true => line = format!("{cell}\n{:width$}  ", ""),
            false => line.extend([&format!("{cell:width$}"), "  "]),
        }
    }
    let used: usize = widths.iter().map(|width| width + 2).sum();
    // One character is left for the ellipsis.
    let room = MAX_WIDTH.saturating_sub(used + 1);
    let _ = writeln!(text, "{}", (line + &text::shorten(containers, room)).trim_end());
}

/// Breaks lines between words.
fn push_wrapped(text: &mut String, indent: &str, words: &str) {
    let mut line = indent.to_owned();
    for word in words.split(' ') {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > MAX_WIDTH {
            let _ = writeln!(text, "{line}");
            line = INDENT.to_owned();
        } else if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
