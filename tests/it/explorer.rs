//! The Node Explorer: accepted entries, refused entries, and failures.

use serde_json::json;

use super::support::{Behaviour, Explorer, Fleet, Listing, PATIENCE, Router, Signal};
use super::{addresses, available, launch, wait_available};

fn nodes(fleet: &Fleet, nodes: std::ops::Range<usize>) -> Listing {
    Listing::Nodes(nodes.map(|node| fleet.addr(node)).collect())
}

#[test]
fn explorer_nodes_appear_and_disappear() {
    let fleet = Fleet::start(3);
    let explorer = Explorer::start(nodes(&fleet, 0..2));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    assert_eq!(available(&router), addresses(&fleet, 0..2), "in the first answer");
    assert_eq!(explorer.last_target(), "/api/nodes?minutes_past=60");
    explorer.set(nodes(&fleet, 1..3));
    wait_available(&router, &fleet, 1..3);
}

#[test]
fn tenth_empty_list_in_a_row_is_accepted() {
    let fleet = Fleet::start(2);
    let explorer = Explorer::start(nodes(&fleet, 0..2));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    let both = addresses(&fleet, 0..2);
    assert_eq!(available(&router), both);
    let line =
        "reason=\"lists 0 nodes, 2 of 2 are missing; accepted at the tenth such list in a row or after one hour\"";
    // Two different sequences of failures: each begins with a warning.
    for (warnings, odd) in [(1, r#"{"data":[]}"#), (2, r#"{"data":[{"ip":"169.254.169.254"},7]}"#)] {
        explorer.set(Listing::Body(odd.into()));
        explorer.wait_asked(explorer.asked() + 4, PATIENCE);
        assert_eq!(router.count_lines(line), warnings);
        assert_eq!(available(&router), both);
        let mark = router.log_len();
        explorer.set(nodes(&fleet, 0..2));
        router.wait_line_after(mark, "explorer recovered: list accepted", PATIENCE);
    }
    explorer.set(Listing::Nodes(Vec::new()));
    let asked = explorer.asked();
    router.wait_line("nodes=0 skipped=0", PATIENCE);
    // One poll may have been in progress.
    assert!(
        (10..=12).contains(&(explorer.asked() - asked)),
        "{asked}, {}",
        explorer.asked()
    );
    wait_available(&router, &fleet, []);
    assert_eq!(router.count_lines(line), 3);
}

#[test]
fn api_url_may_have_path_and_name() {
    let fleet = Fleet::start(1);
    let explorer = Explorer::start(nodes(&fleet, 0..1));
    let url = format!("http://LocalHost:{}/v1//", explorer.addr().port());
    let router = launch().set("API_URL", url).start();
    wait_available(&router, &fleet, [0]);
    assert_eq!(explorer.last_target(), "/v1/api/nodes?minutes_past=60");
}

#[test]
fn entries_without_address_and_port_are_counted() {
    let fleet = Fleet::start(3);
    let ip = |node: usize| fleet.addr(node).ip().to_string();
    let port = fleet.port();
    let data = json!({"next": null, "data": [
        {"ip": ip(0), "port": port, "location": {"city": "…"}},
        {"ip": ip(1), "port": port.to_string()},
        {"port": port, "ip": format!("::ffff:{}", ip(2))},
        {"ip": ip(0), "port": port},
        {"ip": "127.9.9.9"},
        {"ip": "node.example", "port": port},
        {"ip": ip(0), "port": 0},
        {"ip": ip(0), "port": "http"},
        {"port": port},
        {"ip": null, "port": port},
        null,
        7,
        "127.0.0.1:4000",
        "odd",
    ]});
    // Half a surrogate pair, and a number that overflows a float.
    let odd = format!(r#"{{"ip":"\ud800","port":{port}}},{{"ip":"{}","port":1e400}}"#, ip(0));
    let explorer = Explorer::start(Listing::Body(data.to_string().replace(r#""odd""#, &odd)));
    let router = launch().set("API_URL", explorer.url()).start();
    wait_available(&router, &fleet, 0..3);
    // A server may listen there.
    router.wait_line("node down:…node=\"127.9.9.9:4000\"", PATIENCE);
    router.wait_line("nodes=4 skipped=10 refused=0", PATIENCE);
}

#[test]
fn entries_with_internal_addresses_are_refused() {
    let fleet = Fleet::start(1);
    let node = json!({"ip": fleet.addr(0).ip().to_string(), "port": fleet.port()});
    let refused = [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "::",
    ];
    let mut data: Vec<_> = refused.iter().map(|ip| json!({"ip": ip, "port": 80})).collect();
    data.push(node);
    let explorer = Explorer::start(Listing::Body(json!({ "data": data }).to_string()));
    let router = launch().set("API_URL", explorer.url()).start();
    wait_available(&router, &fleet, [0]);
    // The mapped form is the same address as the plain form.
    let line = format!("nodes=1 skipped=0 refused={}", refused.len() - 1);
    router.wait_line(&line, PATIENCE);
    assert_eq!(
        router.count_lines("node=\""),
        1,
        "no other node is probed: {:?}",
        router.log()
    );
}

#[test]
fn one_address_has_at_most_64_ports() {
    let data: Vec<_> = (1..=65).map(|port| json!({"ip": "127.9.9.9", "port": port})).collect();
    let explorer = Explorer::start(Listing::Body(json!({ "data": data }).to_string()));
    let router = launch().set("API_URL", explorer.url()).start();
    router.wait_line("nodes=64 skipped=0 refused=1", PATIENCE);
}

#[test]
fn node_is_kept_while_either_list_names_it() {
    let fleet = Fleet::start(2);
    let listed = format!("http://{}", fleet.addr(0));
    let explorer = Explorer::start(nodes(&fleet, 0..2));
    let router = launch()
        .ips(&listed)
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    let plain = addresses(&fleet, 0..2);
    assert_eq!(available(&router), [plain[1].clone(), listed.clone()]);
    explorer.set(nodes(&fleet, 1..2));
    explorer.wait_asked(explorer.asked() + 2, PATIENCE);
    assert_eq!(available(&router), [plain[1].clone(), listed]);
    explorer.set(nodes(&fleet, 0..2));
    explorer.wait_asked(explorer.asked() + 2, PATIENCE);
    router.write_ips("# empty\n");
    router.until("the Explorer's spelling applies", || available(&router) == plain);
    assert_eq!(router.count_lines("node removed:"), 0, "{:?}", router.log());
    assert_eq!(router.count_lines("node up:"), 2);
}

#[test]
fn explorer_node_may_not_redirect() {
    let fleet = Fleet::start(2);
    fleet.set(0, Behaviour::Redirect(format!("http://{}/info", fleet.addr(1))));
    let explorer = Explorer::start(nodes(&fleet, 0..1));
    let router = launch().set("API_URL", explorer.url()).start();
    router.wait_line(&format!("node down:…node=\"{}\"…status 302", fleet.addr(0)), PATIENCE);
    assert_eq!(fleet.asked(1), 0);
    assert_eq!(available(&router), [""; 0]);
}

fn fails_with(router: &Router, fleet: &Fleet, explorer: &Explorer, listing: Listing, reason: &str) {
    let mark = router.log_len();
    explorer.set(listing);
    let reason = format!("{reason:?}");
    let line = format!(
        "explorer failed: last good list stays in effect, url=\"{}\" reason={}",
        explorer.url(),
        reason.trim_end_matches('"')
    );
    let logged = router.wait_line_after(mark, &line, PATIENCE);
    assert!(logged.ends_with("nodes=2"), "{logged}");
    assert_eq!(available(router), addresses(fleet, 0..2), "{reason}");
}

#[test]
fn failed_poll_keeps_the_last_good_list() {
    let fleet = Fleet::start(2);
    let explorer = Explorer::start(nodes(&fleet, 0..2));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    let other = Explorer::start(Listing::Nodes(Vec::new()));
    let fails = |listing, reason: &str| fails_with(&router, &fleet, &explorer, listing, reason);
    fails(Listing::Refuse, "connection refused");
    fails(Listing::Reset, "connection reset");
    fails(Listing::Status(500, r#"{"data":[]}"#.into()), "status 500");
    fails(Listing::Html, "not JSON but a page for a browser");
    let elsewhere = format!("{}/api/nodes?minutes_past=60", other.url());
    let told = format!("status 302: redirect to \"{elsewhere}\"");
    fails(Listing::Redirect(elsewhere), &told);
    fails(Listing::Endless, "response body above 16777216 bytes");
    assert_eq!(other.asked(), 0);
    explorer.set(nodes(&fleet, 0..1));
    wait_available(&router, &fleet, [0]);
    router.wait_line("explorer recovered: list accepted", PATIENCE);
    assert_eq!(router.count_lines("explorer loaded"), 1);
}

#[test]
fn list_of_wrong_shape_is_reported_once() {
    let fleet = Fleet::start(2);
    let explorer = Explorer::start(nodes(&fleet, 0..2));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    let fails = |body: &str, reason| fails_with(&router, &fleet, &explorer, Listing::Body(body.into()), reason);
    fails(r#"{"data":null}"#, "expected `data` to be a list, found null");
    fails(r#"{"nodes":[]}"#, "missing field `data`");
    fails("[]", "expected an object with `data`, found []");
    fails(r#"{"data":[]"#, "not JSON: EOF while parsing");
    explorer.wait_asked(explorer.asked() + 2, PATIENCE);
    assert_eq!(router.count_lines("EOF while parsing"), 1);
}

#[test]
fn hanging_explorer_delays_neither_startup_nor_probes() {
    let fleet = Fleet::start(2);
    let explorer = Explorer::start(Listing::Hang);
    let router = launch()
        .ips(fleet.list_of(0..1))
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", "0.2")
        .start();
    assert_eq!(available(&router), addresses(&fleet, [0]), "it serves all the same");
    let line = "reason=\"timeout: no complete response";
    let before = fleet.asked(0);
    router.wait_line(line, PATIENCE);
    // The remaining seven seconds have 35 rounds. Two would be a delay.
    assert!(fleet.asked(0) > before + 2, "{before}, {}", fleet.asked(0));
    explorer.set(nodes(&fleet, 1..2));
    wait_available(&router, &fleet, 0..2);
    explorer.set(Listing::Drip);
    fleet.wait_asked(0, fleet.asked(0) + 10, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, 0..2));
}

#[test]
fn list_without_half_its_nodes_is_deferred() {
    let fleet = Fleet::start(6);
    let explorer = Explorer::start(nodes(&fleet, 0..6));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    let is_ok = |value: u8| {
        let line = format!("\ninfernet_router_explorer_ok {value}\n");
        router.get("/metrics").text().contains(&line)
    };
    assert_eq!(available(&router), addresses(&fleet, 0..6));
    assert!(is_ok(1));
    let line =
        "reason=\"lists 3 nodes, 3 of 6 are missing; accepted at the tenth such list in a row or after one hour\"";
    explorer.set(nodes(&fleet, 0..3));
    router.wait_line(line, PATIENCE);
    // A second Explorer at the same URL lists other nodes: no node appears or disappears.
    router.signal(Signal::HUP);
    explorer.wait_asked(explorer.asked() + 2, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, 0..6));
    assert!(is_ok(0));
    assert_eq!(router.count_lines(line), 1, "{:?}", router.log());
    explorer.set(nodes(&fleet, 2..6));
    wait_available(&router, &fleet, 2..6);
    explorer.set(nodes(&fleet, 0..1));
    router.wait_line("lists 1 nodes, 4 of 4 are missing", PATIENCE);
    wait_available(&router, &fleet, [0]);
}

#[test]
fn explorer_node_at_listed_name_is_that_node() {
    let fleet = Fleet::on_localhost();
    let explorer = Explorer::start(nodes(&fleet, 0..1));
    let name = format!("localhost:{}", fleet.port());
    let router = launch()
        .ips(format!("{name}\n"))
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    router.until("the name is resolved", || available(&router) == [name.clone()]);
    explorer.wait_asked(explorer.asked() + 2, PATIENCE);
    assert_eq!(available(&router), [name]);
}

#[test]
fn list_may_begin_with_a_byte_order_mark() {
    let fleet = Fleet::start(1);
    let body = json!({"data": [{"ip": fleet.addr(0).ip(), "port": fleet.port()}]});
    let explorer = Explorer::start(Listing::Body(format!("\u{feff}{body}")));
    let router = launch().set("API_URL", explorer.url()).start();
    wait_available(&router, &fleet, [0]);
}

#[test]
fn api_url_credentials_are_sent_and_never_shown() {
    let fleet = Fleet::start(1);
    let url = format!("http://user:p%40ss%3Aword@{}/", fleet.addr(0));
    let router = launch().set("API_URL", url).set("RUST_LOG", "trace").start();
    router.wait_line("serving: accepting requests", PATIENCE);
    fleet.wait_asked(0, 1, PATIENCE);
    let head = fleet.last_head();
    assert!(head.starts_with("GET /api/nodes?minutes_past=60 "), "{head}");
    assert!(head.contains("authorization: Basic dXNlcjpwQHNzOndvcmQ=\r\n"), "{head}");
    router.wait_line("explorer failed", PATIENCE);
    let log = router.log().join("\n");
    for secret in ["p%40ss", "p@ss", "dXNlcjpwQHNz"] {
        assert!(!log.contains(secret), "{log}");
    }
}
