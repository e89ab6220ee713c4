//! Low limits of threads and address space.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::support::{Behaviour, Fleet, Launch, PATIENCE, Signal};
use super::{addresses, available, launch, line, wait_available};

/// Longest shutdown (contract).
const END: Duration = Duration::from_secs(5);
/// Number of hanging nodes. One responding node is listed first.
const HANGING: usize = 60;

fn fleet(hanging: usize) -> Fleet {
    let fleet = Fleet::start(1 + hanging);
    fleet.set_range(1..1 + hanging, Behaviour::Hang);
    fleet
}

/// Returns a launch under a separate user with a limit of threads, or `None` with a message if that is impossible.
/// `number` makes the users of two tests different.
fn with_threads(launch: Launch, threads: usize, number: u32) -> Option<Launch> {
    let has = |program: &str| {
        ["/usr/bin", "/bin"]
            .iter()
            .any(|dir| fs::exists(format!("{dir}/{program}")).unwrap_or(false))
    };
    if !rustix::process::geteuid().is_root() || !has("setpriv") || !has("prlimit") {
        eprintln!("skipped: a limit on threads wants root, setpriv and prlimit");
        return None;
    }
    // Files that only the user of the tests can read are unreadable for this user.
    let directory = launch.directory();
    fs::copy(env!("CARGO_BIN_EXE_infernet-router"), directory.join("router")).expect("the directory is ours");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    let uid = 400_000 + std::process::id() % 100_000 * 10 + number;
    let user = format!("setpriv --reuid={uid} --regid={uid} --clear-groups");
    Some(launch.shell(&format!("exec {user} prlimit --nproc={threads} ./router \"$@\"")))
}

#[test]
fn few_threads_leave_the_rest_to_probes() {
    let fleet = fleet(HANGING);
    let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1);
    let Some(launch) = with_threads(launch, 25, 1) else {
        return;
    };
    let router = launch.start();
    wait_available(&router, &fleet, 0..1);
    router.wait_line("no thread: the system refuses threads for probes", PATIENCE);
    router.wait_line(
        &line("node down", fleet.addr(1), "timeout: no complete response"),
        PATIENCE,
    );
    assert!(router.threads() <= 25, "{}", router.threads());
    assert_eq!(available(&router), addresses(&fleet, 0..1));
    assert_eq!(router.count_lines("panicked"), 0, "{:?}", router.log());
    assert_eq!(
        router.count_lines("no thread: the system refuses threads for probes"),
        1,
        "{:?}",
        router.log()
    );
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(END).code(), Some(0));
}

#[test]
fn too_few_threads_end_the_start_with_reason() {
    let fleet = fleet(0);
    let Some(launch) = with_threads(launch().ips(fleet.list()), 12, 2) else {
        return;
    };
    let ended = launch.run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("can't start: no room for 20 more threads"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn unneeded_threads_exit() {
    let fleet = fleet(HANGING);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 2).start();
    fleet.wait_asked_total(1 + HANGING as u64, PATIENCE);
    router.until("each hanging node has a thread", || router.threads() > HANGING as u64);
    fleet.set_all(Behaviour::up(0, &["hello-world"]));
    router.until("unneeded threads have exited", || router.threads() < HANGING as u64 / 2);
    // The router probed each hanging node once more.
    wait_available(&router, &fleet, 0..fleet.len());
}

#[test]
fn address_space_limit_survives_hanging_nodes() {
    let fleet = fleet(200);
    let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1);
    let router = launch.ulimit("-v 300000").start();
    wait_available(&router, &fleet, 0..1);
    router.wait_line("address space limit too low: ", PATIENCE);
    fleet.wait_asked_total(120, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, 0..1));
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(END).code(), Some(0), "{:?}", router.log());
}

#[test]
fn serving_begins_before_client_timeout() {
    let fleet = fleet(5);
    let router = launch().ips(fleet.list()).start();
    let begin = router.wait_line("list loaded: first read, file=\"ips.txt\" nodes=6", PATIENCE);
    let serving = router.wait_line("serving: accepting requests", PATIENCE);
    let seconds = |line: &str| {
        let time = line
            .split('T')
            .nth(1)
            .and_then(|rest| rest.split('Z').next())
            .expect("a time");
        let parts: Vec<f64> = time.split(':').map(|part| part.parse().expect("a number")).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
    };
    let waited = (seconds(&serving) - seconds(&begin)).rem_euclid(86_400.0);
    assert!((1.0..3.0).contains(&waited), "{waited} s");
    assert_eq!(available(&router), addresses(&fleet, 0..1));
}
