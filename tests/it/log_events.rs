//! `.packaging/docs/log-events.md` lists every event that the program logs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../../.packaging/docs/log-events.md");
const MACROS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "log"];
/// A message that the caller passes.
const PASSED: &str = "{event}";
/// Starts of messages that reach the log in other ways than as literals of a macro.
const OTHER_EVENTS: [&str; 2] = ["node ", "log lines "];

/// Returns the files below a folder, without files of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true if path.ends_with("tests") => Vec::new(),
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| !path.ends_with("tests.rs") && path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// Returns the text up to the matching closing parenthesis.
fn body(text: &str) -> &str {
    let (mut depth, mut in_text, mut is_escaped) = (1, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_text,
            b'"' => in_text = !in_text,
            b'(' if !in_text => depth += 1,
            b')' if !in_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("an open parenthesis: {}", &text[..80]);
}

/// Returns the constant start of the message, which follows the key-values.
fn event(body: &str) -> &str {
    let message = body.rfind("; \"").map_or(body, |at| &body[at..]);
    let message = body.rfind(";\n").map_or(message, |at| &body[at..]);
    let (_, message) = message.split_once('"').expect("a message is a literal");
    let message = message.split('"').next().unwrap_or_default();
    message.split(": ").next().unwrap_or_default()
}

fn is_constant(event: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" _-".contains(&byte);
    !event.is_empty() && event.bytes().all(is_plain)
}

/// Returns the events in one source file.
fn events_in(code: &str) -> Vec<String> {
    let calls = MACROS.map(|name| {
        code.split(&format!("log::{name}!("))
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let logged = calls.iter().flatten().map(|call| event(body(call)).to_owned());
    let others = OTHER_EVENTS.map(|start| {
        let quoted = format!("\"{start}");
        let literals = code.split(&quoted).skip(1);
        let events = literals.filter_map(|text| Some(format!("{start}{}", text.split_once(": ")?.0)));
        events.collect::<Vec<_>>()
    });
    logged
        .filter(|event| event != PASSED)
        .chain(others.into_iter().flatten().filter(|event| is_constant(event)))
        .collect()
}

fn events() -> BTreeSet<String> {
    let mut events = BTreeSet::new();
    for path in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let source = fs::read_to_string(&path).expect("a source is text");
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for event in events_in(code) {
            assert!(is_constant(&event), "{}: {event:?} is not constant", path.display());
            events.insert(event);
        }
    }
    events
}

#[test]
fn document_lists_each_event() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split_once("` |")?.0.to_owned()))
        .collect();
    assert_eq!(documented, events());
}
