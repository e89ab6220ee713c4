//! Takes down a node that has failed twice, unless many nodes of one list fail together: the cause is then more likely
//! local than at the nodes, such as the network, the name server or the clock of this machine.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::node::Source;
use crate::registry::{NodeId, NodeState, Registry};

/// Fewer nodes may well fail together: they share a machine.
const MIN_NODES: usize = 4;
/// Maximum number of intervals for which failing nodes remain available.
pub(super) const MAX_DOUBT_INTERVALS: u32 = 3;
/// The nodes of a long list are counted at most once per this part of them that fails, so that the cost of a failure
/// does not grow with the list.
const COUNT_SHARE: usize = 64;

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
    /// Nodes that went down within the last interval.
    lost: HashMap<NodeId, Instant>,
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
    /// failure. Returns the failing nodes of the list and all of them if a mass failure is suspected from now on. Nodes
    /// that went down within the last interval are available again then.
    pub(super) fn lose(&mut self, id: NodeId, registry: &Registry, now: Instant) -> Option<(usize, usize)> {
        if registry.record(id)?.attributes.is_draining {
            registry.set_health(id, NodeState::Down, now);
            return None;
        }
        let mut doubted = vec![id];
        let mut mass = None;
        if self.until.is_none() {
            mass = self.mass(id, registry, now);
            if mass.is_none() {
                registry.set_health(id, NodeState::Down, now);
                self.lost.insert(id, now);
                return None;
            }
            self.until = Some(now + self.interval * MAX_DOUBT_INTERVALS);
            self.doubted.clear();
            doubted.extend(self.lost.drain().map(|(id, _)| id));
        }
        for id in doubted {
            registry.set_health(id, NodeState::Doubted, now);
            self.doubted.insert(id, Doubt::Silent);
        }
        mass
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
        self.lost.retain(|_, at| is_recent(*at));
        let mut units = HashMap::new();
        registry.visit(|id, record| {
            let is_lost = self.lost.contains_key(&id);
            if record.rank.source() == self.source && (record.is_available() || is_lost) {
                let unit = (record.rank.explorer_ip(), record.rank.is_listed().then_some(id));
                let is_failing = is_lost || id == failed || record.health == NodeState::Suspect;
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
            if registry.health(*id) != Some(NodeState::Doubted) {
                continue;
            }
            if *doubt == Doubt::Failed {
                registry.set_health(*id, NodeState::Down, now);
                down.push(*id);
            } else {
                registry.set_health(*id, NodeState::Suspect, now);
                kept += 1;
            }
        }
        Some((down, kept))
    }
}

#[cfg(test)]
mod tests;
