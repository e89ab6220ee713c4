//! Reads the process metrics from /proc. Without /proc there are none.

use std::fs;

/// Names as Prometheus clients have them:
/// <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) start_seconds: Option<f64>,
}

/// `USER_HZ`, the unit of `/proc/PID/stat`: 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        // The descriptor that reads the directory is included.
        let open = fs::read_dir("/proc/self/fd").ok();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            resident_bytes: number(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: number(&status, "Threads:"),
            open_descriptors: open.map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_descriptors: limit,
            cpu_seconds: ticks(&stat, 14)
                .zip(ticks(&stat, 15))
                .map(|(user, system)| user + system),
            start_seconds: ticks(&stat, 22)
                .zip(boot)
                .map(|(since_boot, boot): (f64, f64)| boot + since_boot),
        }
    }
}

fn number(status: &str, name: &str) -> Option<u64> {
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
    fn all_process_metrics_are_read() {
        let Process {
            resident_bytes: Some(1_048_576..),
            threads: Some(1..),
            open_descriptors: Some(3..),
            max_descriptors: Some(3..),
            cpu_seconds: Some(0.0..),
            start_seconds: Some(1_000_000_000.0..),
        } = Process::read()
        else {
            panic!("{:?}", Process::read());
        };
    }

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
