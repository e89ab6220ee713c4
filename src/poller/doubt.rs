//! Whether so many nodes fail at once that the cause is more likely here than at the nodes: this machine's network, its name
//! server, its clock. Pure; what becomes of the nodes is the poller's business.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::registry::{NodeId, Withdrawn};

/// Fewer nodes may well fail at once: they share a machine.
const MIN_NODES: usize = 4;
/// For how many intervals at most nodes stay though they fail.
pub(super) const MAX_DOUBT_INTERVALS: u32 = 3;

/// What is to be done about a node that would be lost.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is lost, like any other.
    Lost,
    /// It stays, since a mass failure is doubted already.
    Doubted,
    /// It stays, and those that were lost within the last interval are to be put back: a mass failure is doubted from
    /// now on.
    DoubtBegins {
        lost: Vec<(NodeId, Withdrawn)>,
        /// How many nodes fail, with this one and those that have failed once.
        failing: usize,
    },
}

/// What was lost lately, and a doubt about it.
#[derive(Debug)]
pub(super) struct MassFailure {
    interval: Duration,
    /// Failed once, and not asked again since: most of them would be lost a moment later.
    suspects: HashSet<NodeId>,
    /// Lost within the last interval and not back, each with when that was.
    lost: HashMap<NodeId, (Instant, Withdrawn)>,
    /// The same in order, the longest ago first, and some that are back.
    order: VecDeque<(Instant, NodeId)>,
    /// When the doubt that lasts ends.
    until: Option<Instant>,
    /// Nodes of the last doubt, and those of them that have not answered since.
    doubted: HashSet<NodeId>,
    missing: HashSet<NodeId>,
}

impl MassFailure {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            suspects: HashSet::new(),
            lost: HashMap::new(),
            order: VecDeque::new(),
            until: None,
            doubted: HashSet::new(),
            missing: HashSet::new(),
        }
    }

    /// An available node has failed for the first time.
    pub(super) fn failed_once(&mut self, id: NodeId) {
        self.suspects.insert(id);
    }

    /// What becomes of an available node whose probes fail. `available`: how many nodes are, with this one and those that
    /// have failed once.
    pub(super) fn judge(&mut self, id: NodeId, available: usize, now: Instant) -> Verdict {
        self.forget_old(now);
        self.suspects.remove(&id);
        if self.until.is_some() {
            self.note(id);
            return Verdict::Doubted;
        }
        let failing = self.lost.len() + self.suspects.len() + 1;
        let before = self.lost.len() + available;
        let is_mass = failing >= MIN_NODES && failing * 2 > before;
        let may_begin = self.missing.len() * 2 <= self.doubted.len();
        if !is_mass || !may_begin {
            return Verdict::Lost;
        }
        self.until = Some(now + self.interval * MAX_DOUBT_INTERVALS);
        self.doubted.clear();
        self.missing.clear();
        self.order.clear();
        let back: Vec<_> = self.lost.drain().map(|(id, (_, withdrawn))| (id, withdrawn)).collect();
        back.iter().for_each(|(id, _)| self.note(*id));
        self.note(id);
        Verdict::DoubtBegins { lost: back, failing }
    }

    fn note(&mut self, id: NodeId) {
        self.doubted.insert(id);
        self.missing.insert(id);
    }

    /// A node was lost, and had this in the registry.
    pub(super) fn lost(&mut self, id: NodeId, withdrawn: Withdrawn, now: Instant) {
        self.lost.insert(id, (now, withdrawn));
        self.order.push_back((now, id));
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front().copied() {
            if now.saturating_duration_since(at) <= self.interval {
                return;
            }
            self.order.pop_front();
            // One that was back meanwhile may have been lost once more.
            if self.lost.get(&id).is_some_and(|(last, _)| *last == at) {
                self.lost.remove(&id);
            }
        }
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, id: NodeId) {
        self.suspects.remove(&id);
        self.lost.remove(&id);
        self.missing.remove(&id);
    }

    /// A node is not listed any more.
    pub(super) fn removed(&mut self, id: NodeId) {
        self.suspects.remove(&id);
        self.lost.remove(&id);
        if self.missing.remove(&id) {
            self.doubted.remove(&id);
        }
    }

    /// When the doubt that lasts ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the doubt when its time is over, and returns the nodes that are lost with it.
    pub(super) fn end(&mut self, now: Instant) -> Option<Vec<NodeId>> {
        self.until.filter(|until| *until <= now)?;
        self.until = None;
        Some(self.missing.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{NodeAddr, Rank};
    use crate::registry::{PromisePolicy, Registry};

    const INTERVAL: Duration = Duration::from_secs(30);

    /// Available nodes, as the poller keeps them.
    struct Rig {
        failure: MassFailure,
        registry: Registry,
        ids: Vec<NodeId>,
        available: usize,
        now: Instant,
    }

    impl Rig {
        #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
        fn new(nodes: u32) -> Self {
            let now = Instant::now();
            let registry = Registry::new(PromisePolicy::Off, INTERVAL, now);
            let insert = |node: u32| {
                let addr = NodeAddr::parse(&format!("10.0.0.{node}:4000")).expect("an address");
                let id = registry.insert(addr, Rank::Listed(node));
                registry.up(id, registry.begin_probe(id, now), &[], 0, now);
                id
            };
            Self {
                failure: MassFailure::new(INTERVAL),
                ids: (0..nodes).map(insert).collect(),
                available: nodes as usize,
                registry,
                now,
            }
        }

        /// Lets a node fail for good; how many are put back where that begins a doubt.
        fn fail(&mut self, node: usize) -> Result<&'static str, usize> {
            let id = self.ids[node];
            match self.failure.judge(id, self.available, self.now) {
                Verdict::Lost => {
                    self.available -= 1;
                    let withdrawn = self.registry.down(id).expect("it was available");
                    self.failure.lost(id, withdrawn, self.now);
                    Ok("lost")
                }
                Verdict::Doubted => Ok("doubted"),
                Verdict::DoubtBegins { lost: back, .. } => {
                    self.available += back.len();
                    back.iter()
                        .for_each(|(id, withdrawn)| self.registry.put_back(*id, withdrawn));
                    Err(back.len())
                }
            }
        }

        fn answer(&mut self, node: usize) {
            self.failure.answered(self.ids[node]);
        }

        fn end(&mut self) -> Option<usize> {
            let lost = self.failure.end(self.now)?;
            self.available -= lost.len();
            lost.iter().for_each(|id| drop(self.registry.down(*id)));
            Some(lost.len())
        }
    }

    #[test]
    fn four_nodes_and_more_than_half_of_those_available_are_a_mass() {
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
    fn those_that_have_failed_once_count_so_that_nodes_that_fail_together_all_stay() {
        let mut rig = Rig::new(6);
        (0..6).for_each(|node| rig.failure.failed_once(rig.ids[node]));
        assert_eq!(rig.fail(0), Err(0), "none was lost before");
        assert_eq!(rig.fail(1), Ok("doubted"));
        let mut rig = Rig::new(6);
        (0..6).for_each(|node| rig.failure.failed_once(rig.ids[node]));
        (1..4).for_each(|node| rig.answer(node));
        assert_eq!(rig.fail(0), Ok("lost"), "the others answered when asked again");
    }

    #[test]
    fn what_was_lost_more_than_an_interval_ago_does_not_count() {
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
    fn one_that_came_back_or_left_does_not_count() {
        let mut rig = Rig::new(6);
        assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
        rig.answer(0);
        rig.available += 1;
        rig.failure.removed(rig.ids[1]);
        assert_eq!(rig.fail(3), Ok("lost"));
        assert_eq!(rig.fail(4), Ok("lost"));
        assert_eq!(rig.fail(5), Err(3));
    }

    #[test]
    fn it_ends_after_three_intervals_with_those_that_have_not_answered() {
        let mut rig = Rig::new(6);
        for node in 0..6 {
            let _ = rig.fail(node);
        }
        rig.answer(2);
        rig.failure.removed(rig.ids[3]);
        rig.now += 3 * INTERVAL - Duration::from_nanos(1);
        assert_eq!(rig.end(), None);
        assert_eq!(rig.fail(2), Ok("doubted"), "once more");
        rig.answer(2);
        rig.now += Duration::from_nanos(1);
        assert_eq!(rig.failure.until(), Some(rig.now));
        assert_eq!((rig.end(), rig.end()), (Some(4), None));
    }

    #[test]
    fn it_is_not_renewed_before_half_of_them_have_been_back() {
        let mut rig = Rig::new(8);
        for node in 0..8 {
            let _ = rig.fail(node);
        }
        for node in 0..3 {
            rig.answer(node);
        }
        for _ in 0..10 {
            assert_eq!(rig.fail(0), Ok("doubted"), "one that comes and goes is one node");
            rig.answer(0);
        }
        rig.now += 3 * INTERVAL;
        assert_eq!(rig.end(), Some(5));
        assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
        rig.now += 2 * INTERVAL;
        // Five are needed; a fourth one is back, so that as many have been as not.
        rig.answer(3);
        for node in 0..4 {
            rig.answer(node);
            let id = rig.ids[node];
            rig.registry
                .up(id, rig.registry.begin_probe(id, rig.now), &[], 0, rig.now);
        }
        rig.available = 4;
        assert_eq!([0, 1, 2].map(|node| rig.fail(node)), [Ok("lost"); 3]);
        assert_eq!(rig.fail(3), Err(3));
    }
}
