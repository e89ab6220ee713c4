//! The containers that are shown, also above the limits.

use super::*;
use crate::registry::catalogue::MAX_TEXT_BYTES;

fn explorer(node: usize) -> Rank {
    Rank::Explorer(socket(node))
}

fn empty() -> Registry {
    Registry::new(ON, INTERVAL, start())
}

/// Reports a node that runs these, and returns how many were omitted.
fn up(registry: &Registry, id: NodeId, ids: &[String]) -> usize {
    let running: Vec<Running> = ids.iter().map(|id| running(id)).collect();
    report(registry, id, &running)
}

fn report(registry: &Registry, id: NodeId, running: &[Running]) -> usize {
    let now = start();
    registry.begin_probe(id, now);
    registry.up(id, running, 0, now)
}

fn down(registry: &Registry, id: NodeId) {
    registry.set_health(id, NodeState::Down, start());
}

fn ids(name: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{name}-{number}")).collect()
}

fn nodes_of(registry: &Registry, id: &str) -> usize {
    let answer = registry.answer([id].into_iter(), page(0, 1_000), client(1), Purpose::Look, start());
    answer.expect("one container").len()
}

/// Forty nodes of the Explorer fill the catalogue; each runs "popular" too.
fn full() -> (Registry, Vec<NodeId>) {
    let registry = empty();
    let nodes: Vec<NodeId> = (0..40)
        .map(|node| registry.insert(addr(node), explorer(node), start()))
        .collect();
    for (at, id) in nodes.iter().enumerate() {
        let own = ids("rare", at * 250..(at + 1) * 250);
        let crowded_out = up(&registry, *id, &[vec!["popular".to_owned()], own].concat());
        assert_eq!(crowded_out, usize::from(at == 39));
    }
    assert_eq!(registry.containers().len(), MAX_CONTAINERS);
    (registry, nodes)
}

#[test]
fn above_the_limit_only_listed_nodes_add_ids() {
    let (registry, nodes) = full();
    let listed = registry.insert(addr(40), Rank::Listed(0), start());
    assert_eq!(up(&registry, listed, &ids("listed", 0..256)), 0);
    let shown = registry.containers();
    assert_eq!(shown.len(), MAX_CONTAINERS + 256);
    assert!(shown.is_sorted_by(|one, next| one.id < next.id));
    for id in ids("listed", 0..256) {
        assert_eq!(nodes_of(&registry, &id), 1, "{id}");
    }
    assert_eq!(nodes_of(&registry, "popular"), 40);
    assert_eq!(up(&registry, nodes[1], &ids("new", 0..3)), 3);
    assert_eq!(nodes_of(&registry, "popular"), 39);
    // 250 Explorer ids are evicted, but a new one needs fewer than 10,000 ids.
    assert_eq!(up(&registry, nodes[1], &ids("new", 0..3)), 3);
    assert_eq!(up(&registry, listed, &ids("listed", 0..10)), 0);
    assert_eq!(up(&registry, nodes[1], &ids("new", 0..3)), 0);
}

#[test]
fn container_leaves_with_its_last_node() {
    let (registry, nodes) = full();
    let listed = registry.insert(addr(40), Rank::Listed(0), start());
    let both = [ids("rare", 0..250), ids("listed", 0..6)].concat();
    assert_eq!(up(&registry, listed, &both), 0);
    assert!(both.iter().all(|id| nodes_of(&registry, id) > 0));
    down(&registry, listed);
    assert_eq!(nodes_of(&registry, "rare-0"), 1);
    assert_eq!(registry.containers().len(), MAX_CONTAINERS);
    down(&registry, nodes[0]);
    assert_eq!(nodes_of(&registry, "rare-0"), 0);
}

/// Nodes of one Explorer address, which differ in their ports.
fn of_one_address(registry: &Registry, node: usize, port: u16) -> NodeId {
    let socket = SocketAddr::from((socket(node).ip(), port));
    registry.insert(listed(socket), Rank::Explorer(socket), start())
}

#[test]
fn address_with_the_largest_share_gives_up_ids() {
    let registry = empty();
    let hostile: Vec<NodeId> = (0..40).map(|port| of_one_address(&registry, 0, 4_000 + port)).collect();
    for (at, id) in hostile.iter().enumerate() {
        assert_eq!(up(&registry, *id, &ids("rare", at * 250..(at + 1) * 250)), 0);
    }
    let honest = registry.insert(addr(1), explorer(1), start());
    assert_eq!(up(&registry, honest, &ids("good", 0..3)), 0);
    assert_eq!(registry.containers().len(), MAX_CONTAINERS);
    assert!(ids("good", 0..3).iter().all(|id| nodes_of(&registry, id) == 1));
    // The ids evicted were those of one hostile node, which gets no room again.
    let omitted = (0..40).map(|at| up(&registry, hostile[at], &ids("rare", at * 250..(at + 1) * 250)));
    assert_eq!(omitted.sum::<usize>(), 3);
    assert_eq!(up(&registry, honest, &ids("good", 0..3)), 0);
    registry.remove(honest);
    hostile.iter().for_each(|id| drop(registry.remove(*id)));
    assert_eq!(registry.containers(), []);
}

#[test]
fn long_texts_of_one_address_evict_no_others() {
    let registry = empty();
    for port in 0..40 {
        let id = of_one_address(&registry, 0, 4_000 + port);
        let ids: Vec<String> = (0..100).map(|n| format!("{}{port}-{n}", "\u{1}".repeat(244))).collect();
        up(&registry, id, &ids);
    }
    let honest = registry.insert(addr(1), explorer(1), start());
    assert_eq!(up(&registry, honest, &ids(&"long".repeat(60), 0..200)), 0);
}

#[test]
fn shared_and_listed_ids_are_not_evicted() {
    let registry = empty();
    let nodes: Vec<NodeId> = (0..40).map(|port| of_one_address(&registry, 0, 4_000 + port)).collect();
    let id = |node: usize| ids("rare", node * 250..(node + 1) * 250);
    (0..40).for_each(|node| assert_eq!(up(&registry, nodes[node], &id(node)), 0));
    let (other, listed) = (
        registry.insert(addr(1), explorer(1), start()),
        registry.insert(addr(2), Rank::Listed(0), start()),
    );
    assert_eq!(up(&registry, other, &id(39)) + up(&registry, listed, &id(38)), 0);
    registry.relist(nodes[37], addr(3), Rank::Listed(1), Attributes::default(), start());
    (4..40).for_each(|node| {
        let id = registry.insert(addr(node), explorer(node), start());
        up(&registry, id, &ids("new", node * 256..(node + 1) * 256));
    });
    let is_kept = |node| id(node).iter().all(|id| nodes_of(&registry, id) > 0);
    assert!((37..40).all(is_kept));
}

#[test]
fn probe_loses_no_ids_of_an_overfull_catalogue() {
    let registry = empty();
    let nodes: Vec<NodeId> = (0..40)
        .map(|node| registry.insert(addr(node), explorer(node), start()))
        .collect();
    let id = |node: usize| ids("own", node * 250..(node + 1) * 250);
    (0..40).for_each(|node| assert_eq!(up(&registry, nodes[node], &id(node)), 0));
    let listed = registry.insert(addr(40), Rank::Listed(0), start());
    assert_eq!(up(&registry, listed, &ids("listed", 0..200)), 0);
    (0..40).for_each(|node| assert_eq!(up(&registry, nodes[node], &id(node)), 0));
    assert_eq!(registry.containers().len(), 10_200);
}

#[test]
fn listed_nodes_add_a_hundred_thousand_ids() {
    let registry = empty();
    let entered = |node: usize| {
        let id = registry.insert(addr(node), Rank::Listed(node as u32), start());
        250 - up(&registry, id, &ids("own", node * 250..(node + 1) * 250))
    };
    assert!((0..400).all(|node| entered(node) == 250));
    assert_eq!(entered(400), 0);
}

#[test]
fn removed_ids_free_their_space() {
    let (registry, nodes) = full();
    down(&registry, nodes[0]);
    assert_eq!(registry.containers().len(), MAX_CONTAINERS - 250);
    let another = registry.insert(addr(41), explorer(41), start());
    assert_eq!(up(&registry, another, &ids("new", 0..251)), 1);
    registry.remove(another);
    nodes.iter().for_each(|id| drop(registry.remove(*id)));
    assert_eq!(registry.containers(), []);
    assert_eq!(registry.totals(), Totals::default());
}

#[test]
fn after_the_described_nodes_leave_the_next_describes() {
    let registry = empty();
    let report = |id: NodeId, node: usize| {
        let running = Running {
            description: Some(format!("by {node}").into()),
            ..running("a")
        };
        report(&registry, id, &[running])
    };
    let nodes: Vec<NodeId> = (0..6)
        .map(|node| registry.insert(addr(node), explorer(node), start()))
        .collect();
    (0..6).rev().for_each(|node| assert_eq!(report(nodes[node], node), 0));
    let description = || registry.containers()[0].description.as_deref().map(str::to_owned);
    assert_eq!(description().as_deref(), Some("by 0"));
    nodes[..4].iter().for_each(|id| down(&registry, *id));
    report(nodes[5], 5);
    assert_eq!(description().as_deref(), Some("by 5"));
    report(nodes[4], 4);
    assert_eq!(description().as_deref(), Some("by 4"));
}

#[test]
fn above_text_limit_only_listed_nodes_describe() {
    let registry = empty();
    let describe = |node: usize, rank: Rank| {
        let id = registry.insert(addr(node), rank, start());
        let described = ids(&format!("of-{node}"), 0..250).into_iter().map(|id| Running {
            description: Some("\u{1F600}".repeat(1_024).into()),
            ..running(&id)
        });
        assert_eq!(report(&registry, id, &described.collect::<Vec<_>>()), 0);
    };
    (0..5).for_each(|node| describe(node, explorer(node)));
    let described = || {
        registry
            .containers()
            .iter()
            .filter(|shown| shown.description.is_some())
            .count()
    };
    assert_eq!(described(), MAX_TEXT_BYTES / 4_096);
    describe(5, Rank::Listed(0));
    assert_eq!(described(), MAX_TEXT_BYTES / 4_096 + 250);
}
