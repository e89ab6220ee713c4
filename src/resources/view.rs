//! The available nodes with an entry, in the order of the responses. A view is replaced and never changed, so a reader holds no
//! lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node::{ContainerId, Entries, NodeAddr};
use crate::registry::Page;
use crate::response::Listing;

/// A node with at least one entry.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) addr: NodeAddr,
    /// Sorted.
    pub(super) runs: Arc<[ContainerId]>,
    pub(super) entries: Entries,
}

#[derive(Debug, Default)]
pub(super) struct View {
    nodes: Vec<Shown>,
    /// Positions of the nodes that run a container.
    by_container: HashMap<ContainerId, Vec<usize>>,
    by_addr: HashMap<NodeAddr, usize>,
}

impl View {
    /// A view of these nodes, which are in the order to show.
    pub(super) fn new(nodes: Vec<Shown>) -> Self {
        let mut by_container: HashMap<ContainerId, Vec<usize>> = HashMap::new();
        let mut by_addr = HashMap::new();
        for (position, node) in nodes.iter().enumerate() {
            by_addr.insert(node.addr.clone(), position);
            for id in &*node.runs {
                by_container.entry(id.clone()).or_default().push(position);
            }
        }
        Self {
            nodes,
            by_container,
            by_addr,
        }
    }

    /// What the nodes that run all of `containers` can run; of these containers alone, where some are named.
    pub(super) fn resources(&self, containers: &[String], page: Page) -> Listing {
        let Some(first) = containers.first() else {
            return write(self.nodes.iter().map(|node| (node, &node.entries)), containers, page);
        };
        let running = self.by_container.get(first.as_str());
        let nodes = running.into_iter().flatten().map(|position| &self.nodes[*position]);
        write(nodes.map(|node| (node, &node.entries)), containers, page)
    }

    /// The same of what nodes said of a model. A node that is not available any more is left out.
    pub(super) fn support<'a>(
        &'a self,
        said: impl Iterator<Item = (&'a NodeAddr, &'a Entries)>,
        containers: &[String],
        page: Page,
    ) -> Listing {
        let mut said: Vec<(usize, &Entries)> = said
            .filter_map(|(addr, entries)| Some((*self.by_addr.get(addr)?, entries)))
            .collect();
        said.sort_unstable_by_key(|(position, _)| *position);
        let nodes = said
            .into_iter()
            .map(|(position, entries)| (&self.nodes[position], entries));
        write(nodes, containers, page)
    }
}

/// Writes a page of these nodes, of whose entries those of `containers` are shown where some are named.
fn write<'a>(nodes: impl Iterator<Item = (&'a Shown, &'a Entries)>, containers: &[String], page: Page) -> Listing {
    let runs = |node: &Shown, id: &String| node.runs.binary_search_by(|run| run.as_str().cmp(id)).is_ok();
    let is_shown = |id: &ContainerId| containers.is_empty() || containers.iter().any(|shown| shown == id.as_str());
    let nodes = nodes
        .filter(|(node, _)| containers.iter().all(|id| runs(node, id)))
        .filter(|(_, entries)| entries.iter().any(|(id, _)| is_shown(id)));
    Listing::new(*b"{}", nodes, page, |body, (node, entries)| {
        write_key(body, node.addr.as_listed());
        for (number, (id, text)) in entries.iter().filter(|(id, _)| is_shown(id)).enumerate() {
            body.push(if number == 0 { b'{' } else { b',' });
            write_key(body, id.as_str());
            body.extend_from_slice(text.as_bytes());
        }
        body.push(b'}');
    })
}

fn write_key(body: &mut Vec<u8>, key: &str) {
    // Writing a text to a Vec can't fail.
    let _ = serde_json::to_writer(&mut *body, key);
    body.push(b':');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).expect("an id")
    }

    fn node(number: u16, entries: &[(&str, &str)], runs: &[&str]) -> Shown {
        Shown {
            addr: NodeAddr::parse(&format!("192.0.2.1:{number}")).expect("an address"),
            runs: runs.iter().map(|run| id(run)).collect(),
            entries: entries.iter().map(|(name, text)| (id(name), (*text).into())).collect(),
        }
    }

    fn view() -> View {
        View::new(vec![
            node(3, &[("a", "{\"x\":1}"), ("b\"", "{}")], &["a", "b\""]),
            node(1, &[("a", "{}")], &["a", "c"]),
            node(2, &[("c", "{}")], &["c"]),
        ])
    }

    fn listed(containers: &[&str], n: u32, offset: u32) -> (Value, usize) {
        let containers: Vec<String> = containers.iter().map(|&id| id.to_owned()).collect();
        let listing = view().resources(&containers, Page { n, offset });
        let value = serde_json::from_slice(&listing.body).expect("JSON");
        (value, listing.total)
    }

    #[test]
    fn containers_filter_nodes_and_entries_in_order() {
        let body = view().resources(&[], Page { n: 100, offset: 0 }).body;
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"192.0.2.1:3":{"a":{"x":1},"b\"":{}},"192.0.2.1:1":{"a":{}},"192.0.2.1:2":{"c":{}}}"#
        );
        let (three, one, two) = ("192.0.2.1:3", "192.0.2.1:1", "192.0.2.1:2");
        assert_eq!(
            listed(&["a"], 9, 0),
            (json!({three: {"a": {"x": 1}}, one: {"a": {}}}), 2)
        );
        // It runs both, and of one of them nothing is known.
        assert_eq!(listed(&["a", "c"], 9, 0), (json!({one: {"a": {}}}), 1));
        assert_eq!(listed(&["c"], 9, 0), (json!({two: {"c": {}}}), 1));
        assert_eq!(listed(&["d"], 9, 0), (json!({}), 0));
        assert_eq!(listed(&[], 1, 1), (json!({one: {"a": {}}}), 3));
        assert_eq!(listed(&[], 0, 0), (json!({}), 3));
        assert_eq!(listed(&[], 9, 3), (json!({}), 3));
    }

    #[test]
    fn page_ends_before_one_mebibyte() {
        let text = format!("{{\"x\":\"{}\"}}", "y".repeat(16_000));
        let nodes = (1..=200).map(|number| node(number, &[("a", &text)], &["a"])).collect();
        let view = View::new(nodes);
        let (mut offset, mut pages) = (0, 0);
        while offset < 200 {
            let listing = view.resources(&[], Page { n: 1000, offset });
            assert!(listing.body.len() <= 1024 * 1024);
            assert_eq!(listing.total, 200);
            let value: serde_json::Map<String, Value> = serde_json::from_slice(&listing.body).expect("JSON");
            offset += u32::try_from(value.len()).expect("few");
            pages += 1;
        }
        assert_eq!((offset, pages), (200, 4));
    }

    #[test]
    fn model_answers_are_shown_for_available_nodes() {
        let said: Entries = vec![(id("a"), "{\"supported\":true}".into())];
        let addr = |number| node(number, &[], &[]).addr;
        let answers = [
            (addr(1), said.clone()),
            (addr(3), said.clone()),
            (addr(9), said),
            (addr(2), Vec::new()),
        ];
        let answers = answers.iter().map(|(addr, said)| (addr, said));
        let listing = view().support(answers, &[], Page { n: 100, offset: 0 });
        assert_eq!(
            String::from_utf8(listing.body).expect("text"),
            r#"{"192.0.2.1:3":{"a":{"supported":true}},"192.0.2.1:1":{"a":{"supported":true}}}"#
        );
        assert_eq!(listing.total, 2);
    }
}
