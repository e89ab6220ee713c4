//! Requests of clients and their responses.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::support::http::{self, Answer, Connection};
use super::support::{Behaviour, Explorer, Fleet, Listing, Router};
use super::{addresses, available, launch, wait_available};

const IPS: &str = "/api/v1/ips";
const CONTAINERS: &str = "/api/v1/containers";

/// A fleet of three: `a` runs everywhere, `b` on 1 and 2, `c` on 2; node 0 is the busiest.
fn three() -> (Fleet, Router) {
    let fleet = Fleet::start(3);
    fleet.set(0, Behaviour::up(9, &["a"]));
    fleet.set(1, Behaviour::up(5, &["b", "a"]));
    fleet.set(2, Behaviour::up(0, &["a", "b", "c"]));
    let router = launch().ips(fleet.list()).set("PROMISES", "off").start();
    (fleet, router)
}

fn in_order(fleet: &Fleet, nodes: &[usize]) -> Vec<String> {
    nodes.iter().map(|node| fleet.addr(*node).to_string()).collect()
}

#[test]
fn nodes_with_all_containers_rank_least_busy_first() {
    let (fleet, router) = three();
    for (query, nodes) in [
        ("container=a", &[2, 1, 0][..]),
        ("container=b", &[2, 1]),
        ("container=c", &[2]),
        ("container=a&container=b", &[2, 1]),
        ("container=b&container=a&container=b", &[2, 1]),
        ("container=a&container=b&container=c", &[2]),
        ("container=none", &[]),
        ("container=a&container=none", &[]),
        ("container=a&n=2", &[2, 1]),
        ("container=a&n=1&offset=1", &[1]),
        ("offset=2&n=9&container=a", &[0]),
        ("container=a&offset=3", &[]),
        ("container=a&offset=4294967295&n=4294967295", &[]),
        ("container=a&n=9223372036854775807", &[2, 1, 0]),
        ("container=a&n=99999999999999999999", &[2, 1, 0]),
        ("container=a&offset=99999999999999999999", &[]),
        ("container=a&n=1&n=2&offset=1&offset=0", &[1]),
        ("container[]=b&container%5B%5D=a", &[2, 1]),
        ("container[]=c&container=a", &[2]),
        ("container=a&n=0", &[]),
        ("container=a&n=003", &[2, 1, 0]),
        ("container=&container=c&container=", &[2]),
        ("container=c&verbose=1&container", &[2]),
        ("container=%61", &[2, 1, 0]),
    ] {
        let answer = router.get(&format!("{IPS}?{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(answer.strings(), in_order(&fleet, nodes), "{query}");
    }
}

#[test]
fn n_defaults_to_3_up_to_1000() {
    let fleet = Fleet::start(1001);
    let router = launch().ips(fleet.list()).start();
    let all = |query: &str| {
        router
            .get(&format!("{IPS}?container=hello-world{query}"))
            .strings()
            .len()
    };
    router.until("all nodes are available", || all("&n=1000&offset=1") == 1000);
    assert_eq!(all(""), 3);
    for (n, given) in [(999, 999), (1000, 1000), (1001, 1000), (u32::MAX, 1000)] {
        assert_eq!(all(&format!("&n={n}")), given, "n={n}");
    }
}

#[test]
fn pages_cover_the_list_exactly_once() {
    let fleet = Fleet::start(20);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 86400).start();
    wait_available(&router, &fleet, 0..20);
    // With promises, a client's own promises do not move its pages.
    let page = |offset| {
        router
            .get(&format!("{IPS}?container=hello-world&n=5&offset={offset}"))
            .strings()
    };
    let mut all: Vec<String> = [0, 5, 10, 15].into_iter().flat_map(page).collect();
    all.sort_unstable();
    assert_eq!(all, addresses(&fleet, 0..20));
}

#[test]
fn repeated_request_gets_the_next_node_first() {
    let fleet = Fleet::start(3);
    fleet.set_each(|node| Behaviour::up(2 * node as u64, &["hello-world"]));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 86400).start();
    wait_available(&router, &fleet, 0..3);
    // At most six requests even out the queues; then the nodes take turns.
    let first = |_| router.get(&format!("{IPS}?container=hello-world")).strings().remove(0);
    let got: Vec<String> = (0..18).map(first).collect();
    let last = &got[6..];
    for addr in addresses(&fleet, 0..3) {
        assert_eq!(last.iter().filter(|got| **got == addr).count(), 4, "{got:?}");
    }
    assert!(last.windows(2).all(|pair| pair[0] != pair[1]), "{got:?}");
}

#[test]
fn pending_jobs_are_weighted_by_type() {
    let pending = [
        json!({"offchain": 5, "onchain": 0}),
        json!({"offchain": 0, "onchain": 2}),
        json!({"offchain": 0, "onchain": 0, "other": 11}),
        json!({}),
        json!({"offchain": 0, "onchain": u64::MAX, "other": u64::MAX}),
    ];
    let fleet = Fleet::start(pending.len());
    fleet.set_each(|node| {
        let info = json!({"containers": [{"id": "hello-world"}], "pending": pending[node]});
        Behaviour::Body(info.to_string().into())
    });
    for (weights, order) in [
        ("", [3, 1, 0, 2, 4]),
        ("offchain=1,onchain=3", [3, 0, 1, 2, 4]),
        ("offchain=3, onchain=7, other=0", [3, 2, 1, 0, 4]),
    ] {
        let launch = launch().ips(fleet.list()).set("PROMISES", "off");
        let router = launch.set("PENDING_WEIGHTS", weights).start();
        // Nodes 2 and 3 are equal if `other` weighs 0.
        let mut got = router.get(&format!("{IPS}?container=hello-world&n=9")).strings();
        let mut wanted = in_order(&fleet, &order);
        if weights.contains("other=0") {
            got[..2].sort_unstable();
            wanted[..2].sort_unstable();
        }
        assert_eq!(got, wanted, "{weights}");
    }
}

#[test]
fn invalid_query_returns_400_with_expected_form() {
    let router = launch().start();
    let number = "expected a whole number of at most 20 digits";
    for (query, error) in [
        ("", "No containers specified".to_owned()),
        ("?", "No containers specified".to_owned()),
        ("?container", "No containers specified".to_owned()),
        ("?container=&container=&n=1", "No containers specified".to_owned()),
        ("?Container=a", "No containers specified".to_owned()),
        ("?container=a&n=abc", format!("n=\"abc\": {number}")),
        ("?container=a&n=-1", format!("n=\"-1\": {number}")),
        ("?container=a&n=1.0", format!("n=\"1.0\": {number}")),
        (
            "?container=a&n=100000000000000000000",
            format!("n=\"100000000000000000000\": {number}"),
        ),
        ("?container=a&n=x&n=1", format!("n=\"x\": {number}")),
        ("?container=a&offset=+1", format!("offset=\" 1\": {number}")),
        ("?container=%ff", "container=%ff: expected UTF-8".to_owned()),
        ("?container=a&n=%00", format!("n=\"\\0\": {number}")),
        ("?container=a&n=%22%3Cb%3E", format!("n=\"\\\"<b>\": {number}")),
    ] {
        let answer = router.get(&format!("{IPS}{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert_eq!(answer.json(), json!({ "error": error }), "{query}");
    }
    assert_eq!(
        router.get(&format!("{IPS}?container=a&n=&offset=")).status,
        200,
        "the defaults"
    );
    let many = |count: usize| router.get(&format!("{IPS}?{}", vec!["container=a"; count].join("&")));
    assert_eq!(many(64).status, 200);
    let answer = many(65);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"], "container: expected at most 64 of them, not 65");
}

#[test]
fn ids_match_with_and_without_percent_encoding() {
    let ids = [
        "org/model:v1.2",
        "a,b;c@d",
        "with space",
        "größe",
        "50%",
        "a+b",
        "[x]{y}|z",
        "q?q=1",
    ];
    let fleet = Fleet::start(1);
    fleet.set(0, Behaviour::up(0, &ids));
    let router = launch().ips(fleet.list()).start();
    let wanted = addresses(&fleet, [0]);
    // As aiohttp sends them without encoding, and curl as typed.
    for raw in [
        "org/model:v1.2",
        "a,b;c@d",
        "größe",
        "50%",
        "[x]{y}|z",
        "with+space",
        "q?q=1",
    ] {
        assert_eq!(router.get(&format!("{IPS}?container={raw}")).strings(), wanted, "{raw}");
    }
    for id in ids {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(
            router.get(&format!("{IPS}?container={encoded}")).strings(),
            wanted,
            "{id}"
        );
    }
    assert_eq!(
        router.get(&format!("{IPS}?container=50%25&container=a%2Bb")).strings(),
        wanted
    );
    let mut sorted = ids;
    sorted.sort_unstable();
    let rows = router.get(CONTAINERS).json();
    let rows: Vec<_> = rows.as_array().expect("a list").iter().map(|row| &row["id"]).collect();
    assert_eq!(rows, sorted);
}

fn info(containers: Value) -> Behaviour {
    Behaviour::Body(json!({"containers": containers, "pending": {}}).to_string().into())
}

#[test]
fn containers_are_sorted_counted_and_described() {
    let fleet = Fleet::start(5);
    let long = "ß".repeat(1025);
    fleet.set(
        0,
        info(json!([{"id": "e", "description": "of 0"}, {"id": "b", "description": ""}])),
    );
    fleet.set(
        1,
        info(json!([{"id": "b", "description": "of 1"}, {"id": "B", "description": null}])),
    );
    fleet.set(
        2,
        info(json!([{"id": "b", "description": "of 2"}, {"id": "e", "description": "of 2"}, {"id": "b"}])),
    );
    fleet.set(
        3,
        info(json!([{"id": "long", "description": long}, {"id": "plain", "description": 7}])),
    );
    fleet.set(4, Behaviour::Status(500));
    // ips.txt lists 2, then 1; 0 and 3 are Explorer nodes.
    let explorer = Explorer::start(Listing::Nodes([3, 0].map(|node| fleet.addr(node)).to_vec()));
    let list = format!("{}{}{}", fleet.list_of(2..3), fleet.list_of(1..2), fleet.list_of(4..5));
    let router = launch().ips(list).set("API_URL", explorer.url()).start();
    let wanted = json!([
        {"id": "B", "count": 1},
        {"id": "b", "count": 3, "description": "of 2"},
        {"id": "e", "count": 2, "description": "of 2"},
        {"id": "long", "count": 1, "description": "ß".repeat(1024)},
        {"id": "plain", "count": 1},
    ]);
    router.until("all four containers are listed", || {
        router.get(CONTAINERS).json() == wanted
    });
}

#[test]
fn containers_page_with_n_and_offset() {
    let (_fleet, router) = three();
    let all = router.get(CONTAINERS);
    assert_eq!(all.header("X-Total-Count"), Some("3"));
    for (query, ids) in [
        ("", &["a", "b", "c"][..]),
        ("?n=2", &["a", "b"]),
        ("?n=2&offset=1", &["b", "c"]),
        ("?offset=2", &["c"]),
        ("?n=&offset=", &["a", "b", "c"]),
        ("?n=0", &[]),
        ("?offset=3", &[]),
        ("?n=99999999999999999999&offset=99999999999999999999", &[]),
        ("?container=b", &["a", "b", "c"]),
    ] {
        let answer = router.get(&format!("{CONTAINERS}{query}"));
        let rows = answer.json();
        let rows: Vec<_> = rows.as_array().expect("a list").iter().map(|row| &row["id"]).collect();
        assert_eq!(rows, ids, "{query}");
        assert_eq!(answer.header("X-Total-Count"), Some("3"), "{query}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{query}");
    }
    for query in ["?n=x", "?offset=-1", "?n=1&x=%ff"] {
        let answer = router.get(&format!("{CONTAINERS}{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn containers_end_before_one_mebibyte() {
    let fleet = Fleet::start(6);
    let ids: Vec<String> = (0..1200).map(|number| format!("{number:0>4}")).collect();
    fleet.set_each(|node| {
        let ids = ids[200 * node..][..200].iter();
        let rows: Vec<Value> = ids
            .map(|id| json!({"id": id, "description": "x".repeat(1024)}))
            .collect();
        info(rows.into())
    });
    let router = launch().ips(fleet.list()).start();
    let page = |offset: usize| {
        let answer = router.get(&format!("{CONTAINERS}?offset={offset}"));
        assert!(answer.body.len() <= 1024 * 1024, "{}", answer.body.len());
        let ids: Vec<String> = answer
            .json()
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| row["id"].as_str().unwrap_or_default().to_owned())
            .collect();
        (answer.header("X-Total-Count").map(str::to_owned), ids)
    };
    router.until("all containers are known", || page(0).0.as_deref() == Some("1200"));
    let (mut received, mut pages) = (Vec::new(), 0);
    while received.len() < 1200 {
        received.extend(page(received.len()).1);
        pages += 1;
    }
    assert_eq!((received, pages), (ids, 2));
}

#[test]
fn description_leaves_with_its_node() {
    let fleet = Fleet::start(2);
    fleet.set(0, info(json!([{"id": "hello-world", "description": "first"}])));
    fleet.set(1, info(json!([{"id": "hello-world", "description": "second"}])));
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    let row = || router.get(CONTAINERS).json()[0].clone();
    assert_eq!(row(), json!({"id": "hello-world", "count": 2, "description": "first"}));
    fleet.set(0, info(json!([{"id": "other"}])));
    let wanted = json!({"id": "hello-world", "count": 1, "description": "second"});
    router.until("the description of the second node applies", || row() == wanted);
    fleet.set(1, info(json!([])));
    router.until("no node has the description", || {
        row() == json!({"id": "other", "count": 1})
    });
    assert_eq!(available(&router), [""; 0]);
}

#[test]
fn router_without_nodes_returns_empty_lists() {
    let router = launch().start();
    assert_eq!(router.get(CONTAINERS).text(), "[]");
    assert_eq!(router.get("/api/v1/ips?container=a").text(), "[]");
}

/// Every response has a type and a length; reading it checks Content-Length.
fn check_headers(answer: &Answer, length: usize) {
    assert_eq!(answer.header("Content-Type"), Some("application/json"), "{answer:?}");
    assert_eq!(
        answer.header("Content-Length"),
        Some(length.to_string().as_str()),
        "{answer:?}"
    );
    assert_eq!(answer.header("Transfer-Encoding"), None);
    assert!(answer.header("Date").is_some(), "{answer:?}");
}

#[test]
fn responses_are_json_and_volatile_ones_no_store() {
    let (_fleet, router) = three();
    for (target, status, stored) in [
        ("/api/v1/ips?container=a", 200, false),
        (CONTAINERS, 200, false),
        ("/health", 200, true),
        ("/openapi.json", 200, true),
        ("/api/v1/ips", 400, true),
        ("/", 200, true),
        ("/x", 404, true),
    ] {
        let answer = router.get(target);
        assert_eq!(answer.status, status, "{target}");
        check_headers(&answer, answer.body.len());
        answer.json();
        let no_store = (!stored).then_some("no-store");
        assert_eq!(answer.header("Cache-Control"), no_store, "{target}");
        assert_eq!(answer.all("RateLimit-Limit"), [""; 0], "the limit is off");
    }
    assert_eq!(router.get("/health").text(), r#"{"status":"healthy"}"#);
    assert_eq!(router.get("/openapi.json").json()["openapi"], "3.1.0");
}

#[test]
fn long_response_has_content_length() {
    let ids: Vec<String> = (0..256).map(|i| format!("{i:0>200}")).collect();
    let fleet = Fleet::start(1);
    fleet.set(0, Behaviour::up(0, &ids.iter().map(String::as_str).collect::<Vec<_>>()));
    let router = launch().ips(fleet.list()).start();
    let answer = router.get(CONTAINERS);
    check_headers(&answer, answer.body.len());
    assert!(answer.body.len() > 100_000);
    assert_eq!(answer.json().as_array().map(Vec::len), Some(256));
}

#[test]
fn head_is_get_without_a_body() {
    let (_fleet, router) = three();
    for target in [
        "/api/v1/ips?container=a",
        CONTAINERS,
        "/health",
        "/api/v1/ips",
        "/nothing",
    ] {
        let get = router.get(target);
        let head = http::call(router.addr(), "HEAD", target);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{target}");
        check_headers(&head, get.body.len());
        // The connection has no byte of a body.
        let mut connection = Connection::open(router.addr());
        connection.send(format!("HEAD {target} HTTP/1.1\r\nHost: router\r\n\r\n"));
        assert_eq!(connection.receive().status, get.status);
        assert_eq!(connection.get("/health").text(), r#"{"status":"healthy"}"#);
    }
}

fn with_body(addr: SocketAddr, method: &str, target: &str) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: router\r\nConnection: close\r\nContent-Length: 7\r\n\r\n");
    let mut answers = http::request(addr, head + r#"{"a":1}"#);
    assert_eq!(answers.len(), 1, "{method} {target}: {answers:?}");
    answers.remove(0)
}

#[test]
fn other_methods_return_405_with_allow() {
    let router = launch().start();
    for target in [
        "/api/v1/ips",
        "/api/v1/ips?container=a",
        CONTAINERS,
        "/health",
        "/metrics",
        "/openapi.json",
    ] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let answer = http::call(router.addr(), method, target);
            assert_eq!(answer.status, 405, "{method} {target}");
            assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
            assert_eq!(answer.json(), json!({"error": "Method not allowed"}));
            check_headers(&answer, answer.body.len());
        }
        assert_eq!(with_body(router.addr(), "POST", target).status, 405, "{target}");
        let answer = http::call(router.addr(), "OPTIONS", target);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{target}");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(answer.header("Content-Length"), None);
    }
}

#[test]
fn unknown_paths_return_404_for_every_method() {
    let router = launch().start();
    for target in [
        "/api",
        "/api/v1",
        "/api/v1/ips/x",
        "/api/v1/ips/.",
        "/API/v1/ips",
        "/api/v1/ips%20",
        "/%2Fapi/v1/ips",
        "/health/x",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = http::call(router.addr(), method, target);
            assert_eq!(answer.status, 404, "{method} {target}");
            assert_eq!(answer.json(), json!({"error": "Not found"}), "{method} {target}");
        }
        assert_eq!(http::call(router.addr(), "HEAD", target).status, 404);
    }
}

#[test]
fn trailing_slash_of_path_is_ignored() {
    let (_fleet, router) = three();
    for (target, plain) in [
        ("/api/v1/ips/?container=a", "/api/v1/ips?container=a"),
        ("/api/v1/containers/", CONTAINERS),
        ("/health/", "/health"),
        ("/health//?a=b/", "/health"),
        ("/openapi.json/", "/openapi.json"),
        ("//", "/"),
    ] {
        let (answer, expected) = (router.get(target), router.get(plain));
        assert_eq!((answer.status, answer.text()), (200, expected.text()), "{target}");
        assert_eq!(http::call(router.addr(), "OPTIONS", target).status, 204, "{target}");
        assert_eq!(http::call(router.addr(), "POST", target).status, 405, "{target}");
    }
    for target in ["/metrics/", "/status/", "/status.json/"] {
        assert_eq!(router.get(target).status, 200, "{target}");
    }
}

#[test]
fn paths_are_normalized() {
    let (_fleet, router) = three();
    for target in [
        "//api/v1/ips?container=a",
        "/api//v1///ips?container=a",
        "/api/v1/%69ps?container=a",
    ] {
        assert_eq!(
            router.get(target).strings(),
            router.get("/api/v1/ips?container=a").strings(),
            "{target}"
        );
    }
}

#[test]
fn root_serves_default_health_checks() {
    let router = launch().start();
    for method in ["GET", "HEAD"] {
        assert_eq!(http::call(router.addr(), method, "/").status, 200);
    }
    assert_eq!(router.get("/").json(), json!({"status": "healthy"}));
    assert_eq!(http::call(router.addr(), "OPTIONS", "/").status, 204);
    assert_eq!(http::call(router.addr(), "POST", "/").status, 405);
}
