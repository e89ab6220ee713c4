//! Writes what is known of a node on the board, for `/status`.

use std::time::{Duration, Instant};

use super::Poller;
use super::tracked::{Health, Tracked};
use crate::metrics::{self, unix_seconds};
use crate::node::NodeInfo;
use crate::registry::NodeId;
use crate::status::{Change, NodeState, Probed};

impl Poller {
    /// A probe of a node ended and was taken over; `answered` has what it told, if it answered as a node does.
    pub(super) fn publish(&mut self, id: NodeId, took: Duration, answered: Option<&NodeInfo>, now: Instant) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        let state = node.board_state();
        let probed = Probed {
            state,
            at: unix_seconds(),
            took,
            pending: answered.map(|info| &info.pending[..]),
            reason: if state.is_trouble() { &node.reason } else { "" },
        };
        let changes = self.board.probed(id, probed, answered.map(|info| &info.containers[..]));
        self.log_conflicts(changes, now);
    }

    /// A node is in another state, by no probe of its own.
    pub(super) fn publish_state(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get(&id) {
            let changes = self.board.moved(id, node.board_state());
            self.log_conflicts(changes, now);
        }
    }

    /// Logs that an id has come to stand for several images, or does so no more.
    pub(super) fn log_conflicts(&mut self, changes: Vec<Change>, now: Instant) {
        if changes.is_empty() {
            return;
        }
        self.metrics
            .conflicting_containers
            .set(self.board.conflict_count() as u64);
        for change in changes {
            let Some(suppressed) = self.conflict_lines.admit(now) else {
                continue;
            };
            match change {
                Change::Began(conflict) => log::warn!("{conflict}{suppressed}"),
                Change::Ended(id) => {
                    log::info!("container {:?} runs with one image again{suppressed}", id.as_str());
                }
            }
        }
    }
}

impl Tracked {
    /// As the board names it.
    fn board_state(&self) -> NodeState {
        match self.health {
            _ if self.state() == metrics::StateLabel::Limited => NodeState::Limited,
            Health::New => NodeState::New,
            Health::Up => NodeState::Up,
            Health::Suspect => NodeState::Suspect,
            Health::Doubted => NodeState::Doubted,
            Health::Down => NodeState::Down,
        }
    }
}
