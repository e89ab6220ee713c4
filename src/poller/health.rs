//! How the result of a probe changes the health of a node. Pure: the caller logs and counts.

use crate::metrics::ProbeOutcome;
use crate::registry::Health;

/// A change of health that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flip {
    /// The node becomes available, or responds again after a suspected mass failure.
    Up,
    /// An available node fails once.
    Suspect,
    /// An available node fails twice in a row. The caller checks for a mass failure.
    Lost,
    /// A new node fails, or has only returned 429.
    Down,
}

/// Returns the health after a probe.
pub(super) fn observe(health: Health, outcome: ProbeOutcome) -> (Health, Option<Flip>) {
    use {Health::*, ProbeOutcome as Outcome};
    match (health, outcome) {
        (health, Outcome::Local) => (health, None),
        (New | Down | Doubted, Outcome::Up) => (Up, Some(Flip::Up)),
        (Up | Suspect, Outcome::Up | Outcome::Limited) | (Doubted, Outcome::Limited) => (Up, None),
        (New, Outcome::Limited | Outcome::Failed) => (Down, Some(Flip::Down)),
        (Up, Outcome::Failed) => (Suspect, Some(Flip::Suspect)),
        (Suspect, Outcome::Failed) => (Down, Some(Flip::Lost)),
        (Doubted, Outcome::Failed) => (Doubted, None),
        (Down, Outcome::Limited | Outcome::Failed) => (Down, None),
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
            (
                New,
                [
                    (Up, Some(Flip::Up)),
                    (Down, Some(Flip::Down)),
                    (Down, Some(Flip::Down)),
                    (New, None),
                ],
            ),
            (Up, [(Up, None), (Up, None), (Suspect, Some(Flip::Suspect)), (Up, None)]),
            (
                Suspect,
                [(Up, None), (Up, None), (Down, Some(Flip::Lost)), (Suspect, None)],
            ),
            (
                Doubted,
                [(Up, Some(Flip::Up)), (Up, None), (Doubted, None), (Doubted, None)],
            ),
            (Down, [(Up, Some(Flip::Up)), (Down, None), (Down, None), (Down, None)]),
        ];
        for (health, row) in table {
            for (outcome, expected) in ProbeOutcome::ALL.iter().zip(row) {
                assert_eq!(observe(health, *outcome), expected, "{health:?}, {outcome:?}");
            }
        }
    }
}
