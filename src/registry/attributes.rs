//! The operator's attributes of a node: draining nodes, ranks of backups, and the addresses that clients get.

use std::collections::HashSet;

use super::promises::Cell;
use super::select::{Page, Seen, View, select};
use super::{NodeId, Registry};
use crate::node::Attributes;

impl Registry {
    /// Changes the attributes of a node, which keeps its state and its speed. Returns whether it was draining before.
    pub fn set_attributes(&self, id: NodeId, attributes: Attributes) -> bool {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(id) else {
            return false;
        };
        let has_alias = attributes.public.is_some();
        let (is_draining, is_backup) = (attributes.is_draining, attributes.is_backup);
        let former = std::mem::replace(&mut node.record.attributes, attributes);
        state.aliases += usize::from(has_alias);
        state.aliases -= usize::from(former.public.is_some());
        if (is_draining, is_backup) != (former.is_draining, former.is_backup) {
            state.reenter(id);
        }
        former.is_draining
    }

    /// Selects the nodes of a page. Of several nodes with one address for clients only the first is selected. Returns
    /// `None` if the page takes too many searches.
    pub(super) fn select_distinct(&self, view: &View, page: Page, cell: Cell) -> Option<Vec<Seen>> {
        let private = |some: &mut [Seen]| self.lock().see(some, cell);
        if self.lock().aliases == 0 {
            return select(view, page, private);
        }
        let mut wide = Page {
            n: page.offset.saturating_add(page.n),
            offset: 0,
        };
        let wanted = wide.n as usize;
        loop {
            let mut nodes = select(view, wide, private)?;
            let is_last = nodes.len() < wide.n as usize;
            let mut addrs = HashSet::new();
            // The lock is released after each node.
            nodes.retain(|seen| {
                let state = self.lock();
                let node = state.nodes.at(seen.place.node);
                node.is_some_and(|(_, node)| addrs.insert(node.record.public_addr().clone()))
            });
            if nodes.len() >= wanted || is_last {
                nodes.truncate(wanted);
                return Some(nodes.split_off(nodes.len().min(page.offset as usize)));
            }
            wide.n = wide.n.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::super::{Health, PromisePolicy, Purpose};
    use super::*;
    use crate::client::Client;
    use crate::node::{NodeAddr, NodeInfo, Rank, parse_list};

    const INTERVAL: Duration = Duration::from_secs(30);

    struct Rig {
        registry: Registry,
        ids: Vec<NodeId>,
        now: Instant,
    }

    /// Available nodes as a list describes them, the first with the fewest pending jobs.
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn rig(list: &str) -> Rig {
        let now = Instant::now();
        let registry = Registry::new(PromisePolicy::Off, INTERVAL, now);
        let mut rig = Rig {
            registry,
            ids: Vec::new(),
            now,
        };
        for (line, node) in (0..).zip(parse_list(list.as_bytes()).expect("a list").nodes) {
            let id = rig.registry.insert(node.addr, Rank::Listed(line), now);
            rig.registry.set_attributes(id, node.attributes);
            rig.ids.push(id);
            rig.up(line as usize);
        }
        rig
    }

    impl Rig {
        fn up(&self, node: usize) {
            let info = NodeInfo::parse(br#"{"containers":[{"id":"a"}],"pending":{}}"#).expect("a body");
            self.registry
                .up(self.ids[node], 0, &info.containers, node as u64, self.now);
        }

        fn change(&self, node: usize, line: &str) {
            let list = parse_list(line.as_bytes()).expect("a list");
            self.registry
                .set_attributes(self.ids[node], list.nodes[0].attributes.clone());
        }

        fn page(&self, n: u32, offset: u32) -> Vec<String> {
            let client = Client::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let containers = ["a"].into_iter();
            let page = Page { n, offset };
            let found = self.registry.answer(containers, page, client, Purpose::Look, self.now);
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
            rig.registry.set_health(rig.ids[doubted], Health::Doubted, rig.now);
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
        rig.registry.set_health(rig.ids[0], Health::Down, rig.now);
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
}
