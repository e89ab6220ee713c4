//! Each state of a node, reached by the behaviour of nodes.

use serde_json::{Value, json};

use super::{fields, is_time, node, quick, report, wait_state};
use crate::support::{Behaviour, Fleet};
use crate::{launch, wait_available};

#[test]
fn node_is_new_until_first_response() {
    let fleet = Fleet::start(12);
    fleet.set_all(Behaviour::Hang);
    // Three probes hang at a time, for 3 s each.
    let router = launch().ips(fleet.list()).set("MAX_PROBES", 4).start();
    let known = report(&router, "?state=new");
    let new = known["nodes"][0].clone();
    assert_eq!(
        (&new["state"], &new["probed"], &new["latency"]),
        (&json!("new"), &Value::Null, &Value::Null)
    );
    assert_eq!((&new["pending"], &new["containers"]), (&Value::Null, &json!([])));
    assert_eq!(known["pool_too_small"], false);
}

#[test]
fn small_pool_is_reported() {
    let fleet = Fleet::start(12);
    fleet.set_all(Behaviour::Hang);
    let router = quick().ips(fleet.list()).set("MAX_PROBES", 4).start();
    router.until("the small pool is reported", || {
        report(&router, "")["pool_too_small"] == true
    });
    assert!(
        router
            .get("/status")
            .text()
            .contains("raise MAX_PROBES or REFRESH_INTERVAL")
    );
}

#[test]
fn failures_show_suspect_then_down_with_reason() {
    let fleet = Fleet::start(2);
    let router = quick().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0, 1]);
    // The node is suspect repeatedly, so that no check is too late.
    fleet.set(0, Behaviour::FailEveryOther);
    let mut known = Value::Null;
    router.until("the node is suspect", || {
        known = node(&router, &fleet, 0);
        known["state"] == "suspect"
    });
    assert_eq!(known["reason"], "status 500");
    assert_eq!(known["containers"], json!(["hello-world"]), "it is still available");
    fleet.set(0, Behaviour::Status(503));
    wait_state(&router, &fleet, 0, "down");
    let known = node(&router, &fleet, 0);
    assert_eq!(known["reason"], "status 503");
    assert_eq!((&known["containers"], &known["pending"]), (&json!([]), &Value::Null));
    fleet.set(0, Behaviour::up(0, &["hello-world"]));
    wait_state(&router, &fleet, 0, "up");
    assert_eq!(node(&router, &fleet, 0)["reason"], Value::Null);
}

#[test]
fn only_429_shows_limited() {
    let fleet = Fleet::start(1);
    let router = quick().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0]);
    fleet.set(0, Behaviour::Status(429));
    wait_state(&router, &fleet, 0, "limited");
    let report = report(&router, "");
    assert_eq!(
        (&report["totals"]["limited"], &report["totals"]["available"]),
        (&json!(1), &json!(1))
    );
    assert!(
        report["nodes"][0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("429"))
    );
}

#[test]
fn mass_failure_is_reported_with_its_start() {
    let fleet = Fleet::start(6);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 5).start();
    wait_available(&router, &fleet, 0..6);
    fleet.set_range(1..6, Behaviour::Status(500));
    router.until("five nodes are doubted", || {
        report(&router, "")["totals"]["doubted"] == 5
    });
    let told = report(&router, "?state=doubted&n=1");
    assert!(
        told["doubt"]["active"] == true && is_time(&told["doubt"]["since"]),
        "{told}"
    );
    assert_eq!((&told["totals"]["available"], &told["matched"]), (&json!(6), &json!(5)));
    let node = &told["nodes"][0];
    assert_eq!(
        (&node["reason"], &node["containers"]),
        (&json!("status 500"), &json!(["hello-world"]))
    );
    assert!(router.get("/status").text().contains("Mass failure suspected"));
    router.until("five nodes are down", || report(&router, "")["totals"]["down"] == 5);
    assert_eq!(report(&router, "")["doubt"], json!({"active": false, "since": null}));
}

#[test]
fn unlisted_node_is_removed() {
    let fleet = Fleet::start(2);
    let router = quick().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0, 1]);
    router.write_ips(fleet.list_of(1..2));
    router.until("one node is left", || report(&router, "")["totals"]["nodes"] == 1);
    assert_eq!(fields(&report(&router, ""), "address"), [fleet.addr(1).to_string()]);
}
