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
    if page.offset as usize >= shortest.len() {
        return Vec::new();
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// All nodes in all orders, as the client sees them, sorted, then cut.
    fn naive(view: &View, page: Page) -> Vec<Place> {
        let (first, others) = view.orders.split_first().expect("an order");
        let mut places: Vec<Place> = first
            .iter()
            .filter(|place| others.iter().all(|order| order.iter().any(|other| other == *place)))
            .map(|place| {
                let moved = view.moved.iter().find(|moved| moved.stands == place);
                moved.map_or(place, |moved| moved.seen)
            })
            .collect();
        places.sort_unstable();
        let page = places.into_iter().skip(page.offset as usize).take(page.n as usize);
        page.take(MAX_PAGE as usize).collect()
    }

    proptest! {
        #[test]
        fn is_filter_sort_skip_take(
            // Load, the containers that the node runs as bits, and what the client's own promises weigh, if it has any.
            nodes in prop::collection::vec((0..9_u64, 0..8_u8, prop::option::weighted(0.1, 1..9_u64)), 0..1_500),
            containers in 1..=3_usize,
            page in (0..40_u32, 0..1_200_u32).prop_map(|(offset, n)| Page { offset, n }),
        ) {
            let mut orders = vec![Order::default(); containers];
            let mut moved = Vec::new();
            let mut standing = BTreeMap::new();
            for (node, (load, runs, own)) in nodes.into_iter().enumerate() {
                let node = node as u32;
                let stands = Place { load, tie: node.wrapping_mul(0x9E37_79B9) >> 28, node };
                let runs = (0..containers).filter(|bit| runs >> bit & 1 == 1);
                runs.for_each(|container| orders[container].insert(stands));
                if let Some(own) = own.filter(|_| moved.len() < 32) {
                    moved.push(Moved { stands, seen: Place { load: load.saturating_sub(own), ..stands } });
                }
                standing.insert(node, stands);
            }
            orders.sort_by_key(Order::len);
            moved.sort_by_key(|moved| moved.seen);
            let view = View { orders, moved, departures: 0 };
            let selected = select(&view, page);
            prop_assert!(selected.iter().all(|place| view.standing(*place) == standing[&place.node]));
            prop_assert_eq!(selected, naive(&view, page));
        }
    }
}
