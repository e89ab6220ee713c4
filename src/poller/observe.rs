//! How the result of a probe changes the health of a node. Pure: the caller logs and counts.

use crate::metrics::ProbeOutcome;
use crate::registry::Health;

/// Returns the health after a probe. The caller keeps a suspect that fails as doubted if it suspects a mass failure.
pub(super) fn observe(health: Health, outcome: ProbeOutcome) -> Health {
    use {Health::*, ProbeOutcome as Outcome};
    match (health, outcome) {
        (health, Outcome::Local) => health,
        (_, Outcome::Up) | (Up | Suspect | Doubted, Outcome::Limited) => Up,
        (Up, Outcome::Failed) => Suspect,
        (Doubted, Outcome::Failed) => Doubted,
        (New | Suspect | Down, Outcome::Failed) | (New | Down, Outcome::Limited) => Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Label;

    #[test]
    fn health_and_outcome_match_contract_table() {
        use Health::*;
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
