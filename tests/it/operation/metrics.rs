//! `/metrics`.

use std::fs;

use openmetrics_parser::prometheus::parse_prometheus;

use super::{launch, serving};
use crate::support::http::{self, Connection};
use crate::support::{Behaviour, Explorer, Fleet, Launch, Listing, PATIENCE, Router};

/// All samples of a router, checked by a parser.
fn metrics(router: &Router) -> String {
    let answer = router.get("/metrics");
    assert_eq!(
        answer.header("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text().to_owned();
    if let Err(error) = parse_prometheus(&text) {
        panic!("not Prometheus text: {error}\n{text}");
    }
    text
}

/// The value of one sample, such as `process_threads`; `None` if it is missing.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    let found = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(found)
}

/// The value of one of the router's samples. Panics if it is missing.
#[track_caller]
fn own(metrics: &str, sample: &str) -> f64 {
    let name = format!("infernet_router_{sample}");
    value(metrics, &name).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

fn requests(metrics: &str, endpoint: &str, status: u16) -> f64 {
    own(
        metrics,
        &format!("requests_total{{endpoint=\"{endpoint}\",status=\"{status}\"}}"),
    )
}

fn probes(metrics: &str, outcome: &str) -> f64 {
    own(metrics, &format!("probes_total{{outcome=\"{outcome}\"}}"))
}

fn nodes(metrics: &str, source: &str, state: &str) -> f64 {
    own(metrics, &format!("nodes{{source=\"{source}\",state=\"{state}\"}}"))
}

/// A router that probes its nodes once during a test.
fn calm() -> Launch {
    launch().set("REFRESH_INTERVAL", 86_400)
}

#[test]
fn parser_rejects_invalid_prometheus_text() {
    for wrong in [
        "# TYPE a counter\na{b=c} 1\n",
        "# TYPE a counter\na one\n",
        "# TYPE a counter\n# TYPE a gauge\na 1\n",
    ] {
        assert!(parse_prometheus(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn nodes_and_probes_are_counted_by_label() {
    let fleet = Fleet::start(5);
    fleet.set(2, Behaviour::Status(500));
    fleet.set(3, Behaviour::Status(429));
    let explorer = Explorer::start(Listing::Nodes(vec![fleet.addr(4), fleet.addr(0)]));
    let router = serving(calm().ips(fleet.list_of(0..4)).set("API_URL", explorer.url()));
    // The failed node is probed once more.
    router.until("all probes have finished", || {
        probes(&metrics(&router), "failed") == 2.0
    });
    let text = metrics(&router);
    assert_eq!(
        (nodes(&text, "ips_file", "up"), nodes(&text, "ips_file", "down")),
        (2.0, 2.0)
    );
    assert_eq!(
        (nodes(&text, "explorer", "up"), nodes(&text, "explorer", "down")),
        (1.0, 0.0)
    );
    assert_eq!((probes(&text, "up"), probes(&text, "ours")), (3.0, 0.0));
    assert!(probes(&text, "limited") >= 1.0);
    let all: f64 = ["up", "limited", "failed", "ours"]
        .iter()
        .map(|outcome| probes(&text, outcome))
        .sum();
    assert_eq!(own(&text, "probe_duration_seconds_count"), all);
    assert!(own(&text, "probe_duration_seconds_sum") > 0.0);
    assert_eq!(own(&text, "probe_pool_too_small"), 0.0);
}

#[test]
fn explorer_timestamp_appears_after_first_list() {
    let explorer = Explorer::start(Listing::Html);
    let router = serving(launch().set("API_URL", explorer.url()).set("REFRESH_INTERVAL", 1));
    let polled = |outcome: &str| format!("explorer_requests_total{{outcome=\"{outcome}\"}}");
    router.until("a poll has failed", || own(&metrics(&router), &polled("failed")) >= 1.0);
    assert_eq!(
        value(
            &metrics(&router),
            "infernet_router_explorer_last_success_timestamp_seconds"
        ),
        None
    );
    explorer.set(Listing::Nodes(Vec::new()));
    router.until("a poll has succeeded", || own(&metrics(&router), &polled("ok")) >= 1.0);
    assert!(own(&metrics(&router), "explorer_last_success_timestamp_seconds") > 1_700_000_000.0);
}

#[test]
fn list_reads_are_counted_by_outcome() {
    let fleet = Fleet::start(2);
    let router = serving(calm().ips(fleet.list_of(0..1)));
    let read = |outcome: &str| own(&metrics(&router), &format!("file_reads_total{{outcome=\"{outcome}\"}}"));
    let at_first = read("ok");
    router.write_ips(fleet.list());
    router.until("the list is read again", || read("ok") == at_first + 1.0);
    router.until("both nodes are up", || {
        nodes(&metrics(&router), "ips_file", "up") == 2.0
    });
    assert_eq!(read("failed"), 0.0);
    fs::remove_file(router.directory().join("ips.txt")).expect("the test owns the directory");
    router.until("the list is unreadable", || read("failed") == 1.0);
    assert_eq!(nodes(&metrics(&router), "ips_file", "up"), 2.0);
}

#[test]
fn requests_are_counted_by_endpoint_and_status() {
    let router = serving(launch());
    let ips = "/api/v1/ips";
    router.get("/api/v1/ips?container=a");
    router.get("/api/v1/ips?container=b&offset=1");
    router.get(ips);
    router.get("/api/v1/containers");
    router.get("/health");
    router.get("/nothing/203.0.113.9");
    http::call(router.addr(), "DELETE", ips);
    http::call(router.addr(), "OPTIONS", ips);
    let text = metrics(&router);
    let counts = [200, 400, 405, 204].map(|status| requests(&text, ips, status));
    assert_eq!(counts, [2.0, 1.0, 1.0, 1.0]);
    assert_eq!(requests(&text, "/api/v1/containers", 200), 1.0);
    assert_eq!(requests(&text, "/health", 200), 1.0);
    assert_eq!(requests(&text, "other", 404), 1.0);
    assert!(own(&text, "request_duration_seconds_count") >= 8.0);
    assert!(own(&text, "connections_total") >= 8.0);
    assert!(own(&text, "open_connections") >= 1.0);
}

#[test]
fn refused_requests_are_counted_by_reason() {
    let router = serving(launch());
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(9000));
    for (head, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", "malformed"),
        (long.as_str(), "head_too_long"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "body"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "http_version"),
    ] {
        let sample = format!("refused_total{{reason=\"{reason}\"}}");
        assert_eq!(own(&metrics(&router), &sample), 0.0, "{reason}");
        let mut connection = Connection::open(router.addr());
        connection.send(head);
        connection.receive();
        assert_eq!(own(&metrics(&router), &sample), 1.0, "{reason}");
    }
}

#[test]
fn connection_above_share_is_counted() {
    let router = serving(launch().set("MAX_CONNECTIONS", 16));
    let held: Vec<Connection> = (0..4).map(|_| Connection::open(router.addr())).collect();
    let over = Connection::open(router.addr()).receive_all();
    assert_eq!(over[0].status, 503);
    drop(held);
    let share = "refused_total{reason=\"client_share\"}";
    let from_another = || http::get_from([127, 0, 0, 9].into(), router.addr(), "/metrics");
    assert_eq!(own(from_another().text(), share), 1.0);
}

#[test]
fn limiter_decisions_and_clients_are_counted() {
    let router = serving(launch().set("RATELIMIT_REQS_PER_MIN", 2));
    for status in [200, 200, 429] {
        assert_eq!(router.get("/api/v1/containers").status, status);
    }
    http::get_from([127, 0, 0, 9].into(), router.addr(), "/api/v1/containers");
    let text = metrics(&router);
    let decided = |decision| {
        own(
            &text,
            &format!("limiter_decisions_total{{endpoint=\"/api/v1/containers\",decision=\"{decision}\"}}"),
        )
    };
    assert_eq!((decided("granted"), decided("refused")), (3.0, 1.0));
    assert_eq!(own(&text, "limiter_clients{endpoint=\"/api/v1/containers\"}"), 2.0);
    assert_eq!(own(&text, "limiter_clients{endpoint=\"/api/v1/ips\"}"), 0.0);
    assert_eq!(requests(&text, "/api/v1/containers", 429), 1.0);
}

#[test]
fn empty_answers_and_pending_jobs_are_counted() {
    let fleet = Fleet::start(3);
    fleet.set(0, Behaviour::up(5, &["hello-world"]));
    fleet.set(1, Behaviour::up(7, &["hello-world"]));
    fleet.set(
        2,
        Behaviour::Body(br#"{"containers":[],"pending":{"a":18446744073709551615}}"#.into()),
    );
    let router = serving(calm().ips(fleet.list()));
    router.get("/api/v1/ips?container=hello-world");
    assert_eq!(own(&metrics(&router), "empty_answers_total"), 0.0);
    router.get("/api/v1/ips?container=nowhere");
    // None of these leaves a client without a node.
    router.get("/api/v1/ips?container=hello-world&offset=9");
    router.get("/api/v1/ips?container=nowhere&offset=1");
    router.get("/api/v1/ips?container=nowhere&n=0");
    http::call(router.addr(), "HEAD", "/api/v1/ips?container=nowhere");
    router.get("/api/v1/ips");
    let text = metrics(&router);
    assert_eq!(own(&text, "empty_answers_total"), 1.0);
    assert_eq!(
        own(&text, "pending_jobs"),
        1_000_012.0,
        "one node adds at most a million"
    );
    assert_eq!(own(&text, "conflicting_containers"), 0.0);
    assert_eq!(own(&text, "log_lines_dropped_total"), 0.0);
}

#[test]
fn promises_are_counted() {
    let fleet = Fleet::start(2);
    let router = serving(calm().ips(fleet.list()));
    let target = "/api/v1/ips?container=hello-world";
    router.get(target);
    router.get(target);
    http::call(router.addr(), "HEAD", target);
    router.get("/api/v1/ips?container=hello-world&n=0");
    router.get("/api/v1/ips?container=hello-world&offset=1");
    router.get("/api/v1/ips?container=nowhere");
    assert_eq!(own(&metrics(&router), "promises_total"), 2.0);
}

#[test]
fn process_and_build_metrics_exist() {
    let router = serving(launch());
    let text = metrics(&router);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(own(&text, &format!("build_info{{version=\"{version}\"}}")), 1.0);
    for (name, least) in [
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_threads", 3.0),
        ("process_open_fds", 3.0),
        ("process_max_fds", 16.0),
        ("process_cpu_seconds_total", 0.0),
        ("process_start_time_seconds", 1_000_000_000.0),
    ] {
        assert!(
            value(&text, name).is_some_and(|value| value >= least),
            "{name} in\n{text}"
        );
    }
}

#[test]
fn no_label_has_an_address() {
    let fleet = Fleet::start(2);
    fleet.set(1, Behaviour::Status(500));
    let explorer = Explorer::start(Listing::Nodes(vec![fleet.addr(1)]));
    let proxied = launch()
        .set("TRUSTED_PROXIES", "127.0.0.1")
        .set("RATELIMIT_REQS_PER_MIN", 2);
    let router = serving(proxied.ips(fleet.list_of(0..1)).set("API_URL", explorer.url()));
    for _ in 0..3 {
        let forwarded = [("X-Forwarded-For", "203.0.113.77")];
        http::get_with(router.addr(), "/api/v1/ips?container=hello-world", &forwarded);
        http::get_with(router.addr(), "/api/v1/203.0.113.77", &forwarded);
    }
    let text = metrics(&router);
    for address in ["127.", "203.0.113", &explorer.addr().port().to_string()] {
        let labels = text.lines().filter_map(|line| line.split_once('{')?.1.split_once('}'));
        assert!(
            !labels.into_iter().any(|(labels, _)| labels.contains(address)),
            "{address}"
        );
    }
}

#[test]
fn clients_outside_metrics_from_get_404() {
    let router = serving(launch().set("METRICS_FROM", "127.0.0.9,127.0.1.0/24"));
    let nowhere = router.get("/nowhere");
    for (source, status) in [
        // The bind address, from which the command `status` connects.
        ([127, 0, 0, 1], 200),
        ([127, 0, 0, 8], 404),
        ([127, 0, 0, 9], 200),
        ([127, 0, 1, 200], 200),
        ([127, 0, 2, 0], 404),
    ] {
        let answer = http::get_from(source.into(), router.addr(), "/metrics");
        assert_eq!(answer.status, status, "{source:?}");
        assert!(status == 200 || answer.body == nowhere.body);
    }
    for method in ["HEAD", "OPTIONS", "POST"] {
        let untrusted = Connection::from([127, 0, 0, 8].into(), router.addr());
        assert_eq!(untrusted.close_with(method, "/metrics", &[]).status, 404, "{method}");
    }
}

#[test]
fn client_address_decides_through_trusted_proxy() {
    let launch = launch()
        .set("TRUSTED_PROXIES", "127.0.0.3")
        .set("METRICS_FROM", "192.0.2.7");
    let router = serving(launch);
    let forwarded = |source: [u8; 4], chain: &str| {
        let connection = Connection::from(source.into(), router.addr());
        connection
            .close_with("GET", "/metrics", &[("X-Forwarded-For", chain)])
            .status
    };
    let (proxy, untrusted) = ([127, 0, 0, 3], [127, 0, 0, 2]);
    assert_eq!(forwarded(proxy, "192.0.2.7"), 200);
    assert_eq!(
        forwarded(proxy, "192.0.2.7, 203.0.113.1"),
        404,
        "what the client itself claims"
    );
    assert_eq!(forwarded(untrusted, "192.0.2.7"), 404, "a forged header");
    let own = http::get_from(proxy.into(), router.addr(), "/metrics");
    assert_eq!(own.status, 404, "the proxy itself");
}

#[test]
fn start_line_names_readers_of_metrics() {
    for (value, blocks) in [
        ("", "127.0.0.0/8,::1/128"),
        ("192.0.2.1,loopback", "192.0.2.1/32,127.0.0.0/8,::1/128"),
    ] {
        let router = serving(launch().set("METRICS_FROM", value));
        let line = router.wait_line("metrics readers: ", PATIENCE);
        assert!(line.ends_with(&format!("from=\"{blocks}\"")), "{line}");
    }
}

#[test]
fn private_clients_read_metrics_only_if_set() {
    let proxied = |metrics_from: &str| {
        let launch = launch().set("TRUSTED_PROXIES", "127.0.0.1");
        serving(launch.set("METRICS_FROM", metrics_from))
    };
    let status = |router: &Router, client: &str| {
        http::get_with(router.addr(), "/metrics", &[("X-Forwarded-For", client)]).status
    };
    let unset = proxied("");
    assert_eq!(status(&unset, "127.0.0.9"), 200);
    for public in ["203.0.113.9", "169.254.1.1", "2001:db8::1"] {
        assert_eq!(status(&unset, public), 404, "{public}");
    }
    assert_eq!(unset.count_lines("metrics refused: "), 0);
    for _ in 0..3 {
        assert_eq!(status(&unset, "10.1.2.3"), 404);
        assert_eq!(status(&unset, "fd00::1"), 404);
    }
    unset.wait_line("metrics refused: ", PATIENCE);
    assert_eq!(unset.count_lines("metrics refused: "), 1, "one line per hour");
    let set = proxied("loopback");
    assert_eq!(status(&set, "10.1.2.3"), 404);
    let private = proxied("private");
    for (client, expected) in [("10.1.2.3", 200), ("fd00::1", 200), ("::1", 200), ("203.0.113.9", 404)] {
        assert_eq!(status(&private, client), expected, "{client}");
    }
    for router in [set, private] {
        assert_eq!(router.count_lines("metrics refused: "), 0);
    }
}

#[test]
fn trusted_proxy_without_client_is_refused() {
    let router = serving(launch().set("TRUSTED_PROXIES", "127.0.0.1"));
    for target in ["/metrics", "/status", "/status.json"] {
        for (name, value, status) in [
            ("X-Forwarded-For", "unknown", 404),
            ("X-Forwarded-For", "", 404),
            ("X-Forwarded-For", "unknown, 127.0.0.1", 404),
            ("Forwarded", "for=203.0.113.9", 404),
            ("Via", "1.1 proxy", 404),
            ("X-Real-IP", "203.0.113.9", 404),
            ("X-Forwarded-For", "127.0.0.1", 200),
            ("X-Forwarded-For", "127.0.0.2", 200),
            ("X-Other", "", 200),
        ] {
            let answer = http::get_with(router.addr(), target, &[(name, value)]);
            assert_eq!(answer.status, status, "{target}, {name}: {value}");
        }
    }
    assert_eq!(router.count_lines("TRUSTED_PROXIES"), 0);
}
