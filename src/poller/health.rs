//! How the result of a probe changes the health of a node. Pure: the caller logs and counts.

use crate::registry::Health;

/// What the result of a probe shows of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node responds as a node does.
    Success,
    /// The node responds with 429.
    Limited,
    Failure,
    /// The cause is on this machine.
    LocalError,
}

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
pub(super) fn observe(health: Health, verdict: Verdict) -> (Health, Option<Flip>) {
    use {Health::*, Verdict::*};
    match (health, verdict) {
        (health, LocalError) => (health, None),
        (New | Down | Doubted, Success) => (Up, Some(Flip::Up)),
        (Up | Suspect, Success | Limited) | (Doubted, Limited) => (Up, None),
        (New, Limited | Failure) => (Down, Some(Flip::Down)),
        (Up, Failure) => (Suspect, Some(Flip::Suspect)),
        (Suspect, Failure) => (Down, Some(Flip::Lost)),
        (Doubted, Failure) => (Doubted, None),
        (Down, Limited | Failure) => (Down, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_and_verdict_match_contract_table() {
        use {Health::*, Verdict::*};
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
            for (verdict, expected) in [Success, Limited, Failure, LocalError].into_iter().zip(row) {
                assert_eq!(observe(health, verdict), expected, "{health:?}, {verdict:?}");
            }
        }
    }
}
