//! Picks one page of nodes, pure: from what a reader copied under the lock to places in order.

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

/// A node that a client sees elsewhere than it stands, because the client's own last promise is undone for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adjusted {
    pub(super) actual: Place,
    pub(super) seen: Place,
}

/// What one answer is made from: copied under the lock, read without it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The orders of the containers asked for, the shortest first.
    pub(super) orders: Vec<Order>,
    pub(super) adjusted: Option<Adjusted>,
    /// Nodes that had left the registry when this was copied.
    pub(super) removal_epoch: u64,
}

/// The places of a page, soonest done first, of nodes that are in all the view's orders. Walks the shortest of them as
/// far as the page goes: all of it where its nodes hardly run the other containers.
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
        .filter(|place| view.adjusted.is_none_or(|adjusted| adjusted.actual != *place))
        .filter(|place| cursors.iter_mut().all(|cursor| cursor.seek(*place)));
    let adjusted = view
        .adjusted
        .iter()
        .filter(|adjusted| view.orders.iter().all(|order| order.contains(adjusted.actual)))
        .map(|adjusted| adjusted.seen);
    merge(in_place, adjusted)
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
    use proptest::prelude::*;

    use super::*;

    /// All nodes in all orders, as the client sees them, sorted, then cut.
    fn naive(view: &View, page: Page) -> Vec<Place> {
        let (first, others) = view.orders.split_first().expect("an order");
        let mut places: Vec<Place> = first
            .iter()
            .filter(|place| others.iter().all(|order| order.iter().any(|other| other == *place)))
            .map(|place| match view.adjusted {
                Some(adjusted) if adjusted.actual == place => adjusted.seen,
                _ => place,
            })
            .collect();
        places.sort_unstable();
        let page = places.into_iter().skip(page.offset as usize).take(page.n as usize);
        page.take(MAX_PAGE as usize).collect()
    }

    proptest! {
        #[test]
        fn is_filter_sort_skip_take(
            // Key, and the containers that the node runs as bits.
            nodes in prop::collection::vec((0..9_u64, 0..8_u8), 0..1_500),
            containers in 1..=3_usize,
            adjusted in prop::option::of((any::<prop::sample::Index>(), 0..9_u64)),
            page in (0..40_u32, 0..1_200_u32).prop_map(|(offset, n)| Page { offset, n }),
        ) {
            let mut orders = vec![Order::default(); containers];
            let mut places = Vec::new();
            for (node, (key, runs)) in nodes.into_iter().enumerate() {
                let node = node as u32;
                let place = Place { key, tie: node.wrapping_mul(0x9E37_79B9) >> 28, node };
                let runs = (0..containers).filter(|bit| runs >> bit & 1 == 1);
                runs.for_each(|container| orders[container].insert(place));
                places.push(place);
            }
            orders.sort_by_key(Order::len);
            let adjusted = adjusted.filter(|_| !places.is_empty()).map(|(at, key)| {
                let actual = *at.get(&places);
                Adjusted { actual, seen: Place { key: key.min(actual.key), ..actual } }
            });
            let view = View { orders, adjusted, removal_epoch: 0 };
            prop_assert_eq!(select(&view, page), naive(&view, page));
        }
    }
}
