use serde_json::{Value, json};

use super::*;
use crate::status::DEFAULT_N;

/// The page of a report without a problem in which these fields are replaced.
fn page(changes: Value) -> String {
    let states = ["down", "doubted", "suspect", "limited", "new"].map(|state| (state, json!(0)));
    let mut totals = json!({
        "nodes": 2, "available": 2, "up": 2, "conflicting_containers": 0, "expiring_certificates": 0, "pending_jobs": 0, "requests": 0, "errors": 0,
        "container_ids": 0, "containers": [],
    });
    for (state, count) in states {
        totals[state] = count;
    }
    let time = "2026-11-30T00:00:00Z";
    let mut report = json!({
        "version": "0.0.0", "time": time, "started": time, "interval": 30.0, "settings": {},
        "ips_file": {"path": "ips.txt", "read_at": time, "nodes": 2, "skipped": [], "skipped_count": 0, "trouble": null},
        "explorer": null, "name_server": null, "doubt": {"active": false, "since": null}, "pool_too_small": false,
        "totals": totals, "omitted_containers": {"nodes": 0, "ids": []}, "problems": [], "conflicting_containers": [],
        "matched": 2, "nodes": [],
    });
    for (name, value) in changes.as_object().expect("an object") {
        report[name] = value.clone();
    }
    let report: StatusReport = serde_json::from_value(report).expect("a report");
    let filter = Filter {
        n: DEFAULT_N as usize,
        ..Filter::default()
    };
    to_html(&report, &filter)
}

#[test]
fn each_problem_replaces_nothing_is_wrong() {
    assert!(page(json!({})).contains("Nothing is wrong."));
    let rejected = json!({"path": "ips.txt", "read_at": null, "nodes": 0, "skipped": [], "skipped_count": 0,
        "trouble": "permission denied"});
    let explorer = json!({"url": "http://e", "last_success": null, "nodes": 0, "skipped": 0, "trouble": "timeout"});
    for (problem, text) in [
        (
            json!({"name_server": "name server fails"}),
            "name server fails; the last known",
        ),
        (
            json!({"ips_file": rejected}),
            "ips.txt: permission denied; no list is in effect",
        ),
        (json!({"explorer": explorer}), "Explorer http://e: timeout"),
        (json!({"pool_too_small": true}), "raise MAX_PROBES"),
        (
            json!({"omitted_containers": {"nodes": 3, "ids": ["a<"]}}),
            "3 nodes omitted because a quota was reached, such as a&#60;",
        ),
    ] {
        let page = page(problem);
        assert!(page.contains(text) && !page.contains("Nothing is wrong."), "{page}");
        assert!(page.contains("<header class=\"warn\">"), "{page}");
    }
}
