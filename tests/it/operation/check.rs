//! `infernet-router check`.

use std::fs::File;
use std::io::Read;
use std::process::Output;

use serde_json::Value;

use super::{launch, run, text};
use crate::support::{Behaviour, Explorer, Fleet, HungDisk, Listing, terminal};

/// Exit codes that scripts rely on.
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

/// Five nodes with different results, and lists with invalid entries.
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
        .ips(format!("{}user@node.example\n", fleet.list_of(0..4)))
        .set("API_URL", explorer.url());
    (fleet, explorer, launch)
}

#[test]
fn json_has_every_node_in_the_order_of_status() {
    let (fleet, explorer, launch) = fleet_in_trouble();
    let output = run(&launch, &["check", "--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), SOME_AVAILABLE);
    assert_eq!(
        fields(&report, "state"),
        [
            "skipped",
            "skipped",
            "down",
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
            "user@node.example",
            "169.254.169.254:80",
            &addr(2),
            &addr(3),
            &addr(0),
            &addr(1),
            &addr(4)
        ]
    );
    let (file, named) = ("ips_file", "explorer");
    assert_eq!(fields(&report, "source"), [file, named, file, file, file, file, named]);
    assert_eq!(fields(&report, "pending")[4..], [3, 9, 4]);
    assert_eq!(report["nodes"][4]["containers"], serde_json::json!(["a", "b"]));
    assert!(
        report["nodes"][4]["latency_ms"]
            .as_f64()
            .is_some_and(|millis| millis > 0.0)
    );
    let reasons: Vec<&str> = fields(&report, "reason")[..4]
        .iter()
        .filter_map(|reason| reason.as_str())
        .collect();
    let [line, refused, down, limited] = reasons[..] else {
        panic!("four have problems: {reasons:?}");
    };
    assert!(down.contains("500"), "{down}");
    assert!(line.starts_with("line 5: "), "{line}");
    assert!(
        refused.starts_with("the Explorer must not name this address: "),
        "{refused}"
    );
    assert!(limited.contains("429"), "{limited}");
    assert_eq!(report["lists"][0]["nodes"], 4);
    assert_eq!(report["lists"][1]["name"], explorer.url());
}

#[test]
fn table_has_the_rows_of_json() {
    let (fleet, explorer, launch) = fleet_in_trouble();
    let output = run(&launch, &["check"]);
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "ips.txt: 4 nodes");
    assert_eq!(lines[1], format!("{}: 1 nodes", explorer.url()));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(lines[3]),
        ["ADDRESS", "SOURCE", "STATE", "LATENCY", "PENDING", "CONTAINERS"]
    );
    let is_row = |line: &&&str| !line.is_empty() && !line.starts_with(' ');
    let rows: Vec<&str> = lines[4..lines.len() - 1].iter().filter(is_row).copied().collect();
    let addresses: Vec<_> = rows.iter().map(|line| words(line)[0].clone()).collect();
    let addr = |node| fleet.addr(node).to_string();
    assert_eq!(addresses[2..], [addr(2), addr(3), addr(0), addr(1), addr(4)]);
    let down = lines.iter().position(|line| line.starts_with(&addr(2))).expect("a row");
    assert!(
        lines[down + 1].starts_with("    status 500"),
        "the reason is below the row: {table}"
    );
    let last = words(rows[4]);
    assert_eq!(
        (last[1].as_str(), last[3].as_str(), last[5].as_str()),
        ("ips", "available", "ms")
    );
    assert_eq!(last[6..], ["3", "a,b"]);
    assert_eq!(lines.last(), Some(&"3 of 5 nodes available"));
}

#[test]
fn table_fits_80_columns() {
    let fleet = Fleet::start(2);
    let ids: Vec<String> = (0..20).map(|id| format!("container-{id}")).collect();
    fleet.set(0, Behaviour::up(3, &ids.iter().map(String::as_str).collect::<Vec<_>>()));
    let long = "a-very-long-host-name".repeat(2);
    let list = format!("{}{long}.example..invalid with many words after it\n", fleet.list());
    let output = run(&launch().ips(list), &["check"]);
    let table = text(&output.stdout);
    for line in table.lines() {
        assert!(line.chars().count() <= 80 || line.starts_with("a-very"), "{line}");
    }
    assert!(table.contains("container-0,") && table.contains('…'), "{table}");
}

#[test]
fn hung_disk_is_reported_after_three_seconds() {
    let Some(disk) = HungDisk::mount() else { return };
    let launch = launch().set("IPS_FILE", disk.path().join("ips.txt").display());
    let output = run(&launch, &["check"]);
    assert_eq!(output.status.code(), NONE_AVAILABLE, "{output:?}");
    assert!(text(&output.stdout).contains("not read within 3 s"), "{output:?}");
}

#[test]
fn missing_files_are_reported_with_the_directory() {
    let launch = launch();
    let here = launch.directory().display().to_string();
    let output = run(&launch, &["check"]);
    assert!(
        text(&output.stderr).starts_with(&format!("infernet-router: found neither .env nor ips.txt in {here}")),
        "{output:?}"
    );
    assert_eq!(text(&run(&launch.file(".env", ""), &["check"]).stderr), "");
}

#[test]
fn option_c_selects_the_directory() {
    let fleet = Fleet::start(1);
    let there = launch().ips(fleet.list()).file(".env", "PENDING_WEIGHTS=offchain=3\n");
    let directory = there.directory().to_str().expect("UTF-8");
    let output = run(&launch(), &["-C", directory, "check"]);
    assert_eq!(output.status.code(), SOME_AVAILABLE, "{output:?}");
    let output = run(&launch(), &["-C", directory, "settings"]);
    let line = text(&output.stdout)
        .lines()
        .find(|line| line.starts_with("PENDING_WEIGHTS"));
    let words: Vec<_> = line.expect("the line").split_whitespace().collect();
    assert_eq!(words, ["PENDING_WEIGHTS", ".env", "offchain=3"]);
    for arguments in [&["-C", "/nonexistent", "check"][..], &["-C"], &["-C", ""]] {
        let output = run(&launch(), arguments);
        assert_eq!(output.status.code(), BAD_SETTINGS, "{output:?}");
        assert!(text(&output.stderr).starts_with("infernet-router: -C"), "{output:?}");
    }
}

#[test]
fn each_node_is_probed_once() {
    let (fleet, _explorer, launch) = fleet_in_trouble();
    run(&launch, &["check"]);
    assert_eq!(fleet.asked_each(), [1; 5]);
}

#[test]
fn no_available_node_exits_with_1() {
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
fn invalid_setting_exits_with_2() {
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
fn progress_is_shown_on_a_terminal_only() {
    let fleet = Fleet::start(3);
    let launch = launch().ips(fleet.list());
    assert_eq!(text(&run(&launch, &["check"]).stderr), "", "a pipe");

    let (terminal, other_end) = terminal::open();
    let output = launch.command().arg("check").stderr(other_end).output();
    assert_eq!(output.expect("the binary is there").status.code(), SOME_AVAILABLE);
    let shown = read_terminal(terminal);
    assert_eq!(
        shown, "\rprobed 1 of 3 nodes\rprobed 2 of 3 nodes\rprobed 3 of 3 nodes\r\n",
        "each node after its probe"
    );
}

/// Reads the text on a terminal after the program's end is closed: Linux then reports an error after the last byte.
fn read_terminal(mut terminal: File) -> String {
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(shown).expect("UTF-8")
}
