//! The resources of nodes: misses, ranks and the total limit.

use std::sync::Arc;

use super::*;
use crate::node::{Entries, Reading};

const RUNS: [&str; 2] = ["a", "b"];

fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).expect("an id")
}

/// Listed nodes that run "a" and "b".
fn fleet(nodes: usize) -> (Registry, Vec<NodeId>) {
    let registry = Registry::new(ON, INTERVAL, start());
    let insert = |node| registry.insert(addr(node), Rank::Listed(node as u32), start());
    let ids: Vec<NodeId> = (0..nodes).map(insert).collect();
    ids.iter().for_each(|node| run(&registry, *node, &RUNS));
    (registry, ids)
}

fn run(registry: &Registry, node: NodeId, ids: &[&str]) {
    let now = start();
    let running: Vec<Running> = ids.iter().map(|id| running(id)).collect();
    registry.begin_probe(node, now);
    registry.up(node, &running, 0, now);
}

fn entries(ids: &[&str], bytes: usize) -> ResourceReport {
    let text: Arc<str> = "y".repeat(bytes).into();
    let entries: Entries = ids.iter().map(|name| (id(name), Arc::clone(&text))).collect();
    Ok(Reading {
        entries,
        left_out: None,
    })
}

fn failure() -> ResourceReport {
    Err(ResourceFailure::Failed("timeout".to_owned()))
}

fn set(registry: &Registry, node: NodeId, report: ResourceReport) -> bool {
    registry.set_resources(node, report)
}

/// The numbers of the nodes with entries, each with the ids, in the order of a reader.
fn known(registry: &Registry) -> Vec<(usize, Vec<String>)> {
    let mut known = Vec::new();
    registry.visit_resources(&[], |node, _, entries| {
        let ids = entries.iter().map(|known| known.id.as_str().to_owned());
        known.push((number(&node.addr), ids.collect()));
    });
    known
}

fn known_of_first(registry: &Registry) -> Vec<String> {
    known(registry).into_iter().next().map_or(Vec::new(), |(_, ids)| ids)
}

fn state(registry: &Registry, node: NodeId) -> String {
    let view = registry.views(&[node], start()).remove(0);
    view.resources.expect("it was polled")
}

#[test]
fn entry_survives_three_misses() {
    let (registry, nodes) = fleet(1);
    set(&registry, nodes[0], entries(&RUNS, 1));
    for report in [entries(&["b"], 1), failure(), entries(&["b"], 1)] {
        set(&registry, nodes[0], report);
        assert_eq!(known_of_first(&registry), RUNS);
    }
    set(
        &registry,
        nodes[0],
        Err(ResourceFailure::LocalError("no descriptor".to_owned())),
    );
    assert_eq!(known_of_first(&registry), RUNS, "a local error is no miss");
    set(&registry, nodes[0], entries(&["b"], 1));
    assert_eq!(known_of_first(&registry), ["b"]);
    set(&registry, nodes[0], entries(&["a"], 1));
    assert_eq!(known_of_first(&registry), RUNS);
}

#[test]
fn not_found_drops_all_entries() {
    let (registry, nodes) = fleet(1);
    set(&registry, nodes[0], entries(&RUNS, 1));
    set(&registry, nodes[0], Err(ResourceFailure::NotFound));
    assert_eq!(known(&registry), []);
    assert!(state(&registry, nodes[0]).starts_with("0 of 2 containers: status 404"));
    set(&registry, nodes[0], entries(&["a"], 1));
    assert_eq!(state(&registry, nodes[0]), "1 of 2 containers");
}

#[test]
fn container_no_longer_run_loses_its_entry() {
    let (registry, nodes) = fleet(2);
    set(&registry, nodes[0], entries(&RUNS, 1));
    run(&registry, nodes[0], &["b", "c"]);
    assert_eq!(known(&registry), [(0, vec!["b".to_owned()])]);
    // A poll that began before that is applied to what the node runs now.
    set(&registry, nodes[0], entries(&RUNS, 1));
    assert_eq!(known(&registry), [(0, vec!["b".to_owned()])]);
    run(&registry, nodes[0], &["c"]);
    assert_eq!(known(&registry), []);
}

#[test]
fn unavailable_node_is_hidden_and_keeps_its_entries() {
    let (registry, nodes) = fleet(1);
    set(&registry, nodes[0], entries(&RUNS, 1));
    registry.set_health(nodes[0], NodeState::Down, start());
    assert_eq!(known(&registry), []);
    run(&registry, nodes[0], &RUNS);
    assert_eq!(known_of_first(&registry), RUNS);
}

#[test]
fn readers_follow_the_ranks() {
    let (registry, nodes) = fleet(3);
    nodes
        .iter()
        .for_each(|node| assert!(set(&registry, *node, entries(&["a"], 1))));
    registry.relist(nodes[0], addr(0), Rank::Listed(9), Attributes::default(), start());
    let order = |registry: &Registry| known(registry).into_iter().map(|(node, _)| node).collect::<Vec<_>>();
    assert_eq!(order(&registry), [1, 2, 0]);
    registry.remove(nodes[1]);
    assert_eq!(order(&registry), [2, 0]);
}

#[test]
fn above_limit_last_ranks_lose_their_entries() {
    const MIB: usize = 1 << 20;
    let (registry, nodes) = fleet(3);
    // 48 MiB for the last node, then as much for the first one.
    assert!(set(&registry, nodes[2], entries(&RUNS, 24 * MIB)));
    assert!(!set(&registry, nodes[0], entries(&RUNS, 24 * MIB)));
    assert_eq!(known(&registry).len(), 1);
    assert!(state(&registry, nodes[2]).contains("no room"));
    // The second node exceeds the limit: the first one ranks before it.
    assert!(!set(&registry, nodes[1], entries(&RUNS, 24 * MIB)));
    assert!(set(&registry, nodes[1], entries(&["a"], 15 * MIB)));
    assert_eq!(known(&registry).len(), 2);
    registry.remove(nodes[0]);
    assert!(set(&registry, nodes[2], entries(&RUNS, 24 * MIB)));
    assert_eq!(known(&registry).len(), 2);
}
