//! The whole registry against a naive one that sorts all nodes for each answer.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::registry::promises::{FREE_ANSWERS, MAX_OWN};

const NODES: usize = 8;
const CONTAINERS: [&str; 3] = ["a", "b", "c"];
/// A subnet counts 32 on one node, and these clients may share a cell: beyond it the model would have to know the hash.
const MAX_PROMISES: usize = 32;
const WEIGHT: u64 = 2;

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
    /// Of the probe that is under way, if one is.
    Report {
        node: usize,
        runs: Vec<(usize, Option<u8>)>,
        pending: u64,
    },
    Down {
        node: usize,
    },
    Round,
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
        6 => (node(), runs, 0..4_u64).prop_map(|(node, runs, pending)| {
            Step::Report { node, runs: runs.into_iter().collect(), pending }
        }),
        1 => node().prop_map(|node| Step::Down { node }),
        1 => Just(Step::Round),
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
    begun: u32,
    under_way: Option<u32>,
    pending: u64,
    /// Of each open promise the last probe that was begun when it was made.
    promises: Vec<u32>,
    /// Containers and their descriptions, while it is up.
    runs: Option<BTreeMap<&'static str, Option<String>>>,
}

#[derive(Debug, Default)]
struct ModelClient {
    round: u64,
    answers: u8,
    own: Vec<(NodeId, u32)>,
}

#[derive(Debug, Default)]
struct Model {
    nodes: BTreeMap<usize, ModelNode>,
    clients: HashMap<u32, ModelClient>,
    round: u64,
    promises: u64,
}

impl Model {
    fn is_open(&self, (id, begun): (NodeId, u32)) -> bool {
        let node = self.nodes.values().find(|node| node.id == id);
        node.is_some_and(|node| node.promises.contains(&begun))
    }

    /// What a client's own promises take off a node.
    fn own(&self, client: u32, id: NodeId) -> u64 {
        let Some(known) = self.clients.get(&client) else {
            return 0;
        };
        if known.round + 1 < self.round || (known.round == self.round && known.answers >= FREE_ANSWERS) {
            return 0;
        }
        let own = known.own.iter().filter(|own| own.0 == id && self.is_open(**own));
        own.count() as u64
    }

    /// The loads that a client sees on the nodes that run all of these.
    fn seen(&self, client: u32, containers: &[&str]) -> BTreeMap<usize, u64> {
        let runs_all = |node: &ModelNode| {
            let runs = node.runs.as_ref();
            runs.is_some_and(|runs| containers.iter().all(|id| runs.contains_key(id)))
        };
        let load = |node: &ModelNode| node.pending + WEIGHT * (node.promises.len() as u64 - self.own(client, node.id));
        let nodes = self.nodes.iter().filter(|(_, node)| runs_all(node));
        nodes.map(|(at, node)| (*at, load(node))).collect()
    }

    fn promise(&mut self, client: u32, node: usize) {
        let node = self.nodes.get_mut(&node).expect("it was in the answer");
        node.promises.push(node.begun);
        let own = (node.id, node.begun);
        self.promises += 1;
        let mut known = self.clients.remove(&client).unwrap_or_default();
        if known.round != self.round {
            let answered_lately = known.round + 1 == self.round;
            known.own.retain(|_| answered_lately);
            (known.round, known.answers) = (self.round, 0);
        }
        known.answers += 1;
        known.own.retain(|own| self.is_open(*own));
        if known.own.len() < MAX_OWN {
            known.own.push(own);
        }
        self.clients.insert(client, known);
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
            }
        };
        by_id.into_iter().map(summary).collect()
    }

    fn totals(&self) -> Totals {
        let count = |listed: bool, up: bool| {
            let nodes = self.nodes.values();
            nodes
                .filter(|node| matches!(node.rank, Rank::Listed(_)) == listed && (!up || node.runs.is_some()))
                .count()
        };
        Totals {
            listed_up: count(true, true),
            listed: count(true, false),
            explorer_up: count(false, true),
            explorer: count(false, false),
            promises: self.promises,
        }
    }
}

/// Nodes above the first four describe nothing: of more, the registry keeps only some.
fn description(node: usize, text: Option<u8>) -> Option<String> {
    text.filter(|_| node < 4).map(|text| format!("text {text}"))
}

/// Takes one step in both. False where an answer differs.
fn take(step: Step, model: &mut Model, registry: &Registry) -> Result<(), TestCaseError> {
    match step {
        Step::Insert { node, rank } => {
            let rank = rank.rank(node);
            model.nodes.entry(node).or_insert_with(|| ModelNode {
                id: registry.insert(addr(node), rank),
                rank,
                begun: 0,
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
                registry.relist(known.id, addr(node), known.rank);
            }
        }
        Step::BeginProbe { node } => {
            if let Some(node) = model.nodes.get_mut(&node) {
                node.begun += 1;
                prop_assert_eq!(registry.begin_probe(node.id), node.begun);
                node.under_way = Some(node.begun);
            }
        }
        Step::Report {
            node: at,
            runs,
            pending,
        } => {
            if let Some(node) = model.nodes.get_mut(&at) {
                let probe = node.under_way.take().unwrap_or_else(|| {
                    node.begun += 1;
                    registry.begin_probe(node.id)
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
                prop_assert_eq!(registry.up(node.id, probe, &running, pending), 0);
                node.promises.retain(|begun| *begun >= probe);
                (node.pending, node.runs) = (pending, Some(runs));
            }
        }
        Step::Down { node } => {
            if let Some(node) = model.nodes.get_mut(&node) {
                registry.down(node.id);
                node.runs = None;
            }
        }
        Step::Round => {
            registry.begin_round();
            model.round += 1;
        }
        Step::Answer {
            client: asking,
            containers,
            page,
            purpose,
        } => {
            let purpose = match model.promises < MAX_PROMISES as u64 {
                true => purpose,
                false => Purpose::Look,
            };
            let containers: Vec<&str> = containers.iter().map(|at| CONTAINERS[*at]).collect();
            let answer = registry.answer(containers.iter().copied(), page, client(asking), purpose);
            let answer: Vec<usize> = answer.iter().map(number).collect();
            let seen = model.seen(asking, &containers);
            let mut sorted: Vec<u64> = seen.values().copied().collect();
            sorted.sort_unstable();
            let expected = sorted.into_iter().skip(page.offset as usize).take(page.n as usize);
            // Which of equal nodes comes first is not the model's to say.
            let loads: Vec<Option<u64>> = answer.iter().map(|node| seen.get(node).copied()).collect();
            prop_assert_eq!(loads, expected.map(Some).collect::<Vec<_>>());
            let mut distinct = answer.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), answer.len());
            if let (Purpose::Route, Some(first)) = (purpose, answer.first()) {
                model.promise(asking, *first);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn answers_as_a_registry_that_sorts_all_nodes_each_time(steps in prop::collection::vec(step(), 0..250)) {
        let registry = Registry::new(PromisePolicy::Weighing(WEIGHT as u32));
        let mut model = Model { round: 1, ..Model::default() };
        registry.begin_round();
        for step in steps {
            take(step, &mut model, &registry)?;
            prop_assert_eq!(registry.containers(), model.containers());
            prop_assert_eq!(registry.totals(), model.totals());
        }
    }
}
