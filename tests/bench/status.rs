//! The duration of `/status`, and the latency of `/api/v1/ips` meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Length;
use crate::load::{self, Keep};
use crate::support::fleet::{Behaviour, Fleet};
use crate::support::process::{Launch, Router, until};

/// Nodes of which every tenth is down.
const NODES: usize = 100_000;
const SHORT_NODES: usize = 10_000;
/// Duration of the load, and the pause between two requests for the status.
const LASTING: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(100);
/// Connections that request addresses: few, so that they do not use the whole machine.
const CONNECTIONS: usize = 2;
/// Limit for the first probes of all nodes, two for each node that fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures the duration of `/status` and the latency of `/api/v1/ips` during it.
pub fn beside_answers(length: Length) {
    let nodes = length.pick(NODES, SHORT_NODES);
    println!("\n## /status with {nodes} nodes, requested ten times a second, and /api/v1/ips meanwhile\n");
    println!("| what | one takes: median | longest | /ips p50 | p99 |\n|---|---|---|---|---|");
    let fleet = Fleet::start(nodes);
    fleet.set_each(|node| match node % 10 {
        0 => Behaviour::Status(500),
        _ => Behaviour::up((node % 7) as u64, &["hello-world", "other"]),
    });
    let router = Launch::beside_this_program()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", 600)
        .start();
    let is_known = || router.get("/status.json?state=new&n=0").json()["matched"] == 0;
    assert!(until(PATIENCE, is_known), "all nodes are probed");
    for (what, target) in [
        ("nothing", None),
        ("/status.json", Some("/status.json")),
        ("/status.json, n=1000", Some("/status.json?n=1000")),
        ("/status.json, the last hundred", Some("/status.json?offset=99900")),
        ("/status.json, a part of the address", Some("/status.json?q=.250:")),
        ("/status.json, a container", Some("/status.json?container=other")),
        ("/status", Some("/status")),
        ("nothing again", None),
    ] {
        row(&router, what, target);
    }
    println!("\nResident, at most: {:.1} MiB.", router.peak_rss_kib() as f64 / 1024.0);
}

fn row(router: &Router, what: &str, target: Option<&str>) {
    let done = AtomicBool::new(false);
    let (measured, mut times) = thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                if let Some(target) = target {
                    assert_eq!(router.get(target).status, 200);
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                }
                thread::sleep(BETWEEN);
            }
            times
        });
        let ips = "/api/v1/ips?container=hello-world";
        let measured = load::run(router.addr(), ips, CONNECTIONS, Keep::Alive, LASTING);
        done.store(true, Ordering::Relaxed);
        (measured, looks.join().expect("the thread ends"))
    });
    times.sort_by(f64::total_cmp);
    let shown = |at: usize| times.get(at).map_or("-".to_owned(), |millis| format!("{millis:.1} ms"));
    let (median, longest) = (shown(times.len() / 2), shown(times.len().saturating_sub(1)));
    let (p50, p99) = (measured.quantile(0.5), measured.quantile(0.99));
    println!("| {what} | {median} | {longest} | {p50} µs | {p99} µs |");
}
