//! `.env` in the working directory: its lines as names and values, and what is wrong with which line.
//!
//! Parsed here, because the library for it replaces `$NAME` in values, which can't be turned off, and takes the lines behind an
//! apostrophe in a comment for one value.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::util::files;

/// Longest `.env` read. Real ones are a few hundred bytes; a mistaken mount may be anything.
const MAX_DOTENV_BYTES: u64 = 256 * 1024;

/// The bytes of `.env`; empty where there is none. Never waits: a FIFO is a mistake.
pub(super) fn read_dotenv() -> Result<Vec<u8>, String> {
    files::read_regular(Path::new(".env"), MAX_DOTENV_BYTES).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(format!(".env: cannot be read: {error}")),
    })
}

/// The values of `.env`, and what is wrong with it. A name given twice has its last value, as with docker, and empty
/// ones hide nothing. Messages give the line, not the text: it may be a secret.
pub(super) fn parse_dotenv(bytes: &[u8]) -> (HashMap<String, String>, Vec<String>) {
    let (mut values, mut mistakes) = (HashMap::new(), Vec::new());
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (values, vec![".env: expected UTF-8".to_owned()]);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Some((_, value)) if value.trim().is_empty() => {}
            Some((name, value)) => drop(values.insert(name.to_owned(), value)),
            None => mistakes.push(format!(
                ".env, line {}: expected NAME=value, every quote closed and nothing but a comment behind it",
                index + 1
            )),
        }
    }
    (values, mistakes)
}

/// A line as a shell would assign it, but that a `$` is a `$`, and a value without quotes goes on to the end of the line
/// or to a `#` behind a blank.
fn parse_line(line: &str) -> Option<(&str, String)> {
    let line = line
        .strip_prefix("export")
        .filter(|rest| rest.starts_with([' ', '\t']))
        .map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    if !is_name || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (value, rest) = match value.chars().next() {
        Some('\'') => {
            let (value, rest) = value[1..].split_once('\'')?;
            (value.to_owned(), rest)
        }
        Some('"') => double_quoted(&value[1..])?,
        _ => (without_comment(value).to_owned(), ""),
    };
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some((name, value))
}

/// What stands before the closing quote, `\"` and `\\` resolved, and what stands behind it.
fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

fn without_comment(value: &str) -> &str {
    let comment = value
        .match_indices('#')
        .find(|(at, _)| value[..*at].ends_with([' ', '\t']) || *at == 0);
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dotenv(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let (values, mistakes) = parse_dotenv(text.as_bytes());
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort();
        (values, mistakes)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn knows_comments_quotes_export_and_a_byte_order_mark() {
        let text = "\u{feff}PORT=1\r\n# HOST=x\r\n\nexport HOST='::1' # six\nIPS_FILE=\"a b\"\nMAX_PROBES = 7 ";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a b"), ("MAX_PROBES", "7"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
        assert_eq!(dotenv(""), (vec![], vec![]));
    }

    #[test]
    fn a_dollar_is_a_dollar() {
        let text = "A=a$HOME\nB='$HOME'\nC=\"${HOME}\\$\"\n";
        assert_eq!(
            dotenv(text),
            (pairs(&[("A", "a$HOME"), ("B", "$HOME"), ("C", "${HOME}\\$")]), vec![])
        );
    }

    #[test]
    fn blanks_are_part_of_a_value_and_quotes_within_it_are_kept() {
        let text = "A=loopback and private addresses\nB=it's\nC=a \"b\" c\nD=\"a \\\"b\\\" \\\\\"\n";
        let expected = [
            ("A", "loopback and private addresses"),
            ("B", "it's"),
            ("C", "a \"b\" c"),
            ("D", "a \"b\" \\"),
        ];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn a_hash_begins_a_comment_behind_a_blank_and_outside_quotes() {
        let text = "A=1   # the router's\nB=::1\t\t# it's\nC=   # isn't\nD=a#b\nE=\"a  # b\"\nF='#'\n";
        let expected = [("A", "1"), ("B", "::1"), ("D", "a#b"), ("E", "a  # b"), ("F", "#")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn the_last_value_that_is_not_empty_counts() {
        let text = "PORT=1\nPORT=2\nPORT=\nHOST=' '\n";
        assert_eq!(dotenv(text), (pairs(&[("PORT", "2")]), vec![]));
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_the_rest_is_read() {
        let wanted = "expected NAME=value, every quote closed and nothing but a comment behind it";
        let text = "\nKEY='1\n\nwhat\nPORT=1\nA='b' c\n=1\n1A=1\nB=\"open\nC=1\n\n";
        let (values, mistakes) = dotenv(text);
        assert_eq!(values, pairs(&[("C", "1"), ("PORT", "1")]));
        let lines = [2, 4, 6, 7, 8, 9].map(|line| format!(".env, line {line}: {wanted}"));
        assert_eq!(mistakes, lines);
        assert_eq!(parse_dotenv(b"PORT=\xff").1, [".env: expected UTF-8"]);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_quoted_value_is_read_as_it_is(text in "(\\PC|[\n\"'#=\\\\ ])*", value in "[^'\\n\\r]*[^'\\s]") {
            let _ = parse_dotenv(text.as_bytes());
            prop_assert_eq!(dotenv(&format!("A='{value}'")), (pairs(&[("A", &value)]), vec![]));
        }
    }
}
