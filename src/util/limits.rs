//! Fits connections and probes to the process's limits on descriptors and on the address space (`ulimit -n`, `-v`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides connections and probes: standard streams, epoll, lists, the Explorer, lookups, rejected
/// connections that linger.
const RESERVED_FDS: u64 = 112;
/// Address space for everything except the probes: the program and its libraries, two arenas, the stacks of the other
/// threads. An allocation that finds no room ends the process.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// Address space of one probe: the stack of its thread with its guard, and the response.
const PROBE_BYTES: u64 = 1024 * 1024;
/// A router with fewer connections or probes is useless.
const MIN_USABLE: u64 = 8;

/// Returns how many of `connections` and `probes` fit. Raises the limit on descriptors if it is too low and that is
/// permitted. Logs a warning if not all fit.
pub(crate) fn fit(connections: usize, probes: usize) -> (usize, usize) {
    let address_space = address_space();
    let (max_connections, max_probes) = (connections, probes);
    let probes = probes_within(address_space, probes);
    if probes < max_probes {
        let limit_mib = address_space / (1024 * 1024);
        log::warn!(limit_mib, probes, max_probes; "address space limit too low: concurrent probes are reduced");
    }
    let sufficient = connections as u64 + probes as u64 + RESERVED_FDS;
    let limit = raise_descriptors(sufficient);
    if limit >= sufficient {
        return (connections, probes);
    }
    let (connections, probes) = share(connections, probes, limit);
    log::warn!(
        limit, sufficient, connections, max_connections, probes, max_probes;
        "descriptor limit too low: connections or probes are reduced"
    );
    (connections, probes)
}

/// Returns the limit on the address space in bytes; `u64::MAX` without one.
pub(super) fn address_space() -> u64 {
    getrlimit(Resource::As).current.unwrap_or(u64::MAX)
}

fn probes_within(address_space: u64, probes: usize) -> usize {
    let room = (address_space.saturating_sub(RESERVED_BYTES) / PROBE_BYTES).max(MIN_USABLE);
    (probes as u64).min(room) as usize
}

/// Raises the limit on descriptors to at most `sufficient`. Returns the limit in effect.
fn raise_descriptors(sufficient: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let raised = sufficient.min(maximum.unwrap_or(u64::MAX)).max(current);
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).map_or(current, |()| raised)
}

/// Probes get up to half of the descriptors, and connections the rest.
fn share(connections: usize, probes: usize, descriptors: u64) -> (usize, usize) {
    let left = descriptors.saturating_sub(RESERVED_FDS).max(2 * MIN_USABLE);
    let probes = (probes as u64).min(left / 2);
    ((connections as u64).min(left - probes) as usize, probes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_probes_are_reduced_to_the_limit() {
        assert_eq!(share(512, 128, 752), (512, 128));
        assert_eq!(share(512, 128, 751), (511, 128));
        assert_eq!(share(512, 128, 200), (44, 44));
        assert_eq!(share(512, 1, 200), (87, 1));
        assert_eq!(share(512, 128, 20), (8, 8));
    }

    #[test]
    fn probes_share_remaining_space_down_to_a_minimum() {
        assert_eq!(probes_within(RESERVED_BYTES + 40 * PROBE_BYTES, 128), 40);
        assert_eq!(probes_within(RESERVED_BYTES + 41 * PROBE_BYTES - 1, 128), 40);
        assert_eq!(probes_within(RESERVED_BYTES, 128), 8);
        assert_eq!(probes_within(0, 128), 8);
        assert_eq!(probes_within(u64::MAX, 128), 128);
    }
}
