use super::*;
use crate::node::{NodeAddr, Rank};
use crate::registry::PromisePolicy;

const INTERVAL: Duration = Duration::from_secs(30);

/// Available nodes, as the poller keeps them.
struct Rig {
    failure: MassFailure,
    registry: Registry,
    nodes: Vec<NodeId>,
    now: Instant,
}

impl Rig {
    fn new(nodes: u32) -> Self {
        Self::with(Source::IpsFile, (0..nodes).map(Rank::Listed))
    }

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn with(source: Source, ranks: impl Iterator<Item = Rank>) -> Self {
        let now = Instant::now();
        let registry = Registry::new(PromisePolicy::Off, INTERVAL, now);
        let insert = |(node, rank): (usize, Rank)| {
            let addr = NodeAddr::parse(&format!("10.0.0.{node}:4000")).expect("an address");
            registry.insert(addr, rank, now)
        };
        let nodes = ranks.enumerate().map(insert).collect();
        let mut rig = Self {
            failure: MassFailure::new(source, INTERVAL),
            nodes,
            registry,
            now,
        };
        (0..rig.nodes.len()).for_each(|node| rig.respond(node));
        rig
    }

    fn health(&self, node: usize) -> NodeState {
        self.registry.health(self.nodes[node]).expect("it is listed")
    }

    fn fail_once(&mut self, node: usize) {
        self.registry.set_health(self.nodes[node], NodeState::Suspect, self.now);
        self.failure.failed_once();
    }

    /// Lets a node fail twice. `Err` with the number of nodes put back if that begins a suspicion.
    fn fail(&mut self, node: usize) -> Result<&'static str, usize> {
        if self.health(node) == NodeState::Up {
            self.fail_once(node);
        }
        let lost = self.failure.lost.len();
        match self.failure.lose(self.nodes[node], &self.registry, self.now) {
            Some(_) => Err(lost - self.failure.lost.len()),
            None if self.health(node) == NodeState::Doubted => Ok("doubted"),
            None => Ok("lost"),
        }
    }

    fn respond(&mut self, node: usize) {
        let id = self.nodes[node];
        self.registry.begin_probe(id, self.now);
        self.registry.up(id, &[], 0, self.now);
        self.failure.responded(id);
    }

    fn remove(&mut self, node: usize) {
        self.registry.remove(self.nodes[node]);
        self.failure.removed(self.nodes[node]);
    }

    /// The number of nodes that the end of the suspicion takes down.
    fn end(&mut self) -> Option<usize> {
        Some(self.failure.end(&self.registry, self.now)?.0.len())
    }
}

#[test]
fn four_failing_nodes_above_half_are_mass_failure() {
    let mut rig = Rig::new(4);
    assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
    assert_eq!(rig.fail(3), Err(3));
    let mut rig = Rig::new(3);
    assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
    let mut rig = Rig::new(10);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|node| rig.fail(node)),
        [Ok("lost"); 5],
        "half of them"
    );
    assert_eq!(rig.fail(5), Err(5));
    assert_eq!(rig.fail(6), Ok("doubted"));
}

#[test]
fn suspects_count_so_that_no_node_is_lost() {
    let mut rig = Rig::new(6);
    (0..6).for_each(|node| rig.fail_once(node));
    assert_eq!(rig.fail(0), Err(0), "none was lost before");
    assert_eq!(rig.fail(1), Ok("doubted"));
    let mut rig = Rig::new(6);
    (0..6).for_each(|node| rig.fail_once(node));
    (1..4).for_each(|node| rig.respond(node));
    assert_eq!(rig.fail(0), Ok("lost"), "the others responded to their recheck");
}

#[test]
fn loss_older_than_an_interval_does_not_count() {
    let mut rig = Rig::new(7);
    for node in 0..3 {
        assert_eq!(rig.fail(node), Ok("lost"));
    }
    rig.now += INTERVAL;
    assert_eq!(rig.fail(3), Err(3), "within the interval");
    let mut rig = Rig::new(7);
    assert_eq!(rig.fail(0), Ok("lost"));
    rig.now += INTERVAL + Duration::from_nanos(1);
    assert_eq!(
        [1, 2, 3].map(|node| rig.fail(node)),
        [Ok("lost"); 3],
        "three of six, and then of three"
    );
    assert_eq!(rig.fail(4), Err(3));
}

#[test]
fn recovered_or_removed_node_is_not_counted() {
    let mut rig = Rig::new(6);
    assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
    rig.respond(0);
    rig.remove(1);
    assert_eq!(rig.fail(3), Ok("lost"));
    assert_eq!(rig.fail(4), Ok("lost"));
    assert_eq!(rig.fail(5), Err(3));
}

#[test]
fn suspicion_ends_after_three_intervals() {
    let mut rig = Rig::new(6);
    for node in 0..6 {
        let _ = rig.fail(node);
    }
    rig.nodes.iter().for_each(|id| rig.failure.failed_again(*id));
    rig.respond(2);
    rig.remove(3);
    rig.now += 3 * INTERVAL - Duration::from_nanos(1);
    assert_eq!(rig.end(), None);
    assert_eq!(rig.fail(2), Ok("doubted"), "once more");
    rig.respond(2);
    rig.now += Duration::from_nanos(1);
    assert_eq!(rig.failure.until, Some(rig.now));
    assert_eq!((rig.end(), rig.end()), (Some(4), None));
}

#[test]
fn node_without_failure_since_is_not_lost() {
    let mut rig = Rig::new(4);
    for node in 0..4 {
        let _ = rig.fail(node);
    }
    rig.failure.failed_again(rig.nodes[1]);
    rig.now += 3 * INTERVAL;
    assert_eq!(rig.end(), Some(1));
}

#[test]
fn suspicion_is_not_renewed_before_half_are_back() {
    let mut rig = Rig::new(8);
    for node in 0..8 {
        let _ = rig.fail(node);
    }
    rig.nodes.iter().for_each(|id| rig.failure.failed_again(*id));
    for node in 0..3 {
        rig.respond(node);
    }
    for _ in 0..10 {
        assert_eq!(rig.fail(0), Ok("doubted"), "a flapping node is one node");
        rig.respond(0);
    }
    rig.now += 3 * INTERVAL;
    assert_eq!(rig.end(), Some(5));
    assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
    rig.now += 2 * INTERVAL;
    // With a fourth recovered node, as many recovered as not.
    (0..4).for_each(|node| rig.respond(node));
    assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
    assert_eq!(rig.fail(3), Err(3));
}

#[test]
fn ports_of_one_address_count_once() {
    let port = |addr: u8, port: u16| Rank::Explorer(([1, 1, 1, addr], port).into());
    let mut rig = Rig::with(
        Source::Explorer,
        (1..=20)
            .map(|number| port(1, number))
            .chain((2..=4).map(|addr| port(addr, 1))),
    );
    for node in 0..20 {
        assert_eq!(rig.fail(node), Ok("lost"), "one of four addresses");
    }
    assert_eq!(
        [20, 21].map(|node| rig.fail(node)),
        [Ok("lost"); 2],
        "three addresses are no mass"
    );
    assert_eq!(rig.fail(22), Err(22));
    // Flapping ports of one address never amount to a mass.
    let mut rig = Rig::with(
        Source::Explorer,
        (1..=20)
            .map(|number| port(1, number))
            .chain((2..=9).map(|addr| port(addr, 1))),
    );
    for _ in 0..100 {
        for node in 0..20 {
            assert_eq!(rig.fail(node), Ok("lost"));
        }
        (0..20).for_each(|node| rig.respond(node));
    }
}
