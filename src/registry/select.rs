//! The choice itself, pure: from what a reader copied under the lock to a page of places.

use super::order::{Cursor, Order, Place};

/// Most addresses in one answer; a larger `n` counts as this.
pub const MAX_PAGE: u32 = 1_000;

/// Which part of the order is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many addresses at most; above [`MAX_PAGE`] it counts as that.
    pub n: u32,
    /// How many to leave out in front.
    pub offset: u32,
}

/// A node that stands elsewhere for this client, because its own promises don't count for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) stands: Place,
    pub(super) seen: Place,
}

/// What one answer is made from: copied under the lock, read without it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The orders of the containers asked for, the shortest first.
    pub(super) orders: Vec<Order>,
    /// In the order in which this client sees them.
    pub(super) moved: Vec<Moved>,
    /// Nodes that had left the registry when this was copied.
    pub(super) departures: u64,
}

impl View {
    /// Where the node really stands that this client sees at `place`.
    pub(super) fn standing(&self, place: Place) -> Place {
        let moved = self.moved.iter().find(|moved| moved.seen.node == place.node);
        moved.map_or(place, |moved| moved.stands)
    }
}

/// The places of a page, least busy first, of nodes that are in all the view's orders.
pub(super) fn select(view: &View, page: Page) -> Vec<Place> {
    let Some((shortest, others)) = view.orders.split_first() else {
        return Vec::new();
    };
    let mut cursors: Vec<Cursor<'_>> = others.iter().map(Cursor::new).collect();
    let in_place = shortest
        .iter()
        .filter(|place| !view.moved.iter().any(|moved| moved.stands.node == place.node))
        .filter(|place| cursors.iter_mut().all(|cursor| cursor.seek(*place)));
    let moved = view
        .moved
        .iter()
        .filter(|moved| view.orders.iter().all(|order| order.contains(moved.stands)))
        .map(|moved| moved.seen);
    merge(in_place, moved)
        .skip(page.offset as usize)
        .take(page.n.min(MAX_PAGE) as usize)
        .collect()
}

/// Two rising sequences as one.
fn merge<T: Ord>(left: impl Iterator<Item = T>, right: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b < a => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    })
}
