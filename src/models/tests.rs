use std::collections::BTreeMap;
use std::sync::Arc;

use super::new_ids;
use super::queries::{MAX_IN_RATE_WINDOW, MAX_TO_NODE, NODE_WINDOW};
use super::surveys::{COMPLETE_FOR, FAILURE_KEPT, KEPT, MAX_BYTES, MAX_EXPLORER_BYTES, MAX_IDS, MAX_QUEUED, Surveys};
use super::*;
use crate::node::{ContainerId, Reading, Source};
use crate::registry::{ResourceFailure, ResourceReport};
use crate::response::MAX_DEFERRAL;

fn addr(number: usize) -> NodeAddr {
    NodeAddr::parse(&format!("192.0.2.1:{number}")).expect("an address")
}

/// A client in a separate subnet for each number.
fn client(number: u32) -> Client {
    Client::V4(number << 8)
}

fn entries(text: &str) -> ResourceReport {
    let id = ContainerId::parse("a").expect("an id");
    Ok(Reading {
        entries: vec![(id, text.into())],
        left_out: None,
    })
}

fn failed() -> ResourceReport {
    Err(ResourceFailure::Failed("timeout".to_owned()))
}

fn local_error() -> ResourceReport {
    Err(ResourceFailure::LocalError("no descriptor".to_owned()))
}

/// Surveys of this many nodes, ordered by number.
struct Fleet {
    surveys: Surveys,
    nodes: Vec<NodeAddr>,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn fleet(count: usize) -> (Fleet, Instant) {
    let fleet = Fleet {
        surveys: Surveys::default(),
        nodes: (1..=count).map(addr).collect(),
    };
    (fleet, Instant::now())
}

impl Fleet {
    fn request(&mut self, id: &str, number: u32, now: Instant) -> Step {
        self.surveys.request(id, client(number), now).0
    }

    fn next(&mut self, now: Instant) -> Option<Query> {
        if self.surveys.is_plan_due(now) {
            let nodes: Vec<_> = (1..).zip(self.nodes.iter().cloned()).collect();
            self.surveys.plan(&nodes, now);
        }
        self.surveys.next(|_| true, now).ok()
    }

    /// Sends the permitted queries. Each gets its response immediately.
    fn send(&mut self, now: Instant, answer: &ResourceReport) -> Vec<(String, NodeAddr)> {
        let mut sent = Vec::new();
        while let Some(query) = self.next(now) {
            self.surveys.answered(&query, Source::IpsFile, answer.clone(), now);
            sent.push((query.id.to_string(), query.addr));
        }
        sent
    }

    fn known(&self, id: &str, now: Instant) -> usize {
        self.surveys.answers(id, now).len()
    }
}

#[test]
fn survey_queries_each_node_once_for_all_clients() {
    let (mut fleet, now) = fleet(3);
    assert_eq!(fleet.request("m", 1, now), Step::Later);
    assert_eq!(fleet.request("m", 2, now), Step::Later);
    assert!(fleet.surveys.is_in_progress("m"));
    let sent = fleet.send(now, &entries("{}"));
    assert_eq!(sent, [1, 2, 3].map(|number| ("m".to_owned(), addr(number))));
    assert!(!fleet.surveys.is_in_progress("m"));
    assert_eq!(fleet.request("m", 1, now), Step::Ready);
    assert_eq!(fleet.known("m", now), 3);
    // New nodes may exist by then.
    let later = now + COMPLETE_FOR;
    assert_eq!(fleet.request("m", 1, later), Step::Later);
    assert_eq!(fleet.send(later, &entries("{}")), []);
    assert_eq!(fleet.request("m", 1, later), Step::Ready);
    let old = now + KEPT;
    assert_eq!(fleet.known("m", old), 0);
    assert_eq!(fleet.request("m", 1, old), Step::Later);
    assert_eq!(fleet.send(old, &entries("{}")).len(), 3);
}

#[test]
fn failure_is_kept_two_minutes_local_error_not() {
    let (mut fleet, now) = fleet(1);
    fleet.request("m", 1, now);
    assert_eq!(fleet.send(now, &failed()).len(), 1);
    assert_eq!(fleet.known("m", now), 0);
    let soon = now + FAILURE_KEPT - Duration::from_secs(1);
    fleet.request("m", 1, soon);
    assert_eq!(fleet.send(soon, &failed()), []);
    let later = now + FAILURE_KEPT + COMPLETE_FOR;
    fleet.request("m", 1, later);
    let query = fleet.next(later).expect("the failure is old");
    fleet.surveys.answered(&query, Source::IpsFile, local_error(), later);
    let again = later + MAX_DEFERRAL + COMPLETE_FOR;
    assert_eq!(fleet.next(later), None, "the node was queried in this round");
    fleet.request("m", 1, again);
    assert_eq!(fleet.send(again, &entries("{}")).len(), 1);
}

#[test]
fn round_ends_after_two_seconds_or_32_nodes() {
    let (mut fleet, start) = fleet(50);
    fleet.request("m", 1, start);
    let mut now = start;
    let mut sent = Vec::new();
    while fleet.surveys.is_in_progress("m") {
        sent.extend(fleet.send(now, &entries("{}")));
        now += Duration::from_millis(100);
    }
    let end = start + MAX_DEFERRAL + Duration::from_millis(100);
    assert_eq!((sent.len(), now), (20, end));
    // A client that joins a round extends it.
    let (mut fleet, now) = self::fleet(50);
    let late = now + MAX_DEFERRAL - Duration::from_millis(100);
    fleet.request("m", 1, now);
    assert_eq!(fleet.send(now, &entries("{}")).len(), MAX_IN_RATE_WINDOW);
    fleet.request("m", 2, late);
    let later = now + MAX_DEFERRAL + Duration::from_secs(1);
    assert_eq!(fleet.send(later, &entries("{}")).len(), MAX_IN_RATE_WINDOW);
    assert!(fleet.surveys.is_in_progress("m"));
    // With enough time.
    let (mut fleet, now) = self::fleet(50);
    fleet.request("m", 1, now);
    let mut sent = 0;
    while fleet.surveys.is_in_progress("m") {
        fleet.surveys.queries.sent.clear();
        sent += fleet.send(now, &entries("{}")).len();
    }
    assert_eq!(sent, MAX_QUEUED);
    assert_eq!(fleet.request("m", 1, now), Step::Later, "18 are left");
}

#[test]
fn ten_queries_per_second_alternate_between_ids() {
    let (mut fleet, start) = fleet(100);
    let mut sent: Vec<(String, NodeAddr, Instant)> = Vec::new();
    for step in 0..600_u32 {
        let now = start + Duration::from_millis(100) * step;
        for number in 0..200 {
            let _ = fleet.request(&number.to_string(), number, now);
        }
        let new = fleet.send(now, &entries("{}"));
        sent.extend(new.into_iter().map(|(id, addr)| (id, addr, now)));
    }
    assert!(sent.len() >= 500, "{}", sent.len());
    let is_rate_kept = |queries: &[(String, NodeAddr, Instant)]| queries[10].2 - queries[0].2 > Duration::from_secs(1);
    assert!(sent.windows(11).all(is_rate_kept));
    for number in 1..=100 {
        let of_node = sent.iter().filter(|query| query.1 == addr(number));
        let of_node: Vec<Instant> = of_node.map(|query| query.2).collect();
        let minute = Duration::from_secs(60);
        assert!(of_node.windows(7).all(|queries| queries[6] - queries[0] > minute));
    }
    let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
    sent.iter().for_each(|(id, ..)| *by_id.entry(id).or_default() += 1);
    assert_eq!(by_id.len(), new_ids::MAX);
    assert!(by_id.values().all(|count| (14..=22).contains(count)), "{by_id:?}");
}

#[test]
fn plans_are_limited_to_permitted_queries() {
    let (mut fleet, now) = fleet(3);
    for number in 0..30 {
        assert_eq!(fleet.request(&number.to_string(), number, now), Step::Later);
    }
    assert!(fleet.surveys.is_plan_due(now));
    fleet.surveys.plan(&[], now);
    // None of these has a node to query: the driver continues with the others immediately.
    assert_eq!(fleet.surveys.next(|_| true, now), Err(Some(now)));
    assert_eq!(
        fleet
            .surveys
            .by_id
            .values()
            .filter(|survey| survey.is_unplanned())
            .count(),
        30 - MAX_IN_RATE_WINDOW
    );
    assert_eq!(fleet.send(now, &entries("{}")).len(), MAX_IN_RATE_WINDOW);
    assert!(!fleet.surveys.is_plan_due(now), "the rate is used up");
}

#[test]
fn node_gets_six_sequential_queries_per_minute() {
    let (mut fleet, start) = fleet(1);
    for number in 0..MAX_TO_NODE {
        fleet.request(&number.to_string(), 0, start);
        fleet.request(&format!("{number} too"), 1, start);
        let query = fleet.next(start).expect("the node is free");
        assert_eq!(fleet.next(start), None, "a query is in flight");
        fleet.surveys.answered(&query, Source::IpsFile, entries("{}"), start);
    }
    let later = start + NODE_WINDOW - Duration::from_millis(1);
    assert_eq!(fleet.request("late", 2, later), Step::Later);
    assert_eq!(fleet.next(later), None);
    assert_eq!(fleet.request("late", 2, start + NODE_WINDOW), Step::Later);
    assert!(fleet.next(start + NODE_WINDOW).is_some());
}

#[test]
fn kept_id_gets_response_above_budget() {
    let (mut fleet, now) = fleet(0);
    for number in 0..new_ids::MAX_OF_SUBNET {
        assert_eq!(fleet.request(&number.to_string(), 1, now), Step::Later);
    }
    assert_eq!(fleet.request("new", 1, now), Step::Refused(new_ids::WINDOW));
    assert_eq!(fleet.request("0", 1, now), Step::Later);
}

#[test]
fn requested_ids_are_kept_at_most_256() {
    let (mut fleet, start) = fleet(0);
    let mut now = start;
    let request = |fleet: &mut Fleet, id: &str, now| {
        fleet.surveys.new_ids = new_ids::NewIds::default();
        fleet.request(id, 1, now)
    };
    for number in 0..=MAX_IDS {
        now += Duration::from_secs(1);
        request(&mut fleet, &number.to_string(), now);
        request(&mut fleet, "0", now);
    }
    assert_eq!(fleet.surveys.by_id.len(), MAX_IDS);
    assert!(fleet.surveys.is_kept("0") && !fleet.surveys.is_kept("1"));
    request(&mut fleet, "new", now + KEPT);
    assert_eq!(fleet.surveys.by_id.len(), 1);
}

#[test]
fn storage_is_limited_and_explorer_nodes_get_half() {
    let (mut fleet, now) = fleet(2);
    let large = entries(&"x".repeat(64 * 1024));
    let query = |number: u64, node| Query {
        id: Arc::from(number.to_string()),
        addr: addr(node),
    };
    for number in 0..200 {
        fleet.surveys.new_ids = new_ids::NewIds::default();
        fleet.request(&number.to_string(), 1, now + Duration::from_millis(number));
        fleet
            .surveys
            .answered(&query(number, 1), Source::Explorer, large.clone(), now);
    }
    assert!(fleet.surveys.bytes(|_| true) <= MAX_EXPLORER_BYTES);
    assert_eq!((fleet.known("0", now), fleet.known("199", now)), (1, 0));
    for number in 0..200 {
        fleet
            .surveys
            .answered(&query(number, 2), Source::IpsFile, large.clone(), now);
    }
    assert!(fleet.surveys.bytes(|_| true) <= MAX_BYTES);
    assert_eq!(fleet.known("199", now), 1, "the id that was requested last");
    assert!(!fleet.surveys.is_kept("0"));
    fleet.surveys.by_id.clear();
    assert_eq!(fleet.surveys.next(|_| true, now), Err(None), "no client waits");
}
