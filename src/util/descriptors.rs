//! Fits connections and probes into the limit of descriptors.

use super::address_space;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides connections and probes: standard streams, epoll, lists, the Explorer, lookups, rejected
/// connections that linger.
const RESERVED_FDS: u64 = 112;
/// A router with fewer connections or probes is useless.
const MIN_USABLE: u64 = 8;

/// What fits into the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    pub(crate) probes: usize,
}

/// Raises a limit that is too low. If that is not permitted, reduces connections and probes and logs a warning.
pub(crate) fn fit_limits(connections: usize, probes: usize) -> Room {
    let probes = address_space::fit(probes, MIN_USABLE);
    let sufficient = connections as u64 + probes as u64 + RESERVED_FDS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    if current >= sufficient {
        return Room { connections, probes };
    }
    let raised = sufficient.min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    let available = setrlimit(Resource::Nofile, limit).map_or(current, |()| raised);
    let room = fit(connections, probes, available);
    if (room.connections, room.probes) != (connections, probes) {
        log::warn!(
            limit = available, sufficient = sufficient, connections = room.connections, max_connections = connections,
            probes = room.probes, max_probes = probes;
            "descriptor limit too low: connections or probes are reduced"
        );
    }
    room
}

/// Probes get up to half of the limit, and connections the rest.
fn fit(connections: usize, probes: usize, available: u64) -> Room {
    let left = available.saturating_sub(RESERVED_FDS).max(2 * MIN_USABLE);
    let probes = (probes as u64).min(left / 2);
    Room {
        connections: (connections as u64).min(left - probes) as usize,
        probes: probes as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_probes_are_reduced_to_the_limit() {
        let room = |connections, probes| Room { connections, probes };
        assert_eq!(fit(512, 128, 752), room(512, 128));
        assert_eq!(fit(512, 128, 751), room(511, 128));
        assert_eq!(fit(512, 128, 200), room(44, 44));
        assert_eq!(fit(512, 1, 200), room(87, 1));
        assert_eq!(fit(512, 128, 20), room(8, 8));
    }
}
