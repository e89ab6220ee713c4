//! What a node reports about itself: the body of `GET /info`, checked against every limit.

use super::json::{self, ParseError, expect, once, text, unexpected};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest container id in bytes. Docker's names, which real ids become, are shorter.
const MAX_ID_BYTES: usize = 256;
/// The most containers of a node. Real nodes run a handful.
const MAX_CONTAINERS: usize = 256;
/// The longest description in characters; the rest is truncated. It is a line in a list, not a manual.
const MAX_DESCRIPTION_CHARS: usize = 1024;
/// The longest image name in bytes; the rest is truncated. A name with registry, path, tag and digest fits.
const MAX_IMAGE_BYTES: usize = 256;
/// The most types of pending jobs. Real nodes have two, offchain and onchain.
const MAX_PENDING_TYPES: usize = 64;
/// The longest name of a job type in bytes, the same as for a container.
const MAX_TYPE_BYTES: usize = 256;

/// The name of a container: 1 to 256 bytes of UTF-8. Cheap to clone, ordered by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Checks the length of `text`. Nodes choose the rest freely.
    ///
    /// # Errors
    /// The text is empty or has more than 256 bytes.
    pub fn parse(text: &str) -> Result<ContainerId, ParseError> {
        match (1..=MAX_ID_BYTES).contains(&text.len()) {
            true => Ok(ContainerId(text.into())),
            false => Err(ParseError(format!(
                "expected a container id, 1 to {MAX_ID_BYTES} bytes"
            ))),
        }
    }

    /// The id as the node wrote it: untrusted text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A container that a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: ContainerId,
    /// Its description, if the node provides one: untrusted text of 1 to 1,024 characters.
    pub description: Option<Arc<str>>,
    /// Its image, if the node provides one: untrusted text of 1 to 256 bytes.
    pub image: Option<Arc<str>>,
}

/// What a node reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// At most 256 containers, each once, in the order of the node.
    pub containers: Vec<Running>,
    /// Pending jobs by type, at most 64 types, each once. An empty list means no jobs.
    pub pending: Vec<(String, u64)>,
}

impl NodeInfo {
    /// Parses the body of `/info`: a JSON object with `containers`, a list of at most 256 objects with a string `id`,
    /// and `pending`, a map of whole numbers up to 2^64-1. A negative number is 0. A container that is listed twice is
    /// one, with the first description and the first image that are not empty. Other fields are ignored.
    ///
    /// # Errors
    /// Any other body, also one with two of `containers`, `pending` or `id`. (Of a job type that occurs twice the last
    /// number applies.)
    pub fn parse(body: &[u8]) -> Result<NodeInfo, ParseError> {
        let whole = json::parse(body)?;
        let expected = "an object with `containers` and `pending`";
        let [containers, pending] = json::fields(whole, expected, ["containers", "pending"])?;
        Ok(NodeInfo {
            containers: parse_containers(once(&containers, "containers")?)?,
            pending: parse_pending(once(&pending, "pending")?)?,
        })
    }

    /// The pending jobs, each multiplied by the `weight` of its type. Saturates at 2^64-1.
    pub fn load(&self, weight: impl Fn(&str) -> u32) -> u64 {
        self.pending.iter().fold(0, |sum, (kind, jobs)| {
            sum.saturating_add(jobs.saturating_mul(weight(kind).into()))
        })
    }
}

fn parse_containers(raw: &RawValue) -> Result<Vec<Running>, ParseError> {
    let entries: Vec<&RawValue> = parse(raw, '[', "`containers` to be a list")?;
    if entries.len() > MAX_CONTAINERS {
        return Err(ParseError(format!("`containers` lists more than {MAX_CONTAINERS}")));
    }
    let mut running: Vec<Running> = Vec::new();
    for entry in entries {
        let next = parse_container(entry)?;
        match running.iter_mut().find(|known| known.id == next.id) {
            None => running.push(next),
            Some(known) => {
                known.description = known.description.take().or(next.description);
                known.image = known.image.take().or(next.image);
            }
        }
    }
    Ok(running)
}

fn parse_container(raw: &RawValue) -> Result<Running, ParseError> {
    let expected = "a container to be an object with an `id`";
    let [id, description, image] = json::fields(raw, expected, ["id", "description", "image"])?;
    let id = once(&id, "id").map_err(|error| ParseError(format!("a container: {error}")))?;
    let (description, image) = (optional_text(&description), optional_text(&image));
    Ok(Running {
        id: ContainerId::parse(&text(id).unwrap_or_default())?,
        description: description.map(|text| text.chars().take(MAX_DESCRIPTION_CHARS).collect::<String>().into()),
        image: image.map(|text| cut(&text, MAX_IMAGE_BYTES)),
    })
}

fn parse_pending(raw: &RawValue) -> Result<Vec<(String, u64)>, ParseError> {
    let types: BTreeMap<String, &RawValue> = parse(raw, '{', "`pending` to be a map of whole numbers")?;
    if types.len() > MAX_PENDING_TYPES {
        return Err(ParseError(format!("`pending` has more than {MAX_PENDING_TYPES} types")));
    }
    let jobs = |(kind, raw): (String, &RawValue)| match count(raw) {
        _ if kind.len() > MAX_TYPE_BYTES => Err(ParseError(format!(
            "`pending` has a name of more than {MAX_TYPE_BYTES} bytes"
        ))),
        Some(jobs) => Ok((kind, jobs)),
        None => {
            let expected = format!("`pending` {kind:?} to be a whole number, at most 2^64-1");
            Err(unexpected(&expected, raw))
        }
    };
    types.into_iter().map(jobs).collect()
}

/// A whole number. A negative one is 0, because nodes of version 0.2.0 can count to -1.
fn count(raw: &RawValue) -> Option<u64> {
    let number: i128 = raw.get().parse().ok()?;
    u64::try_from(number.max(0)).ok()
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue, begin: char, expected: &str) -> Result<T, ParseError> {
    Ok(serde_json::from_str(expect(raw, begin, expected)?)?)
}

/// A text that is present and not empty.
fn optional_text(values: &[&RawValue]) -> Option<String> {
    text(values.first()?).filter(|text| !text.is_empty())
}

fn cut(text: &str, most_bytes: usize) -> Arc<str> {
    let end = (0..=most_bytes).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].into()
}

#[cfg(test)]
mod tests;
