//! The containers that available nodes run: for each its order of nodes and its description.
//!
//! Explorer nodes share a limited catalogue. An id that nodes of only one Explorer address run is charged to that
//! address, whatever its ports. If the catalogue is full, a new id of an address with a small share evicts such an id
//! of the address with the largest one. A party that registers many nodes thus does not keep out others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use thunderdome::{Arena, Index as Key};

use super::order::{Order, Place};
use super::{NodeId, Rank};
use crate::node::{ContainerId, Running};

/// Maximum number of container ids to which Explorer nodes may add. Real fleets have some dozens.
pub const MAX_CONTAINERS: usize = 10_000;
/// Maximum number of container ids in all. Listed nodes may exceed [`MAX_CONTAINERS`], since the operator named them,
/// but a listed node that turns hostile must not take all memory. 100,000 ids take some 60 MiB.
const MAX_LISTED_CONTAINERS: usize = 100_000;
/// Descriptions kept for one container, those of its first nodes. If all these nodes leave together, the next probe of
/// another node brings its description.
const MAX_CANDIDATES: usize = 4;
/// Bytes of all descriptions together. Above it, Explorer nodes add none: a description may have 4 KiB, and real ones
/// have some hundred bytes.
pub(super) const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// A share is evicted from only if it has more than this many times the ids of another one. Similar shares thus do not
/// evict each other's ids in turn.
const MIN_EXCESS: usize = 2;

/// Images kept for one id. Two images are a conflict already, and an untrusted node cannot make the list longer.
const MAX_IMAGES: usize = 4;

/// The image with which nodes run a container. The catalogue and each of these nodes refer to it, so the references
/// count the nodes.
type Image = Arc<Arc<str>>;

/// Number of a container in the catalogue, while at least one available node runs it.
pub(super) type Index = Key;

/// A container that a node runs, and its image. `None`: the node states none, or the container has too many.
pub(super) type Run = (Index, Option<Image>);

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
struct Container {
    id: ContainerId,
    order: Order,
    /// The only Explorer address that runs it; `None` for ids that several addresses or a listed node have run.
    owner: Option<IpAddr>,
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

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_id: BTreeMap<ContainerId, Index>,
    containers: Arena<Container>,
    /// Bytes of all descriptions.
    text_bytes: usize,
    /// The ids that one Explorer address alone runs.
    shares: HashMap<IpAddr, BTreeSet<Index>>,
    /// The length of each share: the largest one is found without a scan.
    by_len: BTreeSet<(usize, IpAddr)>,
}

impl Catalogue {
    /// The nodes that run a container.
    pub(super) fn order(&self, id: &str) -> Option<&Order> {
        Some(&self.containers.get(self.index(id)?)?.order)
    }

    pub(super) fn index(&self, id: &str) -> Option<Index> {
        self.by_id.get(id).copied()
    }

    /// The id of a container.
    pub(super) fn id(&self, index: Index) -> Option<ContainerId> {
        Some(self.containers.get(index)?.id.clone())
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

    /// Moves a node to its place in the order of a container that it reports. Adds a new container. Returns `None` if the
    /// catalogue is full for a node of this rank.
    pub(super) fn enter(
        &mut self,
        reported: &Running,
        node: NodeId,
        rank: Rank,
        from: Option<Place>,
        to: Place,
    ) -> Option<Run> {
        let index = self.find_or_add(&reported.id, rank.explorer_ip())?;
        let container = self.containers.get_mut(index)?;
        from.iter().for_each(|from| container.order.remove(*from));
        container.order.insert(to);
        self.text_bytes -= container.text_bytes();
        container.texts.retain(|known| known.node != node);
        let room = MAX_TEXT_BYTES.saturating_sub(self.text_bytes + container.text_bytes());
        let is_room = |text: &&Arc<str>| rank.is_listed() || text.len() <= room;
        if let Some(text) = reported.description.as_ref().filter(is_room).cloned() {
            let at = container.texts.partition_point(|known| known.rank < rank);
            container.texts.insert(at, Candidate { rank, node, text });
            container.texts.truncate(MAX_CANDIDATES);
        }
        self.text_bytes += container.text_bytes();
        let image = reported.image.as_ref().and_then(|image| container.claim(image));
        Some((index, image))
    }

    /// Moves a node within the order of a container that it runs.
    pub(super) fn move_node(&mut self, index: Index, from: Place, to: Place) {
        if let Some(container) = self.containers.get_mut(index) {
            container.order.remove(from);
            container.order.insert(to);
        }
    }

    /// Takes a node out of a container that it no longer runs. Returns the container as the node reported it.
    pub(super) fn leave(&mut self, (index, image): Run, node: NodeId, place: Place) -> Option<Running> {
        let container = self.containers.get_mut(index)?;
        container.order.remove(place);
        let mut description = None;
        if let Some(at) = container.texts.iter().position(|known| known.node == node) {
            let text = container.texts.remove(at).text;
            self.text_bytes -= text.len();
            description = Some(text);
        }
        let running = Running {
            id: container.id.clone(),
            description,
            image: image.as_deref().cloned(),
        };
        if container.order.len() == 0 {
            self.remove(index);
        }
        Some(running)
    }

    fn find_or_add(&mut self, id: &ContainerId, owner: Option<IpAddr>) -> Option<Index> {
        if let Some(index) = self.index(id.as_str()) {
            if self.containers.get(index)?.owner != owner {
                self.set_owner(index, None);
            }
            return Some(index);
        }
        let has_room = match owner {
            None => self.by_id.len() < MAX_LISTED_CONTAINERS,
            Some(owner) => self.make_room(owner),
        };
        has_room.then(|| self.add(id, owner))
    }

    /// Evicts an id of a larger share, if an id of an Explorer address has no room. Returns whether it has room.
    fn make_room(&mut self, owner: IpAddr) -> bool {
        let ids = self.by_id.len();
        let own = self.shares.get(&owner).map_or(0, BTreeSet::len) + 1;
        let largest = self.by_len.last().filter(|(len, _)| *len > MIN_EXCESS * own);
        let index = largest.and_then(|(_, owner)| self.shares.get(owner)?.last().copied());
        // Above the limit the ids of listed nodes take the room, and no eviction helps.
        match index.filter(|_| ids == MAX_CONTAINERS) {
            Some(index) => self.remove(index),
            None => return ids < MAX_CONTAINERS,
        }
        true
    }

    fn add(&mut self, id: &ContainerId, owner: Option<IpAddr>) -> Index {
        let index = self.containers.insert(Container {
            id: id.clone(),
            order: Order::default(),
            owner: None,
            texts: Vec::new(),
            images: Vec::new(),
        });
        self.by_id.insert(id.clone(), index);
        self.set_owner(index, owner);
        index
    }

    fn remove(&mut self, index: Index) {
        self.set_owner(index, None);
        if let Some(container) = self.containers.remove(index) {
            self.text_bytes -= container.text_bytes();
            self.by_id.remove(&container.id);
        }
    }

    fn set_owner(&mut self, index: Index, owner: Option<IpAddr>) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let old = std::mem::replace(&mut container.owner, owner);
        self.change_share(old, |ids| ids.remove(&index));
        self.change_share(owner, |ids| ids.insert(index));
    }

    fn change_share(&mut self, owner: Option<IpAddr>, change: impl FnOnce(&mut BTreeSet<Index>) -> bool) {
        let Some(owner) = owner else {
            return;
        };
        let ids = self.shares.entry(owner).or_default();
        self.by_len.remove(&(ids.len(), owner));
        change(ids);
        match ids.len() {
            0 => drop(self.shares.remove(&owner)),
            len => drop(self.by_len.insert((len, owner))),
        }
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
                .map(|image| (Arc::clone(&**image), Arc::strong_count(image) - 1))
                .filter(|(_, nodes)| *nodes > 0)
                .collect(),
        }
    }

    fn text_bytes(&self) -> usize {
        self.texts.iter().map(|known| known.text.len()).sum()
    }

    /// Returns the stored image for a node that refers to it. `None` if nodes use too many other images.
    fn claim(&mut self, image: &Arc<str>) -> Option<Image> {
        if let Some(known) = self.images.iter().find(|known| ***known == *image) {
            return Some(Arc::clone(known));
        }
        self.images.retain(|known| Arc::strong_count(known) > 1);
        (self.images.len() < MAX_IMAGES).then(|| {
            let new = Arc::new(Arc::clone(image));
            self.images.push(Arc::clone(&new));
            new
        })
    }
}
