//! Low descriptor limits.

use super::{HONEST, IPS, answered};
use crate::launch;
use crate::support::attack::{Attack, Then};
use crate::support::{Fleet, Honest, PATIENCE};

#[test]
fn with_few_descriptors_warns_and_survives_flood() {
    let fleet = Fleet::start(10);
    let router = launch()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", "0.5")
        .ulimit("-n 200")
        .start();
    let warning = router.wait_line("descriptor limit too low: ", PATIENCE);
    assert!(warning.contains("WARN"), "{warning}");
    assert!(
        warning.contains("limit=200 sufficient=752 connections=44 max_connections=512"),
        "{warning}"
    );
    assert!(warning.contains("probes=44 max_probes=128"), "{warning}");
    router.until("all nodes are up", || router.get(IPS).strings().len() == 3);
    let flood = Attack {
        name: "beyond the descriptors",
        connections: 900,
        sources: 300,
        opening: Vec::new(),
        then: Then::Silence,
    };
    let flood = flood.start(router.addr());
    // Probes continue during the flood.
    fleet.wait_asked_total(fleet.asked_total() + 100, PATIENCE);
    flood.end();
    let honest = Honest::start(HONEST, router.addr(), IPS);
    fleet.wait_asked_total(fleet.asked_total() + 20, PATIENCE);
    assert_eq!(router.get(IPS).strings().len(), 3);
    answered(honest.end());
    assert_eq!(router.count_lines("node down:"), 0);
    assert_eq!(router.count_lines("panicked"), 0);
}

#[test]
fn soft_descriptor_limit_is_raised_without_warning() {
    let fleet = Fleet::start(10);
    let router = launch().ips(fleet.list()).ulimit("-S -n 200").start();
    router.until("all nodes are up", || router.get(IPS).strings().len() == 3);
    assert_eq!(router.count_lines("descriptor limit"), 0);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", router.pid())).expect("a running router");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("the line");
    assert_eq!(files.split_whitespace().nth(3), Some("752"), "{files}");
}
