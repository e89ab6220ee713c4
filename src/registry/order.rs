//! The nodes that run one container, sorted by [`Place`] (`node` and `speed` make the keys): cheap to change, free to
//! copy.
//!
//! Chunks of a few hundred places in `Arc`s: a change moves at most one chunk, a copy for a reader is one pointer,
//! and the next change copies only chunks that a reader still holds.

use std::sync::Arc;

/// Longest chunk, in places of 16 bytes: 8 KiB are moved or copied at most by one change.
const MAX_CHUNK: usize = 512;

/// The position of a node: by its key, then by a number redrawn in each round, then by its own number.
/// A node has the same place in the order of each container that it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// When the node would finish one more job, in nanoseconds; with `PROMISES=off` its weighted pending jobs.
    pub(crate) key: u64,
    pub(crate) tie: u32,
    pub(crate) node: u32,
}

/// A sorted set of places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// No chunk is empty, none is longer than `MAX_CHUNK`.
    chunks: Arc<Vec<Arc<Vec<Place>>>>,
    len: usize,
}

impl Order {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> Cursor<'_> {
        Cursor {
            rest: &[],
            chunks: &self.chunks,
        }
    }

    pub(crate) fn contains(&self, place: Place) -> bool {
        self.iter().seek(place)
    }

    /// Adds a place, unless it is present already.
    pub(crate) fn insert(&mut self, place: Place) {
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::default());
        }
        let at = chunk_of(chunks, place).min(chunks.len() - 1);
        let chunk = Arc::make_mut(&mut chunks[at]);
        if let Err(index) = chunk.binary_search(&place) {
            chunk.insert(index, place);
            self.len += 1;
            if chunk.len() > MAX_CHUNK {
                let tail = chunk.split_off(MAX_CHUNK / 2);
                chunks.insert(at + 1, Arc::new(tail));
            }
        }
    }

    /// Removes a place, if it is present.
    pub(crate) fn remove(&mut self, place: Place) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let at = chunk_of(chunks, place);
        let Some(chunk) = chunks.get_mut(at) else {
            return;
        };
        let chunk = Arc::make_mut(chunk);
        if let Ok(index) = chunk.binary_search(&place) {
            chunk.remove(index);
            self.len -= 1;
            if chunk.is_empty() {
                chunks.remove(at);
            } else if chunk.len() < MAX_CHUNK / 8 {
                merge_with_next(chunks, at);
            }
        }
    }
}

/// The first chunk that does not end before `place`.
fn chunk_of(chunks: &[Arc<Vec<Place>>], place: Place) -> usize {
    chunks.partition_point(|chunk| chunk.last().is_some_and(|last| *last < place))
}

/// Keeps the number of chunks in proportion to what they hold.
fn merge_with_next(chunks: &mut Vec<Arc<Vec<Place>>>, at: usize) {
    let Some(next) = chunks.get(at + 1) else {
        return;
    };
    if chunks[at].len() + next.len() <= MAX_CHUNK / 2 {
        let next = chunks.remove(at + 1);
        Arc::make_mut(&mut chunks[at]).extend_from_slice(&next);
    }
}

/// Visits or finds places in rising order without going back, so that an intersection of orders is linear.
pub(crate) struct Cursor<'a> {
    /// The rest of one chunk, from the next place.
    rest: &'a [Place],
    /// The chunks behind it.
    chunks: &'a [Arc<Vec<Place>>],
}

impl Iterator for Cursor<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        if self.rest.is_empty() {
            let (chunk, behind) = self.chunks.split_first()?;
            (self.rest, self.chunks) = (chunk, behind);
        }
        let (place, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*place)
    }
}

impl Cursor<'_> {
    /// Whether the order has `place`, which must be above the last one sought.
    pub(crate) fn seek(&mut self, place: Place) -> bool {
        // If orders share most nodes, it is the next one.
        if self.rest.first() != Some(&place) {
            if self.rest.last().is_none_or(|last| *last < place) {
                let Some((chunk, behind)) = self.chunks[chunk_of(self.chunks, place)..].split_first() else {
                    return false;
                };
                (self.rest, self.chunks) = (chunk, behind);
            }
            self.rest = &self.rest[count_below(self.rest, place)..];
        }
        let is_found = self.rest.first() == Some(&place);
        self.rest = &self.rest[usize::from(is_found)..];
        is_found
    }
}

/// Counts the places below `place`. Searches near the beginning first, where it is if orders share most nodes.
fn count_below(places: &[Place], place: Place) -> usize {
    let mut end = 1;
    while places.get(end).is_some_and(|other| *other < place) {
        end *= 2;
    }
    let begin = end / 2;
    let end = (end + 1).min(places.len());
    let part = places.get(begin..end).unwrap_or_default();
    begin + part.partition_point(|other| *other < place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn place(key: u64, node: u32) -> Place {
        Place {
            key,
            tie: node ^ 5,
            node,
        }
    }

    proptest! {
        #[test]
        fn is_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 0..40_u64, 0..60_u32), 0..3_000)) {
            let (mut order, mut model) = (Order::default(), BTreeSet::new());
            for (add, key, node) in steps {
                let place = place(key, node);
                if add {
                    order.insert(place);
                    model.insert(place);
                } else {
                    order.remove(place);
                    model.remove(&place);
                }
            }
            prop_assert_eq!(order.len(), model.len());
            prop_assert!(order.iter().eq(model.iter().copied()));
            prop_assert!(order.chunks.iter().all(|chunk| (1..=MAX_CHUNK).contains(&chunk.len())));
            let mut cursor = order.iter();
            for key in 0..40 {
                let place = place(key, 7);
                prop_assert_eq!(cursor.seek(place), model.contains(&place));
                prop_assert_eq!(order.contains(place), model.contains(&place));
            }
        }
    }

    #[test]
    fn a_copy_keeps_what_it_was() {
        let mut order = Order::default();
        (0..2_000).for_each(|node| order.insert(place(1, node)));
        let copy = order.clone();
        (0..2_000).for_each(|node| order.remove(place(1, node)));
        assert_eq!((order.len(), copy.len()), (0, 2_000));
        assert_eq!(copy.iter().count(), 2_000);
        assert!(order.chunks.is_empty());
    }
}
