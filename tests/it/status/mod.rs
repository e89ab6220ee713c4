//! `/status.json`.

mod command;
mod filters;
mod page;
mod states;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{self, Connection, get_with};
use crate::support::{Behaviour, Explorer, Fleet, Launch, Listing, PATIENCE, Router};
use crate::{launch, wait_available};

/// The body of a node's `/info` with these containers and their images.
fn info(containers: &[(&str, &str)]) -> Behaviour {
    let containers = containers.iter().map(|(id, image)| json!({"id": id, "image": image}));
    let containers: Vec<Value> = containers.collect();
    Behaviour::Body(
        json!({"containers": containers, "pending": {}})
            .to_string()
            .into_bytes(),
    )
}

fn report(router: &Router, query: &str) -> Value {
    let answer = router.get(&format!("/status.json{query}"));
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

/// The values of one field, node by node.
fn fields(report: &Value, name: &str) -> Vec<Value> {
    let nodes = report["nodes"].as_array().expect("an array");
    nodes.iter().map(|node| node[name].clone()).collect()
}

/// The row of one node of a fleet.
fn node(router: &Router, fleet: &Fleet, index: usize) -> Value {
    let report = report(router, &format!("?q={}", fleet.addr(index)));
    report["nodes"][0].clone()
}

/// Waits until a node of a fleet is in a state.
#[track_caller]
fn wait_state(router: &Router, fleet: &Fleet, index: usize, state: &str) {
    router.until(&format!("node {index} is {state}"), || {
        node(router, fleet, index)["state"] == state
    });
}

fn is_time(value: &Value) -> bool {
    let shape = |text: &str| {
        text.chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect::<String>()
    };
    value.as_str().is_some_and(|text| shape(text) == "0000-00-00T00:00:00Z")
}

fn quick() -> Launch {
    launch().set("REFRESH_INTERVAL", "0.2")
}

#[test]
fn node_shows_its_report_and_its_promises() {
    let fleet = Fleet::start(1);
    let body = br#"{"containers":[{"id":"b"},{"id":"a"}],"pending":{"offchain":3,"onchain":1}}"#;
    fleet.set(0, Behaviour::Body(body.to_vec()));
    let router = launch().ips(fleet.list()).start();
    wait_state(&router, &fleet, 0, "up");
    let known = node(&router, &fleet, 0);
    assert_eq!(known["address"], fleet.addr(0).to_string());
    assert_eq!(known["source"], "ips_file");
    assert_eq!(known["pending"], json!({"offchain": 3, "onchain": 1}));
    assert_eq!(known["containers"], json!(["a", "b"]));
    assert_eq!((&known["promises"], &known["reason"]), (&json!(0), &Value::Null));
    assert!(is_time(&known["since"]) && is_time(&known["probed"]), "{known}");
    assert!(
        known["latency"].as_f64().is_some_and(|millis| millis < 3_000.0),
        "{known}"
    );
    router.get("/api/v1/ips?container=a");
    assert_eq!(node(&router, &fleet, 0)["promises"], 1);
}

#[test]
fn report_has_version_settings_and_totals() {
    let fleet = Fleet::start(3);
    fleet.set(0, Behaviour::Status(500));
    let router = launch()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", 7)
        .set("PROMISES", "ON")
        .start();
    wait_available(&router, &fleet, [1, 2]);
    let report = report(&router, "");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(is_time(&report["started"]));
    assert_eq!(report["interval"], 7.0);
    let settings = report["settings"].as_object().expect("an object");
    assert_eq!(settings["REFRESH_INTERVAL"], "7");
    assert!(
        settings.contains_key("HOST") && !settings.contains_key("PROMISES"),
        "{settings:?}"
    );
    assert_eq!(report["doubt"], json!({"active": false, "since": null}));
    assert_eq!(report["explorer"], Value::Null);
    let totals = &report["totals"];
    let counts = ["nodes", "available", "up", "down", "new", "suspect"].map(|name| totals[name].as_u64());
    assert_eq!(counts, [3, 2, 2, 1, 0, 0].map(Some), "{totals}");
}

#[test]
fn invalid_parameter_returns_400() {
    let router = launch().start();
    for (query, error) in [
        (
            "state=bad",
            "state=\"bad\": expected new, up, suspect, down, limited or doubted",
        ),
        ("n=-1", "n=\"-1\": expected a whole number"),
        ("state=up&state=up", "state=\"up\": expected at most once"),
        ("q=%ff", "q=%ff: expected UTF-8"),
    ] {
        for path in ["/status.json", "/status"] {
            let answer = router.get(&format!("{path}?{query}"));
            assert_eq!(answer.status, 400, "{query}");
            let error_text = answer.json()["error"].as_str().map(str::to_owned);
            let is_expected = error_text.as_ref().is_some_and(|text| text.starts_with(error));
            assert!(is_expected, "{error_text:?}");
        }
    }
}

#[test]
fn status_is_hidden_outside_metrics_from() {
    let router = launch().set("METRICS_FROM", "192.0.2.1").start();
    for path in ["/status", "/status.json"] {
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            let untrusted = Connection::from([127, 0, 0, 2].into(), router.addr());
            assert_eq!(untrusted.close_with(method, path, &[]).status, 404, "{method} {path}");
        }
    }
    // A trusted proxy names a client elsewhere; an untrusted proxy names any client.
    for (trusted, client) in [("127.0.0.1", "203.0.113.9"), ("192.0.2.1", "127.0.0.1")] {
        let router = launch().set("TRUSTED_PROXIES", trusted).start();
        for path in ["/status", "/status.json"] {
            let forwarded = get_with(router.addr(), path, &[("X-Forwarded-For", client)]);
            assert_eq!(forwarded.status, 404, "{trusted} {path}");
        }
    }
}

#[test]
fn status_has_common_headers_and_no_limit() {
    let router = launch().set("RATELIMIT_REQS_PER_MIN", 1).start();
    for (path, kind) in [
        ("/status", "text/html; charset=utf-8"),
        ("/status.json", "application/json"),
    ] {
        for _ in 0..5 {
            let answer = router.get(path);
            assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(kind)));
            assert_eq!(answer.header("Cache-Control"), Some("no-store"));
            assert_eq!(answer.header("RateLimit-Limit"), None);
        }
        let head = http::call(router.addr(), "HEAD", path);
        assert_eq!((head.status, head.text()), (200, ""));
        let options = http::call(router.addr(), "OPTIONS", path);
        assert_eq!(
            (options.status, options.header("Allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
        assert_eq!(http::call(router.addr(), "POST", path).status, 405);
    }
    let counted = router.get("/metrics");
    let line = "infernet_router_requests_total{endpoint=\"/status.json\",status=\"200\"} 6";
    assert!(counted.text().contains(line), "{}", counted.text());
}

#[test]
fn list_file_shows_invalid_lines_and_problem() {
    let router = launch()
        .ips("127.0.0.1:1\n\nuser@host\n# fine\n127.0.0.1:1:2\n")
        .start();
    let file = report(&router, "")["ips_file"].clone();
    assert_eq!((&file["path"], &file["nodes"]), (&json!("ips.txt"), &json!(1)));
    assert_eq!((&file["trouble"], &file["skipped_count"]), (&Value::Null, &json!(2)));
    assert!(is_time(&file["read_at"]));
    let lines: Vec<_> = file["skipped"].as_array().expect("an array").iter().collect();
    assert_eq!(
        (&lines[0]["number"], &lines[0]["text"]),
        (&json!(3), &json!("user@host"))
    );
    assert_eq!(
        (&lines[1]["number"], &lines[1]["text"]),
        (&json!(5), &json!("127.0.0.1:1:2"))
    );
    assert!(
        lines
            .iter()
            .all(|line| line["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
    );

    std::fs::remove_file(router.directory().join("ips.txt")).expect("the file exists");
    router.until("the problem is reported", || {
        report(&router, "")["ips_file"]["trouble"] == "no such file"
    });
    let file = report(&router, "")["ips_file"].clone();
    assert!(
        is_time(&file["read_at"]) && file["nodes"] == 1,
        "the last list stays in effect: {file}"
    );
    router.write_ips("127.0.0.1:1\n127.0.0.1:2\n");
    router.until("the list is read", || report(&router, "")["ips_file"]["nodes"] == 2);
    assert_eq!(report(&router, "")["ips_file"]["trouble"], Value::Null);
}

#[test]
fn explorer_shows_last_success_and_problem() {
    let fleet = Fleet::start(2);
    let body =
        json!({"data": [{"ip": fleet.addr(0).ip(), "port": fleet.port()}, {"ip": "x"}, {"ip": "169.254.169.254"}]});
    let explorer = Explorer::start(Listing::Body(body.to_string()));
    let router = launch()
        .set("REFRESH_INTERVAL", 1)
        .set("API_URL", explorer.url())
        .start();
    router.until("the list is accepted", || report(&router, "")["explorer"]["nodes"] == 1);
    let report_now = report(&router, "");
    let named = &report_now["explorer"];
    assert_eq!(
        (&named["url"], &named["skipped"], &named["trouble"]),
        (&json!(explorer.url()), &json!(2), &Value::Null)
    );
    assert!(is_time(&named["last_success"]));
    assert_eq!(fields(&report_now, "source"), ["explorer"]);
    explorer.set(Listing::Status(502, "{}".to_owned()));
    router.until("the problem is reported", || {
        report(&router, "")["explorer"]["trouble"] == "status 502"
    });
    let named = report(&router, "")["explorer"].clone();
    assert!(
        is_time(&named["last_success"]) && named["nodes"] == 1,
        "the last list stays in effect: {named}"
    );
}

#[test]
fn image_conflict_is_reported_once_everywhere() {
    let fleet = Fleet::start(3);
    fleet.set_range(0..2, info(&[("hello", "one:1"), ("other", "o")]));
    fleet.set(2, info(&[("hello", "two:2"), ("other", "o")]));
    let router = quick().ips(fleet.list()).start();
    router.until("the conflict is reported", || {
        report(&router, "")["totals"]["conflicting_containers"] == 1
    });
    let images = json!([{"image": "one:1", "nodes": 2}, {"image": "two:2", "nodes": 1}]);
    router.until("all nodes are counted", || {
        let mut counted = report(&router, "")["conflicting_containers"][0]["images"].clone();
        counted
            .as_array_mut()
            .expect("an array")
            .sort_by_key(|image| image["image"].to_string());
        counted == images
    });
    assert_eq!(report(&router, "")["conflicting_containers"][0]["id"], "hello");
    let metric = |count: u32| format!("\ninfernet_router_conflicting_containers {count}\n");
    assert!(router.get("/metrics").text().contains(&metric(1)));
    fleet.wait_asked(2, fleet.asked(2) + 3, PATIENCE);
    fleet.set(2, info(&[("hello", "one:1"), ("other", "o")]));
    router.wait_line("image conflict ended:…container=hello", PATIENCE);
    let lines = router.log();
    let began = lines
        .iter()
        .filter(|line| line.contains("image conflict:") && line.contains("container=hello"))
        .count();
    assert_eq!(began, 1, "{lines:#?}");
    assert!(router.get("/metrics").text().contains(&metric(0)));
    assert_eq!(report(&router, "")["conflicting_containers"], json!([]));
}

#[test]
fn image_conflicts_do_not_suppress_the_line_about_the_pool() {
    let fleet = Fleet::start(12);
    let ids: Vec<String> = (0..30).map(|id| format!("c{id}")).collect();
    for (node, image) in ["one", "two"].into_iter().enumerate() {
        let containers: Vec<_> = ids.iter().map(|id| (id.as_str(), image)).collect();
        fleet.set(node, info(&containers));
    }
    let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1);
    let router = launch.set("MAX_PROBES", 1).start();
    router.until("as many conflicts are logged as one burst allows", || {
        router.count_lines("image conflict:") == 20
    });
    router.until("the pool is large enough", || {
        router
            .get("/metrics")
            .text()
            .contains("\ninfernet_router_probe_pool_too_small 0\n")
    });
    let mark = router.log_len();
    fleet.set_all(Behaviour::Slow(Duration::from_millis(200)));
    router.wait_line_after(mark, "pool too small:", PATIENCE);
}

#[test]
fn lost_node_ends_image_conflict() {
    let fleet = Fleet::start(2);
    fleet.set(0, info(&[("hello", "one")]));
    fleet.set(1, info(&[("hello", "two")]));
    let router = quick().ips(fleet.list()).start();
    router.until("the conflict is reported", || {
        report(&router, "")["totals"]["conflicting_containers"] == 1
    });
    fleet.set(1, Behaviour::Status(500));
    router.until("the conflict has ended", || {
        report(&router, "")["totals"]["conflicting_containers"] == 0
    });
    fleet.set(1, info(&[("hello", "two")]));
    router.until("the conflict is back", || {
        report(&router, "")["totals"]["conflicting_containers"] == 1
    });
    router.write_ips(fleet.list_of(0..1));
    router.until("the conflict has ended again", || {
        report(&router, "")["totals"]["conflicting_containers"] == 0
    });
}
