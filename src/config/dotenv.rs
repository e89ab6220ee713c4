//! `.env` in the working directory: its lines as names and values, and what is wrong with which line.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// Longest `.env` read. Real ones are a few hundred bytes; a mistaken mount may be anything.
const MAX_DOTENV_BYTES: u64 = 256 * 1024;

/// The bytes of `.env`; empty where there is none.
pub(super) fn read_dotenv() -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    File::open(".env")
        .and_then(|file| file.take(MAX_DOTENV_BYTES + 1).read_to_end(&mut text))
        .or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(0),
            _ => Err(format!(".env: cannot be read: {error}")),
        })?;
    Ok(text)
}

/// The values of `.env`, and what is wrong with it. A name given twice has its last value, as with
/// docker, and empty ones hide nothing. Messages give the line, not the text: it may be a secret.
pub(super) fn parse_dotenv(bytes: &[u8]) -> (HashMap<String, String>, Vec<String>) {
    let (mut values, mut mistakes) = (HashMap::new(), Vec::new());
    if bytes.len() as u64 > MAX_DOTENV_BYTES {
        mistakes.push(format!(".env: expected at most {MAX_DOTENV_BYTES} bytes"));
        return (values, mistakes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        mistakes.push(".env: expected UTF-8".to_owned());
        return (values, mistakes);
    };
    // dotenvy's iterator keeps a byte order mark.
    let text = tame_comments(text.strip_prefix('\u{feff}').unwrap_or(text));
    let lines_read = Cell::new(0);
    let lines = LineReader {
        rest: text.as_bytes(),
        lines_read: &lines_read,
    };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok((_, value)) if value.trim().is_empty() => {}
            Ok((name, value)) => drop(values.insert(name, value)),
            Err(error) => {
                let line = first_line(&error, lines_read.get());
                mistakes.push(format!(
                    ".env, line {line}: expected NAME=value, with quotes around spaces and every quote closed"
                ));
            }
        }
    }
    (values, mistakes)
}

/// The line where what dotenvy could not parse begins; it stopped at `last_line`.
fn first_line(error: &dotenvy::Error, last_line: usize) -> usize {
    match error {
        dotenvy::Error::LineParse(text, _) => (last_line + 1).saturating_sub(text.lines().count()),
        _ => last_line,
    }
}

/// dotenvy 0.15.7 sees a comment only behind a single blank; behind two, an apostrophe in it would
/// swallow the following lines. It also refuses a blank at the very end without a line break.
fn tame_comments(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        let comment = line.match_indices('#').map(|(at, _)| line.split_at(at));
        let comment = comment
            .filter(|(head, _)| head.ends_with([' ', '\t']) && !head.contains(['"', '\'']))
            .map(|(head, comment)| (head.trim_end(), comment));
        match comment.into_iter().next() {
            Some((head, comment)) => tamed.extend([head, " ", comment, "\n"]),
            None => tamed.extend([line, "\n"]),
        }
    }
    tamed
}

/// Serves one line a call and counts them, since dotenvy's errors have no line number.
struct LineReader<'a> {
    rest: &'a [u8],
    lines_read: &'a Cell<usize>,
}

impl Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line_end = self.rest.iter().position(|byte| *byte == b'\n');
        let length = line_end.map_or(self.rest.len(), |end| end + 1);
        let mut line = &self.rest[..length];
        let count = line.read(buffer)?;
        if count == length && line_end.is_some() {
            self.lines_read.set(self.lines_read.get() + 1);
        }
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
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
    fn dotenv_knows_comments_quotes_export_and_a_byte_order_mark() {
        let text = "\u{feff}PORT=1\r\n# HOST=x\r\n\nexport HOST='::1' # six\nIPS_FILE=\"a b\"\nMAX_PROBES=7 ";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a b"), ("MAX_PROBES", "7"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
        assert_eq!(dotenv(""), (vec![], vec![]));
    }

    #[test]
    fn an_apostrophe_in_a_dotenv_comment_swallows_no_line() {
        let text = "PORT=1   # the router's\nHOST=::1\t\t# it's\nMAX_PROBES=   # isn't\nIPS_FILE=a#b";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a#b"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn a_hash_within_quotes_begins_no_comment() {
        let text = "IPS_FILE=\"a  # b\"\nHOST='::1  #'\n";
        let expected = [("HOST", "::1  #"), ("IPS_FILE", "a  # b")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn in_dotenv_the_last_value_that_is_not_empty_counts() {
        let text = "PORT=1\nPORT=2\nPORT=\nHOST=' '\n";
        assert_eq!(dotenv(text), (pairs(&[("PORT", "2")]), vec![]));
    }

    #[test]
    fn a_mistake_in_dotenv_is_told_by_its_line_and_the_rest_is_read() {
        let wanted = "expected NAME=value, with quotes around spaces and every quote closed";
        let text = "\nKEY='1\n2'\n\nwhat\nPORT=1\nA=b c\n\nB=\"open\nC=1\n\n";
        let (values, mistakes) = dotenv(text);
        assert_eq!(values, pairs(&[("KEY", "1\n2"), ("PORT", "1")]));
        let lines = [5, 7, 9].map(|line| format!(".env, line {line}: {wanted}"));
        assert_eq!(mistakes, lines);
    }

    #[test]
    fn a_dotenv_that_is_not_utf8_or_too_long_is_a_mistake() {
        assert_eq!(parse_dotenv(b"PORT=\xff").1, [".env: expected UTF-8"]);
        let mut text = vec![b'\n'; MAX_DOTENV_BYTES as usize];
        assert_eq!(parse_dotenv(&text).1, [""; 0]);
        text.push(b'\n');
        assert_eq!(parse_dotenv(&text).1, [".env: expected at most 262144 bytes"]);
    }
}
