//! Log lines about nodes, limited per list: untrusted parties register nodes at the Explorer.

use std::time::{Duration, Instant};

use log::kv::{ToValue, Value};
use log::{Level, Record};

use crate::metrics::Label;
use crate::registry::NodeRecord;
use crate::util::log_throttle::LogThrottle;

/// A burst for a large fleet at startup, then one line per second. An Explorer can name 100,000 other nodes each
/// interval, and a fleet that changes permanently must not fill the disk.
const NODE_RATE: LogThrottle = LogThrottle::new(1_000, Duration::from_secs(1));
const TARGET: &str = "infernet_router::poller";

/// Throttles of both lists. Lines about Explorer nodes displace none about listed nodes.
#[derive(Debug)]
pub(super) struct NodeLines([LogThrottle; 2]);

impl NodeLines {
    pub(super) fn new() -> Self {
        Self([NODE_RATE, NODE_RATE])
    }

    /// Logs an event of a node with `keys` beside `node` and `source`. A suppressed line is logged at level debug.
    pub(super) fn log(
        &mut self,
        level: Level,
        event: &str,
        node: &NodeRecord,
        keys: &[(&str, Value<'_>)],
        now: Instant,
    ) {
        let source = node.rank.source();
        let suppressed = self.0[source as usize].admit(now);
        let level = suppressed.map_or(Level::Debug, |_| level);
        if level > log::max_level() {
            return;
        }
        let mut all = vec![
            ("node", Value::from_display(&node.addr)),
            ("source", source.label().into()),
        ];
        all.extend_from_slice(keys);
        all.push(("suppressed", suppressed.to_value()));
        let mut record = Record::builder();
        record.target(TARGET).level(level).key_values(&all);
        log::logger().log(&record.args(format_args!("{event}")).build());
    }
}

/// Whether two reasons differ only in their numbers: dates, counts, ports.
pub(super) fn is_same_reason(one: &str, other: &str) -> bool {
    let is_kept = |char: &char| !char.is_ascii_digit();
    one.chars().filter(is_kept).eq(other.chars().filter(is_kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Source;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn flood_of_explorer_lines_displaces_no_listed_line() {
        let (mut lines, now) = (NodeLines::new(), Instant::now());
        while lines.0[Source::Explorer as usize].admit(now).is_some() {}
        assert!(lines.0[Source::IpsFile as usize].admit(now).is_some());
    }

    #[test]
    fn reason_is_same_when_only_numbers_changed() {
        assert!(is_same_reason(
            "expired 3 days ago, at 2026-01-09",
            "expired 14 days ago, at 2026-01-20"
        ));
        assert!(is_same_reason("", ""));
        assert!(!is_same_reason("connection refused", "connection reset"));
        assert!(!is_same_reason("", "connection refused"));
    }
}
