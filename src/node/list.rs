//! The list of pre-specified nodes: the bytes of `ips.txt` in, nodes and invalid lines out.
//! The callers read the file and log invalid lines.

use super::addr::NodeAddr;
use super::error::AddrError;
use super::json::{BYTE_ORDER_MARK, ParseError};
use crate::util::text;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Maximum number of nodes of a list: as many as the router supports.
const MAX_NODES: usize = 100_000;
/// Invalid lines that are kept for reports. A list with more of them is another kind of file.
const MAX_BAD_LINES: usize = 100;
/// Characters of an invalid line that are kept: enough to find the line, next to its number.
const MAX_LINE_CHARS: usize = 100;
/// The longest name of a node: it fits a column of a table.
const MAX_NAME_CHARS: usize = 40;

/// The content of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    /// Each node once, in the order and under the spelling of its first line; at most 100,000.
    pub nodes: Vec<ListedNode>,
    /// Lines with nodes that are omitted, because 100,000 precede them.
    pub left_out: usize,
    /// The first 100 invalid lines.
    pub bad: Vec<BadLine>,
    /// The number of all invalid lines, also outside `bad`.
    pub bad_count: usize,
    /// Lines that repeat a node: the number of the first one, and how many there are.
    pub duplicates: Option<(usize, usize)>,
}

/// A node as its line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedNode {
    /// The address that the router probes.
    pub addr: NodeAddr,
    /// The words and the comment after the address.
    pub attributes: Attributes,
}

/// What the operator decides about a node. Explorer nodes have the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `drain`: the node is probed and shown, but never returned to clients.
    pub is_draining: bool,
    /// `backup`: the node ranks below all nodes that are not backups.
    pub is_backup: bool,
    /// `as=ADDRESS`: the address that clients get instead of the probed one.
    pub public: Option<NodeAddr>,
    /// The comment after the address: 1 to 40 characters, escaped. Only for operators.
    pub name: Option<Arc<str>>,
}

/// An invalid line, which is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BadLine {
    /// The number of the line, from 1.
    pub number: usize,
    /// At most 100 characters of the line, without its comment and without a password. Not escaped.
    pub text: String,
    /// Why the line is invalid.
    pub reason: ParseError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.number, self.text, self.reason)
    }
}

/// Parses the content of a list: one node per line. Spaces around it, CRLF, a byte order mark, blank lines and `#`
/// comments are accepted. Invalid lines, also without UTF-8, are skipped and reported.
///
/// # Errors
/// The file is binary: it has a NUL byte (UTF-16 is full of them), or no address and more than half of its lines are
/// not UTF-8.
pub fn parse_list(bytes: &[u8]) -> Result<NodeList, ParseError> {
    let binary = || ParseError("expected text in UTF-8, not a binary file or UTF-16".to_owned());
    if bytes.contains(&0) {
        return Err(binary());
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let (mut list, mut seen) = (NodeList::default(), HashSet::new());
    let (mut texts, mut others) = (0, 0);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match std::str::from_utf8(line) {
            Ok(line) => {
                texts += usize::from(!line.trim().is_empty());
                list.add(number, line, &mut seen);
            }
            Err(_) => {
                others += 1;
                let reason = ParseError("expected UTF-8".to_owned());
                list.add_bad(number, &String::from_utf8_lossy(line), reason);
            }
        }
    }
    match others > texts && list.nodes.is_empty() {
        true => Err(binary()),
        false => Ok(list),
    }
}

impl NodeList {
    fn add(&mut self, number: usize, line: &str, seen: &mut HashSet<NodeAddr>) {
        // No address contains a "#", so a comment needs no space before it.
        let (words, comment) = line.split_once('#').unwrap_or((line, ""));
        let mut words = words.split_whitespace();
        let Some(address) = words.next() else {
            return;
        };
        match parse_node(address, words, comment) {
            Ok(node) if seen.contains(&node.addr) => {
                let (first, count) = self.duplicates.unwrap_or((number, 0));
                self.duplicates = Some((first, count + 1));
            }
            Ok(_) if self.nodes.len() == MAX_NODES => self.left_out += 1,
            Ok(node) => {
                seen.insert(node.addr.clone());
                self.nodes.push(node);
            }
            Err(reason) => self.add_bad(number, line, reason),
        }
    }

    fn add_bad(&mut self, number: usize, line: &str, reason: ParseError) {
        self.bad_count += 1;
        if self.bad.len() < MAX_BAD_LINES {
            let text = without_secrets(line).chars().take(MAX_LINE_CHARS).collect();
            self.bad.push(BadLine { number, text, reason });
        }
    }
}

fn parse_node<'a>(
    address: &str,
    words: impl Iterator<Item = &'a str>,
    comment: &str,
) -> Result<ListedNode, ParseError> {
    let addr = NodeAddr::parse(address).map_err(|error| {
        let short = address.trim_end_matches('/').strip_suffix("/info");
        let short = short.filter(|_| error == AddrError::INFO_PATH);
        ParseError(match short {
            Some(short) => format!("{error}; did you mean {short:.MAX_LINE_CHARS$}?"),
            None => error.to_string(),
        })
    })?;
    let mut attributes = Attributes {
        name: name(comment),
        ..Attributes::default()
    };
    for word in words {
        let repeated = match word.split_once('=') {
            None if word == "drain" => std::mem::replace(&mut attributes.is_draining, true).then_some("drain"),
            None if word == "backup" => std::mem::replace(&mut attributes.is_backup, true).then_some("backup"),
            Some(("as", address)) => {
                let address = NodeAddr::parse(address).map_err(|error| ParseError(format!("as=: {error}")))?;
                attributes.public.replace(address).map(|_| "as=")
            }
            _ => return Err(unknown(word)),
        };
        if let Some(word) = repeated {
            return Err(ParseError(format!("expected {word} at most once")));
        }
    }
    Ok(ListedNode { addr, attributes })
}

/// The word is shown up to its `=`: what follows could contain a password.
fn unknown(word: &str) -> ParseError {
    let name = word.split('=').next().unwrap_or_default();
    let expected = match text::closest(&name.to_ascii_lowercase(), ["drain", "backup", "as"]) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "expected drain, backup, as=ADDRESS or a # comment".to_owned(),
    };
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    ParseError(format!("unknown word {name:?}; {expected}"))
}

/// The name of a node: its comment, escaped and truncated.
fn name(comment: &str) -> Option<Arc<str>> {
    let mut name = String::new();
    for char in comment.trim().chars() {
        let shown: String = text::escape(char).collect();
        if name.chars().count() + shown.chars().count() > MAX_NAME_CHARS {
            break;
        }
        name.push_str(&shown);
    }
    (!name.is_empty()).then(|| name.into())
}

/// The line without its comment, which is for operators only, and with `***` instead of a user name and a password. A
/// user name alone is not a secret. A password may contain a `#`.
fn without_secrets(line: &str) -> String {
    let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let line = words.collect::<Vec<_>>().join(" ");
    let user = line.rsplit_once('@').map_or("", |(user, _)| user);
    let user = user.split_once("://").map_or(user, |(_, user)| user);
    let shown = match user.contains(':') {
        true => text::redact(&line),
        false => Cow::Borrowed(&*line),
    };
    shown.split('#').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
