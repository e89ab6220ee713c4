//! Pages of lists that end before 1 MiB: the bodies of `/api/v1/containers` and `/api/v1/resources`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::node::{Entries, NodeAddr};
use crate::registry::{Page, Registry};
use crate::response::Response;

/// Longest body of a page. The client waits 3 s for a response, and 1,000 nodes can have 6.7 MB of resources.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// One page of a list while it is written.
pub(super) struct Listing {
    body: Vec<u8>,
    page: Page,
    /// Items on this page.
    written: u32,
    /// Items on all pages.
    total: usize,
}

impl Listing {
    /// A page without items, after its opening bracket.
    pub(super) fn new(open: u8, page: Page) -> Self {
        Self {
            body: vec![open],
            page,
            written: 0,
            total: 0,
        }
    }

    /// Counts an item, and writes it if it is on this page. The page ends before 1 MiB: a client continues at `offset`
    /// plus the items that it received. An item must be shorter than that.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let is_on_page = self.total >= self.page.offset as usize && self.written < self.page.n;
        self.total += 1;
        if !is_on_page {
            return;
        }
        let before = self.body.len();
        if self.written > 0 {
            self.body.push(b',');
        }
        write(&mut self.body);
        if self.body.len() < MAX_PAGE_BYTES {
            self.written += 1;
        } else {
            self.body.truncate(before);
            self.page.n = self.written;
        }
    }

    pub(super) fn into_response(mut self, close: u8) -> Response {
        self.body.push(close);
        Response::json(self.body).with("X-Total-Count", self.total.to_string())
    }
}

/// Lists the nodes that run all of `containers`, each with its entries of these containers, or of all if there are
/// none. The entries are the node's resources, or its entries in `answers` about a model. A node that is no longer
/// available is omitted.
pub(super) fn nodes(
    registry: &Registry,
    containers: &[String],
    page: Page,
    answers: Option<&[(NodeAddr, Arc<Entries>)]>,
) -> Response {
    let answers: Option<HashMap<&NodeAddr, &Entries>> =
        answers.map(|answers| answers.iter().map(|(addr, entries)| (addr, &**entries)).collect());
    let mut listing = Listing::new(b'{', page);
    // Several nodes may have one address for clients: the first one represents it.
    let mut seen = HashSet::new();
    registry.visit_resources(containers, |node, _, known| {
        let mut entries: Vec<(&str, &str)> = match &answers {
            None => {
                let known = known.iter();
                known.map(|known| (known.id.as_str(), &*known.text)).collect()
            }
            Some(answers) => {
                let known = answers.get(&node.addr).into_iter().copied().flatten();
                known.map(|(id, text)| (id.as_str(), &**text)).collect()
            }
        };
        entries.retain(|(id, _)| containers.is_empty() || containers.iter().any(|other| other == id));
        if !entries.is_empty() && seen.insert(node.public_addr().clone()) {
            listing.add(|body| write_node(body, node.public_addr(), &entries));
        }
    });
    listing.into_response(b'}')
}

fn write_node(body: &mut Vec<u8>, addr: &NodeAddr, entries: &[(&str, &str)]) {
    write_key(body, addr.as_listed());
    for (number, (id, text)) in entries.iter().enumerate() {
        body.push(if number == 0 { b'{' } else { b',' });
        write_key(body, id);
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
    use std::time::{Duration, Instant, SystemTime};

    use serde_json::{Value, json};

    use super::*;
    use crate::node::{Attributes, ContainerId, Rank, Reading, Running};
    use crate::registry::PromisePolicy;
    use crate::response::Persistence;

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
            registry.begin_probe(node, now);
            registry.up(node, &running, 0, now);
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

    /// The body, and the value of `X-Total-Count`.
    fn parts(response: &Response) -> (String, usize) {
        let bytes = response.to_bytes(false, Persistence::Persist, "", SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        let (_, total) = head.split_once("X-Total-Count: ").expect("a total");
        (body.to_owned(), total.parse().expect("a number"))
    }

    fn listed(containers: &[&str], n: u32, offset: u32) -> (Value, usize) {
        let containers: Vec<String> = containers.iter().map(|&id| id.to_owned()).collect();
        let (body, total) = parts(&nodes(&three(), &containers, Page { n, offset }, None));
        (serde_json::from_str(&body).expect("JSON"), total)
    }

    #[test]
    fn containers_select_nodes_and_entries() {
        assert_eq!(
            parts(&nodes(&three(), &[], Page { n: 100, offset: 0 }, None)).0,
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
        let all: Vec<Node<'_>> = (1..=200).map(|number| (number, &["a"][..], &entries[..])).collect();
        let registry = registry(&all);
        let (mut offset, mut pages) = (0, 0);
        while offset < 200 {
            let (body, total) = parts(&nodes(&registry, &[], Page { n: 1000, offset }, None));
            assert!(body.len() <= MAX_PAGE_BYTES);
            assert_eq!(total, 200);
            let value: serde_json::Map<String, Value> = serde_json::from_str(&body).expect("JSON");
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
        let response = nodes(&three(), &[], Page { n: 100, offset: 0 }, Some(&answers));
        let body = r#"{"192.0.2.1:3":{"a":{"supported":true}},"192.0.2.1:1":{"a":{"supported":true}}}"#;
        assert_eq!(parts(&response), (body.to_owned(), 2));
    }

    #[test]
    fn support_has_the_addresses_for_clients() {
        let registry = three();
        let mut ids = Vec::new();
        registry.visit(|id, record| ids.push((record.rank, id, record.since)));
        let attributes = Attributes {
            public: Some(addr(7)),
            ..Attributes::default()
        };
        ids.sort_unstable();
        let (rank, node, since) = ids[1];
        registry.relist(node, addr(1), rank, attributes, since);
        let entries: Entries = vec![(id("a"), "{\"supported\":true}".into())];
        let answers = [(addr(1), Arc::new(entries))];
        let response = nodes(&registry, &[], Page { n: 100, offset: 0 }, Some(&answers));
        assert_eq!(parts(&response).0, r#"{"192.0.2.1:7":{"a":{"supported":true}}}"#);
    }
}
