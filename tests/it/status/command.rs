//! `infernet-router status`, and image conflicts in `check`.

use std::process::Output;

use serde_json::Value;

use super::{info, wait_state};
use crate::support::{Behaviour, Fleet, Launch, Router};
use crate::{launch, wait_available};

fn run(launch: &Launch, arguments: &[&str]) -> Output {
    launch.command().args(arguments).output().expect("the binary is there")
}

/// Runs `status` with the settings of a serving router.
fn status(router: &Router, arguments: &[&str]) -> Output {
    let arguments = [&["status"], arguments].concat();
    run(&launch().set("PORT", router.addr().port()), &arguments)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn status_prints_the_table_of_check() {
    let fleet = Fleet::start(3);
    fleet.set(1, Behaviour::Status(500));
    fleet.set(2, Behaviour::up(4, &["b", "a"]));
    let router = launch().ips(fleet.list() + "user@host\n").start();
    wait_state(&router, &fleet, 1, "down");
    wait_available(&router, &fleet, [0]);
    let asked = fleet.asked_total();
    let output = status(&router, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines[0], "ips.txt: 3 nodes");
    let heads = ["ADDRESS", "SOURCE", "STATE", "LATENCY", "PENDING", "CONTAINERS"];
    assert_eq!(words(lines[2]), heads);
    assert_eq!(words(lines[3])[..4], ["user@host", "ips", "file", "skipped"]);
    assert!(lines[4].starts_with("    line 4: "), "{}", lines[4]);
    let down = words(lines[5]);
    assert_eq!((down[0], down[3]), (&*fleet.addr(1).to_string(), "down"));
    assert!(lines[6].ends_with("status 500"), "{}", lines[6]);
    let up = words(lines[8]);
    assert_eq!((up[0], up[3]), (&*fleet.addr(2).to_string(), "available"));
    assert_eq!(up[5..], ["ms", "4", "a,b"]);
    assert_eq!(lines.last(), Some(&"2 of 3 nodes available"));
    assert_eq!(fleet.asked_total(), asked, "no node was asked");
}

#[test]
fn json_has_the_nodes_of_all_pages() {
    let fleet = Fleet::start(1_001);
    let router = launch().ips(fleet.list()).start();
    let output = status(&router, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = report["nodes"].as_array().expect("an array");
    let mut addresses: Vec<&str> = nodes.iter().filter_map(|node| node["address"].as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 1_001);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn empty_router_exits_with_1() {
    let router = launch().start();
    let output = status(&router, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stdout).starts_with("ips.txt: 0 nodes; no such file\n"),
        "{output:?}"
    );
    let output = run(&launch().set("PORT", "x"), &["status"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn error_names_the_url() {
    let fleet = Fleet::start(1);
    let (addr, refusing) = (fleet.addr(0), fleet.refusing_addr(0));
    let at = |addr: std::net::SocketAddr| launch().set("HOST", addr.ip()).set("PORT", addr.port());
    let output = run(&at(refusing), &["status"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!(
            "http://{refusing}/status.json?n=1000&offset=0: connection refused"
        )),
        "{said}"
    );
    let said = run(&at(addr), &["status"]);
    assert!(text(&said.stderr).contains("status 404"), "{said:?}");
    let hidden = launch().set("HOST", "0.0.0.0").set("METRICS_FROM", "192.0.2.1").start();
    let output = status(&hidden, &[]);
    assert!(text(&output.stderr).contains("METRICS_FROM"), "{output:?}");
    // The kernel connects to this address from 127.0.0.1.
    let other = launch()
        .set("HOST", "127.0.0.5")
        .set("METRICS_FROM", "192.0.2.1")
        .start();
    let output = run(&at(other.addr()), &["status"]);
    assert!(text(&output.stderr).contains("METRICS_FROM"), "{output:?}");
    let output = run(&launch().set("PORT", 0), &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("PORT=\"0\": expected"), "{output:?}");
}

#[test]
fn both_commands_report_image_conflicts() {
    let fleet = Fleet::start(2);
    fleet.set(0, info(&[("hello", "one")]));
    fleet.set(1, info(&[("hello", "two\u{1b}")]));
    let launch = launch().ips(fleet.list());
    let checked = run(&launch, &["check"]);
    // Long notes are wrapped.
    let note = text(&checked.stdout)
        .lines()
        .skip(1)
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        note.starts_with("container \"hello\" runs with different images: "),
        "{note}"
    );
    assert!(
        note.contains("one (1 node)") && note.contains("two\\u{1b} (1 node)"),
        "{note}"
    );
    let router = launch.start();
    wait_state(&router, &fleet, 0, "up");
    wait_state(&router, &fleet, 1, "up");
    let output = status(&router, &[]);
    assert!(
        text(&output.stdout).contains("container \"hello\" runs with "),
        "{output:?}"
    );
}
