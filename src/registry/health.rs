//! What the poller concludes about a node, and the names under which reports show it.

use serde::{Deserialize, Serialize};

/// The health of a node. Only the poller changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No probe has returned a result yet.
    New,
    /// Available.
    Up,
    /// Available, but the last probe failed. Another failure takes the node down.
    Suspect,
    /// Available although its probes fail: a mass failure is suspected. Ranks below all nodes that respond.
    Doubted,
    /// Not available.
    Down,
}

impl Health {
    /// Whether the router returns the node to clients.
    pub fn is_available(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Doubted)
    }
}

/// The state of a node as `/status`, `/metrics` and the commands show it: its health, or `limited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// [`Health::Down`].
    Down,
    /// [`Health::Doubted`].
    Doubted,
    /// [`Health::Suspect`].
    Suspect,
    /// The node has returned only 429 for ten intervals. It is available or not, as before.
    Limited,
    /// [`Health::New`].
    New,
    /// [`Health::Up`].
    Up,
}

impl NodeState {
    /// All states in the order in which they are shown: problems first.
    pub const ALL: [Self; 6] = {
        use NodeState::*;
        [Down, Doubted, Suspect, Limited, New, Up]
    };

    /// The name in JSON, on the page and in `?state=`.
    pub fn name(self) -> &'static str {
        ["down", "doubted", "suspect", "limited", "new", "up"][self as usize]
    }

    /// Whether the state is a problem. A new node has none yet.
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::New | Self::Up)
    }
}
