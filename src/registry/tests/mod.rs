//! The registry as the poller and the workers use it.

mod attributes;
mod catalogue;
mod doubt;
mod model;
mod promises;
mod resources;

use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::node::ContainerId;

fn socket(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0A00_0000 + node as u32), 4_000))
}

fn addr(node: usize) -> NodeAddr {
    listed(socket(node))
}

fn listed(socket: SocketAddr) -> NodeAddr {
    NodeAddr::parse(&socket.to_string()).expect("an address")
}

/// The number that [`addr`] was made from.
fn number(addr: &NodeAddr) -> usize {
    match addr.socket_addr() {
        Some(SocketAddr::V4(socket)) => (socket.ip().to_bits() - 0x0A00_0000) as usize,
        other => panic!("not one of ours: {other:?}"),
    }
}

fn running(id: &str) -> Running {
    Running {
        id: ContainerId::parse(id).expect("an id"),
        description: None,
        image: None,
    }
}

fn page(offset: u32, n: u32) -> Page {
    Page { n, offset }
}

/// A client in a separate subnet.
fn client(number: u32) -> Client {
    Client::V4(number << 8)
}

const INTERVAL: Duration = Duration::from_secs(30);
const ON: PromisePolicy = PromisePolicy::On {
    weight: 1,
    max_speedup: None,
};

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn start() -> Instant {
    Instant::now()
}

/// Nodes of ips.txt that all run container "a".
struct Fleet {
    registry: Registry,
    ids: Vec<NodeId>,
    now: Instant,
}

impl Fleet {
    fn new(pending: &[u64]) -> Self {
        Self::with(ON, pending)
    }

    fn with(policy: PromisePolicy, pending: &[u64]) -> Self {
        let now = start();
        let registry = Registry::new(policy, INTERVAL, now);
        let insert = |node| registry.insert(addr(node), Rank::Listed(node as u32), now);
        let ids = (0..pending.len()).map(insert).collect();
        let fleet = Self { registry, ids, now };
        (0..pending.len()).for_each(|node| fleet.up(node, pending[node]));
        fleet
    }

    fn up(&self, node: usize, pending: u64) {
        self.begin_probe(node);
        self.report(node, pending);
    }

    fn set_health(&self, node: usize, health: NodeState) {
        self.registry.set_health(self.ids[node], health, self.now);
    }

    fn begin_probe(&self, node: usize) {
        self.registry.begin_probe(self.ids[node], self.now);
    }

    fn report(&self, node: usize, pending: u64) {
        let running = [running("a")];
        self.registry.up(self.ids[node], &running, pending, self.now);
    }

    fn ask(&self, client: Client, page: Page, purpose: Purpose) -> Vec<usize> {
        let answer = self.registry.answer(["a"].into_iter(), page, client, purpose, self.now);
        answer.expect("one container").iter().map(number).collect()
    }

    /// Requests one address and returns its node.
    fn send(&self, client: Client) -> usize {
        self.ask(client, page(0, 1), Purpose::Route)[0]
    }

    /// Sends this many requests from one /24.
    fn send_all(&self, count: u32) {
        for number in 0..count {
            self.send(Client::V4(0x0909_0900 | number & 0xFF));
        }
    }

    /// Promises that no probe has counted yet.
    fn promises(&self, node: usize) -> u64 {
        self.view(node).promises
    }

    fn view(&self, node: usize) -> NodeView {
        self.registry.views(&[self.ids[node]], self.now).remove(0)
    }

    /// Intervals until a node should finish its work: its jobs, before anything is learned.
    fn jobs(&self, node: usize) -> u64 {
        let finish = self.view(node).finish.expect("promises are on");
        (finish.as_secs_f64() / INTERVAL.as_secs_f64()).round() as u64
    }
}

#[test]
fn reused_slot_is_not_in_an_older_view() {
    let fleet = Fleet::new(&[0, 1]);
    let view = fleet.registry.lock().view(["a"].into_iter(), Cell::of(0), None);
    let view = view.expect("two nodes run it");
    let selected = fleet.registry.select(&view, page(0, 9), Cell::of(0));
    let selected = selected.expect("one container");
    fleet.registry.remove(fleet.ids[0]);
    let new = fleet.registry.insert(addr(2), Rank::Listed(2), fleet.now);
    assert_eq!(new.slot(), fleet.ids[0].slot());
    let state = fleet.registry.lock();
    assert_eq!(state.still_there(&selected, view.newest), [fleet.ids[1]]);
    assert_eq!(state.still_there(&selected, state.newest), [new, fleet.ids[1]]);
}

#[test]
fn faster_node_ranks_before_one_with_less_work() {
    let mut fleet = Fleet::new(&[0; 4]);
    let mut pending = [0; 4];
    // Each gets 60 jobs per interval. The first two nodes finish 60 of them, the others 15.
    for _ in 0..40 {
        for asking in 0..60 {
            for node in 0..4 {
                let cell = Cell::of(u64::from(asking));
                let mut state = fleet.registry.lock();
                state.promise(fleet.ids[node], client(asking), cell, Time(0));
            }
        }
        fleet.now += INTERVAL;
        for (node, pending) in pending.iter_mut().enumerate() {
            *pending = if node < 2 { 0 } else { *pending + 45 };
            fleet.up(node, *pending);
        }
        fleet.registry.begin_round();
    }
    let speed = |node: usize| {
        let view = fleet.view(node);
        assert!(view.is_learned);
        view.speed.expect("promises are on")
    };
    let ratio = speed(0) / speed(2);
    assert!((3.0..5.0).contains(&ratio), "{ratio}");
    fleet.up(0, 3);
    fleet.up(2, 2);
    (1..4).step_by(2).for_each(|node| fleet.up(node, 1_000));
    assert_eq!(fleet.ask(client(1), page(0, 2), Purpose::Look), [0, 2]);
}

proptest! {
    #[test]
    fn with_promises_off_pending_jobs_alone_order(
        counts in prop::collection::vec((0..6_usize, 0..9_u64, 0..100_u64), 0..60),
    ) {
        let mut fleet = Fleet::with(PromisePolicy::Off, &[0; 6]);
        let mut pending = [0; 6];
        for (node, jobs, seconds) in counts {
            fleet.now += Duration::from_secs(seconds);
            fleet.up(node, jobs);
            pending[node] = jobs;
            fleet.registry.begin_round();
            let order = fleet.ask(client(1), page(0, 9), Purpose::Route);
            prop_assert_eq!(order.len(), 6);
            prop_assert!(order.is_sorted_by_key(|node| pending[*node]));
        }
        prop_assert_eq!(fleet.registry.totals().promises, 0);
    }
}
