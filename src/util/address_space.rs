//! Fits the number of probes to a limit on the address space (`ulimit -v`). An allocation that finds no room ends the
//! process.

use rustix::process::{Resource, getrlimit};

/// For everything except the probes: the program and its libraries, two arenas, the stacks of the other threads.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// For one probe: the stack of its thread with its guard, and the response.
const PROBE_BYTES: u64 = 1024 * 1024;

/// Returns true if the process has a limit on its address space.
#[cfg(target_env = "gnu")]
pub(super) fn is_limited() -> bool {
    limit().is_some()
}

fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// Returns how many of `probes` concurrent probes fit into the address space, and logs a warning if not all do.
pub(super) fn fit(probes: usize, least: u64) -> usize {
    let Some(limit) = limit() else {
        return probes;
    };
    let room = usize::try_from(probes_within(limit, least)).unwrap_or(usize::MAX);
    if room < probes {
        log::warn!(
            limit_mib = limit / (1024 * 1024), probes = room, max_probes = probes;
            "address space limit too low: concurrent probes are reduced"
        );
    }
    room.min(probes)
}

fn probes_within(limit: u64, least: u64) -> u64 {
    (limit.saturating_sub(RESERVED_BYTES) / PROBE_BYTES).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_share_remaining_space_down_to_a_minimum() {
        assert_eq!(probes_within(RESERVED_BYTES + 40 * PROBE_BYTES, 8), 40);
        assert_eq!(probes_within(RESERVED_BYTES + 41 * PROBE_BYTES - 1, 8), 40);
        assert_eq!(probes_within(RESERVED_BYTES, 8), 8);
        assert_eq!(probes_within(0, 8), 8);
    }
}
