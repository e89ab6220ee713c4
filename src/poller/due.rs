//! Nodes that wait in one of several queues, each ordered by the time when a node is due.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::registry::NodeId;

#[derive(Debug)]
pub(super) struct DueQueues<const N: usize> {
    queues: [BTreeSet<(Instant, NodeId)>; N],
    places: HashMap<NodeId, (usize, Instant)>,
}

impl<const N: usize> DueQueues<N> {
    pub(super) fn new() -> Self {
        Self {
            queues: [const { BTreeSet::new() }; N],
            places: HashMap::new(),
        }
    }

    /// Moves a node to a queue, whether it waits already or not.
    pub(super) fn set(&mut self, id: NodeId, queue: usize, due: Instant) {
        self.remove(id);
        self.places.insert(id, (queue, due));
        self.queues[queue].insert((due, id));
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        if let Some((queue, due)) = self.places.remove(&id) {
            self.queues[queue].remove(&(due, id));
        }
    }

    /// The queue of a node, and when the node is due.
    pub(super) fn get(&self, id: NodeId) -> Option<(usize, Instant)> {
        self.places.get(&id).copied()
    }

    /// The nodes of a queue, the earliest first.
    pub(super) fn of(&self, queue: usize) -> impl Iterator<Item = (Instant, NodeId)> {
        self.queues[queue].iter().copied()
    }
}
