//! Compares the registry with a naive model that sorts all nodes for each response.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::node::Source;

const NODES: usize = 8;
const CONTAINERS: [&str; 3] = ["a", "b", "c"];
/// The cap of a cell on an unknown node. These clients may share a cell, so above the cap the model would have to know
/// the hash.
const MAX_PROMISES: usize = 8;
const WEIGHT: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        node: usize,
        rank: RankOf,
    },
    Remove {
        node: usize,
    },
    Relist {
        node: usize,
        rank: RankOf,
    },
    BeginProbe {
        node: usize,
    },
    /// Of the probe in progress, if any.
    Report {
        node: usize,
        runs: Vec<(usize, Option<u8>)>,
        pending: u64,
    },
    Down {
        node: usize,
    },
    Round,
    /// The clock moves forward or back.
    Clock {
        seconds: i64,
    },
    Answer {
        client: u32,
        containers: Vec<usize>,
        page: Page,
        purpose: Purpose,
    },
}

#[derive(Clone, Copy, Debug)]
enum RankOf {
    Listed(u32),
    Explorer,
}

impl RankOf {
    /// No two nodes have the same.
    fn rank(self, node: usize) -> Rank {
        match self {
            RankOf::Listed(line) => Rank::Listed(line * NODES as u32 + node as u32),
            RankOf::Explorer => Rank::Explorer(socket(node)),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let rank = || prop_oneof![(0..4_u32).prop_map(RankOf::Listed), Just(RankOf::Explorer)];
    let runs = prop::collection::btree_map(0..CONTAINERS.len(), prop::option::of(0..3_u8), 0..=CONTAINERS.len());
    let containers = prop::collection::btree_set(0..CONTAINERS.len(), 1..=CONTAINERS.len());
    let purpose = prop_oneof![4 => Just(Purpose::Route), 1 => Just(Purpose::Look)];
    prop_oneof![
        2 => (node(), rank()).prop_map(|(node, rank)| Step::Insert { node, rank }),
        1 => node().prop_map(|node| Step::Remove { node }),
        1 => (node(), rank()).prop_map(|(node, rank)| Step::Relist { node, rank }),
        3 => node().prop_map(|node| Step::BeginProbe { node }),
        6 => (node(), runs, prop_oneof![9 => 0..4_u64, 1 => Just(u64::MAX)]).prop_map(|(node, runs, pending)| {
            Step::Report { node, runs: runs.into_iter().collect(), pending }
        }),
        1 => node().prop_map(|node| Step::Down { node }),
        1 => Just(Step::Round),
        3 => (-20..60_i64).prop_map(|seconds| Step::Clock { seconds }),
        9 => (0..3_u32, containers, 0..3_u32, 0..9_u32, purpose).prop_map(|(client, containers, offset, n, purpose)| {
            let containers = containers.into_iter().collect();
            Step::Answer { client, containers, page: page(offset, n), purpose }
        }),
    ]
}

#[derive(Debug)]
struct ModelNode {
    id: NodeId,
    rank: Rank,
    last_sent: u32,
    under_way: Option<u32>,
    pending: u64,
    /// Of each open promise the last probe that was sent when it was made.
    promises: Vec<u32>,
    /// Containers and their descriptions, while it is up.
    runs: Option<BTreeMap<&'static str, Option<String>>>,
}

/// Node, its last probe, and its key at the client's last promise.
#[derive(Clone, Copy, Debug)]
struct ModelPromise {
    id: NodeId,
    last_sent: u32,
    old_key: u64,
}

#[derive(Debug, Default)]
struct Model {
    nodes: BTreeMap<usize, ModelNode>,
    clients: HashMap<u32, ModelPromise>,
    promises: u64,
}

impl Model {
    /// The nodes that run all of these and the places at which a client sees them, sorted.
    fn seen(&self, state: &State, client: u32, page: Page, containers: &[&str]) -> Vec<(Place, usize)> {
        let runs_all = |node: &ModelNode| {
            let runs = node.runs.as_ref();
            runs.is_some_and(|runs| containers.iter().all(|id| runs.contains_key(id)))
        };
        let promise = self.clients.get(&client).filter(|_| page.offset > 0);
        let place = |node: &ModelNode| {
            let place = state.place(node.id).expect("it is up");
            let undone = promise.filter(|promise| promise.id == node.id && node.promises.contains(&promise.last_sent));
            Place {
                key: undone.map_or(place.key, |promise| promise.old_key),
                ..place
            }
        };
        let nodes = self.nodes.iter().filter(|(_, node)| runs_all(node));
        let mut seen: Vec<_> = nodes.map(|(at, node)| (place(node), *at)).collect();
        seen.sort_unstable();
        seen
    }

    fn promise(&mut self, client: u32, node: usize, old_key: u64) {
        let node = self.nodes.get_mut(&node).expect("it was in the answer");
        node.promises.push(node.last_sent);
        self.promises += 1;
        let (id, last_sent) = (node.id, node.last_sent);
        self.clients.insert(client, ModelPromise { id, last_sent, old_key });
    }

    fn containers(&self) -> Vec<Summary> {
        let mut by_id: BTreeMap<&str, Vec<(Rank, Option<&String>)>> = BTreeMap::new();
        for node in self.nodes.values() {
            for (id, text) in node.runs.iter().flatten() {
                by_id.entry(*id).or_default().push((node.rank, text.as_ref()));
            }
        }
        let summary = |(id, mut nodes): (&str, Vec<(Rank, Option<&String>)>)| {
            nodes.sort();
            let first = nodes.iter().find_map(|(_, text)| *text);
            Summary {
                id: ContainerId::parse(id).expect("an id"),
                count: nodes.len(),
                description: first.map(|text| text.as_str().into()),
                images: Vec::new(),
            }
        };
        by_id.into_iter().map(summary).collect()
    }

    fn check_totals(&self, totals: &Totals) -> Result<(), TestCaseError> {
        let of = |source| {
            let nodes = self.nodes.values();
            nodes.filter(move |node| node.rank.source() == source)
        };
        for source in [Source::IpsFile, Source::Explorer] {
            let up = of(source).filter(|node| node.runs.is_some()).count();
            let states = totals.nodes[source as usize];
            prop_assert_eq!(states[NodeState::Up as usize], [up, 0]);
            prop_assert_eq!(states.as_flattened().iter().sum::<usize>(), of(source).count());
        }
        let available = self.nodes.values().filter(|node| node.runs.is_some());
        prop_assert_eq!(totals.available, available.count());
        prop_assert_eq!(totals.promises, self.promises);
        Ok(())
    }
}

/// Nodes above the first four describe nothing: of more, the registry keeps only some.
fn description(node: usize, text: Option<u8>) -> Option<String> {
    text.filter(|_| node < 4).map(|text| format!("text {text}"))
}

/// Takes one step in both.
fn take(step: Step, model: &mut Model, registry: &Registry, now: &mut Instant) -> Result<(), TestCaseError> {
    match step {
        Step::Insert { node, rank } => {
            let rank = rank.rank(node);
            model.nodes.entry(node).or_insert_with(|| ModelNode {
                id: registry.insert(addr(node), rank, *now),
                rank,
                last_sent: 0,
                under_way: None,
                pending: 0,
                promises: Vec::new(),
                runs: None,
            });
        }
        Step::Remove { node } => {
            if let Some(node) = model.nodes.remove(&node) {
                registry.remove(node.id);
            }
        }
        Step::Relist { node, rank } => {
            if let Some(known) = model.nodes.get_mut(&node) {
                known.rank = rank.rank(node);
                registry.relist(known.id, addr(node), known.rank, Attributes::default(), *now);
            }
        }
        Step::BeginProbe { node } => {
            if let Some(node) = model.nodes.get_mut(&node) {
                node.last_sent += 1;
                registry.begin_probe(node.id, *now);
                node.under_way = Some(node.last_sent);
            }
        }
        Step::Report {
            node: at,
            runs,
            pending,
        } => {
            if let Some(node) = model.nodes.get_mut(&at) {
                let probe = node.under_way.take().unwrap_or_else(|| {
                    node.last_sent += 1;
                    registry.begin_probe(node.id, *now);
                    node.last_sent
                });
                let runs = runs
                    .into_iter()
                    .map(|(id, text)| (CONTAINERS[id], description(at, text)));
                let runs: BTreeMap<_, _> = runs.collect();
                let running: Vec<Running> = runs
                    .iter()
                    .map(|(id, text)| Running {
                        description: text.as_deref().map(Into::into),
                        ..running(id)
                    })
                    .collect();
                prop_assert_eq!(registry.up(node.id, &running, pending, *now), 0);
                node.promises.retain(|last_sent| *last_sent >= probe);
                (node.pending, node.runs) = (pending, Some(runs));
            }
        }
        Step::Down { node } => {
            if let Some(node) = model.nodes.get_mut(&node) {
                registry.set_health(node.id, NodeState::Down, *now);
                node.runs = None;
            }
        }
        Step::Round => registry.begin_round(),
        Step::Clock { seconds } => {
            let by = Duration::from_secs(seconds.unsigned_abs());
            *now = if seconds < 0 {
                now.checked_sub(by).unwrap_or(*now)
            } else {
                *now + by
            };
        }
        Step::Answer {
            client: asking,
            containers,
            page,
            purpose,
        } => {
            let purpose = match model.nodes.values().all(|node| node.promises.len() < MAX_PROMISES) {
                true => purpose,
                false => Purpose::Look,
            };
            let containers: Vec<&str> = containers.iter().map(|at| CONTAINERS[*at]).collect();
            let seen = model.seen(&registry.lock(), asking, page, &containers);
            let old_keys: BTreeMap<usize, u64> = seen.iter().map(|(place, node)| (*node, place.key)).collect();
            let asked = containers.iter().copied();
            let answer = registry.answer(asked, page, client(asking), purpose, *now);
            let answer: Vec<usize> = answer.expect("few nodes").iter().map(number).collect();
            let expected = seen.iter().map(|(_, node)| *node);
            let expected: Vec<usize> = expected.skip(page.offset as usize).take(page.n as usize).collect();
            prop_assert_eq!(&answer, &expected);
            if let (Purpose::Route, 0, Some(first)) = (purpose, page.offset, answer.first()) {
                model.promise(asking, *first, old_keys[first]);
            }
        }
    }
    Ok(())
}

/// Each order is the naive sort of the places of its nodes, and each place follows from the node's work.
fn check_orders(model: &Model, registry: &Registry) -> Result<(), TestCaseError> {
    let state = registry.lock();
    for id in CONTAINERS {
        let runs = |node: &&ModelNode| node.runs.as_ref().is_some_and(|runs| runs.contains_key(id));
        let nodes = model.nodes.values().filter(runs);
        let mut places: Vec<Place> = nodes.filter_map(|node| state.place(node.id)).collect();
        places.sort_unstable();
        let order = state
            .view([id].into_iter(), Cell::of(0), None)
            .map(|view| view.orders[0].clone());
        prop_assert_eq!(order.unwrap_or_default().iter().collect::<Vec<_>>(), places);
    }
    for node in model.nodes.values() {
        prop_assert_eq!(state.place(node.id).is_some(), node.runs.is_some());
        prop_assert!(
            state
                .place(node.id)
                .is_none_or(|place| Some(place.key) == state.key(node.id))
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn registry_equals_naive_model_that_sorts_all_nodes(steps in prop::collection::vec(step(), 0..250)) {
        let mut now = start();
        let policy = PromisePolicy::On { weight: WEIGHT, max_speedup: None };
        let registry = Registry::new(policy, INTERVAL, now);
        let mut model = Model::default();
        for step in steps {
            take(step, &mut model, &registry, &mut now)?;
            prop_assert_eq!(registry.containers(), model.containers());
            model.check_totals(&registry.totals())?;
            check_orders(&model, &registry)?;
        }
    }
}
