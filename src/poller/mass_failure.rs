//! Detects that many nodes of one list fail together, so that the cause is more likely local than at the nodes: the
//! network, the name server or the clock of this machine. Pure: the poller changes the nodes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::node::{Rank, Source};
use crate::registry::{NodeId, Withdrawn};

/// Fewer nodes may well fail together: they share a machine.
const MIN_NODES: usize = 4;
/// Maximum number of intervals for which failing nodes remain available.
pub(super) const MAX_DOUBT_INTERVALS: u32 = 3;

/// What to do with an available node that has failed twice.
#[derive(Debug)]
pub(super) enum Judgement {
    /// The node goes down.
    Lost,
    /// The node remains available: a mass failure is suspected already.
    Doubted,
    /// The node remains available: a mass failure is suspected from now on.
    DoubtBegins {
        /// Nodes that went down within the last interval. They are put back.
        lost: Vec<(NodeId, Withdrawn)>,
        /// Failing units of the list, and all of them.
        failing: usize,
        of: usize,
    },
}

/// What counts once: a listed node, or all Explorer nodes of one address. Anyone can register 64 ports of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Node(NodeId),
    Addr(IpAddr),
}

impl Unit {
    fn of(id: NodeId, rank: Rank) -> Self {
        match rank {
            Rank::Listed(_) => Self::Node(id),
            Rank::Explorer(socket) => Self::Addr(socket.ip()),
        }
    }
}

/// A node that is available, or went down within the last interval.
#[derive(Debug)]
struct Member {
    unit: Unit,
    is_failing: bool,
    /// When the node went down, and what the registry had of it.
    lost: Option<(Instant, Withdrawn)>,
}

/// Members of one unit.
#[derive(Debug, Default)]
struct Counts {
    members: usize,
    failing: usize,
}

/// The failures of one list, and the mass failure that is suspected there.
#[derive(Debug)]
pub(super) struct MassFailure {
    interval: Duration,
    members: HashMap<NodeId, Member>,
    units: HashMap<Unit, Counts>,
    failing_units: usize,
    /// Nodes that went down, oldest first. Some are back.
    lost: VecDeque<(Instant, NodeId)>,
    /// End of the suspicion.
    until: Option<Instant>,
    /// Nodes of the last suspicion.
    doubted: HashSet<NodeId>,
    /// Nodes of `doubted` that have not responded since, each with whether it has failed again.
    missing: HashMap<NodeId, bool>,
}

impl MassFailure {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            members: HashMap::new(),
            units: HashMap::new(),
            failing_units: 0,
            lost: VecDeque::new(),
            until: None,
            doubted: HashSet::new(),
            missing: HashMap::new(),
        }
    }

    /// An available node has responded.
    pub(super) fn responded(&mut self, id: NodeId, rank: Rank) {
        let unit = Unit::of(id, rank);
        if !self.members.contains_key(&id) {
            self.units.entry(unit).or_default().members += 1;
        }
        let member = self.members.entry(id).or_insert(Member {
            unit,
            is_failing: false,
            lost: None,
        });
        member.lost = None;
        self.set_failing(id, false);
        self.missing.remove(&id);
    }

    /// An available node has failed once.
    pub(super) fn failed_once(&mut self, id: NodeId) {
        self.set_failing(id, true);
    }

    /// A doubted node has failed again.
    pub(super) fn failed_again(&mut self, id: NodeId) {
        if let Some(has_failed) = self.missing.get_mut(&id) {
            *has_failed = true;
        }
    }

    fn set_failing(&mut self, id: NodeId, is_failing: bool) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut member.is_failing, is_failing) == is_failing {
            return;
        }
        let unit = self.units.entry(member.unit).or_default();
        let was_failing = unit.failing > 0;
        match is_failing {
            true => unit.failing += 1,
            false => unit.failing -= 1,
        }
        match (was_failing, unit.failing > 0) {
            (false, true) => self.failing_units += 1,
            (true, false) => self.failing_units -= 1,
            _ => {}
        }
    }

    /// Judges an available node that has failed twice.
    pub(super) fn judge(&mut self, id: NodeId, now: Instant) -> Judgement {
        self.forget_old(now);
        if self.until.is_some() {
            self.doubt(id);
            return Judgement::Doubted;
        }
        self.set_failing(id, true);
        let (failing, of) = (self.failing_units, self.units.len());
        let is_mass = failing >= MIN_NODES && failing * 2 > of;
        let may_begin = self.missing.len() * 2 <= self.doubted.len();
        if !is_mass || !may_begin {
            return Judgement::Lost;
        }
        self.until = Some(now + self.interval * MAX_DOUBT_INTERVALS);
        self.doubted.clear();
        self.missing.clear();
        let lost = std::mem::take(&mut self.lost).into_iter();
        let lost: Vec<(NodeId, Withdrawn)> = lost
            .filter_map(|(_, id)| Some((id, self.members.get_mut(&id)?.lost.take()?.1)))
            .collect();
        lost.iter().for_each(|(id, _)| self.doubt(*id));
        self.doubt(id);
        Judgement::DoubtBegins { lost, failing, of }
    }

    fn doubt(&mut self, id: NodeId) {
        self.set_failing(id, false);
        self.doubted.insert(id);
        self.missing.insert(id, false);
    }

    /// A node went down and had this in the registry.
    pub(super) fn lost(&mut self, id: NodeId, withdrawn: Withdrawn, now: Instant) {
        if let Some(member) = self.members.get_mut(&id) {
            member.lost = Some((now, withdrawn));
            self.lost.push_back((now, id));
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, id)) = self.lost.front().copied() {
            if now.saturating_duration_since(at) <= self.interval {
                return;
            }
            self.lost.pop_front();
            // A recovered node may have gone down again since.
            let is_last = |member: &Member| member.lost.as_ref().is_some_and(|(last, _)| *last == at);
            if self.members.get(&id).is_some_and(is_last) {
                self.leave(id);
            }
        }
    }

    fn leave(&mut self, id: NodeId) {
        self.set_failing(id, false);
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        if let Some(unit) = self.units.get_mut(&member.unit) {
            unit.members -= 1;
            if unit.members == 0 {
                self.units.remove(&member.unit);
            }
        }
    }

    /// A node has left the list.
    pub(super) fn removed(&mut self, id: NodeId) {
        self.leave(id);
        if self.missing.remove(&id).is_some() {
            self.doubted.remove(&id);
        }
    }

    /// A node that is down has responded without becoming available.
    pub(super) fn responded_down(&mut self, id: NodeId) {
        self.leave(id);
        self.missing.remove(&id);
    }

    /// End of the suspicion, if any.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the suspicion when its time is over. Returns the nodes that have not responded, each with whether it has
    /// failed since: a node with only local errors since is not lost.
    pub(super) fn end(&mut self, now: Instant) -> Option<Vec<(NodeId, bool)>> {
        self.until.filter(|until| *until <= now)?;
        self.until = None;
        let missing: Vec<_> = self.missing.iter().map(|(id, has_failed)| (*id, *has_failed)).collect();
        for (id, has_failed) in &missing {
            match has_failed {
                true => self.leave(*id),
                false => self.failed_once(*id),
            }
        }
        Some(missing)
    }
}

/// One judgement per list: nodes that anyone may register do not affect the operator's nodes.
#[derive(Debug)]
pub(super) struct MassFailures {
    listed: MassFailure,
    explorer: MassFailure,
}

impl MassFailures {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            listed: MassFailure::new(interval),
            explorer: MassFailure::new(interval),
        }
    }

    pub(super) fn of(&mut self, source: Source) -> &mut MassFailure {
        match source {
            Source::IpsFile => &mut self.listed,
            Source::Explorer => &mut self.explorer,
        }
    }

    /// The earliest end of a suspicion.
    pub(super) fn until(&self) -> Option<Instant> {
        [self.listed.until(), self.explorer.until()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeAddr;
    use crate::registry::{Health, PromisePolicy, Registry};

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Available nodes, as the poller keeps them.
    struct Rig {
        failure: MassFailure,
        registry: Registry,
        nodes: Vec<(NodeId, Rank)>,
        now: Instant,
    }

    impl Rig {
        fn new(nodes: u32) -> Self {
            Self::with((0..nodes).map(Rank::Listed))
        }

        #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
        fn with(ranks: impl Iterator<Item = Rank>) -> Self {
            let now = Instant::now();
            let registry = Registry::new(PromisePolicy::Off, INTERVAL, now);
            let insert = |(node, rank): (usize, Rank)| {
                let addr = NodeAddr::parse(&format!("10.0.0.{node}:4000")).expect("an address");
                (registry.insert(addr, rank, now), rank)
            };
            let nodes = ranks.enumerate().map(insert).collect();
            let mut rig = Self {
                failure: MassFailure::new(INTERVAL),
                nodes,
                registry,
                now,
            };
            (0..rig.nodes.len()).for_each(|node| rig.respond(node));
            rig
        }

        /// Lets a node fail twice. `Err` with the number of nodes put back if that begins a suspicion.
        fn fail(&mut self, node: usize) -> Result<&'static str, usize> {
            let id = self.nodes[node].0;
            match self.failure.judge(id, self.now) {
                Judgement::Lost => {
                    let withdrawn = self.registry.set_health(id, Health::Down, self.now);
                    self.failure
                        .lost(id, withdrawn.expect("the node was available"), self.now);
                    Ok("lost")
                }
                Judgement::Doubted => Ok("doubted"),
                Judgement::DoubtBegins { lost: back, .. } => {
                    back.iter()
                        .for_each(|(id, withdrawn)| self.registry.put_back(*id, withdrawn, self.now));
                    Err(back.len())
                }
            }
        }

        fn respond(&mut self, node: usize) {
            let (id, rank) = self.nodes[node];
            let probe = self.registry.begin_probe(id, self.now);
            self.registry.up(id, probe, &[], 0, self.now);
            self.failure.responded(id, rank);
        }

        fn end(&mut self) -> Option<usize> {
            let missing = self.failure.end(self.now)?;
            let lost = missing.iter().filter(|(_, has_failed)| *has_failed);
            lost.clone()
                .for_each(|(id, _)| drop(self.registry.set_health(*id, Health::Down, self.now)));
            Some(lost.count())
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
        (0..6).for_each(|node| rig.failure.failed_once(rig.nodes[node].0));
        assert_eq!(rig.fail(0), Err(0), "none was lost before");
        assert_eq!(rig.fail(1), Ok("doubted"));
        let mut rig = Rig::new(6);
        (0..6).for_each(|node| rig.failure.failed_once(rig.nodes[node].0));
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
        rig.failure.removed(rig.nodes[1].0);
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
        rig.nodes.iter().for_each(|(id, _)| rig.failure.failed_again(*id));
        rig.respond(2);
        rig.failure.removed(rig.nodes[3].0);
        rig.now += 3 * INTERVAL - Duration::from_nanos(1);
        assert_eq!(rig.end(), None);
        assert_eq!(rig.fail(2), Ok("doubted"), "once more");
        rig.respond(2);
        rig.now += Duration::from_nanos(1);
        assert_eq!(rig.failure.until(), Some(rig.now));
        assert_eq!((rig.end(), rig.end()), (Some(4), None));
    }

    #[test]
    fn node_without_failure_since_is_not_lost() {
        let mut rig = Rig::new(4);
        for node in 0..4 {
            let _ = rig.fail(node);
        }
        rig.failure.failed_again(rig.nodes[1].0);
        rig.now += 3 * INTERVAL;
        assert_eq!(rig.end(), Some(1));
    }

    #[test]
    fn suspicion_is_not_renewed_before_half_are_back() {
        let mut rig = Rig::new(8);
        for node in 0..8 {
            let _ = rig.fail(node);
        }
        rig.nodes.iter().for_each(|(id, _)| rig.failure.failed_again(*id));
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
