//! Which image each container id stands for on available nodes, pure: the router takes an id for one service, so one
//! that several images share sends jobs to the wrong one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::node::{ContainerId, Running};
use crate::registry::{MAX_CONTAINERS, NodeId};
use crate::util::arena::{Arena, Key};

/// Images kept for one id: two are a conflict, and more than these tell nobody more. A stranger who registers many
/// nodes can't make the table longer.
const MAX_IMAGES: usize = 4;

/// One id that several images share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    #[serde(serialize_with = "id")]
    pub(crate) id: ContainerId,
    /// Those that were seen first, at most four.
    pub(crate) images: Vec<Image>,
}

/// One of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    #[serde(serialize_with = "text")]
    pub(crate) image: Arc<str>,
    /// Available nodes that run the id with it.
    pub(crate) nodes: usize,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = self.images.iter().map(|image| (&*image.image, image.nodes));
        f.write_str(&conflict_line(self.id.as_str(), images))
    }
}

/// What people are told of an id with several images, each with the number of nodes that run it.
pub(crate) fn conflict_line<'a>(id: &str, images: impl Iterator<Item = (&'a str, usize)>) -> String {
    let images: Vec<String> = images
        .map(|(image, count)| format!("{image:?} ({})", nodes(count)))
        .collect();
    let images = images.join(", ");
    format!("container {id:?} runs with different images: {images}; jobs for it go to any of them")
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        more => format!("{more} nodes"),
    }
}

fn id<S: serde::Serializer>(id: &ContainerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// What changed with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Began(Conflict),
    Ended(ContainerId),
}

#[derive(Debug)]
struct Variant {
    id: ContainerId,
    image: Arc<str>,
    nodes: usize,
}

/// The images of all available nodes.
#[derive(Debug, Default)]
pub(crate) struct Images {
    variants: Arena<Variant>,
    by_id: HashMap<ContainerId, Vec<Key>>,
    /// Ids with more than one image.
    conflicts: BTreeSet<ContainerId>,
    /// By the place of the node in the registry; none where it runs nothing that has an image.
    of_node: Vec<Option<Arc<[Key]>>>,
    /// What nodes run, each list once: the nodes of a fleet are much alike.
    lists: HashSet<Arc<[Key]>>,
}

impl Images {
    /// A node that is asked but once runs these.
    pub(crate) fn add(&mut self, running: &[Running]) {
        for container in running {
            if let Some(image) = &container.image {
                self.enter(&container.id, image, &mut Vec::new());
            }
        }
    }

    /// An available node runs exactly these.
    pub(crate) fn set(&mut self, node: NodeId, running: &[Running]) -> Vec<Change> {
        let mut changes = Vec::new();
        // What it still runs is entered before it leaves, so that nothing ends and begins again.
        let entered: Vec<Key> = running
            .iter()
            .filter_map(|container| self.enter(&container.id, container.image.as_ref()?, &mut changes))
            .collect();
        let left = self.replace(node, &entered);
        self.leave(left, &mut changes);
        changes
    }

    /// A node is not available any more.
    pub(crate) fn remove(&mut self, node: NodeId) -> Vec<Change> {
        let mut changes = Vec::new();
        let left = self.replace(node, &[]);
        self.leave(left, &mut changes);
        changes
    }

    /// Remembers what a node runs and returns what it ran.
    fn replace(&mut self, node: NodeId, runs: &[Key]) -> Option<Arc<[Key]>> {
        let at = node.index() as usize;
        if at >= self.of_node.len() && !runs.is_empty() {
            self.of_node.resize(at + 1, None);
        }
        let runs = (!runs.is_empty()).then(|| match self.lists.get(runs) {
            Some(known) => Arc::clone(known),
            None => {
                let list: Arc<[Key]> = runs.into();
                self.lists.insert(Arc::clone(&list));
                list
            }
        });
        let ran = std::mem::replace(self.of_node.get_mut(at)?, runs)?;
        // One in `lists`, one here.
        if Arc::strong_count(&ran) == 2 {
            self.lists.remove(&ran);
        }
        Some(ran)
    }

    /// How many ids have more than one image.
    pub(crate) fn conflict_count(&self) -> usize {
        self.conflicts.len()
    }

    /// The first ids with more than one image, by id.
    pub(crate) fn conflicts(&self, most: usize) -> Vec<Conflict> {
        let ids = self.conflicts.iter().take(most);
        ids.map(|id| self.conflict(id)).collect()
    }

    fn conflict(&self, id: &ContainerId) -> Conflict {
        let keys = self.by_id.get(id).map_or(&[][..], |keys| keys);
        let variants = keys.iter().filter_map(|key| self.variants.get(*key));
        let images = variants.map(|variant| Image {
            image: Arc::clone(&variant.image),
            nodes: variant.nodes,
        });
        Conflict {
            id: id.clone(),
            images: images.collect(),
        }
    }

    fn enter(&mut self, id: &ContainerId, image: &Arc<str>, changes: &mut Vec<Change>) -> Option<Key> {
        let known = self.by_id.get(id).map_or(&[][..], |keys| keys);
        let same = |key: &&Key| self.variants.get(**key).is_some_and(|variant| variant.image == *image);
        let known_key = known.iter().find(same).copied();
        if let Some(variant) = known_key.and_then(|key| self.variants.get_mut(key)) {
            variant.nodes += 1;
            return known_key;
        }
        if known.len() >= MAX_IMAGES || (known.is_empty() && self.by_id.len() >= MAX_CONTAINERS) {
            return None;
        }
        let key = self.variants.insert(Variant {
            id: id.clone(),
            image: Arc::clone(image),
            nodes: 1,
        });
        let keys = self.by_id.entry(id.clone()).or_default();
        keys.push(key);
        if keys.len() == 2 {
            self.conflicts.insert(id.clone());
            changes.push(Change::Began(self.conflict(id)));
        }
        Some(key)
    }

    fn leave(&mut self, keys: Option<Arc<[Key]>>, changes: &mut Vec<Change>) {
        for key in keys.as_deref().unwrap_or_default().iter().copied() {
            let Some(variant) = self.variants.get_mut(key) else {
                continue;
            };
            variant.nodes -= 1;
            if variant.nodes == 0
                && let Some(gone) = self.variants.remove(key)
            {
                self.forget(&gone.id, key, changes);
            }
        }
    }

    fn forget(&mut self, id: &ContainerId, key: Key, changes: &mut Vec<Change>) {
        let Some(keys) = self.by_id.get_mut(id) else {
            return;
        };
        keys.retain(|known| *known != key);
        match keys.len() {
            0 => {
                self.by_id.remove(id);
            }
            1 => {
                self.conflicts.remove(id);
                changes.push(Change::Ended(id.clone()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).expect("an id")
    }

    fn running(pairs: &[(&str, &str)]) -> Vec<Running> {
        let container = |(container, image): &(&str, &str)| Running {
            id: id(container),
            description: None,
            image: (!image.is_empty()).then(|| (*image).into()),
        };
        pairs.iter().map(container).collect()
    }

    /// Keys of nodes, as the registry would give them.
    fn nodes<const N: usize>() -> [NodeId; N] {
        let mut arena = Arena::default();
        std::array::from_fn(|_| arena.insert(()))
    }

    #[test]
    fn a_conflict_begins_with_the_second_image_and_ends_with_the_last_node_of_it() {
        let (mut images, [a, b, c]) = (Images::default(), nodes());
        assert_eq!(images.set(a, &running(&[("x", "one"), ("y", "one")])), []);
        let began = images.set(b, &running(&[("x", "two"), ("y", "one")]));
        let wanted = Conflict {
            id: id("x"),
            images: [("one", 1), ("two", 1)]
                .map(|(image, nodes)| Image {
                    image: image.into(),
                    nodes,
                })
                .into(),
        };
        assert_eq!(began, [Change::Began(wanted)]);
        assert_eq!(images.set(c, &running(&[("x", "two")])), []);
        assert_eq!(
            (images.conflict_count(), images.conflicts(9)[0].images[1].nodes),
            (1, 2)
        );
        assert_eq!(images.remove(b), []);
        assert_eq!(images.set(c, &running(&[("x", "one")])), [Change::Ended(id("x"))]);
        assert_eq!((images.conflict_count(), images.conflicts(9)), (0, vec![]));
    }

    #[test]
    fn a_node_that_says_the_same_again_changes_nothing_and_counts_once() {
        let (mut images, [a, b]) = (Images::default(), nodes());
        images.set(a, &running(&[("x", "one")]));
        images.set(b, &running(&[("x", "two")]));
        assert_eq!(images.set(b, &running(&[("x", "two")])), []);
        assert_eq!(images.conflicts(1)[0].images[1].nodes, 1);
        assert_eq!(images.remove(b), [Change::Ended(id("x"))]);
        assert_eq!(images.remove(b), []);
    }

    #[test]
    fn a_node_that_names_no_image_conflicts_with_nobody() {
        let (mut images, [a, b]) = (Images::default(), nodes());
        images.set(a, &running(&[("x", "one")]));
        assert_eq!(images.set(b, &running(&[("x", "")])), []);
        assert_eq!(images.remove(a), []);
        assert_eq!(
            (images.by_id.len(), images.variants.len(), images.lists.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_stranger_with_many_images_does_not_make_the_table_longer() {
        let (mut images, keys) = (Images::default(), nodes::<20>());
        for (at, node) in keys.iter().enumerate() {
            images.set(*node, &running(&[("x", &at.to_string())]));
        }
        assert_eq!(
            (images.variants.len(), images.conflicts(1)[0].images.len()),
            (MAX_IMAGES, MAX_IMAGES)
        );
        keys.iter().for_each(|node| drop(images.remove(*node)));
        assert_eq!(
            (images.by_id.len(), images.variants.len(), images.lists.len()),
            (0, 0, 0)
        );
        let mut keys = Arena::default();
        for at in 0..=MAX_CONTAINERS {
            images.set(keys.insert(()), &running(&[(&at.to_string(), "one")]));
        }
        assert_eq!(images.by_id.len(), MAX_CONTAINERS);
    }
}
