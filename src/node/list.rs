//! The list of pre-specified nodes: the bytes of `ips.txt` in, nodes and invalid lines out.
//! The callers read the file and log invalid lines.

use super::addr::NodeAddr;
use super::json::{BYTE_ORDER_MARK, ParseError};
use super::origin::AddrError;
use crate::util::text;
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: impl AsRef<[u8]>) -> NodeList {
        parse_list(text.as_ref()).expect("a list")
    }

    fn listed(text: &str) -> Vec<String> {
        let list = parse(text);
        assert_eq!(list.bad, []);
        list.nodes.iter().map(|node| node.addr.to_string()).collect()
    }

    #[test]
    fn marks_spaces_blank_lines_and_comments_are_accepted() {
        let text = "\u{feff} 1.2.3.4:4000\t\r\n\r\n# all of ours\n   # more\nb:1 # note\nc#note\r\n\
                    https://d#\n#";
        assert_eq!(listed(text), ["1.2.3.4:4000", "b:1", "c", "https://d"]);
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        for text in ["", "\u{feff}", "\n\n", "# none", " \r\n"] {
            assert_eq!(parse(text), NodeList::default());
        }
    }

    #[test]
    fn same_node_is_one_under_its_first_spelling() {
        let text = "Node:80\nother\nhttp://node\nnode # again\nhttps://node\nOTHER";
        assert_eq!(listed(text), ["Node:80", "other", "https://node"]);
    }

    #[test]
    fn invalid_lines_are_reported_and_skipped() {
        let list = parse("a\r\n\r\n foo/../bar # x \r\nb\n\"\u{1b}[2J");
        assert_eq!(list.nodes.len(), 2);
        assert_eq!(list.bad_count, 2);
        let told: Vec<_> = list.bad.iter().map(BadLine::to_string).collect();
        assert!(told[0].starts_with("line 3: \"foo/../bar\": expected a path without"));
        assert!(told[1].starts_with("line 5: \"\\\"\\u{1b}[2J\": expected a host name"));
    }

    #[test]
    fn invalid_line_is_truncated_at_100_characters() {
        for (chars, kept) in [(100, 100), (101, 100)] {
            let list = parse("ä".repeat(chars));
            assert_eq!(list.bad[0].text.chars().count(), kept);
        }
    }

    #[test]
    fn hundred_invalid_lines_are_kept_and_all_counted() {
        for (lines, kept) in [(100, 100), (101, 100)] {
            let list = parse("?\n".repeat(lines));
            assert_eq!((list.bad.len(), list.bad_count), (kept, lines));
        }
    }

    #[test]
    fn line_that_is_not_utf8_is_invalid() {
        let list = parse(b"a\ncaf\xe9 # x\nb\n");
        assert_eq!((list.nodes.len(), list.bad_count), (2, 1));
        assert_eq!(list.bad[0].to_string(), "line 2: \"caf\u{fffd}\": expected UTF-8");
    }

    #[test]
    fn binary_file_is_not_a_list() {
        // As Windows writes "Unicode"; an image; more than half of the lines.
        for bytes in [
            &b"\xff\xfea\x00:\x008\x000\x00"[..],
            b"\x89PNG\r\n\x1a\n\x00\x00",
            b"\xff\n?\n\xfe\n",
        ] {
            assert!(parse_list(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(parse(b"\xff\na\n\xfe\n").nodes.len(), 1, "an address makes it a list");
        assert_eq!(parse(b"\xff\n?\n").bad_count, 2, "half of them");
    }

    #[test]
    fn nodes_above_100_000_are_counted() {
        let text: String = (0..100_002).map(|n| format!("n{n}\n")).collect();
        let list = parse(text + "n0\nn100001\n?\n");
        assert_eq!((list.nodes.len(), list.left_out, list.bad_count), (100_000, 3, 1));
    }

    #[test]
    fn password_is_masked() {
        for (line, told) in [
            ("http://me:secret@a:80", "http://***@a:80"),
            ("me:se:c@ret@a", "***@a"),
            ("https://:secret@a # b", "https://***@a"),
            ("me:se#cret@a#b", "***@a"),
            ("a:0 # me@b", "a:0"),
            ("a:0#b", "a:0"),
            ("me@a:80", "me@a:80"),
            ("@", "@"),
            ("http://@:", "http://@:"),
        ] {
            assert_eq!(parse(line).bad[0].text, told);
        }
    }

    fn attributes(line: &str) -> Attributes {
        let list = parse(line);
        assert_eq!(list.bad, [], "{line}");
        list.nodes[0].attributes.clone()
    }

    #[test]
    fn words_after_the_address_are_attributes() {
        let public = |text| Some(NodeAddr::parse(text).expect("an address"));
        let (drain, backup) = (true, true);
        for (line, is_draining, is_backup, shown) in [
            ("a", false, false, None),
            ("a drain", drain, false, None),
            ("a\tbackup#drain", false, backup, None),
            ("a as=b:1", false, false, public("b:1")),
            (
                " a  as=https://b/c/  drain backup # n\r",
                drain,
                backup,
                public("https://b/c"),
            ),
        ] {
            let found = attributes(line);
            assert_eq!(
                (found.is_draining, found.is_backup, found.public),
                (is_draining, is_backup, shown),
                "{line}"
            );
        }
    }

    #[test]
    fn invalid_word_makes_the_line_invalid() {
        for (line, reason) in [
            ("a drian", "unknown word \"drian\"; did you mean drain?"),
            ("a DRAIN", "unknown word \"DRAIN\"; did you mean drain?"),
            ("a bakup", "unknown word \"bakup\"; did you mean backup?"),
            (
                "a b",
                "unknown word \"b\"; expected drain, backup, as=ADDRESS or a # comment",
            ),
            (
                "a weight=3",
                "unknown word \"weight\"; expected drain, backup, as=ADDRESS or a # comment",
            ),
            ("a drain backup drain", "expected drain at most once"),
            ("a backup backup", "expected backup at most once"),
            ("a as=b as=b", "expected as= at most once"),
            ("a as=", "as=: expected a host"),
            ("a as=me:pw@b", "as=: expected an address without a user name"),
            (
                "a/b/info drain",
                "expected an address without /info, which the router appends; did you mean a/b?",
            ),
        ] {
            let list = parse(line);
            assert_eq!((list.nodes.len(), list.bad_count), (0, 1), "{line}");
            assert_eq!(list.bad[0].reason.to_string(), reason);
        }
    }

    #[test]
    fn comment_after_an_address_is_its_name() {
        let long = "ä".repeat(41);
        for (line, name) in [
            ("a", None),
            ("a #", None),
            ("a#  # ", Some("#")),
            ("a drain # rack 3 ", Some("rack 3")),
            ("a # \u{1b}[31m\u{202e}", Some("\\u{1b}[31m\\u{202e}")),
            (&format!("a # {long}"), Some(&long[..80])),
        ] {
            assert_eq!(attributes(line).name.as_deref(), name, "{line}");
        }
        let escapes = attributes(&format!("a #{}", "\u{202e}".repeat(9)));
        assert_eq!(escapes.name.map(|name| name.len()), Some(40), "no escape is cut");
    }

    #[test]
    fn duplicates_are_counted_and_the_first_line_applies() {
        let list = parse("a drain\nb\nA:80 backup\nhttp://b # again\n");
        assert_eq!(list.duplicates, Some((3, 2)));
        assert_eq!(list.nodes.len(), 2);
        assert!(list.nodes[0].attributes.is_draining && !list.nodes[0].attributes.is_backup);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_list(&bytes);
        }

        #[test]
        fn parsed_list_parses_to_the_same(text in "([aA]:?[0-9]{0,2} ?#?\r?\n){0,20}") {
            let list = parse(&text);
            let again: String = list.nodes.iter().map(|node| format!("{}\n", node.addr)).collect();
            let again = parse(&again);
            prop_assert_eq!(again.nodes.iter().map(|node| &node.addr).collect::<Vec<_>>(), list.nodes.iter().map(|node| &node.addr).collect::<Vec<_>>());
        }
    }
}
