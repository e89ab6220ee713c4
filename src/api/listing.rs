//! The bodies of `/api/v1/resources`: pages of nodes, each with an object of its containers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::node::{ContainerId, Entries, NodeAddr};
use crate::registry::{Page, Registry};
use crate::response::{Listing, MAX_PAGE_BYTES};

/// Lists the resources of the nodes that run all of `containers`; of these containers only, if there are any.
pub(super) fn resources(registry: &Registry, containers: &[String], page: Page) -> Listing {
    let mut pager = Pager::default();
    registry.visit_resources(containers, |node| {
        let entries = node.entries.iter().map(|(id, known)| (id, &known.text));
        pager.offer(containers, page, node.public, entries);
    });
    pager.into_listing(page)
}

/// Lists the responses of nodes about a model in the same way. A node that is no longer available is omitted.
pub(super) fn support(
    registry: &Registry,
    answers: &[(NodeAddr, Arc<Entries>)],
    containers: &[String],
    page: Page,
) -> Listing {
    let by_addr: HashMap<&NodeAddr, &Entries> = answers.iter().map(|(addr, entries)| (addr, &**entries)).collect();
    let mut pager = Pager::default();
    registry.visit_resources(containers, |node| {
        if let Some(entries) = by_addr.get(node.addr) {
            let entries = entries.iter().map(|(id, text)| (id, text));
            pager.offer(containers, page, node.public, entries);
        }
    });
    pager.into_listing(page)
}

/// Collects the nodes of a page, and counts all nodes. A node is copied under the registry's lock and written without
/// it.
#[derive(Default)]
struct Pager {
    nodes: Vec<(NodeAddr, Entries)>,
    /// Several nodes may have one address for clients: the first one represents it.
    seen: HashSet<NodeAddr>,
    bytes: usize,
    total: usize,
}

impl Pager {
    fn offer<'e>(
        &mut self,
        containers: &[String],
        page: Page,
        addr: &NodeAddr,
        entries: impl Iterator<Item = (&'e ContainerId, &'e Arc<str>)>,
    ) {
        let is_shown = |id: &ContainerId| containers.is_empty() || containers.iter().any(|other| other == id.as_str());
        let mut entries = entries.filter(|(id, _)| is_shown(id)).peekable();
        if entries.peek().is_none() || !self.seen.insert(addr.clone()) {
            return;
        }
        let has_room = self.nodes.len() < page.n as usize && self.bytes < MAX_PAGE_BYTES;
        if self.total >= page.offset as usize && has_room {
            let shown: Entries = entries.map(|(id, text)| (id.clone(), text.clone())).collect();
            self.bytes += shown.iter().map(|(_, text)| text.len()).sum::<usize>();
            self.nodes.push((addr.clone(), shown));
        }
        self.total += 1;
    }

    fn into_listing(self, page: Page) -> Listing {
        let page = Page { offset: 0, ..page };
        let listing = Listing::new(*b"{}", self.nodes.iter(), page, write_node);
        Listing {
            total: self.total,
            ..listing
        }
    }
}

fn write_node(body: &mut Vec<u8>, (addr, entries): &(NodeAddr, Entries)) {
    write_key(body, addr.as_listed());
    for (number, (id, text)) in entries.iter().enumerate() {
        body.push(if number == 0 { b'{' } else { b',' });
        write_key(body, id.as_str());
        body.extend_from_slice(text.as_bytes());
    }
    body.push(b'}');
}

fn write_key(body: &mut Vec<u8>, key: &str) {
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *body, key);
    body.push(b':');
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;
    use crate::node::{Attributes, Rank, Reading, Running};
    use crate::registry::PromisePolicy;

    /// A number, the containers that the node runs, and its entries.
    type Node<'a> = (usize, &'a [&'a str], &'a [(&'a str, &'a str)]);

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).expect("an id")
    }

    fn addr(number: usize) -> NodeAddr {
        NodeAddr::parse(&format!("192.0.2.1:{number}")).expect("an address")
    }

    /// Nodes by rank.
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn registry(nodes: &[Node<'_>]) -> Registry {
        let now = Instant::now();
        let registry = Registry::new(PromisePolicy::Off, Duration::from_secs(30), now);
        for (rank, (number, runs, entries)) in nodes.iter().enumerate() {
            let node = registry.insert(addr(*number), Rank::Listed(rank as u32), now);
            let running = |id: &ContainerId| Running {
                id: id.clone(),
                description: None,
                image: None,
            };
            let runs: Vec<ContainerId> = runs.iter().map(|run| id(run)).collect();
            let running: Vec<Running> = runs.iter().map(running).collect();
            registry.up(node, registry.begin_probe(node, now), &running, 0, now);
            let entries = entries.iter().map(|(name, text)| (id(name), (*text).into())).collect();
            let left_out = None;
            assert!(registry.set_resources(node, Ok(Reading { entries, left_out })));
        }
        registry
    }

    fn three() -> Registry {
        registry(&[
            (3, &["a", "b\""], &[("a", "{\"x\":1}"), ("b\"", "{}")]),
            (1, &["a", "c"], &[("a", "{}")]),
            (2, &["c"], &[("c", "{}")]),
        ])
    }

    fn listed(containers: &[&str], n: u32, offset: u32) -> (Value, usize) {
        let containers: Vec<String> = containers.iter().map(|&id| id.to_owned()).collect();
        let listing = resources(&three(), &containers, Page { n, offset });
        let value = serde_json::from_slice(&listing.body).expect("JSON");
        (value, listing.total)
    }

    #[test]
    fn containers_select_nodes_and_entries() {
        let body = resources(&three(), &[], Page { n: 100, offset: 0 }).body;
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"192.0.2.1:3":{"a":{"x":1},"b\"":{}},"192.0.2.1:1":{"a":{}},"192.0.2.1:2":{"c":{}}}"#
        );
        let (three, one, two) = ("192.0.2.1:3", "192.0.2.1:1", "192.0.2.1:2");
        assert_eq!(
            listed(&["a"], 9, 0),
            (json!({three: {"a": {"x": 1}}, one: {"a": {}}}), 2)
        );
        // It runs both, and has an entry of one of them.
        assert_eq!(listed(&["a", "c"], 9, 0), (json!({one: {"a": {}}}), 1));
        assert_eq!(listed(&["c"], 9, 0), (json!({two: {"c": {}}}), 1));
        assert_eq!(listed(&["d"], 9, 0), (json!({}), 0));
        assert_eq!(listed(&[], 1, 1), (json!({one: {"a": {}}}), 3));
        assert_eq!(listed(&[], 0, 0), (json!({}), 3));
        assert_eq!(listed(&[], 9, 3), (json!({}), 3));
    }

    #[test]
    fn body_ends_before_mebibyte_and_continues_by_offset() {
        let text = format!("{{\"x\":\"{}\"}}", "y".repeat(16_000));
        let entries = [("a", text.as_str())];
        let nodes: Vec<Node<'_>> = (1..=200).map(|number| (number, &["a"][..], &entries[..])).collect();
        let registry = registry(&nodes);
        let (mut offset, mut pages) = (0, 0);
        while offset < 200 {
            let listing = resources(&registry, &[], Page { n: 1000, offset });
            assert!(listing.body.len() <= MAX_PAGE_BYTES);
            assert_eq!(listing.total, 200);
            let value: serde_json::Map<String, Value> = serde_json::from_slice(&listing.body).expect("JSON");
            offset += u32::try_from(value.len()).expect("few");
            pages += 1;
        }
        assert_eq!((offset, pages), (200, 4));
    }

    #[test]
    fn support_is_listed_for_available_nodes() {
        let supported: Entries = vec![(id("a"), "{\"supported\":true}".into())];
        let answers = [
            (1, supported.clone()),
            (3, supported.clone()),
            (9, supported),
            (2, Vec::new()),
        ];
        let answers = answers.map(|(number, entries)| (addr(number), Arc::new(entries)));
        let listing = support(&three(), &answers, &[], Page { n: 100, offset: 0 });
        assert_eq!(
            String::from_utf8(listing.body).expect("text"),
            r#"{"192.0.2.1:3":{"a":{"supported":true}},"192.0.2.1:1":{"a":{"supported":true}}}"#
        );
        assert_eq!(listing.total, 2);
    }

    #[test]
    fn support_has_the_addresses_for_clients() {
        let registry = three();
        let mut ids = Vec::new();
        registry.visit(|id, record| ids.push((record.rank, id)));
        let attributes = Attributes {
            public: Some(addr(7)),
            ..Attributes::default()
        };
        ids.sort_unstable();
        registry.set_attributes(ids[1].1, attributes);
        let entries: Entries = vec![(id("a"), "{\"supported\":true}".into())];
        let listing = support(
            &registry,
            &[(addr(1), Arc::new(entries))],
            &[],
            Page { n: 100, offset: 0 },
        );
        assert_eq!(
            String::from_utf8(listing.body).expect("text"),
            r#"{"192.0.2.1:7":{"a":{"supported":true}}}"#
        );
    }
}
