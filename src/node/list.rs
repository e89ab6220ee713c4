//! The list of pre-specified nodes: the bytes of `ips.txt` in, nodes and bad lines out.
//! Reading the file, and telling about bad lines, is left to others.

use super::addr::NodeAddr;
use super::origin::AddrError;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;

/// Most nodes of a list: as many as the router is made for.
const MAX_NODES: usize = 100_000;
/// Bad lines kept to be reported. A list with more of them is another kind of file.
const MAX_BAD_LINES: usize = 100;
/// Characters of a bad line that are kept: enough to find it, next to its number.
const MAX_LINE_CHARS: usize = 100;

/// What a list of nodes says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    /// Each node once, in the order and under the spelling of its first line; at most 100,000.
    pub nodes: Vec<NodeAddr>,
    /// Lines with nodes that are left out, since there are 100,000 before them.
    pub left_out: usize,
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
    /// The line without the spaces around it and without a password, at most 100 characters of it.
    pub text: String,
    /// Why it is no address.
    pub reason: LineError,
}

/// Why a line is not an address. `Display` gives the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// The line is not UTF-8.
    NotUtf8,
    /// The line is not an address.
    Address(AddrError),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::NotUtf8 => f.write_str("expected UTF-8"),
            LineError::Address(error) => error.fmt(f),
        }
    }
}

impl Error for LineError {}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?}: {}", self.number, self.text, self.reason)
    }
}

/// The file is another kind of file than a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoList;

impl fmt::Display for NoList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected text in UTF-8, not a binary file or UTF-16")
    }
}

impl Error for NoList {}

/// Parses a list as it was read from a file: one address a line. Spaces around it, CRLF, a byte order mark, blank lines
/// and `#` comments, also behind an address, are fine. Other lines are skipped and reported, those that are not UTF-8
/// too.
///
/// # Errors
/// When it is binary as a whole: a NUL byte (which UTF-16 is full of), or no address and more than half of its lines not
/// UTF-8.
pub fn parse_list(bytes: &[u8]) -> Result<NodeList, NoList> {
    if bytes.contains(&0) {
        return Err(NoList);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut list, mut seen) = (NodeList::default(), HashSet::new());
    let (mut texts, mut others) = (0, 0);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => {
                texts += usize::from(!line.trim().is_empty());
                list.add(index + 1, line, &mut seen);
            }
            Err(_) => {
                others += 1;
                list.add_bad(index + 1, &String::from_utf8_lossy(line), LineError::NotUtf8);
            }
        }
    }
    match others > texts && list.nodes.is_empty() {
        true => Err(NoList),
        false => Ok(list),
    }
}

impl NodeList {
    fn add(&mut self, number: usize, line: &str, seen: &mut HashSet<NodeAddr>) {
        // No address contains a "#", so a comment needs no space in front.
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            return;
        }
        match NodeAddr::parse(address) {
            Ok(node) if seen.contains(&node) => {}
            Ok(_) if self.nodes.len() == MAX_NODES => self.left_out += 1,
            Ok(node) => {
                seen.insert(node.clone());
                self.nodes.push(node);
            }
            Err(error) => self.add_bad(number, line, LineError::Address(error)),
        }
    }

    fn add_bad(&mut self, number: usize, line: &str, reason: LineError) {
        self.bad_count += 1;
        if self.bad.len() < MAX_BAD_LINES {
            let text = without_password(line.trim()).chars().take(MAX_LINE_CHARS).collect();
            self.bad.push(BadLine { number, text, reason });
        }
    }
}

/// A line with `***` for what stands between the colon of a user name and the last `@`.
fn without_password(line: &str) -> String {
    let begin = line.find("://").map_or(0, |at| at + 3);
    let end = line.rfind('@').filter(|end| *end > begin);
    let colon = end.and_then(|end| line[begin..end].find(':'));
    match (colon, end) {
        (Some(colon), Some(end)) => format!("{}:***{}", &line[..begin + colon], &line[end..]),
        _ => line.to_owned(),
    }
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
            assert_eq!(parse(text), NodeList::default());
        }
    }

    #[test]
    fn the_same_node_is_one_under_its_first_spelling() {
        let text = "Node:80\nother\nhttp://node\nnode # again\nhttps://node\nOTHER";
        assert_eq!(listed(text), ["Node:80", "other", "https://node"]);
    }

    #[test]
    fn other_lines_are_reported_and_skipped() {
        let list = parse("a\r\n\r\n foo/../bar # x \r\nb\n\"\u{1b}[2J");
        assert_eq!(list.nodes.len(), 2);
        assert_eq!(list.bad_count, 2);
        let told: Vec<_> = list.bad.iter().map(BadLine::to_string).collect();
        assert!(told[0].starts_with("line 3: \"foo/../bar # x\": expected a path without"));
        assert!(told[1].starts_with("line 5: \"\\\"\\u{1b}[2J\": expected a host name"));
    }

    #[test]
    fn a_bad_line_is_cut_at_100_characters() {
        for (chars, kept) in [(100, 100), (101, 100)] {
            let list = parse("ä".repeat(chars));
            assert_eq!(list.bad[0].text.chars().count(), kept);
        }
    }

    #[test]
    fn a_hundred_bad_lines_are_kept_and_all_are_counted() {
        for (lines, kept) in [(100, 100), (101, 100)] {
            let list = parse("?\n".repeat(lines));
            assert_eq!((list.bad.len(), list.bad_count), (kept, lines));
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_a_bad_line() {
        let list = parse(b"a\n# caf\xe9\nb\n");
        assert_eq!((list.nodes.len(), list.bad_count), (2, 1));
        assert_eq!(list.bad[0].to_string(), "line 2: \"# caf\u{fffd}\": expected UTF-8");
    }

    #[test]
    fn a_binary_file_is_no_list() {
        // As Windows writes "Unicode"; an image; more than half of the lines.
        for bytes in [
            &b"\xff\xfea\x00:\x008\x000\x00"[..],
            b"\x89PNG\r\n\x1a\n\x00\x00",
            b"\xff\n?\n\xfe\n",
        ] {
            assert_eq!(parse_list(bytes), Err(NoList), "{bytes:?}");
        }
        assert_eq!(parse(b"\xff\na\n\xfe\n").nodes.len(), 1, "an address makes it a list");
        assert_eq!(parse(b"\xff\n?\n").bad_count, 2, "half of them");
    }

    #[test]
    fn a_hundred_thousand_nodes_are_listed_and_the_rest_is_counted() {
        let text: String = (0..100_002).map(|n| format!("n{n}\n")).collect();
        let list = parse(text + "n0\nn100001\n?\n");
        assert_eq!((list.nodes.len(), list.left_out, list.bad_count), (100_000, 3, 1));
    }

    #[test]
    fn a_password_is_no_part_of_what_is_told() {
        for (line, told) in [
            ("http://me:secret@a:80", "http://me:***@a:80"),
            ("me:se:c@ret@a", "me:***@a"),
            ("https://:secret@a # b", "https://:***@a # b"),
            ("me@a:80", "me@a:80"),
            ("@", "@"),
            ("http://@:", "http://@:"),
        ] {
            assert_eq!(parse(line).bad[0].text, told);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_list(&bytes);
        }

        #[test]
        fn what_was_listed_lists_the_same(text in "([aA]:?[0-9]{0,2} ?#?\r?\n){0,20}") {
            let list = parse(&text);
            let again: String = list.nodes.iter().map(|node| format!("{node}\n")).collect();
            prop_assert_eq!(parse(&again).nodes, list.nodes);
        }
    }
}
