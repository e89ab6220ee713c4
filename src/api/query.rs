//! The queries of `/api/v1/ips` and `/api/v1/resources`, as browsers, curl and aiohttp write them:
//! `container=a&container=b&n=3&offset=0`.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;

use crate::registry::{MAX_PAGE, Page};

/// Containers in one query. A node runs 256 at most, and a head has 8 KiB.
const MAX_CONTAINERS: usize = 64;
/// Addresses in an answer of `/api/v1/ips` where `n` does not say.
const DEFAULT_N: u32 = 3;
/// Nodes in an answer of `/api/v1/resources` where `n` does not say: the client has no way to.
const DEFAULT_NODES: u32 = 100;
/// Longest id of a model in bytes. Real ones have 20 to 120.
const MAX_MODEL_ID_BYTES: usize = 256;
/// What an id of a model may have besides letters and digits of ASCII. Nodes put it into URLs as it is.
const MODEL_ID_MARKS: &[u8] = b"._-/:,@=+~";
const MODEL_ID_WANTED: &str = "1 to 256 bytes of A-Za-z0-9._-/:,@=+~";
/// Characters of a wrong value that its error repeats.
const MAX_SHOWN: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// None twice, sorted.
    pub(super) containers: Vec<String>,
    pub(super) page: Page,
    /// Of resources alone.
    pub(super) model_id: Option<String>,
}

/// What is wrong with a query. Its text is the answer's `error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueryError {
    NoContainers,
    TooManyContainers(usize),
    NotUtf8(String),
    NotANumber {
        name: &'static str,
        value: String,
    },
    Twice {
        name: &'static str,
        value: String,
    },
    /// What was wanted instead.
    Unexpected {
        name: &'static str,
        value: String,
        wanted: &'static str,
    },
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As the original puts it.
            QueryError::NoContainers => f.write_str("No containers specified"),
            QueryError::TooManyContainers(count) => {
                write!(f, "container: expected at most {MAX_CONTAINERS} of them, not {count}")
            }
            QueryError::NotUtf8(pair) => write!(f, "{}: expected UTF-8", shown(pair)),
            QueryError::NotANumber { name, value } => {
                write!(
                    f,
                    "{name}=\"{}\": expected a whole number, 0 to {}",
                    shown(value),
                    u32::MAX
                )?;
                match *name {
                    "n" => write!(f, "; above {MAX_PAGE} it counts as {MAX_PAGE}"),
                    _ => Ok(()),
                }
            }
            QueryError::Twice { name, value } => write!(f, "{name}=\"{}\": expected it once at most", shown(value)),
            QueryError::Unexpected { name, value, wanted } => {
                write!(f, "{name}=\"{}\": expected {wanted}", shown(value))
            }
        }
    }
}

fn shown(text: &str) -> String {
    let more = if text.chars().nth(MAX_SHOWN).is_some() {
        "…"
    } else {
        ""
    };
    let shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    shown + more
}

/// Parses the query of `/api/v1/ips`: at least one container. Parameters that mean nothing here are passed over.
///
/// # Errors
/// At the first parameter that is not as it must be.
pub(super) fn parse_ips(query: &str) -> Result<Query, QueryError> {
    let (query, _) = read(query, DEFAULT_N)?;
    match query.containers.is_empty() {
        true => Err(QueryError::NoContainers),
        false => Ok(query),
    }
}

/// Parses the query of `/api/v1/resources`.
///
/// # Errors
/// At the first parameter that is not as it must be.
pub(super) fn parse_resources(query: &str) -> Result<Query, QueryError> {
    let (query, mut model_ids) = read(query, DEFAULT_NODES)?;
    let Some(id) = model_ids.pop() else {
        return Ok(query);
    };
    if !model_ids.is_empty() {
        let name = "model_id";
        return Err(QueryError::Twice { name, value: id });
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || MODEL_ID_MARKS.contains(&byte);
    match id.len() <= MAX_MODEL_ID_BYTES && id.bytes().all(is_plain) {
        true => Ok(Query {
            model_id: Some(id),
            ..query
        }),
        false => Err(QueryError::Unexpected {
            name: "model_id",
            value: id,
            wanted: MODEL_ID_WANTED,
        }),
    }
}

/// Reads what both have, and the ids of models that are not empty.
fn read(query: &str, default_n: u32) -> Result<(Query, Vec<String>), QueryError> {
    let (mut containers, mut model_ids, mut n, mut offset) = (Vec::new(), Vec::new(), None, None);
    for pair in query.split('&') {
        let (name, value) = match pair.strip_prefix("model_id=") {
            // Sent as it is by the client: no id has a blank, so a plus is one.
            Some(id) => decode_pair(&format!("model_id={}", id.replace('+', "%2B")))?,
            None => decode_pair(pair)?,
        };
        match &*name {
            "container" if !value.is_empty() => containers.push(value),
            "model_id" if !value.is_empty() => model_ids.push(value),
            "n" if !value.is_empty() => number("n", value, &mut n)?,
            "offset" if !value.is_empty() => number("offset", value, &mut offset)?,
            _ => {}
        }
    }
    if containers.len() > MAX_CONTAINERS {
        return Err(QueryError::TooManyContainers(containers.len()));
    }
    containers.sort_unstable();
    containers.dedup();
    let page = Page {
        n: n.unwrap_or(default_n),
        offset: offset.unwrap_or(0),
    };
    let query = Query {
        containers,
        page,
        model_id: None,
    };
    Ok((query, model_ids))
}

/// One parameter and its value.
///
/// # Errors
/// Where they are not UTF-8.
pub(super) fn decode_pair(pair: &str) -> Result<(String, String), QueryError> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decoded = decode(name).zip(decode(value));
    decoded.ok_or_else(|| QueryError::NotUtf8(pair.to_owned()))
}

/// Undoes `%41` and `+`; none where the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let text = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    percent_decode(text.as_bytes()).decode_utf8().ok().map(Cow::into_owned)
}

/// Takes a whole number into `field`.
///
/// # Errors
/// Where it is none, or the field has one.
pub(super) fn number(name: &'static str, value: String, field: &mut Option<u32>) -> Result<(), QueryError> {
    if field.is_some() {
        return Err(QueryError::Twice { name, value });
    }
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse().ok().filter(|_| is_plain) {
        Some(number) => {
            *field = Some(number);
            Ok(())
        }
        None => Err(QueryError::NotANumber { name, value }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(query: &str) -> String {
        parse_ips(query).expect_err(query).to_string()
    }

    #[test]
    fn reads_what_clients_send() {
        let query =
            parse_ips("container=b&container=a%2Fx&container=&x=%20&n=5&offset=10&container=b").expect("a query");
        assert_eq!(query.containers, ["a/x", "b"]);
        assert_eq!(query.page, Page { n: 5, offset: 10 });
        let query = parse_ips("container=a+b&&n=007").expect("a query");
        assert_eq!(
            (query.containers, query.page),
            (vec!["a b".to_owned()], Page { n: 7, offset: 0 })
        );
        for default in ["container=a", "container=a&n=&offset=", "n=&container=a&n=3"] {
            assert_eq!(
                parse_ips(default).expect("a query").page,
                Page { n: 3, offset: 0 },
                "{default}"
            );
        }
        assert_eq!(parse_ips("container=a=b%zz").expect("a query").containers, ["a=b%zz"]);
    }

    #[test]
    fn says_what_is_wrong_with_which_value() {
        assert_eq!(error(""), "No containers specified");
        assert_eq!(error("container=&n=1"), "No containers specified");
        assert_eq!(
            error("container=a&n=abc"),
            "n=\"abc\": expected a whole number, 0 to 4294967295; above 1000 it counts as 1000"
        );
        assert_eq!(
            error("container=a&offset=-1"),
            "offset=\"-1\": expected a whole number, 0 to 4294967295"
        );
        assert_eq!(
            error("container=a&n=%2B1"),
            "n=\"+1\": expected a whole number, 0 to 4294967295; above 1000 it counts as 1000"
        );
        assert_eq!(error("container=a&n=1&n=1"), "n=\"1\": expected it once at most");
        assert_eq!(error("container=%ff"), "container=%ff: expected UTF-8");
        assert_eq!(
            error(&format!("container=a&n={}", "9".repeat(99)))
                .chars()
                .filter(|c| *c == '9')
                .count(),
            67
        );
    }

    #[test]
    fn the_limits_are_at_2_to_the_32_and_at_64_containers() {
        assert_eq!(parse_ips("container=a&n=4294967295").expect("at it").page.n, u32::MAX);
        assert!(parse_ips("container=a&n=4294967296").is_err());
        assert!(parse_ips(&["container=a"; 64].join("&")).is_ok());
        assert_eq!(
            error(&["container=a"; 65].join("&")),
            "container: expected at most 64 of them, not 65"
        );
    }

    #[test]
    fn resources_need_no_container_and_take_one_model_id() {
        let query = parse_resources("").expect("a query");
        assert_eq!((query.containers, query.model_id), (Vec::new(), None));
        assert_eq!(query.page, Page { n: 100, offset: 0 });
        let id = |query| parse_resources(query).expect("a query").model_id;
        assert_eq!(id("model_id=&container=a"), None);
        assert_eq!(
            id("model_id=huggingface/Ritual-Net/iris:iris.onnx").as_deref(),
            Some("huggingface/Ritual-Net/iris:iris.onnx")
        );
        assert_eq!(id("model_id=a%2Fb+c=d%40~,").as_deref(), Some("a/b+c=d@~,"));
        assert_eq!(
            id(&format!("model_id={}", "a".repeat(256))).map(|id| id.len()),
            Some(256)
        );
        let error = |query: &str| parse_resources(query).expect_err(query).to_string();
        let wanted = "expected 1 to 256 bytes of A-Za-z0-9._-/:,@=+~";
        assert_eq!(error("model_id=a%26b=c"), format!("model_id=\"a&b=c\": {wanted}"));
        assert!(error(&format!("model_id={}", "a".repeat(257))).ends_with(wanted));
        for other in ["%20", "%0a", "%3F", "%23", "%25", "%C3%A4", "'", "a%5Cb", "%00"] {
            assert!(error(&format!("model_id={other}")).ends_with(wanted), "{other}");
        }
        assert_eq!(
            error("model_id=a&model_id=b"),
            "model_id=\"b\": expected it once at most"
        );
        assert_eq!(error("model_id=%ff"), "model_id=%ff: expected UTF-8");
        assert_eq!(error("n=1&n=1"), "n=\"1\": expected it once at most");
    }

    proptest! {
        #[test]
        fn never_panics(query in ".*") {
            let _ = (parse_ips(&query), parse_resources(&query));
        }

        #[test]
        fn finds_the_containers_that_were_encoded(ids in prop::collection::btree_set(".{1,20}", 1..10)) {
            let encode = |id: &String| percent_encoding::percent_encode(id.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
            let query: Vec<String> = ids.iter().map(|id| format!("container={}", encode(id))).collect();
            prop_assert_eq!(parse_ips(&query.join("&")).expect("a query").containers, ids.into_iter().collect::<Vec<_>>());
        }
    }
}
