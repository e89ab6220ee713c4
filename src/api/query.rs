//! Parses queries as browsers, curl and aiohttp write them: `container=a&container=b&n=3&offset=0`.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::registry::{MAX_PAGE, MAX_SEARCHES, NodeState, Page};
use crate::status::{self, Filter};
use crate::util::text;

/// Containers of one query. A node runs at most 256, and a request head has 8 KiB.
const MAX_CONTAINERS: usize = 64;
/// Addresses of a response of `/api/v1/ips` without `n`.
const DEFAULT_N: u32 = 3;
/// Nodes of a response of `/api/v1/resources` without `n`. The client of `/api/v1/resources` cannot send it.
const DEFAULT_NODES: u32 = 100;
/// Longest number in digits: those of the largest number of 64 bits, which clients send for "all".
const MAX_DIGITS: usize = 20;
/// Longest model id in bytes. Real ids have 20 to 120.
const MAX_MODEL_ID_BYTES: usize = 256;
/// Characters of a model id besides ASCII letters and digits. Nodes insert the id into URLs without escaping it.
const MODEL_ID_MARKS: &[u8] = b"._-/:,@=+~";
/// Longest `container` or `q` of `/status` in bytes: any address or id fits, and the page's links, which repeat it,
/// stay short.
const MAX_FILTER_BYTES: usize = 256;
/// Characters of an invalid value that its error repeats.
const MAX_SHOWN: usize = 64;

/// The query of `/api/v1/ips` or `/api/v1/resources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Distinct and sorted.
    pub(super) containers: Vec<String>,
    pub(super) page: Page,
    /// Of `/api/v1/resources` only.
    pub(super) model_id: Option<String>,
}

/// Why a query is invalid: the `error` of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueryError(pub(super) String);

impl QueryError {
    /// The page takes too many searches.
    pub(super) fn too_deep(Query { containers, page, .. }: &Query) -> Self {
        let (offset, containers) = (page.offset, containers.len());
        Self(format!(
            "offset=\"{offset}\": expected a smaller offset or fewer containers; {containers} containers at this offset \
             take more than {MAX_SEARCHES} searches"
        ))
    }
}

/// Parses the query of `/api/v1/ips`.
pub(super) fn ips(query: &str) -> Result<Query, QueryError> {
    let params = Params::parse(query)?;
    let (containers, page) = (params.containers()?, params.page(DEFAULT_N)?);
    if containers.is_empty() {
        // The text of the original.
        return Err(QueryError("No containers specified".to_owned()));
    }
    Ok(Query {
        containers,
        page,
        model_id: None,
    })
}

/// Parses the query of `/api/v1/containers`: without `n`, the page has all of them.
pub(super) fn containers(query: &str) -> Result<Page, QueryError> {
    Params::parse(query)?.page(u32::MAX)
}

/// Parses the query of `/api/v1/resources`.
pub(super) fn resources(query: &str) -> Result<Query, QueryError> {
    let params = Params::parse(query)?;
    Ok(Query {
        containers: params.containers()?,
        page: params.page(DEFAULT_NODES)?,
        model_id: params.once("model_id", model_id)?,
    })
}

/// Parses the query of `/status`. An empty value is treated as absent, as forms send it.
pub(super) fn status(query: &str) -> Result<Filter, QueryError> {
    let params = Params::parse(query)?;
    let page = params.page(status::DEFAULT_N)?;
    Ok(Filter {
        state: params.once("state", state)?,
        container: params.once("container", filter)?,
        part: params.once("q", filter)?,
        n: page.n as usize,
        offset: page.offset as usize,
        is_paused: params.once("refresh", switch)? == Some(false),
    })
}

/// The decoded parameters, in order. A query may have others than an endpoint reads.
struct Params(Vec<(String, String)>);

impl Params {
    fn parse(query: &str) -> Result<Self, QueryError> {
        query.split('&').map(decode_pair).collect::<Result<_, _>>().map(Self)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(other, _)| other == name);
        pairs.map(|(_, value)| value.as_str())
    }

    fn containers(&self) -> Result<Vec<String>, QueryError> {
        let values = self.values("container").filter(|value| !value.is_empty());
        let mut containers: Vec<String> = values.map(str::to_owned).collect();
        if containers.len() > MAX_CONTAINERS {
            let count = containers.len();
            let error = format!("container: expected at most {MAX_CONTAINERS} of them, not {count}");
            return Err(QueryError(error));
        }
        containers.sort_unstable();
        containers.dedup();
        Ok(containers)
    }

    /// Of several values the first counts, as with the original.
    fn page(&self, default_n: u32) -> Result<Page, QueryError> {
        let first = |name| {
            let value = self.values(name).next().filter(|value| !value.is_empty());
            value.map(|value| read(name, value, number)).transpose()
        };
        Ok(Page {
            n: first("n")?.map_or(default_n, |n| n.min(MAX_PAGE)),
            offset: first("offset")?.unwrap_or(0),
        })
    }

    /// Reads a parameter that may be given once.
    fn once<T>(&self, name: &str, reader: Reader<T>) -> Result<Option<T>, QueryError> {
        let mut values = self.values(name).filter(|value| !value.is_empty());
        match (values.next(), values.next()) {
            (_, Some(second)) => read(name, second, |_| Err("at most once")),
            (first, None) => first.map(|value| read(name, value, reader)).transpose(),
        }
    }
}

/// Reads a value, or returns the expected form.
type Reader<T> = fn(&str) -> Result<T, &'static str>;

fn read<T>(name: &str, value: &str, reader: Reader<T>) -> Result<T, QueryError> {
    let error = |expected| QueryError(format!("{name}={}: expected {expected}", text::quote(value, MAX_SHOWN)));
    reader(value).map_err(error)
}

/// Saturates: no router has as many nodes.
fn number(value: &str) -> Result<u32, &'static str> {
    let is_number = value.len() <= MAX_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| value.parse().unwrap_or(u32::MAX));
    number.ok_or("a whole number of at most 20 digits")
}

fn model_id(value: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || MODEL_ID_MARKS.contains(&byte);
    let is_valid = value.len() <= MAX_MODEL_ID_BYTES && value.bytes().all(is_plain);
    is_valid
        .then(|| value.to_owned())
        .ok_or("1 to 256 bytes of A-Za-z0-9._-/:,@=+~")
}

fn state(value: &str) -> Result<NodeState, &'static str> {
    let known = NodeState::ALL.into_iter().find(|state| state.name() == value);
    known.ok_or("new, up, suspect, down, limited or doubted")
}

fn filter(value: &str) -> Result<String, &'static str> {
    let is_short = value.len() <= MAX_FILTER_BYTES;
    is_short.then(|| value.to_owned()).ok_or("at most 256 bytes")
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off"),
    }
}

/// Decodes one parameter. `container[]` is another spelling of `container`.
fn decode_pair(pair: &str) -> Result<(String, String), QueryError> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    // The client sends a model id as it is. No id has a blank, so a plus is one.
    let plus = if name == "model_id" { "%2B" } else { " " };
    let decode = |text: String| percent_decode(text.as_bytes()).decode_utf8().ok().map(Cow::into_owned);
    let decoded = decode(name.replace('+', " ")).zip(decode(value.replace('+', plus)));
    let error = || QueryError(format!("{}: expected UTF-8", text::shorten(pair, MAX_SHOWN)));
    let (name, value) = decoded.ok_or_else(error)?;
    Ok((name.replace("container[]", "container"), value))
}

#[cfg(test)]
mod tests;
