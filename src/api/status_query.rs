//! The query of `/status` and `/status.json`: `state=down&container=a&q=10.0.&n=100&offset=0`.

use super::query::{QueryError, decode_pair, number};
use crate::registry::MAX_PAGE;
use crate::status::{Filter, NodeState};

/// Nodes on a page where `n` does not say.
const DEFAULT_N: u32 = 100;
/// Longest part of an address or id of a container, in bytes: as long as any of them, and the page that repeats it in
/// its links stays short.
const MAX_TEXT_BYTES: usize = 256;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusQuery {
    pub(super) filter: Filter,
    /// Whether the page stays as it is, `refresh=off`.
    pub(super) is_paused: bool,
}

/// Parses a query string. An empty value is an unset one, as forms send it; parameters that mean nothing here are
/// passed over.
///
/// # Errors
/// At the first parameter that is not as it must be.
pub(super) fn parse(query: &str) -> Result<StatusQuery, QueryError> {
    let (mut n, mut offset, mut refresh) = (None, None, None);
    let mut filter = Filter::default();
    for pair in query.split('&') {
        let (name, value) = decode_pair(pair)?;
        match &*name {
            _ if value.is_empty() => {}
            "n" => number("n", value, &mut n)?,
            "offset" => number("offset", value, &mut offset)?,
            "state" => once("state", value, &mut filter.state, state)?,
            "container" => once("container", value, &mut filter.container, text)?,
            "q" => once("q", value, &mut filter.part, text)?,
            "refresh" => once("refresh", value, &mut refresh, switch)?,
            _ => {}
        }
    }
    filter.n = n.unwrap_or(DEFAULT_N).min(MAX_PAGE) as usize;
    filter.offset = offset.unwrap_or(0) as usize;
    Ok(StatusQuery {
        filter,
        is_paused: refresh == Some(false),
    })
}

/// Takes a value into `field`; `read` says what was wanted where it can't.
fn once<T>(
    name: &'static str,
    value: String,
    field: &mut Option<T>,
    read: fn(&str) -> Result<T, &'static str>,
) -> Result<(), QueryError> {
    if field.is_some() {
        return Err(QueryError::Twice { name, value });
    }
    match read(&value) {
        Ok(read) => {
            *field = Some(read);
            Ok(())
        }
        Err(wanted) => Err(QueryError::Unexpected { name, value, wanted }),
    }
}

fn state(value: &str) -> Result<NodeState, &'static str> {
    let known = NodeState::ALL.into_iter().find(|state| state.name() == value);
    known.ok_or("new, up, suspect, down, limited or doubted")
}

fn text(value: &str) -> Result<String, &'static str> {
    match value.len() <= MAX_TEXT_BYTES {
        true => Ok(value.to_owned()),
        false => Err("at most 256 bytes"),
    }
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str) -> String {
        parse(query).expect_err(query).to_string()
    }

    #[test]
    fn what_is_not_said_or_empty_is_the_default() {
        let wanted = StatusQuery {
            filter: Filter {
                n: 100,
                ..Filter::default()
            },
            is_paused: false,
        };
        assert_eq!(parse("").expect("a query"), wanted);
        assert_eq!(
            parse("state=&container=&q=&n=&offset=&refresh=&x=1").expect("a query"),
            wanted
        );
    }

    #[test]
    fn each_filter_is_read_and_n_is_a_thousand_at_most() {
        let query = parse("state=down&container=a%2Fb&q=10.0.&n=5000&offset=7&refresh=off").expect("a query");
        let filter = Filter {
            state: Some(NodeState::Down),
            container: Some("a/b".to_owned()),
            part: Some("10.0.".to_owned()),
            n: 1_000,
            offset: 7,
        };
        assert_eq!(
            query,
            StatusQuery {
                filter,
                is_paused: true
            }
        );
    }

    #[test]
    fn says_what_is_wrong_with_which_value() {
        assert_eq!(
            error("state=broken"),
            "state=\"broken\": expected new, up, suspect, down, limited or doubted"
        );
        assert_eq!(error("state=up&state=up"), "state=\"up\": expected it once at most");
        assert_eq!(error("refresh=1"), "refresh=\"1\": expected on or off");
        assert!(error("n=x").starts_with("n=\"x\": expected a whole number"));
        assert_eq!(error("q=%ff"), "q=%ff: expected UTF-8");
        assert!(parse(&format!("q={}", "a".repeat(MAX_TEXT_BYTES))).is_ok());
        assert!(error(&format!("q={}", "a".repeat(MAX_TEXT_BYTES + 1))).ends_with("expected at most 256 bytes"));
    }
}
