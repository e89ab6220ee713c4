//! Parses what a node reports about its containers, `GET /resources`: what they can run, and with a `model_id` whether
//! they support that model.
//!
//! Accepted entries are parsed and serialized again, so the router passes on nothing verbatim, and no node can report
//! about another one. Containers are read one by one: an odd one affects no other.

use super::info::ContainerId;
use super::json::{self, Name, ParseError, expect};
use crate::util::text::quote;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest entry of a container in bytes, without blanks. Real services have 1.2 to 21 KB with blanks.
const MAX_ENTRY_BYTES: usize = 16 * 1024;
/// The longest entry as the node writes it, with room for blanks. A value needs up to a hundred times as much memory
/// while it is read, so this also bounds the cost of a request.
const MAX_RAW_BYTES: usize = 2 * MAX_ENTRY_BYTES;
/// The longest `error` of a container in characters; the rest is truncated. It is a sentence.
const MAX_ERROR_CHARS: usize = 256;

/// What a node reports about its containers: sorted by id, each a JSON object that the router has written.
pub type Entries = Vec<(ContainerId, Arc<str>)>;

/// The accepted part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The entries of containers that the node runs.
    pub entries: Entries,
    /// Why the first omitted entry was omitted. Untrusted text in it is escaped and truncated.
    pub left_out: Option<String>,
}

/// Parses a body of `/resources`: for each of the containers in `runs` (sorted) an object, rewritten as JSON of at most
/// 16 KiB.
///
/// # Errors
/// The body is not a JSON object.
pub fn parse_resources(body: &[u8], runs: &[ContainerId]) -> Result<Reading, ParseError> {
    read(body, runs, |raw| {
        let value = object(raw)?;
        let text = serde_json::to_string(&value)?;
        match text.len() <= MAX_ENTRY_BYTES {
            true => Ok(text),
            false => Err(too_long()),
        }
    })
}

/// Parses a body of `/resources?model_id=ID`: for each of the containers in `runs` (sorted) an object with `supported`,
/// true or false, as the service reports it. Of the other fields only `error` is kept, at most 256 characters of it.
///
/// # Errors
/// The body is not a JSON object.
pub fn parse_support(body: &[u8], runs: &[ContainerId]) -> Result<Reading, ParseError> {
    read(body, runs, |raw| {
        let value = object(raw)?;
        let Some(Value::Bool(supported)) = value.get("supported") else {
            return Err(ParseError("expected `supported` to be true or false".to_owned()));
        };
        let mut entry = json!({ "supported": supported });
        if let Some(Value::String(text)) = value.get("error")
            && !text.is_empty()
        {
            entry["error"] = text.chars().take(MAX_ERROR_CHARS).collect::<String>().into();
        }
        Ok(entry.to_string())
    })
}

fn read(
    body: &[u8],
    runs: &[ContainerId],
    read_entry: fn(&RawValue) -> Result<String, ParseError>,
) -> Result<Reading, ParseError> {
    let whole = expect(json::parse(body)?, '{', "an object of containers")?;
    let by_id: BTreeMap<Name<'_>, &RawValue> = serde_json::from_str(whole)?;
    let mut reading = Reading {
        entries: Vec::new(),
        left_out: None,
    };
    for (Name(id), raw) in by_id {
        let entry = match runs.binary_search_by(|run| run.as_str().cmp(&*id)) {
            Ok(at) => read_entry(raw).map(|entry| (runs[at].clone(), Arc::from(entry))),
            Err(_) => Err(ParseError("not a container of this node".to_owned())),
        };
        match entry {
            Ok(entry) => reading.entries.push(entry),
            Err(reason) if reading.left_out.is_none() => {
                reading.left_out = Some(format!("{}: {reason}", quote(&id, json::MAX_FOUND_CHARS)));
            }
            Err(_) => {}
        }
    }
    Ok(reading)
}

/// An object of bounded size and depth: more than 127 levels are rejected.
fn object(raw: &RawValue) -> Result<serde_json::Map<String, Value>, ParseError> {
    let raw = expect(raw, '{', "an object")?;
    if raw.len() > MAX_RAW_BYTES {
        return Err(too_long());
    }
    serde_json::from_str(raw).map_err(|error| match error.to_string().contains("recursion limit") {
        true => ParseError("nested too deep".to_owned()),
        false => error.into(),
    })
}

fn too_long() -> ParseError {
    ParseError(format!("longer than {MAX_ENTRY_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> Vec<ContainerId> {
        ["a", "b"].map(|id| ContainerId::parse(id).expect("an id")).to_vec()
    }

    fn resources(body: &str) -> (Vec<(String, String)>, Option<String>) {
        let reading = parse_resources(body.as_bytes(), &runs()).unwrap_or_else(|error| panic!("{body}: {error}"));
        let entries = reading.entries.into_iter();
        let entries = entries.map(|(id, text)| (id.as_str().to_owned(), text.to_string()));
        (entries.collect(), reading.left_out)
    }

    fn entry(id: &str, text: &str) -> (String, String) {
        (id.to_owned(), text.to_owned())
    }

    #[test]
    fn entries_are_rewritten_and_unknown_containers_omitted() {
        let (entries, left_out) = resources(r#" { "b" : {"x" : [1, 2.50, "\u0041\"}},"], "y":null}, "a": {} } "#);
        assert_eq!(
            entries,
            [entry("a", "{}"), entry("b", r#"{"x":[1,2.5,"A\"}},"],"y":null}"#)]
        );
        assert_eq!(left_out, None);
        let (entries, left_out) = resources(r#"{"a":{},"c":{}}"#);
        assert_eq!(entries, [entry("a", "{}")]);
        assert_eq!(left_out.as_deref(), Some("\"c\": not a container of this node"));
    }

    #[test]
    fn odd_container_affects_no_other() {
        let deep = |levels: usize| format!("{}{}", "{\"a\":".repeat(levels) + "1", "}".repeat(levels));
        for (odd, reason) in [
            ("1", "expected an object, found 1"),
            ("[{}]", "expected an object, found [{}]"),
            ("{\"x\":1e999}", "number out of range"),
            ("{\"x\":\"\\ud800\"}", "not JSON"),
            (&deep(128), "nested too deep"),
            (&deep(5_000), "nested too deep"),
            (&deep(10_000), "longer than"),
            (&format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_ENTRY_BYTES)), "longer than"),
        ] {
            let (entries, left_out) = resources(&format!(r#"{{"a":{odd},"b":{{}}}}"#));
            assert_eq!(entries, [entry("b", "{}")], "{reason}");
            let left_out = left_out.expect("told");
            assert!(
                left_out.starts_with("\"a\": ") && left_out.contains(reason),
                "{left_out}"
            );
        }
        let (entries, left_out) = resources(r#"{"\ud800":{},"b":{}}"#);
        assert_eq!(entries, [entry("b", "{}")]);
        assert_eq!(left_out.as_deref(), Some("\"\": not a container of this node"));
    }

    #[test]
    fn entry_has_at_most_16_kib() {
        let of = |bytes: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - 8));
        let (entries, _) = resources(&format!("{{\"a\":{},\"b\":{}}}", of(16 * 1024), of(16 * 1024 + 1)));
        assert_eq!(entries, [entry("a", &of(16 * 1024))]);
    }

    #[test]
    fn body_that_is_not_an_object_is_rejected() {
        for body in ["", "[]", "1", "{", "<html>", "{}{}", "{\"a\":{}"] {
            parse_resources(body.as_bytes(), &runs()).expect_err(body);
        }
        parse_resources(&[b'{'; 60_000], &runs()).expect_err("no overflow");
        parse_resources("{\"a\":".repeat(10_000).as_bytes(), &runs()).expect_err("no overflow");
    }

    #[test]
    fn two_fields_of_support_are_read() {
        let error = "ä".repeat(257);
        let body =
            format!(r#"{{"a":{{"supported":true,"x":1,"error":""}},"b":{{"supported":false,"error":"{error}"}}}}"#);
        let reading = parse_support(body.as_bytes(), &runs()).expect("a body");
        let entries = reading.entries.iter().map(|(id, text)| (id.as_str(), &**text));
        let b = format!(r#"{{"error":"{}","supported":false}}"#, "ä".repeat(256));
        assert_eq!(entries.collect::<Vec<_>>(), [("a", r#"{"supported":true}"#), ("b", &b)]);
        for odd in ["{}", "{\"supported\":\"true\"}", "{\"supported\":1}", "true"] {
            let reading = parse_support(format!("{{\"a\":{odd}}}").as_bytes(), &runs()).expect("a body");
            assert!(reading.entries.is_empty() && reading.left_out.is_some(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn accepted_entry_is_one_json_object(
            body in r#"\{"a":[\PC\x00-\x1f]{0,40}\}?"#
        ) {
            let told = match parse_resources(body.as_bytes(), &runs()) {
                Ok(reading) => {
                    for (_, text) in &reading.entries {
                        let value: serde_json::Map<String, Value> = serde_json::from_str(text).expect("an object");
                        prop_assert_eq!(serde_json::to_string(&value).expect("JSON"), &**text);
                    }
                    reading.left_out
                }
                Err(error) => Some(error.to_string()),
            };
            prop_assert!(!told.unwrap_or_default().chars().any(char::is_control));
        }
    }
}
