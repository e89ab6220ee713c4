//! Selects one page of nodes, pure: from what a reader copied under the lock to places in order.

use std::cell::Cell as Counter;
use std::collections::BinaryHeap;

use super::order::{Cursor, Order, Place};

/// Maximum number of addresses in one response. Callers reduce a larger `n` to it.
pub const MAX_PAGE: u32 = 1_000;
/// Maximum number of searches in orders for one response: a fraction of a millisecond if most succeed, two milliseconds
/// if most fail. One container needs none, 64 need up to 63 for each node. Two need one for each node of the shorter
/// order, and are never refused.
pub const MAX_SEARCHES: usize = 65_536;
/// Nodes whose private keys are compared for one response, at least.
const MIN_COMPARED: usize = 256;
/// Nodes whose private keys are read under one hold of the lock: some microseconds.
const KEYS_AT_ONCE: usize = 64;

/// The part of the order to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Maximum number of addresses.
    pub n: u32,
    /// Number of addresses to skip.
    pub offset: u32,
}

/// A node as one client sees it: by its private key, then by its place in the shared order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) private_key: u64,
    pub(super) place: Place,
}

impl Seen {
    fn shared(place: Place) -> Self {
        Self {
            private_key: place.key,
            place,
        }
    }
}

/// What one response is made from: copied under the lock, read without it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The orders of the queried containers, the shortest first.
    pub(super) orders: Vec<Order>,
    /// The place of a node, and how the client sees the node: its view ignores its last promise.
    pub(super) undone: Option<(Place, Seen)>,
    /// Whether the client's subnet has promises above its cap on any node.
    pub(super) is_private: bool,
    /// Whether several nodes may have one address for clients.
    pub(super) has_aliases: bool,
    /// Number of the node that was inserted last before this copy.
    pub(super) newest: u64,
}

/// Returns the nodes of a page, earliest expected completion first, of the nodes that are in all of the view's orders.
/// `private` sets the private keys of some nodes; it is called only if the shared order is not the client's. `is_shown`
/// returns whether a node is to be counted; it is called once for each node, in the shared order. Returns `None` if the
/// page takes too many searches.
pub(super) fn select(
    view: &View,
    page: Page,
    private: impl FnMut(&mut [Seen]),
    mut is_shown: impl FnMut(Place) -> bool,
) -> Option<Vec<Seen>> {
    let searches = Counter::new(0);
    let (offset, n) = (page.offset as usize, page.n as usize);
    let orders = view.orders.split_first();
    let Some((shortest, others)) = orders.filter(|(shortest, _)| offset < shortest.len() && n > 0) else {
        return Some(Vec::new());
    };
    let is_run = |(actual, _): &(Place, _)| view.orders.iter().all(|order| order.contains(*actual));
    let undone = view.undone.filter(is_run).filter(|(actual, _)| is_shown(*actual));
    let walk = walk(shortest, others, &searches);
    let walk = walk.filter(|place| undone.is_none_or(|(actual, _)| actual != *place) && is_shown(*place));
    let selected: Vec<Seen> = match view.is_private || undone.is_some() {
        true => {
            let best = undone.into_iter().map(|(_, seen)| seen).collect();
            reorder(walk, best, offset + n, private)
                .into_iter()
                .skip(offset)
                .collect()
        }
        false => walk.skip(offset).take(n).map(Seen::shared).collect(),
    };
    (searches.get() <= max_searches(shortest) || selected.len() == n).then_some(selected)
}

fn max_searches(shortest: &Order) -> usize {
    MAX_SEARCHES.max(shortest.len())
}

/// The places that are in all orders, rising. Walks the shortest order as far as the caller goes, and stops at
/// [`max_searches`].
fn walk<'a>(
    shortest: &'a Order,
    others: &'a [Order],
    searches: &'a Counter<usize>,
) -> impl Iterator<Item = Place> + 'a {
    let mut cursors: Vec<Cursor<'_>> = others.iter().map(Order::iter).collect();
    let places = shortest.iter().take_while(|_| searches.get() <= max_searches(shortest));
    places.filter(move |place| {
        cursors.iter_mut().all(|cursor| {
            searches.set(searches.get() + 1);
            cursor.seek(*place)
        })
    })
}

/// The first `wanted` nodes of `best` and a walk by their private keys, sorted. A private key is never below the shared
/// one, so the walk ends when no further node can be among them, or after [`MIN_COMPARED`] nodes.
fn reorder(
    walk: impl Iterator<Item = Place>,
    mut best: BinaryHeap<Seen>,
    wanted: usize,
    mut private: impl FnMut(&mut [Seen]),
) -> Vec<Seen> {
    let mut some = Vec::with_capacity(KEYS_AT_ONCE);
    let mut compare = |some: &mut Vec<Seen>, best: &mut BinaryHeap<Seen>| {
        private(some);
        for seen in some.drain(..) {
            if best.len() < wanted {
                best.push(seen);
            } else if let Some(mut last) = best.peek_mut()
                && seen < *last
            {
                *last = seen;
            }
        }
    };
    for next in walk.take(wanted.max(MIN_COMPARED)).map(Seen::shared) {
        if some.len() == KEYS_AT_ONCE {
            compare(&mut some, &mut best);
        }
        if some.is_empty() && best.len() >= wanted && best.peek().is_some_and(|last| *last <= next) {
            break;
        }
        some.push(next);
    }
    compare(&mut some, &mut best);
    best.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sorts all nodes in all orders as the client sees them, then cuts the page.
    fn naive(view: &View, page: Page, private_key: impl Fn(Place) -> u64) -> Vec<Seen> {
        let (first, others) = view.orders.split_first().expect("an order");
        let in_all = |place: &Place| others.iter().all(|order| order.iter().any(|other| other == *place));
        let is_undone = |place: Place| view.undone.is_some_and(|(actual, _)| actual == place);
        let mut shared: Vec<Place> = first.iter().filter(in_all).collect();
        let undone = shared
            .iter()
            .any(|place| is_undone(*place))
            .then_some(view.undone)
            .flatten();
        shared.retain(|place| !is_undone(*place));
        shared.sort_unstable();
        shared.truncate((page.offset + page.n).max(MIN_COMPARED as u32) as usize);
        let seen = |place| Seen {
            private_key: private_key(place),
            place,
        };
        let mut all: Vec<Seen> = shared.into_iter().map(seen).collect();
        all.extend(undone.map(|(_, seen)| seen));
        all.sort_unstable();
        all.into_iter()
            .skip(page.offset as usize)
            .take(page.n as usize)
            .collect()
    }

    fn orders_of(nodes: &[(u64, u8)], containers: usize) -> (Vec<Order>, Vec<Place>) {
        let mut orders = vec![Order::default(); containers];
        let mut places = Vec::new();
        for (node, (key, runs)) in nodes.iter().enumerate() {
            let node = node as u32;
            let tie = node.wrapping_mul(0x9E37_79B9) >> 28;
            let place = Place { key: *key, tie, node };
            let runs = (0..containers).filter(|bit| runs >> bit & 1 == 1);
            runs.for_each(|container| orders[container].insert(place));
            places.push(place);
        }
        orders.sort_by_key(Order::len);
        (orders, places)
    }

    proptest! {
        #[test]
        fn is_filter_sort_skip_take(
            // Key, and the containers that the node runs as bits.
            nodes in prop::collection::vec((0..9_u64, 0..8_u8), 0..1_500),
            containers in 1..=3_usize,
            adjusted in prop::option::of((any::<prop::sample::Index>(), 0..9_u64)),
            extra in prop::option::of(1..20_u64),
            page in (0..40_u32, 0..1_200_u32).prop_map(|(offset, n)| Page { offset, n }),
        ) {
            let (orders, places) = orders_of(&nodes, containers);
            let private_key = |place: Place| place.key + extra.unwrap_or(0) * u64::from(place.node % 3);
            let undone = adjusted.filter(|_| !places.is_empty()).map(|(at, key)| {
                let actual = *at.get(&places);
                let place = Place { key: key.min(actual.key), ..actual };
                (actual, Seen { private_key: private_key(place), place })
            });
            let view = View { orders, undone, is_private: extra.is_some(), ..View::default() };
            let private = |some: &mut [Seen]| some.iter_mut().for_each(|seen| seen.private_key = private_key(seen.place));
            prop_assert_eq!(select(&view, page, private, |_| true).expect("few nodes"), naive(&view, page, private_key));
        }
    }

    /// `containers` containers that each of `nodes` nodes runs.
    fn shared(nodes: usize, containers: usize) -> View {
        let (orders, _) = orders_of(&vec![(0, 1); nodes], 1);
        View {
            orders: vec![orders[0].clone(); containers],
            ..View::default()
        }
    }

    #[test]
    fn at_the_search_limit_the_page_is_complete() {
        let nodes = MAX_SEARCHES / 63;
        let page = Page {
            n: 1,
            offset: nodes as u32 - 1,
        };
        let selected = select(&shared(nodes, 64), page, |_| {}, |_| true);
        assert_eq!(selected.map(|selected| selected.len()), Some(1));
    }

    #[test]
    fn two_containers_are_never_too_deep() {
        let nodes = MAX_SEARCHES + 2;
        let page = Page {
            n: 1,
            offset: nodes as u32 - 1,
        };
        let selected = select(&shared(nodes, 2), page, |_| {}, |_| true);
        assert_eq!(selected.map(|selected| selected.len()), Some(1));
    }

    #[test]
    fn page_above_search_limit_is_too_deep() {
        let nodes = MAX_SEARCHES / 63 + 2;
        let page = Page {
            n: 1,
            offset: nodes as u32 - 1,
        };
        assert_eq!(select(&shared(nodes, 64), page, |_| {}, |_| true), None);
    }
}
