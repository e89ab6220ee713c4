//! The containers that available nodes run: for each its order of nodes and its description.
//!
//! Explorer nodes share a limited catalogue. An id that nodes of only one Explorer address run is charged to that
//! address, whatever its ports. If the catalogue is full, a new id of an address with a small share evicts such an id
//! of the address with the largest one. A party that registers many nodes thus does not keep out others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use super::order::{Order, Place};
use super::{NodeId, Rank};
use crate::node::{ContainerId, Running};
use crate::util::arena::{Arena, Key};

/// Maximum number of container ids to which Explorer nodes may add. Real fleets have some dozens.
pub const MAX_CONTAINERS: usize = 10_000;
/// Maximum number of container ids in all. Listed nodes may exceed [`MAX_CONTAINERS`], since the operator named them,
/// but a listed node that turns hostile must not take all memory. 100,000 ids take some 60 MiB.
const MAX_LISTED_CONTAINERS: usize = 100_000;
/// Descriptions kept for one container, those of its first nodes. If all these nodes leave together, the next probe of
/// another node brings its description.
const MAX_CANDIDATES: usize = 4;
/// All ids and descriptions together, in bytes as JSON has them (an escaped control character has six). Above it,
/// Explorer nodes add none, so that they cannot make the response of `/containers` longer than this.
pub const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// What an id adds to a share beside its bytes: with it, a full catalogue and full texts weigh the same.
const ID_WEIGHT: usize = MAX_TEXT_BYTES / MAX_CONTAINERS;

/// A share is evicted from only if it weighs this many times another one. Similar shares thus do not evict each other's
/// ids in turn.
const MIN_EXCESS: usize = 2;

/// Images kept for one id. Two images are a conflict already, and an untrusted node cannot make the list longer.
const MAX_IMAGES: usize = 4;

/// The image with which a node runs a container: its number in the container's list plus 1, or 0 if the node states
/// none or the list is full.
pub(super) type ImageSlot = u8;

/// Number of a container in the catalogue, while at least one available node runs it.
pub(super) type Index = Key;

/// What `/containers` shows of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The container.
    pub id: ContainerId,
    /// Number of available nodes that run it.
    pub count: usize,
    /// The first non-empty description: listed nodes in the order of ips.txt, then Explorer nodes by address.
    pub description: Option<Arc<str>>,
    /// The images with which available nodes run the container, each with the number of these nodes. More than one is a
    /// conflict.
    pub images: Vec<(Arc<str>, usize)>,
}

#[derive(Debug)]
struct Image {
    text: Arc<str>,
    /// A slot without nodes is reused.
    nodes: usize,
}

#[derive(Debug)]
pub(super) struct Container {
    id: ContainerId,
    pub(super) order: Order,
    /// The only Explorer address that runs it; `None` for ids that several addresses or a listed node have run.
    owner: Option<IpAddr>,
    /// Bytes of the id and of the descriptions, as JSON has them.
    bytes: usize,
    /// By rank.
    texts: Vec<Candidate>,
    images: Vec<Image>,
}

#[derive(Debug)]
struct Candidate {
    rank: Rank,
    node: NodeId,
    text: Arc<str>,
}

/// The ids that one Explorer address alone runs, and their weight.
#[derive(Debug, Default)]
struct Share {
    ids: BTreeSet<Index>,
    weight: usize,
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_id: BTreeMap<ContainerId, Index>,
    containers: Arena<Container>,
    text_bytes: usize,
    shares: HashMap<IpAddr, Share>,
    /// The weight of each share: the largest one is found without a scan.
    by_weight: BTreeSet<(usize, IpAddr)>,
}

impl Catalogue {
    pub(super) fn find(&self, id: &str) -> Option<&Container> {
        self.containers.get(self.index(id)?)
    }

    pub(super) fn index(&self, id: &str) -> Option<Index> {
        self.by_id.get(id).copied()
    }

    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut Container> {
        self.containers.get_mut(index)
    }

    /// The id of a container.
    pub(super) fn id(&self, index: Index) -> Option<ContainerId> {
        Some(self.containers.get(index)?.id.clone())
    }

    /// A container as this node reported it.
    pub(super) fn running(&self, index: Index, node: NodeId, image: ImageSlot) -> Option<Running> {
        let container = self.containers.get(index)?;
        let text = container.texts.iter().find(|candidate| candidate.node == node);
        let image = usize::from(image)
            .checked_sub(1)
            .and_then(|at| container.images.get(at));
        Some(Running {
            id: container.id.clone(),
            description: text.map(|candidate| Arc::clone(&candidate.text)),
            image: image.map(|image| Arc::clone(&image.text)),
        })
    }

    /// Counts a node that runs the container with this image.
    pub(super) fn claim_image(&mut self, index: Index, image: Option<&Arc<str>>) -> ImageSlot {
        let (Some(container), Some(text)) = (self.containers.get_mut(index), image) else {
            return 0;
        };
        let images = &mut container.images;
        let known = images.iter().position(|image| image.text == *text);
        let at = known.or_else(|| images.iter().position(|image| image.nodes == 0));
        let at = at.unwrap_or(images.len());
        match images.get_mut(at) {
            Some(image) if known.is_some() => image.nodes += 1,
            Some(image) => (image.text, image.nodes) = (Arc::clone(text), 1),
            None if at == MAX_IMAGES => return 0,
            None => images.push(Image {
                text: Arc::clone(text),
                nodes: 1,
            }),
        }
        at as ImageSlot + 1
    }

    /// Takes a node out of the counts of the images with which it ran these containers.
    pub(super) fn release_images(&mut self, runs: &[Index], images: &[ImageSlot]) {
        for (index, image) in runs.iter().zip(images) {
            let at = usize::from(*image).checked_sub(1);
            let images = self.containers.get_mut(*index).map(|container| &mut container.images);
            if let (Some(at), Some(images)) = (at, images)
                && let Some(image) = images.get_mut(at)
            {
                image.nodes -= 1;
            }
        }
    }

    /// Returns summaries of at most `most` containers after `after`, by id.
    pub(super) fn summaries(&self, after: Option<&ContainerId>, most: usize) -> Vec<Summary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.by_id.range::<ContainerId, _>((from, Bound::Unbounded)).take(most);
        range
            .filter_map(|(_, index)| self.containers.get(*index))
            .map(Container::summary)
            .collect()
    }

    /// Returns the index of `id`, which is added if it is new; `None` if the catalogue is full for a node of this rank.
    pub(super) fn enter(&mut self, id: &ContainerId, rank: Rank) -> Option<Index> {
        let owner = rank.explorer_ip();
        if let Some(index) = self.by_id.get(id).copied() {
            if self.containers.get(index)?.owner != owner {
                self.set_owner(index, None);
            }
            return Some(index);
        }
        let has_room = match owner {
            None => self.by_id.len() < MAX_LISTED_CONTAINERS,
            Some(owner) => self.make_room(owner, json_len(id.as_str())),
        };
        has_room.then(|| self.add(id, owner))
    }

    /// Evicts ids of larger shares, if an id of an Explorer address has no room. Returns whether it has room.
    fn make_room(&mut self, owner: IpAddr, bytes: usize) -> bool {
        loop {
            let ids = self.by_id.len();
            if ids < MAX_CONTAINERS && self.text_bytes + bytes <= MAX_TEXT_BYTES {
                return true;
            }
            let weight = self.shares.get(&owner).map_or(0, |share| share.weight) + bytes + ID_WEIGHT;
            let largest = self.by_weight.last();
            let largest = largest.filter(|(largest, _)| *largest > MIN_EXCESS * weight);
            let index = largest.and_then(|(_, owner)| self.shares.get(owner)?.ids.last().copied());
            // Above the limit the ids of listed nodes take the room, and no eviction helps.
            let Some(index) = index.filter(|_| ids <= MAX_CONTAINERS) else {
                return false;
            };
            self.remove(index);
        }
    }

    fn add(&mut self, id: &ContainerId, owner: Option<IpAddr>) -> Index {
        let index = self.containers.insert(Container {
            id: id.clone(),
            order: Order::default(),
            owner: None,
            bytes: 0,
            texts: Vec::new(),
            images: Vec::new(),
        });
        self.by_id.insert(id.clone(), index);
        self.recount(index);
        self.set_owner(index, owner);
        index
    }

    fn remove(&mut self, index: Index) {
        self.set_owner(index, None);
        if let Some(container) = self.containers.remove(index) {
            self.text_bytes -= container.bytes;
            self.by_id.remove(&container.id);
        }
    }

    fn set_owner(&mut self, index: Index, owner: Option<IpAddr>) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let weight = container.bytes + ID_WEIGHT;
        let old = std::mem::replace(&mut container.owner, owner);
        self.change_share(old, |share| {
            share.ids.remove(&index);
            share.weight -= weight;
        });
        self.change_share(owner, |share| {
            share.ids.insert(index);
            share.weight += weight;
        });
    }

    fn change_share(&mut self, owner: Option<IpAddr>, change: impl FnOnce(&mut Share)) {
        let Some(owner) = owner else {
            return;
        };
        let share = self.shares.entry(owner).or_default();
        self.by_weight.remove(&(share.weight, owner));
        change(share);
        match share.ids.is_empty() {
            true => drop(self.shares.remove(&owner)),
            false => drop(self.by_weight.insert((share.weight, owner))),
        }
    }

    /// Updates the bytes of a container whose texts have changed.
    fn recount(&mut self, index: Index) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let bytes = json_len(container.id.as_str()) + container.distinct_text_bytes();
        let old = std::mem::replace(&mut container.bytes, bytes);
        let owner = container.owner;
        self.text_bytes = self.text_bytes - old + bytes;
        self.change_share(owner, |share| share.weight = share.weight - old + bytes);
    }

    /// Removes a node of this rank, which was at `place`, from the container.
    pub(super) fn leave(&mut self, index: Index, node: NodeId, rank: Rank, place: Place) {
        self.describe(index, node, rank, None);
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        container.order.remove(place);
        if container.order.len() == 0 {
            self.remove(index);
        }
    }

    /// Changes the rank of a node that runs the container.
    pub(super) fn rerank(&mut self, index: Index, node: NodeId, rank: Rank) {
        if rank.is_listed() {
            self.set_owner(index, None);
        }
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        if let Some(candidate) = container.texts.iter_mut().find(|candidate| candidate.node == node) {
            candidate.rank = rank;
            container.texts.sort_by_key(|candidate| candidate.rank);
        }
    }

    /// Replaces the description that a node provides.
    pub(super) fn describe(&mut self, index: Index, node: NodeId, rank: Rank, text: Option<&Arc<str>>) {
        let room = MAX_TEXT_BYTES.saturating_sub(self.text_bytes);
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let known = container.texts.iter().find(|candidate| candidate.node == node);
        if known.map(|candidate| &candidate.text) == text {
            return;
        }
        container.texts.retain(|candidate| candidate.node != node);
        if let Some(text) = text {
            container.offer(node, rank, text, room);
        }
        self.recount(index);
    }
}

impl Container {
    fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            count: self.order.len(),
            description: self.texts.first().map(|candidate| Arc::clone(&candidate.text)),
            images: self
                .images
                .iter()
                .filter(|image| image.nodes > 0)
                .map(|image| (Arc::clone(&image.text), image.nodes))
                .collect(),
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

    /// A text that several candidates share counts once, because it is stored once.
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
        fn json_length_is_exact(text in "[\\x00-\\x7f\u{80}\u{2028}ä€\u{1F600}]{0,40}") {
            let json = serde_json::to_string(&text).expect("text is JSON");
            prop_assert_eq!(super::json_len(&text) + 2, json.len());
        }
    }
}
