//! Parses `.env` in the working directory into names and values, with an error for each invalid line.
//!
//! The usual library is not used: it always expands `$NAME` in values, and an apostrophe in a comment makes it join
//! lines.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::Chars;

use crate::util::files;

/// Longest `.env`. Real files have a few hundred bytes; a wrong mount may have any size.
const MAX_DOTENV_BYTES: u64 = 256 * 1024;

/// Reads `.env`. A missing file is empty. Never blocks: a FIFO is an error.
pub(super) fn read_dotenv() -> Result<Vec<u8>, String> {
    files::read_regular(Path::new(".env"), MAX_DOTENV_BYTES).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(format!(".env: cannot be read: {error}")),
    })
}

/// Returns the values and the errors. Of several values the last one that is not empty counts, as with docker. Error
/// messages contain the line number and not the text, which may be a secret.
pub(super) fn parse_dotenv(bytes: &[u8]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut values, mut errors) = (BTreeMap::new(), Vec::new());
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
            None => errors.push(format!(
                ".env, line {}: expected NAME=value, with closed quotes and only a comment after the value",
                index + 1
            )),
        }
    }
    (values, errors)
}

/// Parses a line like a shell assignment, except that `$` is literal. A value without quotes extends to the end of the
/// line or to a `#` after a blank.
fn parse_line(line: &str) -> Option<(&str, String)> {
    let (name, value) = line.split_once('=')?;
    let exported = name.strip_prefix("export").filter(|name| name.starts_with([' ', '\t']));
    let (name, value) = (exported.unwrap_or(name).trim(), value.trim_start());
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_name_byte) {
        return None;
    }
    let mut chars = value.chars();
    let value = match chars.next() {
        Some(quote @ ('\'' | '"')) => unquote(&mut chars, quote)?,
        _ => return Some((name, without_comment(value).to_owned())),
    };
    let rest = chars.as_str().trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some((name, value))
}

/// Takes the text before the closing quote, and the quote. Double quotes have the escapes `\"` and `\\`.
fn unquote(chars: &mut Chars<'_>, quote: char) -> Option<String> {
    let mut value = String::new();
    loop {
        match chars.next()? {
            char if char == quote => return Some(value),
            '\\' if quote == '"' && chars.as_str().starts_with(['"', '\\']) => value.extend(chars.next()),
            char => value.push(char),
        }
    }
}

fn without_comment(value: &str) -> &str {
    let starts_comment = |at: usize| at == 0 || value[..at].ends_with([' ', '\t']);
    let comment = value.match_indices('#').find(|(at, _)| starts_comment(*at));
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dotenv(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let (values, errors) = parse_dotenv(text.as_bytes());
        (values.into_iter().collect(), errors)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn comments_quotes_export_and_bom_are_parsed() {
        let text = "\u{feff}PORT=1\r\n# HOST=x\r\n\nexport\tHOST='::1' # six\nIPS_FILE=\"a b\"\nMAX_PROBES = 7 ";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a b"), ("MAX_PROBES", "7"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
        assert_eq!(dotenv(""), (vec![], vec![]));
    }

    #[test]
    fn dollar_is_literal() {
        let text = "A=a$HOME\nB='$HOME'\nC=\"${HOME}\\$\"\n";
        assert_eq!(
            dotenv(text),
            (pairs(&[("A", "a$HOME"), ("B", "$HOME"), ("C", "${HOME}\\$")]), vec![])
        );
    }

    #[test]
    fn blanks_and_inner_quotes_are_kept() {
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
    fn hash_after_blank_starts_comment() {
        let text = "A=1   # the router's\nB=::1\t\t# it's\nC=   # isn't\nD=a#b\nE=\"a  # b\"\nF='#'\n";
        let expected = [("A", "1"), ("B", "::1"), ("D", "a#b"), ("E", "a  # b"), ("F", "#")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn last_nonempty_value_counts() {
        let text = "PORT=1\nPORT=2\nPORT=\nHOST=' '\n";
        assert_eq!(dotenv(text), (pairs(&[("PORT", "2")]), vec![]));
    }

    #[test]
    fn error_names_line_and_rest_is_read() {
        let expected = "expected NAME=value, with closed quotes and only a comment after the value";
        let text = "\nKEY='1\n\nwhat\nPORT=1\nA='b' c\n=1\n1A=1\nB=\"open\nC=1\n\n";
        let (values, errors) = dotenv(text);
        assert_eq!(values, pairs(&[("C", "1"), ("PORT", "1")]));
        let lines = [2, 4, 6, 7, 8, 9].map(|line| format!(".env, line {line}: {expected}"));
        assert_eq!(errors, lines);
        assert_eq!(parse_dotenv(b"PORT=\xff").1, [".env: expected UTF-8"]);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_quoted_value_is_literal(text in "(\\PC|[\n\"'#=\\\\ ])*", value in "[^'\\n\\r]*[^'\\s]") {
            let _ = parse_dotenv(text.as_bytes());
            prop_assert_eq!(dotenv(&format!("A='{value}'")), (pairs(&[("A", &value)]), vec![]));
        }
    }
}
