//! What a node says about itself: its containers, and how busy it is.

use super::body;
use std::borrow::Borrow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Longest container id in bytes. Docker's names, which real ids become, are shorter.
const MAX_ID_BYTES: usize = 256;

/// What a container is called: 1 to 256 bytes of UTF-8. Cheap to clone, ordered by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Checks the length of `text`; any other property of an id is the business of its node.
    ///
    /// # Errors
    ///
    /// An empty text, or more than 256 bytes.
    pub fn parse(text: &str) -> Result<ContainerId, IdError> {
        if (1..=MAX_ID_BYTES).contains(&text.len()) {
            Ok(ContainerId(text.into()))
        } else {
            Err(IdError)
        }
    }

    /// The id as the node wrote it: foreign text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text is too short or too long for a [`ContainerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a container id, 1 to {MAX_ID_BYTES} bytes")
    }
}

impl Error for IdError {}

/// A container that a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// What it is called.
    pub id: ContainerId,
    /// What it is for, if the node says so: foreign text of 1 to 1,024 characters.
    pub description: Option<Arc<str>>,
    /// The image that it runs, if the node says so: foreign text of 1 to 256 bytes.
    pub image: Option<Arc<str>>,
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// At most 256 containers, each once, in the order of the node.
    pub containers: Vec<Running>,
    /// Pending jobs by type, at most 64 types, each once. None means no jobs.
    pub pending: Vec<(String, u64)>,
    /// The version of the node's software, if it says so: foreign text of 1 to 64 bytes.
    pub version: Option<Arc<str>>,
}

impl NodeInfo {
    /// Parses the body of `/info`: a JSON object with `containers`, a list of at most 256 objects
    /// with a string `id`, and `pending`, a map of whole numbers up to 2^64-1, of which a negative
    /// one counts as 0. A container listed twice counts once, with the first description and the
    /// first image that aren't empty. Other fields are ignored, nested as deep as they like.
    ///
    /// # Errors
    ///
    /// Anything else, also a field that counts and is given twice: each reader would make
    /// something else of it. (Of a type of jobs that is given twice the last number counts.)
    pub fn parse(body: &[u8]) -> Result<NodeInfo, InfoError> {
        body::read(body)
    }

    /// How busy the node is: its pending jobs, each counted as often as `weight` says for its
    /// type. Stays at 2^64-1 where the sum would be more.
    pub fn load(&self, weight: impl Fn(&str) -> u32) -> u64 {
        self.pending.iter().fold(0, |sum, (kind, jobs)| {
            sum.saturating_add(jobs.saturating_mul(weight(kind).into()))
        })
    }
}

/// Why a body is no [`NodeInfo`]: one sentence, foreign text in it escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoError(pub(super) String);

impl fmt::Display for InfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InfoError {}

#[cfg(test)]
mod tests {
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
    fn a_real_answer_is_understood() {
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
    fn an_empty_map_is_zero_and_sums_saturate() {
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
    fn a_negative_number_of_jobs_counts_as_none() {
        for value in ["-1", "-0", "-99999999999999999999"] {
            let info = parse(&with_pending(&format!(r#""offchain":{value},"onchain":2"#)));
            assert_eq!(info.load(|_| 1), 2, "{value}");
        }
    }

    #[test]
    fn image_and_version_are_kept_as_far_as_they_are_texts() {
        let body = |value: &str| {
            format!(r#"{{"version":{value},"containers":[{{"id":"a","image":{value}}}],"pending":{{}}}}"#)
        };
        let kept = |value: &str| {
            let info = parse(&body(value));
            (
                info.version.map(|text| text.len()),
                info.containers[0].image.as_ref().map(|text| text.len()),
            )
        };
        assert_eq!(kept("\"1.4.0\""), (Some(5), Some(5)));
        for none in ["null", "\"\"", "7", "[]", r#""\ud800""#] {
            assert_eq!(kept(none), (None, None), "{none}");
        }
        assert_eq!(kept(&format!("\"{}\"", "a".repeat(300))), (Some(64), Some(256)));
        // Two bytes each, and none of them cut in half.
        assert_eq!(kept(&format!("\"a{}\"", "ä".repeat(300))), (Some(63), Some(255)));
        let info = parse(&with_containers(
            r#"{"id":"a"},{"id":"a","image":"x"},{"id":"a","image":"y"}"#,
        ));
        assert_eq!(info.containers[0].image.as_deref(), Some("x"));
    }

    #[test]
    fn the_fields_that_count_must_be_there_once_and_of_their_kind() {
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
    fn a_container_listed_twice_counts_once() {
        let info = parse(&with_containers(
            r#"{"id":"b"},{"id":"a","description":""},{"id":"a","description":"x"},
            {"id":"b"},{"id":"a","description":"y"}"#,
        ));
        let told: Vec<_> = info.containers.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(told, ["b", "a"]);
        assert_eq!(info.containers[1].description.as_deref(), Some("x"));
    }

    #[test]
    fn a_description_that_is_no_text_is_none() {
        for json in ["\"\"", "null", "5", "-5", "0.5", "true", "[1]", r#"{"a":{}}"#] {
            assert_eq!(description(json), None);
        }
        assert_eq!(parse(&with_containers(r#"{"id":"a"}"#)).containers[0].description, None);
    }

    #[test]
    fn a_description_is_cut_at_1024_characters() {
        for (chars, kept) in [(1024, 1024), (1025, 1024)] {
            let text = description(&format!("\"{}\"", "ä".repeat(chars)));
            assert_eq!(text.map(|text| text.chars().count()), Some(kept));
        }
    }

    #[test]
    fn an_id_has_at_most_256_bytes() {
        let body = |bytes| with_containers(&format!(r#"{{"id":"{}"}}"#, "a".repeat(bytes)));
        assert_eq!(parse(&body(256)).containers[0].id.as_str().len(), 256);
        let wanted = "expected a container id, 1 to 256 bytes";
        assert!(refusal(&body(257)).starts_with(wanted));
        assert_eq!(ContainerId::parse(&"ä".repeat(129)), Err(IdError));
    }

    #[test]
    fn at_most_256_containers_are_listed_the_same_ones_too() {
        let body = |count| with_containers(&vec![r#"{"id":"a"}"#; count].join(","));
        assert_eq!(parse(&body(256)).containers.len(), 1);
        assert!(refusal(&body(257)).starts_with("`containers` lists more than 256"));
    }

    #[test]
    fn at_most_64_types_of_256_bytes_are_pending() {
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
    fn nesting_as_deep_as_a_body_goes_is_ignored_where_nothing_counts() {
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
    fn what_was_found_is_cut_at_40_characters() {
        let told = refusal(&with_pending(&format!("\"a\":\"{}\"", "ä".repeat(1000))));
        let wanted = format!("at most 2^64-1, found \"{}...", "ä".repeat(39));
        assert!(told.ends_with(&wanted), "{told}");
    }

    proptest! {
        #[test]
        fn no_body_panics_and_no_reason_can_forge_a_log_line(
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
}
