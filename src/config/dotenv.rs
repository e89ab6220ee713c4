//! `.env` in the working directory: its lines as names and values, and what is wrong with which line.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// Longest `.env` read. Real ones are a few hundred bytes; a mistaken mount may be anything.
pub(super) const MAX_DOTENV_BYTES: u64 = 256 * 1024;

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
