//! Reads the body of `GET /info` into a [`NodeInfo`], against every limit and without recursion.
//!
//! Three levels are read one after the other, each as raw JSON of the next: so an odd field spoils nothing around it,
//! nesting costs no stack, and a reason names the field that it is about.

use super::info::{ContainerId, IdError, InfoError, NodeInfo, Running};
use super::json::{self, is_list, is_object, text};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most containers that a node may list. Real nodes run a handful.
const MAX_CONTAINERS: usize = 256;
/// Longest description in characters; the rest is cut off. It is a line in a list, not a manual.
const MAX_DESCRIPTION_CHARS: usize = 1024;
/// Longest image name kept, in bytes; the rest is cut off. A name with registry, path, tag and digest fits.
const MAX_IMAGE_BYTES: usize = 256;
/// Longest version kept, in bytes; the rest is cut off. Real ones have five.
const MAX_VERSION_BYTES: usize = 64;
/// Most types of pending jobs. Real nodes have two, offchain and onchain.
const MAX_PENDING_TYPES: usize = 64;
/// Longest name of a type of jobs in bytes, as that of a container.
const MAX_TYPE_BYTES: usize = 256;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    containers: &'a RawValue,
    #[serde(borrow)]
    pending: &'a RawValue,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    description: Option<&'a RawValue>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
}

/// Reads a whole body.
///
/// # Errors
/// As [`NodeInfo::parse`] says.
pub(super) fn read(body: &[u8]) -> Result<NodeInfo, InfoError> {
    let whole: &RawValue = serde_json::from_slice(body).map_err(|error| InfoError(json::reason(&error)))?;
    if !is_object(whole) {
        return Err(unexpected("an object with `containers` and `pending`", whole));
    }
    let body: Body<'_> = parse(whole, "")?;
    Ok(NodeInfo {
        containers: containers(body.containers)?,
        pending: pending(body.pending)?,
        version: optional_text(body.version).map(|text| cut(&text, MAX_VERSION_BYTES)),
    })
}

fn containers(raw: &RawValue) -> Result<Vec<Running>, InfoError> {
    if !is_list(raw) {
        return Err(unexpected("`containers` to be a list", raw));
    }
    let entries: Vec<&RawValue> = parse(raw, "`containers`: ")?;
    if entries.len() > MAX_CONTAINERS {
        return Err(InfoError(format!("`containers` lists more than {MAX_CONTAINERS}")));
    }
    let mut running: Vec<Running> = Vec::new();
    for entry in entries {
        let next = container(entry)?;
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

fn container(raw: &RawValue) -> Result<Running, InfoError> {
    if !is_object(raw) {
        return Err(unexpected("a container to be an object with an `id`", raw));
    }
    let entry: Entry<'_> = parse(raw, "a container: ")?;
    let id = text(entry.id).ok_or(IdError).and_then(|text| ContainerId::parse(&text));
    Ok(Running {
        id: id.map_err(|error| InfoError(error.to_string()))?,
        description: optional_text(entry.description).map(|text| cut_chars(&text, MAX_DESCRIPTION_CHARS)),
        image: optional_text(entry.image).map(|text| cut(&text, MAX_IMAGE_BYTES)),
    })
}

fn pending(raw: &RawValue) -> Result<Vec<(String, u64)>, InfoError> {
    if !is_object(raw) {
        return Err(unexpected("`pending` to be a map of whole numbers", raw));
    }
    let types: BTreeMap<String, &RawValue> = parse(raw, "`pending`: ")?;
    if types.len() > MAX_PENDING_TYPES {
        return Err(InfoError(format!("`pending` has more than {MAX_PENDING_TYPES} types")));
    }
    let jobs = |(kind, raw): (String, &RawValue)| {
        if kind.len() > MAX_TYPE_BYTES {
            return Err(InfoError(format!(
                "`pending` has a name of more than {MAX_TYPE_BYTES} bytes"
            )));
        }
        match count(raw) {
            Some(jobs) => Ok((kind, jobs)),
            None => {
                let wanted = format!("`pending` {kind:?} to be a whole number, at most 2^64-1");
                Err(unexpected(&wanted, raw))
            }
        }
    };
    types.into_iter().map(jobs).collect()
}

/// A whole number; a negative one counts as 0, since nodes of 0.2.0 can count to -1.
fn count(raw: &RawValue) -> Option<u64> {
    let number: i128 = raw.get().parse().ok()?;
    u64::try_from(number.max(0)).ok()
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue, of: &str) -> Result<T, InfoError> {
    serde_json::from_str(raw.get()).map_err(|error| InfoError(format!("{of}{}", json::reason(&error))))
}

fn unexpected(wanted: &str, found: &RawValue) -> InfoError {
    InfoError(json::unexpected(wanted, found))
}

/// A text that is there and not empty.
fn optional_text(raw: Option<&RawValue>) -> Option<String> {
    text(raw?).filter(|text| !text.is_empty())
}

fn cut_chars(text: &str, most: usize) -> Arc<str> {
    let end = text.char_indices().nth(most);
    text[..end.map_or(text.len(), |(end, _)| end)].into()
}

fn cut(text: &str, most_bytes: usize) -> Arc<str> {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= most_bytes).last();
    text[..end.unwrap_or(0)].into()
}
