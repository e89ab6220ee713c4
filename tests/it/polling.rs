//! Polling of nodes that respond, misreport, drip, hang and fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::support::{Behaviour, Connection, Explorer, Fleet, Listing, PATIENCE, Router};
use super::{addresses, available, launch, line, wait_available};

#[test]
fn probes_in_flight_stay_below_max_probes() {
    let fleet = Fleet::start(60);
    fleet.set_all(Behaviour::Slow(Duration::from_millis(30)));
    let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", "0.2");
    let router = launch.set("MAX_PROBES", 8).start();
    wait_available(&router, &fleet, 0..60);
    fleet.wait_asked_total(300, PATIENCE);
    assert_eq!(fleet.most_open(), 8);
    // 60 nodes with 30 ms each need 225 ms of eight probes.
    router.wait_line("pool too small:…nodes=60…max_probes=8 interval_s=0.2", PATIENCE);
}

#[test]
fn new_nodes_take_three_quarters_of_the_pool() {
    let fleet = Fleet::start(60);
    fleet.set_all(Behaviour::Slow(Duration::from_millis(30)));
    let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 86400);
    let router = launch.set("MAX_PROBES", 8).start();
    wait_available(&router, &fleet, 0..60);
    assert_eq!((fleet.most_open(), fleet.asked_total()), (6, 60));
}

#[test]
fn hanging_nodes_take_no_turn_from_available_nodes() {
    let fleet = Fleet::start(40);
    fleet.set_range(4..40, Behaviour::Hang);
    // A router logs the line once, and a machine that is short of time may delay an available node just then.
    let is_only_of_others = (0..5).any(|_| {
        let launch = launch().ips(fleet.list()).set("REFRESH_INTERVAL", "0.5");
        let router = launch.set("MAX_PROBES", 4).start();
        wait_available(&router, &fleet, 0..4);
        let before = fleet.asked_each();
        // Hanging nodes occupy the other three slots for three seconds each time.
        fleet.wait_asked_total(fleet.asked_total() + 60, PATIENCE);
        let after = fleet.asked_each();
        for node in 0..4 {
            assert!(after[node] - before[node] >= 10, "{after:?}");
        }
        assert_eq!(available(&router), addresses(&fleet, 0..4));
        let line = router.wait_line("pool too small:…overdue_other=3", PATIENCE);
        line.contains("overdue_up=0 ")
    });
    assert!(is_only_of_others);
}

#[test]
fn node_that_fails_alternate_probes_stays_available() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    fleet.set(0, Behaviour::FailEveryOther);
    let before = fleet.asked(0);
    fleet.wait_asked(0, before + 6, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, [0]));
    assert_eq!(router.count_lines("node down:"), 0);
    let failed = line("node suspect", fleet.addr(0), "status 500");
    router.wait_line(&failed, PATIENCE);
    assert_eq!(router.count_lines(&failed), 1, "{:?}", router.log());
}

#[test]
fn two_failures_take_down_one_success_restores() {
    let fleet = Fleet::start(2);
    let addr = fleet.addr(0);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 3).start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    fleet.set(0, Behaviour::Status(503));
    let before = fleet.asked(0);
    router.wait_line(&line("node suspect", addr, "status 503"), PATIENCE);
    assert_eq!(router.count_lines("node down:"), 0);
    router.wait_line(&line("node down", addr, "status 503"), PATIENCE);
    // The second failure is the recheck: the next round is two seconds later.
    assert_eq!(fleet.asked(0), before + 2);
    assert_eq!(available(&router), addresses(&fleet, [1]));
    assert_eq!(router.get("/api/v1/containers").json()[0]["count"], 1);
    let mark = router.log_len();
    fleet.set(0, Behaviour::up(0, &["hello-world"]));
    wait_available(&router, &fleet, 0..2);
    router.wait_line_after(mark, &line("node up", addr, "containers=1 pending=0"), PATIENCE);
    assert_eq!(router.log_len(), mark + 1);
}

#[test]
fn node_that_refuses_connections_goes_down() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    fleet.refuse();
    router.wait_line(&line("node down", fleet.addr(0), "connection refused"), PATIENCE);
    assert_eq!(available(&router), [""; 0]);
    fleet.listen();
    wait_available(&router, &fleet, [0]);
}

#[test]
fn status_429_is_neither_success_nor_failure() {
    let fleet = Fleet::start(3);
    fleet.set_range(1..3, Behaviour::Status(429));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    fleet.set(0, Behaviour::Status(429));
    fleet.set(1, Behaviour::Status(500));
    fleet.wait_asked(0, fleet.asked(0) + 4, PATIENCE);
    fleet.wait_asked(1, fleet.asked(1) + 2, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, [0]));
    assert_eq!(router.count_lines("node down:"), 0);
    for node in 0..3 {
        let told = line("node rate-limits", fleet.addr(node), "status 429 (too many requests)");
        router.wait_line(&told, PATIENCE);
        assert_eq!(router.count_lines(&told), 1);
    }
    fleet.set(2, Behaviour::up(0, &["hello-world"]));
    wait_available(&router, &fleet, [0, 2]);
}

#[test]
fn only_429_shows_limited_until_another_response() {
    let fleet = Fleet::start(3);
    fleet.set(1, Behaviour::Status(429));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", "0.3").start();
    assert_eq!(available(&router), addresses(&fleet, [0, 2]));
    fleet.set(0, Behaviour::Status(429));
    for node in 0..2 {
        let told = line("node limited", fleet.addr(node), "");
        router.wait_line(&told, PATIENCE);
        assert!(fleet.asked(node) >= 11, "{}", fleet.asked(node));
        assert_eq!(router.count_lines(&told), 1);
    }
    assert_eq!(available(&router), addresses(&fleet, [0, 2]), "it stays what it was");
    assert_eq!(
        [nodes(&router, "limited"), nodes(&router, "up"), nodes(&router, "down")],
        [2, 1, 0]
    );
    let mark = router.log_len();
    fleet.set(0, Behaviour::Status(500));
    fleet.set(1, Behaviour::up(0, &["hello-world"]));
    router.wait_line_after(mark, &line("node up", fleet.addr(1), ""), PATIENCE);
    router.wait_line_after(mark, &line("node down", fleet.addr(0), ""), PATIENCE);
    assert_eq!(
        [nodes(&router, "limited"), nodes(&router, "up"), nodes(&router, "down")],
        [0, 2, 1]
    );
}

/// A suspected mass failure of this fleet lasts three intervals. The tests get their first responses much earlier.
const DOUBT_INTERVAL: u32 = 4;

#[test]
fn mass_failure_keeps_nodes_and_ranks_responding_first() {
    let fleet = Fleet::start(6);
    let router = launch()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", DOUBT_INTERVAL)
        .start();
    wait_available(&router, &fleet, 0..6);
    // One node is busy, so that it would rank last.
    fleet.set(5, Behaviour::up(1_000, &["hello-world"]));
    fleet.wait_asked(5, fleet.asked(5) + 2, PATIENCE);
    fleet.set_range(0..5, Behaviour::Status(500));
    router.wait_line("mass failure suspected:…of=6", PATIENCE);
    assert_eq!(
        available(&router),
        addresses(&fleet, 0..6),
        "nodes that were down are back"
    );
    router.until("five nodes are doubted", || nodes(&router, "doubted") == 5);
    assert_eq!(
        router.get("/api/v1/ips?container=hello-world&n=1").strings(),
        addresses(&fleet, [5])
    );
    // A responding node is no longer doubted.
    fleet.set(0, Behaviour::up(0, &["hello-world"]));
    router.until("one doubted node is up", || nodes(&router, "up") == 2);
    router.wait_line("mass failure ended: nodes that failed again are down", PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, [0, 5]));
    assert_eq!(
        [nodes(&router, "up"), nodes(&router, "doubted"), nodes(&router, "down")],
        [2, 0, 4]
    );
}

#[test]
fn short_uplink_loss_takes_no_node_down() {
    let fleet = Fleet::start(6);
    let router = launch()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", DOUBT_INTERVAL)
        .start();
    wait_available(&router, &fleet, 0..6);
    fleet.refuse();
    router.wait_line("mass failure suspected:", PATIENCE);
    router.until("all nodes are doubted", || nodes(&router, "doubted") == 6);
    assert_eq!(available(&router), addresses(&fleet, 0..6));
    fleet.listen();
    router.until("all nodes are up", || nodes(&router, "up") == 6);
    router.wait_line("mass failure ended: all nodes respond again", PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, 0..6));
    // At least half of the nodes have responded, so a new mass failure is suspected.
    let mark = router.log_len();
    fleet.refuse();
    router.wait_line_after(mark, "mass failure suspected:", PATIENCE);
    router.wait_line_after(
        mark,
        "mass failure ended: nodes that failed again are down…down=6",
        PATIENCE,
    );
    assert_eq!(available(&router), [""; 0]);
}

#[test]
fn three_nodes_that_fail_together_go_down() {
    let fleet = Fleet::start(3);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    wait_available(&router, &fleet, 0..3);
    fleet.refuse();
    wait_available(&router, &fleet, 0..0);
    // The registry changes before the log line.
    for node in 0..3 {
        router.wait_line(&line("node down", fleet.addr(node), ""), PATIENCE);
    }
    assert_eq!(router.count_lines("mass failure"), 0);
}

/// Returns the number of nodes of ips.txt in a state, from `/metrics`.
#[track_caller]
fn nodes(router: &Router, state: &str) -> usize {
    let metrics = router.get("/metrics");
    let sample = format!("infernet_router_nodes{{source=\"ips_file\",state=\"{state}\"}} ");
    let value = |line: &str| line.strip_prefix(sample.as_str())?.parse().ok();
    metrics.text().lines().find_map(value).expect("each state has a sample")
}

#[test]
fn three_redirects_on_one_host_warn_once() {
    let fleet = Fleet::start(2);
    fleet.set(0, Behaviour::RedirectTimes(3, "/v1/info".into()));
    fleet.set(1, Behaviour::Redirect("/info/".into()));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    router.wait_line(&line("node down", fleet.addr(1), "more than 3 redirects"), PATIENCE);
    let told = format!("http://{}/v1/info", fleet.addr(0));
    // At least two rounds of four requests.
    fleet.wait_asked(0, fleet.asked(0) + 9, PATIENCE);
    assert_eq!(
        router.count_lines(&line("node redirects", fleet.addr(0), &told)),
        1,
        "{:?}",
        router.log()
    );
    assert_eq!(available(&router), addresses(&fleet, [0]));
}

#[test]
fn redirect_to_another_host_or_port_is_reported() {
    let fleet = Fleet::start(3);
    // The same addresses with another port.
    let elsewhere = Fleet::start(3);
    let cases = [
        (format!("http://{}/info", fleet.addr(2)), "another host"),
        (format!("http://{}/info", elsewhere.addr(1)), "another port"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "another host"),
    ];
    let router = launch().ips(fleet.list_of(0..2)).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    for (location, why) in cases {
        fleet.set(1, Behaviour::Redirect(location.clone()));
        let told = format!("status 302: redirect to …{location}…not followed: {why}");
        router.wait_line(&told, PATIENCE);
    }
    router.until("the other nodes are unavailable", || {
        available(&router) == addresses(&fleet, [0])
    });
    assert_eq!((fleet.asked(2), elsewhere.accepted()), (0, 0));
}

#[test]
fn node_without_route_is_down_with_cause() {
    let launch = launch().ips("192.0.2.1:4000\n").set("HOST", "0.0.0.0");
    let Some(launch) = launch.set("REFRESH_INTERVAL", "0.5").without_network() else {
        eprintln!("NOT TESTED: this user may not make a network");
        return;
    };
    // No node of the address family was available: the error counts as a failure.
    let router = launch.start();
    router.wait_line(
        "node down:…192.0.2.1:4000…this machine has no IPv4 route to it",
        PATIENCE,
    );
}

#[test]
fn reason_with_changed_numbers_is_logged_once() {
    let fleet = Fleet::start(1);
    fleet.set(0, Behaviour::Status(502));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", "0.5").start();
    router.wait_line(&line("node down", fleet.addr(0), "status 502"), PATIENCE);
    fleet.set(0, Behaviour::Status(503));
    fleet.wait_asked(0, fleet.asked(0) + 3, PATIENCE);
    fleet.set(0, Behaviour::Reset);
    router.wait_line(&line("node failing", fleet.addr(0), "connection reset"), PATIENCE);
    assert_eq!(router.count_lines("status 503"), 0);
}

#[test]
fn proxies_of_the_environment_are_ignored() {
    let fleet = Fleet::start(3);
    let proxy = Fleet::start(1);
    let explorer = Explorer::start(Listing::Nodes(vec![fleet.addr(1)]));
    let names = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ];
    let router = names
        .iter()
        .fold(launch(), |launch, name| {
            launch.set(name, format!("http://{}", proxy.addr(0)))
        })
        .ips(fleet.list_of(0..1))
        .set("API_URL", explorer.url())
        .start();
    wait_available(&router, &fleet, 0..2);
    assert_eq!(proxy.accepted(), 0);
}

#[test]
fn probe_names_the_router_and_closes_its_connection() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    let head = fleet.last_head().to_ascii_lowercase();
    assert!(head.starts_with("get /info http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", fleet.addr(0))), "{head}");
    let agent = concat!("user-agent: infernet-router/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert!(
        head.contains(agent)
            && head.contains("accept: application/json\r\n")
            && head.contains("accept-encoding: identity\r\n"),
        "{head}"
    );
    fleet.wait_open(0, PATIENCE);
}

#[test]
fn unknown_host_name_delays_no_other_node() {
    let fleet = Fleet::on_localhost();
    let list = format!("no-such-host.invalid:80\nLocalhost:{}\n", fleet.port());
    let router = launch().ips(list).start();
    let listed = format!("Localhost:{}", fleet.port());
    router.until("localhost is available", || available(&router) == [listed.as_str()]);
    router.wait_line(
        "node down:…node=\"no-such-host.invalid:80\"…host name not found",
        PATIENCE,
    );
    assert!(fleet.last_head().contains(&format!("localhost:{}\r\n", fleet.port())));
}

#[test]
fn first_response_has_slow_nodes_without_hanging_ones() {
    let fleet = Fleet::start(3);
    fleet.set(0, Behaviour::Slow(Duration::from_millis(300)));
    fleet.set(1, Behaviour::Wait);
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, [0, 2]));
    assert_eq!(router.get("/health").text(), r#"{"status":"healthy"}"#);
}

#[test]
fn early_client_waits_for_the_first_list() {
    let fleet = Fleet::start(2);
    fleet.set(1, Behaviour::Wait);
    // A busy machine may not connect within the 1.5 s before serving begins: the test repeats.
    let (router, mut client) = (0..20)
        .find_map(|_| before_serving(&fleet))
        .expect("20 clients all came too late");
    assert_eq!(client.receive().strings(), addresses(&fleet, [0]));
    assert_eq!(router.get("/health").status, 200);
}

/// Starts a router and a client that sends its request before serving begins. Returns `None` if the client is too late.
fn before_serving(fleet: &Fleet) -> Option<(Router, Connection)> {
    // No other process uses this address, so the test finds its port before the log contains it.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 128 + a % 64, b, c);
    let router = launch().ips(fleet.list()).set("HOST", host).start();
    let mut port = None;
    router.until("the router listens", || {
        port = listening_port(host);
        port.is_some()
    });
    let mut client = Connection::open(SocketAddr::from((host, port?)));
    client.send("GET /api/v1/ips?container=hello-world HTTP/1.1\r\nHost: router\r\n\r\n");
    (router.count_lines("serving: ") == 0).then_some((router, client))
}

/// Returns the port of a socket that listens on the address.
fn listening_port(host: Ipv4Addr) -> Option<u16> {
    // The kernel prints the bytes as a number in native byte order.
    let prefix = format!("{:08X}:", u32::from_ne_bytes(host.octets()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let port = fields.next()?.strip_prefix(prefix.as_str())?;
        let is_listening = fields.nth(1) == Some("0A");
        u16::from_str_radix(port, 16).ok().filter(|_| is_listening)
    })
}

#[test]
fn flip_shows_immediately_while_others_hang() {
    let fleet = Fleet::start(30);
    fleet.set_range(1..30, Behaviour::Hang);
    fleet.set(0, Behaviour::Wait);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 86400).start();
    fleet.wait_asked_total(30, PATIENCE);
    fleet.set(0, Behaviour::up(0, &["hello-world"]));
    router.wait_line(&line("node up", fleet.addr(0), ""), PATIENCE);
    assert_eq!(hanging_or_lost(&router), 0, "they still hang");
    assert_eq!(available(&router), addresses(&fleet, [0]));
}

fn hanging_or_lost(router: &Router) -> usize {
    router.count_lines("timeout: no complete response")
}
