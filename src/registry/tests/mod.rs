//! The registry as the poller and the workers use it.

mod catalogue;
mod model;
mod promises;

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::node::ContainerId;

fn socket(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0A00_0000 + node as u32), 4_000))
}

fn addr(node: usize) -> NodeAddr {
    NodeAddr::from_socket(socket(node))
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

/// A client whose subnet no other one has.
fn client(number: u32) -> Client {
    Client::V4(number << 8)
}

/// Nodes of ips.txt that all run container "a".
struct Fleet {
    registry: Registry,
    ids: Vec<NodeId>,
}

impl Fleet {
    fn new(pending: &[u64]) -> Self {
        let registry = Registry::new(PromisePolicy::Weighing(1));
        let insert = |node| registry.insert(addr(node), Rank::Listed(node as u32));
        let ids = (0..pending.len()).map(insert).collect();
        let fleet = Self { registry, ids };
        (0..pending.len()).for_each(|node| fleet.up(node, pending[node]));
        fleet
    }

    fn up(&self, node: usize, pending: u64) {
        let probe = self.begin_probe(node);
        self.report(node, probe, pending);
    }

    fn begin_probe(&self, node: usize) -> u32 {
        self.registry.begin_probe(self.ids[node])
    }

    fn report(&self, node: usize, probe: u32, pending: u64) {
        self.registry.up(self.ids[node], probe, &[running("a")], pending);
    }

    fn ask(&self, client: Client, page: Page, purpose: Purpose) -> Vec<usize> {
        let answer = self.registry.answer(["a"].into_iter(), page, client, purpose);
        answer.iter().map(number).collect()
    }

    /// Asks for one address and returns its node.
    fn send(&self, client: Client) -> usize {
        self.ask(client, page(0, 1), Purpose::Route)[0]
    }

    /// Weighted pending jobs and promises of a node that is up.
    fn load(&self, node: usize) -> u64 {
        let view = self.registry.lock().view(["a"].into_iter(), client(u32::MAX), 1);
        let view = view.expect("somebody runs it");
        let mut places = view.orders[0].iter();
        let place = places.find(|place| place.node == self.ids[node].index());
        place.expect("it is up").load
    }
}

#[test]
fn a_node_that_took_the_number_of_one_that_left_is_not_in_an_older_view() {
    let fleet = Fleet::new(&[0, 1]);
    let view = fleet.registry.lock().view(["a"].into_iter(), client(1), 1);
    let places = select(&view.expect("two nodes run it"), page(0, 9));
    fleet.registry.remove(fleet.ids[0]);
    let new = fleet.registry.insert(addr(2), Rank::Listed(2));
    assert_eq!(new.index(), fleet.ids[0].index());
    let state = fleet.registry.lock();
    assert_eq!(state.still_there(&places, 0), [fleet.ids[1]]);
    assert_eq!(state.still_there(&places, 1), [new, fleet.ids[1]]);
}
