//! Takes down a node that has failed twice, unless many nodes of one list fail together: the cause is then more likely
//! local than at the nodes, such as the network, the name server or the clock of this machine.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::node::Source;
use crate::registry::{Health, NodeId, Registry, Withdrawn};

/// Fewer nodes may well fail together: they share a machine.
const MIN_NODES: usize = 4;
/// Maximum number of intervals for which failing nodes remain available.
pub(super) const MAX_DOUBT_INTERVALS: u32 = 3;
/// The nodes of a long list are counted at most once per this part of them that fails, so that the cost of a failure
/// does not grow with the list.
const COUNT_SHARE: usize = 64;

/// What became of a node that has failed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Down,
    /// The node remains available: a mass failure is suspected already.
    Doubted,
    /// The node remains available: a mass failure is suspected from now on. Nodes that went down within the last
    /// interval are available again.
    DoubtBegins {
        /// Failing nodes of the list, and all of them.
        failing: usize,
        of: usize,
    },
}

/// What a node of the last suspected mass failure has done since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Silent,
    Failed,
    Responded,
}

/// The failures of one list, and the mass failure that is suspected there: nodes that anyone may register do not affect
/// the operator's nodes.
#[derive(Debug)]
pub(super) struct MassFailure {
    source: Source,
    interval: Duration,
    /// Nodes that went down within the last interval, with what the registry had of them.
    lost: HashMap<NodeId, (Instant, Withdrawn)>,
    /// End of the suspicion.
    pub(super) until: Option<Instant>,
    /// Nodes of the last suspicion.
    doubted: HashMap<NodeId, Doubt>,
    /// Nodes that must fail before the next count can have another result.
    spare: usize,
}

impl MassFailure {
    pub(super) fn new(source: Source, interval: Duration) -> Self {
        Self {
            source,
            interval,
            lost: HashMap::new(),
            until: None,
            doubted: HashMap::new(),
            spare: 0,
        }
    }

    /// A node has responded.
    pub(super) fn responded(&mut self, id: NodeId) {
        self.lost.remove(&id);
        if let Some(doubt) = self.doubted.get_mut(&id) {
            *doubt = Doubt::Responded;
        }
    }

    /// An available node has failed once.
    pub(super) fn failed_once(&mut self) {
        self.spare = self.spare.saturating_sub(1);
    }

    /// A doubted node has failed again.
    pub(super) fn failed_again(&mut self, id: NodeId) {
        if let Some(doubt) = self.doubted.get_mut(&id).filter(|doubt| **doubt == Doubt::Silent) {
            *doubt = Doubt::Failed;
        }
    }

    /// A node has left the list.
    pub(super) fn removed(&mut self, id: NodeId) {
        self.lost.remove(&id);
        if self.doubted.get(&id).is_some_and(|doubt| *doubt != Doubt::Responded) {
            self.doubted.remove(&id);
        }
        self.spare = 0;
    }

    /// Takes down an available node that has failed twice, or keeps it as doubted. A draining node counts in no mass
    /// failure.
    pub(super) fn lose(&mut self, id: NodeId, registry: &Registry, now: Instant) -> Judgement {
        let is_draining = registry.note(id, now, |record| record.attributes.is_draining);
        if is_draining == Some(true) {
            registry.set_health(id, Health::Down, now);
            return Judgement::Down;
        }
        if self.until.is_some() {
            self.doubted.insert(id, Doubt::Silent);
            registry.set_health(id, Health::Doubted, now);
            return Judgement::Doubted;
        }
        let Some((failing, of)) = self.mass(id, registry, now) else {
            if let Some(withdrawn) = registry.set_health(id, Health::Down, now) {
                self.lost.insert(id, (now, withdrawn));
            }
            return Judgement::Down;
        };
        self.until = Some(now + self.interval * MAX_DOUBT_INTERVALS);
        self.doubted.clear();
        for (id, (_, withdrawn)) in std::mem::take(&mut self.lost) {
            registry.put_back(id, &withdrawn, now);
            self.doubted.insert(id, Doubt::Silent);
        }
        registry.set_health(id, Health::Doubted, now);
        self.doubted.insert(id, Doubt::Silent);
        Judgement::DoubtBegins { failing, of }
    }

    /// Returns the failing nodes and all nodes if a mass failure is to be suspected.
    fn mass(&mut self, id: NodeId, registry: &Registry, now: Instant) -> Option<(usize, usize)> {
        if self.spare > 0 {
            return None;
        }
        let (failing, of) = self.count(id, registry, now);
        let enough = MIN_NODES.max(of / 2 + 1);
        self.spare = enough.saturating_sub(failing).max(of / COUNT_SHARE);
        let missing = self
            .doubted
            .values()
            .filter(|doubt| **doubt != Doubt::Responded)
            .count();
        (failing >= enough && missing * 2 <= self.doubted.len()).then_some((failing, of))
    }

    /// Counts the nodes that are failing or went down within the last interval, and these and all available nodes. The
    /// Explorer nodes of one address count once: anyone can register 64 ports of one address.
    fn count(&mut self, failed: NodeId, registry: &Registry, now: Instant) -> (usize, usize) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= self.interval;
        self.lost.retain(|_, (at, _)| is_recent(*at));
        let mut units = HashMap::new();
        registry.visit(|id, record| {
            let is_lost = self.lost.contains_key(&id);
            if record.rank.source() == self.source && (record.is_available() || is_lost) {
                let unit = (record.rank.explorer_ip(), record.rank.is_listed().then_some(id));
                let is_failing = is_lost || id == failed || record.health() == Health::Suspect;
                *units.entry(unit).or_insert(false) |= is_failing;
            }
        });
        let failing = units.values().filter(|is_failing| **is_failing).count();
        (failing, units.len())
    }

    /// Ends the suspicion when its time is over. Returns the nodes that are down, because they failed again, and the
    /// number of nodes with only local errors, which stay available.
    pub(super) fn end(&mut self, registry: &Registry, now: Instant) -> Option<(Vec<NodeId>, usize)> {
        self.until.take_if(|until| *until <= now)?;
        self.spare = 0;
        let (mut down, mut kept) = (Vec::new(), 0);
        for (id, doubt) in &self.doubted {
            if registry.health(*id) != Some(Health::Doubted) {
                continue;
            }
            if *doubt == Doubt::Failed {
                registry.set_health(*id, Health::Down, now);
                down.push(*id);
            } else {
                registry.set_health(*id, Health::Suspect, now);
                kept += 1;
            }
        }
        Some((down, kept))
    }
}

#[cfg(test)]
mod tests {
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

        fn health(&self, node: usize) -> Health {
            self.registry.health(self.nodes[node]).expect("it is listed")
        }

        fn fail_once(&mut self, node: usize) {
            self.registry.set_health(self.nodes[node], Health::Suspect, self.now);
            self.failure.failed_once();
        }

        /// Lets a node fail twice. `Err` with the number of nodes put back if that begins a suspicion.
        fn fail(&mut self, node: usize) -> Result<&'static str, usize> {
            if self.health(node) == Health::Up {
                self.fail_once(node);
            }
            let lost = self.failure.lost.len();
            match self.failure.lose(self.nodes[node], &self.registry, self.now) {
                Judgement::Down => Ok("lost"),
                Judgement::Doubted => Ok("doubted"),
                Judgement::DoubtBegins { .. } => Err(lost - self.failure.lost.len()),
            }
        }

        fn respond(&mut self, node: usize) {
            let id = self.nodes[node];
            let probe = self.registry.begin_probe(id, self.now);
            self.registry.up(id, probe, &[], 0, self.now);
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
}
