//! Numbers and durations as people read them.

use std::fmt::Display;

/// Returns seconds in a unit that is easy to read.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Returns a number with separators: 10,000.
pub(super) fn grouped(number: impl Display) -> String {
    let mut text = number.to_string();
    for at in (1..text.len()).rev().skip(2).step_by(3) {
        text.insert(at, ',');
    }
    text
}

/// Returns a number and its noun.
pub(super) fn plural(number: impl Display, noun: &str) -> String {
    let number = grouped(number);
    let s = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567, 1_000_002].map(grouped),
            ["0", "999", "1,000", "1,234,567", "1,000,002"]
        );
        assert_eq!(
            [119, 120, 7_200, 172_800].map(span),
            ["119 s", "2 min", "2 h", "2 days"]
        );
        assert_eq!([plural(1, "node"), plural(0, "node")], ["1 node", "0 nodes"]);
    }
}
