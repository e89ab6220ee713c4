//! The list of pre-specified nodes: the text of `ips.txt` in, nodes and bad lines out.
//! Reading the file, and telling about bad lines, is left to others.

use super::addr::NodeAddr;
use super::addr_error::AddrError;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;

/// Bad lines kept to be reported. A list with more of them is another kind of file.
const MAX_BAD_LINES: usize = 100;
/// Characters of a bad line that are kept: enough to find it, next to its number.
const MAX_LINE_CHARS: usize = 100;

/// What a list of nodes says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    /// Each node once, in the order and under the spelling of its first line.
    pub nodes: Vec<NodeAddr>,
    /// The first 100 lines that are no address.
    pub bad: Vec<BadLine>,
    /// How many lines are no address, those beyond `bad` too.
    pub bad_count: usize,
}

/// A line of the list that is skipped. Its `Display` is fit for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The number of the line, from 1.
    pub number: usize,
    /// The line without the spaces around it, at most 100 characters of it.
    pub text: String,
    /// Why it is no address.
    pub reason: AddrError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.number, self.text, self.reason)
    }
}

/// The list is not UTF-8, so nothing of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8 {
    /// The first line, from 1, with a byte that is not UTF-8.
    pub line: usize,
}

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected UTF-8", self.line)
    }
}

impl Error for NotUtf8 {}

/// Parses a list: one address a line. Spaces around it, CRLF, a byte order mark, blank lines and
/// `#` comments, also behind an address, are fine. Other lines are skipped and reported.
pub fn parse_list(text: &str) -> NodeList {
    let mut list = NodeList::default();
    let mut seen = HashSet::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        // No address contains a "#", so a comment needs no space in front.
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        match NodeAddr::parse(address) {
            Ok(node) if seen.insert(node.clone()) => list.nodes.push(node),
            Ok(_) => {}
            Err(reason) => list.add_bad(index + 1, line, reason),
        }
    }
    list
}

/// Parses a list as it was read from a file.
///
/// # Errors
///
/// A byte that is not UTF-8, be it in a comment.
pub fn parse_list_bytes(bytes: &[u8]) -> Result<NodeList, NotUtf8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(parse_list(text)),
        Err(error) => {
            let good = bytes.iter().take(error.valid_up_to());
            let line = 1 + good.filter(|b| **b == b'\n').count();
            Err(NotUtf8 { line })
        }
    }
}

impl NodeList {
    fn add_bad(&mut self, number: usize, line: &str, reason: AddrError) {
        self.bad_count += 1;
        if self.bad.len() < MAX_BAD_LINES {
            let text = line.trim().chars().take(MAX_LINE_CHARS).collect();
            self.bad.push(BadLine { number, text, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(text: &str) -> Vec<String> {
        let list = parse_list(text);
        assert_eq!(list.bad, []);
        list.nodes.iter().map(NodeAddr::to_string).collect()
    }

    #[test]
    fn marks_spaces_blank_lines_and_comments_are_fine() {
        let text = "\u{feff} 1.2.3.4:4000\t\r\n\r\n# all of ours\n   # more\nb:1 # note\nc#note\r\n\
                    https://d#\n#";
        assert_eq!(listed(text), ["1.2.3.4:4000", "b:1", "c", "https://d"]);
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        for text in ["", "\u{feff}", "\n\n", "# nobody", " \r\n"] {
            assert_eq!(parse_list(text), NodeList::default());
        }
    }

    #[test]
    fn the_same_node_is_one_under_its_first_spelling() {
        let text = "Node:80\nother\nhttp://node\nnode # again\nhttps://node\nOTHER";
        assert_eq!(listed(text), ["Node:80", "other", "https://node"]);
    }

    #[test]
    fn other_lines_are_reported_and_skipped() {
        let list = parse_list("a\r\n\r\n foo/bar # x \r\nb\n\"\u{1b}[2J");
        assert_eq!(list.nodes.len(), 2);
        assert_eq!(list.bad_count, 2);
        let told: Vec<_> = list.bad.iter().map(BadLine::to_string).collect();
        assert_eq!(told[0], "line 3: \"foo/bar # x\": expected an address without a path");
        assert!(told[1].starts_with("line 5: \"\\\"\\u{1b}[2J\": expected a host name"));
    }

    #[test]
    fn a_bad_line_is_cut_at_100_characters() {
        for (chars, kept) in [(100, 100), (101, 100)] {
            let list = parse_list(&"ä".repeat(chars));
            assert_eq!(list.bad[0].text.chars().count(), kept);
        }
    }

    #[test]
    fn a_hundred_bad_lines_are_kept_and_all_are_counted() {
        for (lines, kept) in [(100, 100), (101, 100)] {
            let list = parse_list(&"?\n".repeat(lines));
            assert_eq!((list.bad.len(), list.bad_count), (kept, lines));
        }
    }

    #[test]
    fn a_list_that_is_not_utf8_names_its_line() {
        assert_eq!(parse_list_bytes(b"a\n# caf\xe9\n"), Err(NotUtf8 { line: 2 }));
        // As Windows writes "Unicode".
        assert_eq!(parse_list_bytes(b"\xff\xfea\0"), Err(NotUtf8 { line: 1 }));
        assert_eq!(
            parse_list_bytes(b"a").map(|list| list.nodes.len()),
            Ok(1),
            "UTF-8 is fine"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_list_bytes(&bytes);
        }

        #[test]
        fn what_was_listed_lists_the_same(text in "([aA]:?[0-9]{0,2} ?#?\r?\n){0,20}") {
            let list = parse_list(&text);
            let again: String = list.nodes.iter().map(|node| format!("{node}\n")).collect();
            prop_assert_eq!(parse_list(&again).nodes, list.nodes);
        }
    }
}
