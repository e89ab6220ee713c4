//! `ips.txt`: what makes its content a list, and what is logged of it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::merge::missing;
use super::{Lists, Outputs, Update};
use crate::config::Config;
use crate::metrics::Success;
use crate::node::{self, NodeList};
use crate::util::threads::{Alarm, Joined};
use crate::util::watched_file::{self, Outcome, WatchedFile};

/// The longest ips.txt: 100,000 lines of 320 bytes. A million short lines fit, so that the router can count the excess.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Invalid lines of one list that are logged one by one.
const MAX_LOGGED_LINES: usize = 20;

/// Watches the file until `stop` closes. A message on `reload` has it read immediately.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn watch(
    config: &Config,
    lists: &Lists,
    outputs: Outputs,
    [reload, stop]: [Receiver<()>; 2],
    alarm: &Alarm,
) -> io::Result<Joined> {
    let file = WatchedFile::new(&config.ips_file, MAX_FILE_BYTES, parse, &lists.file);
    let has_explorer = lists.explorer.is_some();
    let (path, mut is_first) = (lists.file.name().to_owned(), true);
    let report = move |outcome: Outcome<NodeList>| {
        let success = if outcome.is_ok() { Success::Ok } else { Success::Failed };
        outputs.metrics.file_reads[success].add(1);
        outputs.metrics.ips_file_ok.set(outcome.is_ok().into());
        let is_first = std::mem::take(&mut is_first);
        let list = match outcome {
            Ok((list, before)) => {
                log_list(&path, &list, before.as_deref());
                if is_first && list.nodes.is_empty() && !has_explorer {
                    log::warn!(file = path; "no nodes: the list is empty and API_URL is not set");
                }
                list
            }
            Err(reason) if is_first => {
                log::warn!(file = path, reason, explorer = has_explorer; "list missing: no node is listed until it is read");
                // The poller waits for a first list.
                Arc::default()
            }
            Err(reason) => {
                log::warn!(file = path, reason; "list rejected: last loaded list stays in effect");
                return;
            }
        };
        // An error means that the router is shutting down.
        let _ = outputs.updates.send(Update::Listed(list));
    };
    watched_file::watch(file, report, reload, stop, alarm)
}

/// Reads the list once and logs nothing.
///
/// # Errors
/// Why there is no list.
pub(crate) fn read(path: &Path) -> Result<NodeList, String> {
    watched_file::read_once(path, MAX_FILE_BYTES, parse)
}

/// After a list with nodes, a list without any is accepted only if it is empty on purpose: a file with only comments
/// and blank lines. A shell empties a file at `>`, long before the tool has written a list, an error page, or nothing.
fn parse(bytes: &[u8], last: Option<&NodeList>) -> Result<NodeList, String> {
    let list = node::parse_list(bytes).map_err(|error| error.to_string())?;
    if !list.nodes.is_empty() || last.is_none_or(|last| last.nodes.is_empty()) {
        return Ok(list);
    }
    match list.bad.first() {
        _ if bytes.is_empty() => {
            let remedy = "a list that is empty on purpose has a comment";
            Err(format!("empty, as a failed tool leaves it; {remedy}"))
        }
        Some(bad) => Err(format!("no line is a valid address; {bad}")),
        None => Ok(list),
    }
}

fn log_list(file: &str, list: &NodeList, before: Option<&NodeList>) {
    log_lines(file, list);
    let (nodes, skipped) = (list.nodes.len(), list.bad_count + list.left_out);
    let what = if before.is_some() { "file changed" } else { "first read" };
    log::info!(file, nodes, skipped; "list loaded: {what}");
    let before = before.map_or(&[][..], |before| &before.nodes);
    let removed = missing(
        before.iter().map(|node| &node.addr),
        list.nodes.iter().map(|node| &node.addr),
    );
    if removed > 0 && removed * 2 >= before.len() {
        log::warn!(file, before = before.len(), nodes, removed; "list shrunk: half of the nodes or more were removed");
    }
}

fn log_lines(file: &str, list: &NodeList) {
    for bad in list.bad.iter().take(MAX_LOGGED_LINES) {
        let (line, text) = (bad.number, &bad.text);
        log::warn!(file, line, text, reason:% = bad.reason; "line skipped: not a node");
    }
    let more = list.bad_count.saturating_sub(MAX_LOGGED_LINES);
    if more > 0 {
        log::warn!(file, lines = more; "lines skipped: more invalid lines");
    }
    if let Some((first, lines)) = list.duplicates {
        log::warn!(file, lines, first_line = first; "list duplicates: the first line of each node applies");
    }
    if list.left_out > 0 {
        log::warn!(file, nodes = list.nodes.len(), skipped = list.left_out; "list truncated: too many nodes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_list_after_nonempty_must_look_intended() {
        let nodes = |text: &str, last: &str| {
            let last = node::parse_list(last.as_bytes()).expect("a list");
            parse(text.as_bytes(), Some(&last)).map(|list| list.nodes.len())
        };
        for (text, last, accepted) in [
            ("a\n", "b\n", Ok(1)),
            ("<html>\na", "b\n", Ok(1)),
            ("# none\n", "b\n", Ok(0)),
            ("\n", "b\n", Ok(0)),
            ("", "b\n", Err("empty, as a failed tool leaves it")),
            (
                "<html>\n<b>",
                "b\n",
                Err("no line is a valid address; line 1: \"<html>\": "),
            ),
            ("", "# none\n", Ok(0)),
            ("<html>", "# none\n", Ok(0)),
        ] {
            match (nodes(text, last), accepted) {
                (Err(found), Err(problem)) => assert!(found.starts_with(problem), "{found}"),
                (found, accepted) => assert_eq!(found, accepted.map_err(str::to_owned), "{text:?}"),
            }
        }
        assert_eq!(parse(b"", None).map(|list| list.nodes.len()), Ok(0), "the first list");
    }
}
