//! Reads the body of `GET /info` into a [`NodeInfo`], against every limit and without recursion.
//!
//! The visitors are written by hand: what serde derives takes an array for an object, and its
//! errors don't say which field they are about.

use super::info::{ContainerId, IdError, NodeInfo, Running};
use super::json::Loose;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;
use std::sync::Arc;

/// Most containers that a node may list. Real nodes run a handful.
const MAX_CONTAINERS: usize = 256;
/// Longest description in characters; the rest is cut off. It is a line in a list, not a manual.
const MAX_DESCRIPTION_CHARS: usize = 1024;
/// Most types of pending jobs. Real nodes have two, offchain and onchain.
const MAX_PENDING_TYPES: usize = 64;
/// Longest name of a type of jobs in bytes, as that of a container.
const MAX_TYPE_BYTES: usize = 256;

impl<'de> Deserialize<'de> for NodeInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NodeInfo, D::Error> {
        deserializer.deserialize_map(InfoVisitor)
    }
}

struct InfoVisitor;

impl<'de> Visitor<'de> for InfoVisitor {
    type Value = NodeInfo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `containers` and `pending`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeInfo, A::Error> {
        let (mut containers, mut pending) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "containers" => once(&mut containers, "containers", map.next_value()?)?,
                "pending" => once(&mut pending, "pending", map.next_value()?)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let Containers(containers) = containers.ok_or_else(|| A::Error::missing_field("containers"))?;
        let Pending(pending) = pending.ok_or_else(|| A::Error::missing_field("pending"))?;
        Ok(NodeInfo { containers, pending })
    }
}

fn once<T, E: de::Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

struct Containers(Vec<Running>);

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Containers, D::Error> {
        deserializer.deserialize_seq(ContainersVisitor)
    }
}

struct ContainersVisitor;

impl<'de> Visitor<'de> for ContainersVisitor {
    type Value = Containers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`containers` to be a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Containers, A::Error> {
        let mut running: Vec<Running> = Vec::new();
        let mut listed = 0;
        while let Some(Entry(next)) = seq.next_element()? {
            listed += 1;
            if listed > MAX_CONTAINERS {
                let text = format!("`containers` lists more than {MAX_CONTAINERS}");
                return Err(A::Error::custom(text));
            }
            match running.iter_mut().find(|known| known.id == next.id) {
                None => running.push(next),
                Some(known) => known.description = known.description.take().or(next.description),
            }
        }
        Ok(Containers(running))
    }
}

struct Entry(Running);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a container to be an object with an `id`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut id, mut description) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => {
                    let text = map.next_value::<Loose>()?.text().ok_or(IdError);
                    let parsed = text.and_then(|text| ContainerId::parse(&text));
                    once(&mut id, "id", parsed.map_err(A::Error::custom)?)?;
                }
                "description" => {
                    description = description.or(cut(map.next_value::<Loose>()?));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let id = id.ok_or_else(|| A::Error::missing_field("id"))?;
        Ok(Entry(Running { id, description }))
    }
}

fn cut(description: Loose) -> Option<Arc<str>> {
    let text = description.text().filter(|text| !text.is_empty())?;
    let end = text.char_indices().nth(MAX_DESCRIPTION_CHARS);
    let end = end.map_or(text.len(), |(end, _)| end);
    Some(text[..end].into())
}

struct Pending(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for Pending {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pending, D::Error> {
        deserializer.deserialize_map(PendingVisitor)
    }
}

struct PendingVisitor;

impl<'de> Visitor<'de> for PendingVisitor {
    type Value = Pending;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`pending` to be a map of whole numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pending, A::Error> {
        let mut pending: Vec<(String, u64)> = Vec::new();
        while let Some(kind) = map.next_key::<String>()? {
            if kind.len() > MAX_TYPE_BYTES {
                let text = format!("`pending` has a name of more than {MAX_TYPE_BYTES} bytes");
                return Err(A::Error::custom(text));
            }
            if pending.iter().any(|(known, _)| *known == kind) {
                return Err(A::Error::custom(format!("`pending` has {kind:?} twice")));
            }
            if pending.len() == MAX_PENDING_TYPES {
                let text = format!("`pending` has more than {MAX_PENDING_TYPES} types");
                return Err(A::Error::custom(text));
            }
            let jobs = map.next_value_seed(JobsOf(&kind))?;
            pending.push((kind, jobs));
        }
        Ok(Pending(pending))
    }
}

/// Reads the number of pending jobs of a type.
struct JobsOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for JobsOf<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl Visitor<'_> for JobsOf<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`pending` {:?} to be a whole number, 0 to 2^64-1", self.0)
    }

    fn visit_u64<E: de::Error>(self, jobs: u64) -> Result<u64, E> {
        Ok(jobs)
    }
}
