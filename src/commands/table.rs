//! The table that `check` and `status` print: lists and notes, a row for each node, and a summary. It fits 80 columns.

use std::fmt::{Display, Write};

use serde::Serialize;

use crate::node::Source;
use crate::util::text;

/// Width of a terminal.
const MAX_WIDTH: usize = 80;
/// Longest address in a row: IPv4 with a port. The cells of a longer one follow on the next line.
const MAX_ADDRESS_CHARS: usize = 21;
/// The rest of the width, without an ellipsis.
const MAX_CONTAINERS_CHARS: usize = 15;
/// Indents reasons.
const INDENT: &str = "    ";
/// Longest reason or address: three lines.
const MAX_TEXT_CHARS: usize = 220;
const HEADINGS: [&str; 6] = ["ADDRESS", "SOURCE", "STATE", "LATENCY", "PENDING", "CONTAINERS"];

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

/// The notes, the rows and a summary of `available` of `nodes` nodes.
pub(super) fn to_text(notes: &[String], rows: &[Row], available: usize, nodes: usize) -> String {
    let mut text = String::new();
    notes.iter().for_each(|note| push_wrapped(&mut text, "", note));
    text.push('\n');
    push_cells(&mut text, HEADINGS);
    for row in rows {
        push_row(&mut text, row);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{available} of {nodes} nodes available");
    text
}

fn push_row(text: &mut String, row: &Row) {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut address = text::shorten(&row.address, MAX_TEXT_CHARS);
    if address.chars().count() > MAX_ADDRESS_CHARS {
        let _ = writeln!(text, "{address}");
        address.clear();
    }
    let latency = or_dash(row.latency_ms.map(|millis| format!("{millis:.1} ms")));
    let pending = or_dash(row.pending.map(|pending| pending.to_string()));
    let containers = or_dash(row.containers.as_ref().map(|ids| ids.join(",")));
    let containers = text::shorten(&containers, MAX_CONTAINERS_CHARS);
    push_cells(
        text,
        [&address, row.source.name(), row.state, &latency, &pending, &containers],
    );
    if let Some(reason) = &row.reason {
        push_wrapped(text, INDENT, &text::shorten(reason, MAX_TEXT_CHARS));
    }
}

fn push_cells(text: &mut String, [address, source, state, latency, pending, containers]: [&str; 6]) {
    let line = format!("{address:<21}  {source:<8}  {state:<9}  {latency:<9}  {pending:<7}  {containers}");
    let _ = writeln!(text, "{}", line.trim_end());
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
