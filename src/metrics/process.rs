//! Reads the process metrics from /proc. Without /proc there are none.

use std::fs;
use std::path::Path;

/// `USER_HZ`, the unit of `/proc/PID/stat`: 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Names as Prometheus clients have them:
/// <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
pub(super) fn read() -> [Option<(&'static str, f64)>; 6] {
    let [status, stat, boot] = ["self/status", "self/stat", "stat"].map(|name| {
        let text = fs::read_to_string(Path::new("/proc").join(name));
        text.unwrap_or_default()
    });
    // The descriptor that reads the directory is included.
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1) as f64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let memory = number(&status, "VmRSS:").map(|kib| kib * 1024.0);
    let cpu = ticks(&stat, 14)
        .zip(ticks(&stat, 15))
        .map(|(user, system)| user + system);
    let start = number(&boot, "btime ").zip(ticks(&stat, 22));
    let start = start.map(|(boot, since_boot)| boot + since_boot);
    [
        memory.map(|bytes| ("process_resident_memory_bytes", bytes)),
        number(&status, "Threads:").map(|threads| ("process_threads", threads)),
        open.ok().map(|open| ("process_open_fds", open)),
        limit.map(|limit| ("process_max_fds", limit as f64)),
        cpu.map(|seconds| ("process_cpu_seconds_total", seconds)),
        start.map(|seconds| ("process_start_time_seconds", seconds)),
    ]
}

fn number(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Returns field `number` of `/proc/PID/stat` (proc_pid_stat(5)) in seconds. The second field may contain any text, in
/// parentheses.
fn ticks(stat: &str, number: usize) -> Option<f64> {
    let (_, from_third) = stat.rsplit_once(')')?;
    let ticks: f64 = from_third.split_whitespace().nth(number - 3)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_with_parentheses_shifts_no_field() {
        let stat = "1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 700 0";
        assert_eq!(
            (ticks(stat, 14), ticks(stat, 15), ticks(stat, 22)),
            (Some(2.5), Some(0.5), Some(7.0))
        );
        assert_eq!((ticks("", 14), number("", "VmRSS:")), (None, None));
    }
}
