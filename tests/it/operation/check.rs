//! `infernet-router check`.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::Output;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use super::{launch, run, text};
use crate::support::{Behaviour, Explorer, Fleet, Listing};

/// Exit codes, as scripts go by them.
const SOME_AVAILABLE: Option<i32> = Some(0);
const NONE_AVAILABLE: Option<i32> = Some(1);
const BAD_SETTINGS: Option<i32> = Some(2);

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The values of one field, node by node.
fn fields<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    let nodes = report["nodes"].as_array().expect("an array");
    nodes.iter().map(|node| &node[name]).collect()
}

/// Five nodes, each with another fate, and a list with what is no node.
fn fleet_in_trouble() -> (Fleet, Explorer, super::Launch) {
    let fleet = Fleet::start(5);
    fleet.set(0, Behaviour::up(3, &["a", "b"]));
    fleet.set(1, Behaviour::up(9, &["a"]));
    fleet.set(2, Behaviour::Status(500));
    fleet.set(3, Behaviour::Status(429));
    fleet.set(4, Behaviour::up(4, &["c"]));
    let cloud_metadata = "169.254.169.254:80".parse().expect("an address");
    let explorer = Explorer::start(Listing::Nodes(vec![fleet.addr(4), cloud_metadata]));
    let launch = launch()
        .ips(format!("{}http://node.example/path\n", fleet.list_of(0..4)))
        .set("API_URL", explorer.url());
    (fleet, explorer, launch)
}

#[test]
fn json_has_every_node_and_why_it_is_not_listed_those_in_trouble_first() {
    let (fleet, explorer, launch) = fleet_in_trouble();
    let output = run(&launch, &["check", "--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), SOME_AVAILABLE);
    assert_eq!(
        fields(&report, "state"),
        [
            "down",
            "skipped",
            "skipped",
            "limited",
            "available",
            "available",
            "available"
        ]
    );
    let addr = |node| fleet.addr(node).to_string();
    assert_eq!(
        fields(&report, "address"),
        [
            &addr(2),
            "http://node.example/path",
            "169.254.169.254:80",
            &addr(3),
            &addr(1),
            &addr(4),
            &addr(0)
        ]
    );
    let (file, named) = ("ips_file", "explorer");
    assert_eq!(fields(&report, "source"), [file, file, named, file, file, named, file]);
    assert_eq!(fields(&report, "pending")[4..], [9, 4, 3]);
    assert_eq!(report["nodes"][6]["containers"], serde_json::json!(["a", "b"]));
    assert!(
        report["nodes"][6]["latency_ms"]
            .as_f64()
            .is_some_and(|millis| millis > 0.0)
    );
    let reasons: Vec<&str> = fields(&report, "reason")[..4]
        .iter()
        .filter_map(|reason| reason.as_str())
        .collect();
    let [down, line, refused, limited] = reasons[..] else {
        panic!("four are in trouble: {reasons:?}");
    };
    assert!(down.contains("500"), "{down}");
    assert!(line.starts_with("line 5: "), "{line}");
    assert!(refused.starts_with("the Explorer may not name it: "), "{refused}");
    assert!(limited.contains("429"), "{limited}");
    assert_eq!(report["lists"][0]["nodes"], 4);
    assert_eq!(report["lists"][1]["name"], explorer.url());
}

#[test]
fn the_table_has_the_same_rows_in_the_same_order() {
    let (fleet, explorer, launch) = fleet_in_trouble();
    let output = run(&launch, &["check"]);
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "ips.txt: 4 nodes");
    assert_eq!(lines[1], format!("{}: 1 nodes", explorer.url()));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(lines[3]),
        [
            "ADDRESS",
            "SOURCE",
            "STATE",
            "LATENCY",
            "PENDING",
            "CONTAINERS",
            "REASON"
        ]
    );
    let addresses: Vec<_> = lines[4..].iter().map(|line| words(line)[0].clone()).collect();
    let addr = |node| fleet.addr(node).to_string();
    assert_eq!(addresses[0], addr(2));
    assert_eq!(addresses[3..], [addr(3), addr(1), addr(4), addr(0)]);
    let last = words(lines[10]);
    assert_eq!(
        (last[1].as_str(), last[3].as_str(), last[5].as_str()),
        ("ips", "available", "ms")
    );
    assert_eq!(last[6..], ["3", "a,b"]);
}

#[test]
fn each_node_is_asked_once() {
    let (fleet, _explorer, launch) = fleet_in_trouble();
    run(&launch, &["check"]);
    assert_eq!(fleet.asked_each(), [1; 5]);
}

#[test]
fn without_an_available_node_it_ends_with_1() {
    let fleet = Fleet::start(2);
    fleet.set(0, Behaviour::Status(429));
    fleet.set(1, Behaviour::CloseAtOnce);
    let output = run(&launch().ips(fleet.list()), &["check"]);
    assert_eq!(output.status.code(), NONE_AVAILABLE, "{output:?}");
    let output = run(&launch(), &["check", "--json"]);
    assert_eq!(output.status.code(), NONE_AVAILABLE, "{output:?}");
    assert!(
        json(&output)["lists"][0]["trouble"].is_string(),
        "no ips.txt: {output:?}"
    );
}

#[test]
fn with_bad_settings_it_ends_with_2_and_asks_nobody() {
    let fleet = Fleet::start(1);
    let launch = launch().ips(fleet.list()).set("PENDING_WEIGHTS", "all");
    let output = run(&launch, &["check"]);
    assert_eq!(output.status.code(), BAD_SETTINGS);
    assert!(
        text(&output.stderr).starts_with("PENDING_WEIGHTS=\"all\": expected"),
        "{output:?}"
    );
    assert_eq!((output.stdout.len(), fleet.asked_total()), (0, 0));
}

#[test]
fn progress_is_for_a_terminal_alone() {
    let fleet = Fleet::start(3);
    let launch = launch().ips(fleet.list());
    assert_eq!(text(&run(&launch, &["check"]).stderr), "", "a pipe");

    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal is available");
    grantpt(&terminal)
        .and_then(|()| unlockpt(&terminal))
        .expect("it is ours");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name");
    let name = name.to_str().expect("a path in ASCII");
    let other_end = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .expect("it is unlocked");
    let output = launch.command().arg("check").stderr(other_end).output();
    assert_eq!(output.expect("the binary is there").status.code(), SOME_AVAILABLE);
    let shown = read_terminal(File::from(terminal));
    assert_eq!(
        shown, "\rasked 1 of 3 nodes\rasked 2 of 3 nodes\rasked 3 of 3 nodes\r\n",
        "each node as it answers"
    );
}

/// What was written to a terminal whose other end is closed: Linux then ends reading with an error.
fn read_terminal(mut terminal: File) -> String {
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(shown).expect("UTF-8")
}
