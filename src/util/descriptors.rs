//! How many descriptors there are, and what that allows.

use super::address_space;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside connections and probes: standard streams, epoll, lists, the Explorer, look-ups, refused
/// connections that linger.
const RESERVED_FDS: u64 = 112;
/// Fewer connections or probes than this are of no use.
const MIN_USABLE: u64 = 8;

/// What fits into the descriptors that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    pub(crate) probes: usize,
}

/// Raises the limit where it is too low and that is permitted; lowers the wishes, with a warning, where it isn't.
pub(crate) fn fit_limits(connections: usize, probes: usize) -> Room {
    let probes = address_space::fit(probes, MIN_USABLE);
    let wanted = connections as u64 + probes as u64 + RESERVED_FDS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Room { connections, probes };
    }
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    let available = if setrlimit(Resource::Nofile, limit).is_ok() {
        raised
    } else {
        current
    };
    let room = fit(connections, probes, available);
    if (room.connections, room.probes) != (connections, probes) {
        log::warn!(
            "the limit of {available} open files allows {} connections (MAX_CONNECTIONS={connections}) and {} probes at \
             once (MAX_PROBES={probes}); {wanted} would allow all",
            room.connections,
            room.probes
        );
    }
    room
}

/// Probes first, up to half of what there is; connections get the rest.
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
    fn wishes_are_lowered_to_what_there_is() {
        let room = |connections, probes| Room { connections, probes };
        assert_eq!(fit(512, 128, 752), room(512, 128));
        assert_eq!(fit(512, 128, 751), room(511, 128));
        assert_eq!(fit(512, 128, 200), room(44, 44));
        assert_eq!(fit(512, 1, 200), room(87, 1));
        assert_eq!(fit(512, 128, 20), room(8, 8));
    }
}
