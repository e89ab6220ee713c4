//! How the result of a probe changes the health of a node. Pure: the caller logs and counts.

use crate::metrics::ProbeOutcome;
use crate::registry::NodeState;

/// Returns the health after a probe. The caller keeps a suspect that fails as doubted if it suspects a mass failure.
pub(super) fn observe(health: NodeState, outcome: ProbeOutcome) -> NodeState {
    use {NodeState::*, ProbeOutcome as Outcome};
    match (health, outcome) {
        (health, Outcome::Local) => health,
        (_, Outcome::Up) | (Up | Suspect | Doubted, Outcome::Limited) => Up,
        (Up, Outcome::Failed) => Suspect,
        (Doubted, Outcome::Failed) => Doubted,
        // No health is `Limited`.
        (New | Suspect | Down | Limited, Outcome::Failed) | (New | Down | Limited, Outcome::Limited) => Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Label;

    #[test]
    fn health_and_outcome_match_contract_table() {
        use NodeState::*;
        let table = [
            (New, [Up, Down, Down, New]),
            (Up, [Up, Up, Suspect, Up]),
            (Suspect, [Up, Up, Down, Suspect]),
            (Doubted, [Up, Up, Doubted, Doubted]),
            (Down, [Up, Down, Down, Down]),
        ];
        for (health, row) in table {
            for (outcome, expected) in ProbeOutcome::ALL.iter().zip(row) {
                assert_eq!(observe(health, *outcome), expected, "{health:?}, {outcome:?}");
            }
        }
    }
}
