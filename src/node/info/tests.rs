//! Every body of `/info` that is accepted, rejected, truncated.

use super::*;
use proptest::prelude::*;
use std::fmt::Write;

fn parse(body: &str) -> NodeInfo {
    NodeInfo::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn refusal(body: &str) -> String {
    match NodeInfo::parse(body.as_bytes()) {
        Ok(info) => panic!("{body}: {info:?}"),
        Err(error) => error.to_string(),
    }
}

fn with_containers(list: &str) -> String {
    format!(r#"{{"containers":[{list}],"pending":{{}}}}"#)
}

fn with_pending(map: &str) -> String {
    format!(r#"{{"containers":[],"pending":{{{map}}}}}"#)
}

fn description(json: &str) -> Option<Arc<str>> {
    let info = parse(&with_containers(&format!(r#"{{"id":"a","description":{json}}}"#)));
    info.containers[0].description.clone()
}

#[test]
fn real_response_is_parsed() {
    let info = parse(
        r#"{"version":"1.4.0","containers":[{"id":"hello-world","description":"says hello",
        "external":true,"image":"ritualnetwork/hello"}],"pending":{"offchain":2,"onchain":1},
        "chain":{"enabled":false,"address":""}}"#,
    );
    assert_eq!(info.containers[0].id.as_str(), "hello-world");
    assert_eq!(info.containers[0].description.as_deref(), Some("says hello"));
    assert_eq!(info.load(|_| 1), 3);
    assert_eq!(info.load(|kind| if kind == "onchain" { 10 } else { 0 }), 10);
}

#[test]
fn empty_map_is_zero_and_sums_saturate() {
    assert_eq!(parse(&with_pending("")).load(|_| 1000), 0);
    let full = parse(&with_pending(r#""a":18446744073709551615,"b":1"#));
    assert_eq!(full.load(|_| 1), u64::MAX);
    assert_eq!(full.load(|_| 1000), u64::MAX);
    assert_eq!(full.load(|_| 0), 0);
}

#[test]
fn pending_jobs_are_whole_numbers() {
    for value in [
        "null",
        "1.0",
        "-0.5",
        "1e3",
        "\"1\"",
        "true",
        "[]",
        "{}",
        "18446744073709551616",
    ] {
        let told = refusal(&with_pending(&format!(r#""on\u001bchain":{value}"#)));
        let wanted = r#"expected `pending` "on\u{1b}chain" to be a whole number, at most 2^64-1, found "#;
        assert_eq!(told, format!("{wanted}{value}"));
    }
}

#[test]
fn negative_number_of_jobs_is_zero() {
    for value in ["-1", "-0", "-99999999999999999999"] {
        let info = parse(&with_pending(&format!(r#""offchain":{value},"onchain":2"#)));
        assert_eq!(info.load(|_| 1), 2, "{value}");
    }
}

#[test]
fn image_is_kept_if_text() {
    let kept = |value: &str| {
        let info = parse(&with_containers(&format!(r#"{{"id":"a","image":{value}}}"#)));
        info.containers[0].image.as_ref().map(|text| text.len())
    };
    assert_eq!(kept("\"1.4.0\""), Some(5));
    for none in ["null", "\"\"", "7", "[]", r#""\ud800""#] {
        assert_eq!(kept(none), None, "{none}");
    }
    assert_eq!(kept(&format!("\"{}\"", "a".repeat(300))), Some(256));
    // Two bytes each, and none of them cut in half.
    assert_eq!(kept(&format!("\"a{}\"", "ä".repeat(300))), Some(255));
    let info = parse(&with_containers(
        r#"{"id":"a"},{"id":"a","image":"x"},{"id":"a","image":"y"}"#,
    ));
    assert_eq!(info.containers[0].image.as_deref(), Some("x"));
}

#[test]
fn required_fields_occur_once_with_their_type() {
    for (body, wanted) in [
        ("{}", "missing field `containers`"),
        (r#"{"containers":[]}"#, "missing field `pending`"),
        (
            r#"{"containers":[],"pending":null}"#,
            "expected `pending` to be a map of whole numbers, found null",
        ),
        (
            r#"{"containers":{},"pending":{}}"#,
            "expected `containers` to be a list",
        ),
        (
            r#"{"containers":null,"pending":{}}"#,
            "expected `containers` to be a list",
        ),
        (
            r#"{"pending":{},"pending":{},"containers":[]}"#,
            "duplicate field `pending`",
        ),
        (&with_containers("\"a\""), "expected a container to be an"),
        (&with_containers("{}"), "missing field `id`"),
        (&with_containers(r#"{"id":1}"#), "expected a container id"),
        (&with_containers(r#"{"id":""}"#), "expected a container id"),
        (&with_containers(r#"{"id":"a","id":"b"}"#), "duplicate field `id`"),
        ("[[],{}]", "expected an object with"),
        ("<html>", "not JSON: expected value at line 1 column 1"),
        ("", "not JSON: EOF"),
        (&(with_pending("") + "x"), "not JSON: trailing characters"),
    ] {
        let told = refusal(body);
        assert!(told.contains(wanted), "{body}: {told}");
    }
}

#[test]
fn repeated_field_that_is_not_required_is_ignored() {
    let info = parse(
        r#"{"x":1,"x":{"x":2,"x":3},"version":"1","version":"2","\ud800":1,"chain":{},"chain":null,"pending":{},
        "containers":[{"id":"a","description":"d","description":"e","image":"i","image":7,"y":1,"y":2,"\ud800":0}]}"#,
    );
    assert_eq!(info.containers[0].description.as_deref(), Some("d"));
    assert_eq!(info.containers[0].image.as_deref(), Some("i"));
    let escaped = parse(r#"{"\u0070ending":{"a":1},"containers":[]}"#);
    assert_eq!(escaped.load(|_| 1), 1, "an escaped name is the same name");
    refusal(r#"{"\u0070ending":{},"pending":{},"containers":[]}"#);
}

#[test]
fn byte_order_mark_is_skipped() {
    parse("\u{feff}{\"containers\":[],\"pending\":{}}");
    refusal("\u{feff}\u{feff}{\"containers\":[],\"pending\":{}}");
}

#[test]
fn container_listed_twice_is_one() {
    let info = parse(&with_containers(
        r#"{"id":"b"},{"id":"a","description":""},{"id":"a","description":"x"},
        {"id":"b"},{"id":"a","description":"y"}"#,
    ));
    let told: Vec<_> = info.containers.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(told, ["b", "a"]);
    assert_eq!(info.containers[1].description.as_deref(), Some("x"));
}

#[test]
fn description_that_is_not_text_is_none() {
    for json in ["\"\"", "null", "5", "-5", "0.5", "true", "[1]", r#"{"a":{}}"#] {
        assert_eq!(description(json), None);
    }
    assert_eq!(parse(&with_containers(r#"{"id":"a"}"#)).containers[0].description, None);
}

#[test]
fn description_is_truncated_at_1024_characters() {
    for (chars, kept) in [(1024, 1024), (1025, 1024)] {
        let text = description(&format!("\"{}\"", "ä".repeat(chars)));
        assert_eq!(text.map(|text| text.chars().count()), Some(kept));
    }
}

#[test]
fn id_has_at_most_256_bytes() {
    let body = |bytes| with_containers(&format!(r#"{{"id":"{}"}}"#, "a".repeat(bytes)));
    assert_eq!(parse(&body(256)).containers[0].id.as_str().len(), 256);
    let wanted = "expected a container id, 1 to 256 bytes";
    assert!(refusal(&body(257)).starts_with(wanted));
    assert!(ContainerId::parse(&"ä".repeat(129)).is_err());
}

#[test]
fn at_most_256_containers_are_listed() {
    let body = |count| with_containers(&vec![r#"{"id":"a"}"#; count].join(","));
    assert_eq!(parse(&body(256)).containers.len(), 1);
    assert!(refusal(&body(257)).starts_with("`containers` lists more than 256"));
}

#[test]
fn pending_has_at_most_64_short_types() {
    let body = |count| {
        let types: Vec<_> = (0..count).map(|n| format!("\"{n}\":1")).collect();
        with_pending(&types.join(","))
    };
    assert_eq!(parse(&body(64)).load(|_| 1), 64);
    assert!(refusal(&body(65)).starts_with("`pending` has more than 64 types"));
    let body = |bytes| with_pending(&format!("\"{}\":1", "a".repeat(bytes)));
    assert_eq!(parse(&body(256)).load(|_| 1), 1);
    assert!(refusal(&body(257)).starts_with("`pending` has a name of more than 256 bytes"));
}

#[test]
fn deep_nesting_in_other_fields_is_ignored() {
    let deep = "[".repeat(120_000) + &"]".repeat(120_000);
    assert_eq!(description(&deep), None);
    let mut body = with_pending("");
    body.pop();
    write!(body, r#","x":{deep}}}"#).expect("a String takes it");
    assert_eq!(parse(&body).containers, []);
    refusal(&with_pending(&format!(r#""a":{deep}"#)));
    refusal(&"[".repeat(262_144));
    refusal(&r#"{"containers":"#.repeat(16_000));
}

#[test]
fn found_value_is_truncated_at_40_characters() {
    let told = refusal(&with_pending(&format!("\"a\":\"{}\"", "ä".repeat(1000))));
    let wanted = format!("at most 2^64-1, found \"{}…", "ä".repeat(39));
    assert!(told.ends_with(&wanted), "{told}");
}

proptest! {
    #[test]
    fn no_body_panics_or_forges_a_log_line(
        body in r#"\{"(containers|pending)":[\PC\x00-\x1f]{0,40}\}?"#
    ) {
        if let Err(error) = NodeInfo::parse(body.as_bytes()) {
            let told = error.to_string();
            prop_assert!(!told.chars().any(char::is_control) && told.chars().count() <= 300);
        }
    }

    #[test]
    fn no_bytes_panic(body: Vec<u8>) {
        let _ = NodeInfo::parse(&body);
    }
}
