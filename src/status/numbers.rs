//! Numbers and durations as people read them.

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
pub(super) fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

/// Returns a number and its noun.
pub(super) fn plural(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(number as u64))
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
