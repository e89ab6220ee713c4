//! What a limit on the address space (`ulimit -v`) allows: glibc reserves 64 MiB of it for each of up to eight arenas a
//! core, and an allocation that finds no room ends the process.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, getrlimit};

/// What glibc reads, once, when a process starts: mallopt(3).
const ARENAS_VARIABLE: &str = "MALLOC_ARENA_MAX";
/// Arenas under a limit: threads wait for one another a little, which beside a network is nothing.
const ARENAS: &str = "2";
/// For all but the probes: the program and its libraries, two arenas, the stacks of the other threads.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// For one probe: the stack of its thread, with room around it, and what it keeps of an answer.
const PROBE_BYTES: u64 = 1024 * 1024;

/// Where the address space is limited, starts this program anew in the same process with few arenas; else, and where
/// that can't be, does nothing. To be called before there is a thread.
pub fn restart_with_few_arenas() {
    if limit().is_none() || std::env::var_os(ARENAS_VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env(ARENAS_VARIABLE, ARENAS);
        // It comes back only with an error; then the limit has to be high enough as it is.
        let _ = command.exec();
    }
}

fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// How many of so many probes at once the address space has room for, with a warning where that is fewer.
pub(super) fn fit(probes: usize, least: u64) -> usize {
    let Some(limit) = limit() else {
        return probes;
    };
    let room = usize::try_from(probes_within(limit, least)).unwrap_or(usize::MAX);
    if room < probes {
        log::warn!(
            "the limit of {} MiB of address space (ulimit -v) allows {room} probes at once (MAX_PROBES={probes})",
            limit / (1024 * 1024)
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
    fn probes_get_what_is_left_of_the_address_space_and_never_none() {
        assert_eq!(probes_within(RESERVED_BYTES + 40 * PROBE_BYTES, 8), 40);
        assert_eq!(probes_within(RESERVED_BYTES + 41 * PROBE_BYTES - 1, 8), 40);
        assert_eq!(probes_within(RESERVED_BYTES, 8), 8);
        assert_eq!(probes_within(0, 8), 8);
    }
}
