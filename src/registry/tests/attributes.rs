//! The operator's attributes of a node: draining nodes, ranks of backups, and the addresses that clients get.

use super::*;
use crate::node::{NodeInfo, parse_list};

struct Rig {
    registry: Registry,
    ids: Vec<NodeId>,
    now: Instant,
}

/// Available nodes as a list describes them, the first with the fewest pending jobs.
fn rig(list: &str) -> Rig {
    let now = start();
    let registry = Registry::new(PromisePolicy::Off, INTERVAL, now);
    let mut rig = Rig {
        registry,
        ids: Vec::new(),
        now,
    };
    for (line, node) in (0..).zip(parse_list(list.as_bytes()).expect("a list").nodes) {
        let id = rig.registry.insert(node.addr.clone(), Rank::Listed(line), now);
        rig.registry
            .relist(id, node.addr, Rank::Listed(line), node.attributes, rig.now);
        rig.ids.push(id);
        rig.up(line as usize);
    }
    rig
}

impl Rig {
    fn up(&self, node: usize) {
        let info = NodeInfo::parse(br#"{"containers":[{"id":"a"}],"pending":{}}"#).expect("a body");
        self.registry
            .up(self.ids[node], &info.containers, node as u64, self.now);
    }

    fn change(&self, node: usize, line: &str) {
        let listed = parse_list(line.as_bytes()).expect("a list").nodes.remove(0);
        let rank = Rank::Listed(node as u32);
        self.registry
            .relist(self.ids[node], listed.addr, rank, listed.attributes, self.now);
    }

    fn page(&self, n: u32, offset: u32) -> Vec<String> {
        let containers = ["a"].into_iter();
        let found = self
            .registry
            .answer(containers, page(offset, n), client(1), Purpose::Look, self.now);
        let found = found.expect("few searches");
        found.iter().map(NodeAddr::to_string).collect()
    }

    fn all(&self) -> Vec<String> {
        self.page(100, 0)
    }
}

#[test]
fn backups_rank_below_all_nodes_of_their_class() {
    let rig = rig("a:1 backup\nb:1 backup\nc:1\nd:1");
    assert_eq!(rig.all(), ["c:1", "d:1", "a:1", "b:1"]);
    for doubted in [0, 2] {
        rig.registry.set_health(rig.ids[doubted], NodeState::Doubted, rig.now);
    }
    assert_eq!(rig.all(), ["d:1", "b:1", "c:1", "a:1"]);
    rig.change(1, "b:1");
    assert_eq!(rig.all(), ["b:1", "d:1", "c:1", "a:1"]);
    rig.up(0);
    rig.change(0, "a:1");
    assert_eq!(rig.all(), ["a:1", "b:1", "d:1", "c:1"]);
}

#[test]
fn draining_node_is_omitted_and_keeps_its_state() {
    let rig = rig("a:1\nb:1 drain");
    assert_eq!(rig.all(), ["a:1"]);
    assert_eq!(
        (rig.registry.totals().available, rig.registry.containers()[0].count),
        (1, 1)
    );
    rig.change(0, "a:1 drain");
    rig.change(1, "b:1");
    assert_eq!(rig.all(), ["b:1"]);
    rig.up(0);
    assert_eq!(rig.all(), ["b:1"], "a probe changes nothing");
    rig.change(0, "a:1");
    assert_eq!(rig.all(), ["a:1", "b:1"]);
    rig.change(0, "a:1 drain");
    rig.registry.set_health(rig.ids[0], NodeState::Down, rig.now);
    rig.change(0, "a:1");
    assert_eq!(rig.all(), ["b:1"], "it went down while it was draining");
    rig.up(0);
    assert_eq!(rig.all(), ["a:1", "b:1"]);
    rig.change(1, "b:1 drain");
    rig.registry.remove(rig.ids[1]);
    assert_eq!(rig.all(), ["a:1"]);
}

#[test]
fn address_of_several_nodes_is_returned_once() {
    let rig = rig("a:1 as=x:1\nb:1 as=x:1\nc:1\nd:1 as=X:1/\nx:1\ne:1 as=y:1");
    assert_eq!(rig.all(), ["x:1", "c:1", "y:1"]);
    assert_eq!(rig.page(2, 0), ["x:1", "c:1"]);
    assert_eq!(rig.page(2, 2), ["y:1"]);
    assert_eq!(rig.page(2, 3), [""; 0]);
    assert_eq!(rig.registry.containers()[0].count, 6);
    for node in [0, 1, 3, 5] {
        rig.registry.remove(rig.ids[node]);
    }
    assert_eq!(rig.all(), ["c:1", "x:1"]);
}
