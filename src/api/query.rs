//! The query of `/api/v1/ips`, as browsers, curl and aiohttp write it: `container=a&container=b&n=3&offset=0`.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;

use crate::registry::{MAX_PAGE, Page};

/// Containers in one query. A node runs 256 at most, and a head has 8 KiB.
const MAX_CONTAINERS: usize = 64;
/// Addresses in an answer where `n` does not say.
const DEFAULT_N: u32 = 3;
/// Characters of a wrong value that its error repeats.
const MAX_SHOWN: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// At least one, none twice, sorted.
    pub(super) containers: Vec<String>,
    pub(super) page: Page,
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

/// Parses a query string. HostResolver that mean nothing here are passed over.
///
/// # Errors
/// At the first parameter that is not as it must be.
pub(super) fn parse(query: &str) -> Result<Query, QueryError> {
    let (mut containers, mut n, mut offset) = (Vec::new(), None, None);
    for pair in query.split('&') {
        let (name, value) = decode_pair(pair)?;
        match &*name {
            "container" if !value.is_empty() => containers.push(value),
            "n" if !value.is_empty() => number("n", value, &mut n)?,
            "offset" if !value.is_empty() => number("offset", value, &mut offset)?,
            _ => {}
        }
    }
    if containers.is_empty() {
        return Err(QueryError::NoContainers);
    }
    if containers.len() > MAX_CONTAINERS {
        return Err(QueryError::TooManyContainers(containers.len()));
    }
    containers.sort_unstable();
    containers.dedup();
    let page = Page {
        n: n.unwrap_or(DEFAULT_N),
        offset: offset.unwrap_or(0),
    };
    Ok(Query { containers, page })
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
        parse(query).expect_err(query).to_string()
    }

    #[test]
    fn reads_what_clients_send() {
        let query = parse("container=b&container=a%2Fx&container=&x=%20&n=5&offset=10&container=b").expect("a query");
        assert_eq!(query.containers, ["a/x", "b"]);
        assert_eq!(query.page, Page { n: 5, offset: 10 });
        let query = parse("container=a+b&&n=007").expect("a query");
        assert_eq!(
            (query.containers, query.page),
            (vec!["a b".to_owned()], Page { n: 7, offset: 0 })
        );
        for default in ["container=a", "container=a&n=&offset=", "n=&container=a&n=3"] {
            assert_eq!(
                parse(default).expect("a query").page,
                Page { n: 3, offset: 0 },
                "{default}"
            );
        }
        assert_eq!(parse("container=a=b%zz").expect("a query").containers, ["a=b%zz"]);
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
        assert_eq!(parse("container=a&n=4294967295").expect("at it").page.n, u32::MAX);
        assert!(parse("container=a&n=4294967296").is_err());
        assert!(parse(&["container=a"; 64].join("&")).is_ok());
        assert_eq!(
            error(&["container=a"; 65].join("&")),
            "container: expected at most 64 of them, not 65"
        );
    }

    proptest! {
        #[test]
        fn never_panics(query in ".*") {
            let _ = parse(&query);
        }

        #[test]
        fn finds_the_containers_that_were_encoded(ids in prop::collection::btree_set(".{1,20}", 1..10)) {
            let encode = |id: &String| percent_encoding::percent_encode(id.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
            let query: Vec<String> = ids.iter().map(|id| format!("container={}", encode(id))).collect();
            prop_assert_eq!(parse(&query.join("&")).expect("a query").containers, ids.into_iter().collect::<Vec<_>>());
        }
    }
}
