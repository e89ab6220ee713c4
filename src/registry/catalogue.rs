//! The containers that available nodes run: for each its order of nodes and the description to show.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::order::{Order, Place};
use super::{NodeId, Rank};
use crate::node::{ContainerId, Running};
use crate::util::arena::{Arena, Key};

/// Most distinct container ids that nodes of the Explorer may add to. Real fleets have some dozens.
pub const MAX_CONTAINERS: usize = 10_000;
/// Most distinct container ids in all: those of nodes of ips.txt are entered beyond [`MAX_CONTAINERS`], since the
/// operator named these nodes, but one that turns hostile must not take all memory. 100,000 ids take some 60 MiB.
const MAX_LISTED_CONTAINERS: usize = 100_000;
/// Descriptions kept for one container, those of its first nodes: when all these leave at once, the next probe of
/// another node brings its own.
const MAX_CANDIDATES: usize = 4;
/// All ids and descriptions together, in bytes as JSON has them (an escaped control character is six of them). Beyond
/// it, nodes that only the Explorer names add none, so that they can't make the answer of `/containers` longer than this.
pub const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// Number of a container in the catalogue, while at least one available node runs it.
pub(super) type Index = Key;

/// What `/containers` says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The container.
    pub id: ContainerId,
    /// Number of available nodes that run it.
    pub count: usize,
    /// The first description that is not empty, nodes of ips.txt in their order, then the Explorer's by address.
    pub description: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Container {
    id: ContainerId,
    pub(super) order: Order,
    /// By rank.
    texts: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    rank: Rank,
    node: NodeId,
    text: Arc<str>,
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_id: BTreeMap<ContainerId, Index>,
    containers: Arena<Container>,
    text_bytes: usize,
}

impl Catalogue {
    pub(super) fn find(&self, id: &str) -> Option<&Container> {
        self.containers.get(*self.by_id.get(id)?)
    }

    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut Container> {
        self.containers.get_mut(index)
    }

    /// The id of a container.
    pub(super) fn id(&self, index: Index) -> Option<ContainerId> {
        Some(self.containers.get(index)?.id.clone())
    }

    /// A container as this node described it; its image is not kept here.
    pub(super) fn running(&self, index: Index, node: NodeId) -> Option<Running> {
        let container = self.containers.get(index)?;
        let text = container.texts.iter().find(|candidate| candidate.node == node);
        Some(Running {
            id: container.id.clone(),
            description: text.map(|candidate| Arc::clone(&candidate.text)),
            image: None,
        })
    }

    /// Summaries of at most `most` containers behind `after`, by id.
    pub(super) fn summaries(&self, after: Option<&ContainerId>, most: usize) -> Vec<Summary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.by_id.range::<ContainerId, _>((from, Bound::Unbounded)).take(most);
        range
            .filter_map(|(_, index)| self.containers.get(*index))
            .map(Container::summary)
            .collect()
    }

    /// The index of `id`, entered anew if it is not known: none where the catalogue is full for a node of this rank.
    pub(super) fn enter(&mut self, id: &ContainerId, rank: Rank) -> Option<Index> {
        if let Some(index) = self.by_id.get(id) {
            return Some(*index);
        }
        let has_room = match rank.is_listed() {
            true => self.by_id.len() < MAX_LISTED_CONTAINERS,
            false => self.by_id.len() < MAX_CONTAINERS && self.text_bytes + json_len(id.as_str()) <= MAX_TEXT_BYTES,
        };
        has_room.then(|| self.add(id))
    }

    fn add(&mut self, id: &ContainerId) -> Index {
        let index = self.containers.insert(Container {
            id: id.clone(),
            order: Order::default(),
            texts: Vec::new(),
        });
        self.by_id.insert(id.clone(), index);
        self.text_bytes += json_len(id.as_str());
        index
    }

    /// Notes that a node of this rank, which stood at `place`, runs the container no more.
    pub(super) fn leave(&mut self, index: Index, node: NodeId, rank: Rank, place: Place) {
        self.describe(index, node, rank, None);
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        container.order.remove(place);
        if container.order.len() == 0 {
            self.text_bytes -= json_len(container.id.as_str()) + container.distinct_text_bytes();
            self.by_id.remove(&container.id);
            self.containers.remove(index);
        }
    }

    /// Notes that a node that runs the container has another rank now.
    pub(super) fn rerank(&mut self, index: Index, node: NodeId, rank: Rank) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        if let Some(candidate) = container.texts.iter_mut().find(|candidate| candidate.node == node) {
            candidate.rank = rank;
            container.texts.sort_by_key(|candidate| candidate.rank);
        }
    }

    /// Replaces the description that a node gives.
    pub(super) fn describe(&mut self, index: Index, node: NodeId, rank: Rank, text: Option<&Arc<str>>) {
        let room = MAX_TEXT_BYTES.saturating_sub(self.text_bytes);
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let known = container.texts.iter().find(|candidate| candidate.node == node);
        if known.map(|candidate| &candidate.text) == text {
            return;
        }
        let before = container.distinct_text_bytes();
        container.texts.retain(|candidate| candidate.node != node);
        if let Some(text) = text {
            container.offer(node, rank, text, room);
        }
        let after = container.distinct_text_bytes();
        self.text_bytes = self.text_bytes + after - before;
    }
}

impl Container {
    fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            count: self.order.len(),
            description: self.texts.first().map(|candidate| Arc::clone(&candidate.text)),
        }
    }

    fn offer(&mut self, node: NodeId, rank: Rank, text: &Arc<str>, room: usize) {
        let at = self.texts.partition_point(|candidate| candidate.rank < rank);
        if at >= MAX_CANDIDATES {
            return;
        }
        let same = self.texts.iter().find(|candidate| candidate.text == *text);
        let text = Arc::clone(same.map_or(text, |candidate| &candidate.text));
        if same.is_none() && json_len(&text) > room && !rank.is_listed() {
            return;
        }
        self.texts.insert(at, Candidate { rank, node, text });
        self.texts.truncate(MAX_CANDIDATES);
    }

    /// Texts that several candidates share count once, as they are stored once.
    fn distinct_text_bytes(&self) -> usize {
        let shared = |i: usize| {
            self.texts[..i]
                .iter()
                .any(|other| Arc::ptr_eq(&other.text, &self.texts[i].text))
        };
        (0..self.texts.len())
            .filter(|i| !shared(*i))
            .map(|i| json_len(&self.texts[i].text))
            .sum()
    }
}

/// Bytes of a text in JSON, without its quotes (RFC 8259, section 7).
fn json_len(text: &str) -> usize {
    let byte_len = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        ..=0x1F => 6,
        _ => 1,
    };
    text.bytes().map(byte_len).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn json_has_as_many_bytes_as_were_counted(text in "[\\x00-\\x7f\u{80}\u{2028}ä€\u{1F600}]{0,40}") {
            let json = serde_json::to_string(&text).expect("text is JSON");
            prop_assert_eq!(super::json_len(&text) + 2, json.len());
        }
    }
}
