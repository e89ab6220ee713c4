//! `/api/v1/resources`: the resources that nodes report, and the nodes that support a model.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Behaviour, Connection, Fleet, Launch, PATIENCE, Router};
use super::{available, launch};

const PATH: &str = "/api/v1/resources";

/// The shortened report of one service.
fn hello() -> Value {
    json!({"service_id": "hello-world", "compute_capability": [{"id": "ml", "task": ["text_generation"]}]})
}

fn body(value: &Value) -> Behaviour {
    Behaviour::Body(value.to_string().into_bytes())
}

fn supports() -> Behaviour {
    body(&json!({"hello-world": {"supported": true}}))
}

/// A fleet with resources.
fn fleet(nodes: usize) -> Fleet {
    let fleet = Fleet::start(nodes);
    fleet.set_resources(0..nodes, &body(&json!({"hello-world": hello()})), &supports());
    fleet
}

fn asking(launch: Launch) -> Launch {
    launch.set("RESOURCES_INTERVAL", 600).set("RUST_LOG", "debug")
}

fn addr(fleet: &Fleet, node: usize) -> String {
    fleet.addr(node).to_string()
}

/// Waits until `count` nodes are shown.
#[track_caller]
fn wait_shown(router: &Router, count: usize) {
    router.until(&format!("{count} nodes are shown"), || total(router) == count);
}

#[track_caller]
fn total(router: &Router) -> usize {
    let answer = router.get(PATH);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
        .header("X-Total-Count")
        .and_then(|total| total.parse().ok())
        .expect("a number")
}

/// The keys of an object in the order of the text.
fn keys(text: &str) -> Vec<String> {
    let at = |key: &String| text.find(&format!("\"{key}\":{{")).expect("the key");
    let object: serde_json::Map<String, Value> = serde_json::from_str(text).expect("an object");
    let mut keys: Vec<String> = object.keys().cloned().collect();
    keys.sort_by_key(at);
    keys
}

#[test]
fn resources_are_served_without_querying_nodes() {
    let fleet = fleet(3);
    fleet.set_each(|node| match node {
        1 => Behaviour::up(0, &["hello-world", "other"]),
        _ => Behaviour::up(0, &["hello-world"]),
    });
    fleet.set_resources(1..2, &body(&json!({"hello-world": hello(), "other": {}})), &supports());
    // In the order of ips.txt.
    let list = format!("{}\n{}\n{}\n", fleet.addr(2), fleet.addr(0), fleet.addr(1));
    let router = asking(launch().ips(list)).start();
    wait_shown(&router, 3);
    let answer = router.get(PATH);
    assert_eq!(answer.header("Cache-Control"), Some("max-age=60"));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(keys(answer.text()), [2, 0, 1].map(|node| addr(&fleet, node)));
    assert_eq!(
        answer.json()[addr(&fleet, 1)],
        json!({"hello-world": hello(), "other": {}})
    );

    for query in ["container=other", "container[]=other"] {
        let answer = router.get(&format!("{PATH}?{query}"));
        assert_eq!(answer.json(), json!({addr(&fleet, 1): {"other": {}}}));
        assert_eq!(answer.header("X-Total-Count"), Some("1"));
    }
    let answer = router.get(&format!("{PATH}?n=1&offset=1"));
    assert_eq!(answer.json(), json!({addr(&fleet, 0): {"hello-world": hello()}}));
    assert_eq!(answer.header("X-Total-Count"), Some("3"));
    assert_eq!(router.get(&format!("{PATH}?container=none")).json(), json!({}));

    let asked: Vec<_> = fleet.resource_asks();
    assert_eq!(asked.len(), 3, "each node once: {asked:?}");
    assert!(asked.iter().all(|(_, target, _)| target == "/resources"));
}

#[test]
fn invalid_query_returns_400() {
    let router = asking(launch()).start();
    for (query, error) in [
        ("n=-1", "n=\"-1\": expected a whole number of at most 20 digits"),
        ("offset=a", "offset=\"a\": expected a whole number of at most 20 digits"),
        ("container=%ff", "container=%ff: expected UTF-8"),
        ("model_id=a&model_id=b", "model_id=\"b\": expected at most once"),
        (
            "model_id=a%26b",
            "model_id=\"a&b\": expected 1 to 256 bytes of A-Za-z0-9._-/:,@=+~",
        ),
    ] {
        let answer = router.get(&format!("{PATH}?{query}"));
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"error": error})),
            "{query}"
        );
    }
    assert_eq!(router.get(PATH).json(), json!({}));
    assert_eq!(router.get(&format!("{PATH}?model_id=&n=&offset=")).json(), json!({}));
}

#[test]
fn numbers_of_resources_do_not_change() {
    let fleet = fleet(1);
    let numbers = "[-1.2e+24,0.1,1e-7,123456789.123456789,18446744073709551615,5e-324]";
    let reported = format!("{{\"hello-world\":{{\"numbers\":{numbers}}}}}");
    fleet.set_resources(0..1, &Behaviour::Body(reported.into_bytes()), &supports());
    let router = asking(launch().ips(fleet.list())).start();
    wait_shown(&router, 1);
    let answer = router.get(PATH);
    let expected = numbers.replace("123456789.123456789", "123456789.12345679");
    assert!(answer.text().contains(&expected), "{}", answer.text());
}

#[test]
fn interval_0_returns_404_and_queries_none() {
    let fleet = fleet(1);
    let router = launch().ips(fleet.list()).set("RATELIMIT_REQS_PER_MIN", 9).start();
    for target in [PATH, "/api/v1/resources?model_id=a"] {
        let answer = router.get(target);
        assert_eq!((answer.status, answer.json()), (404, json!({"error": "Not found"})));
    }
    assert!(!router.get("/metrics").text().contains("/api/v1/resources\",decision"));
    assert_eq!(fleet.resource_asks(), []);
}

#[test]
fn misbehaving_node_does_not_affect_others() {
    let fleet = fleet(10);
    let deep = format!("{{\"hello-world\":{}1{}}}", "{\"a\":".repeat(3_000), "}".repeat(3_000));
    let forged = json!({
        "hello-world": {"x": format!("\"}}}},\"{}\":{{\"hello-world\":{{\"forged\":1", fleet.addr(0))},
        addr(&fleet, 0): {"hello-world": {"forged": 1}},
    });
    let odd = [
        Behaviour::Status(404),
        Behaviour::Hang,
        Behaviour::Status(500),
        Behaviour::Endless,
        body(&json!({"not-mine": {}})),
        body(&forged),
        Behaviour::Body(deep.into_bytes()),
        Behaviour::Body("[".repeat(10_000).into_bytes()),
        Behaviour::Body(b"\"text\"".to_vec()),
    ];
    for (node, behaviour) in odd.iter().enumerate() {
        fleet.set_resources(node + 1..node + 2, behaviour, &supports());
    }
    let router = asking(launch().ips(fleet.list())).start();
    for reason in [
        "status 404",
        "timeout",
        "status 500",
        "65536 bytes",
        "result=\"\\\"not-mine\\\": not a container of this node",
        "not a container of this node",
        "nested too deep",
        "not JSON: EOF",
        "expected an object of containers, found \\\"text\\\"",
    ] {
        router.wait_line(reason, PATIENCE);
    }
    // The forged entry is only text within the forger's own entry.
    wait_shown(&router, 2);
    let shown = router.get(PATH).json();
    assert_eq!(shown[addr(&fleet, 0)], json!({"hello-world": hello()}));
    assert_eq!(shown[addr(&fleet, 6)], json!({"hello-world": forged["hello-world"]}));
    assert_eq!(available(&router).len(), 10, "none is less available for it");
    assert!(router.rss_kib() < 60 * 1024);
}

#[test]
fn removed_node_loses_its_resources() {
    let fleet = fleet(2);
    let router = asking(launch().ips(fleet.list())).start();
    wait_shown(&router, 2);
    router.write_ips(fleet.list_of(1..2));
    wait_shown(&router, 1);
    assert_eq!(
        router.get(PATH).json(),
        json!({addr(&fleet, 1): {"hello-world": hello()}})
    );
}

#[test]
fn one_survey_serves_all_clients() {
    let fleet = fleet(3);
    let refusal = json!({"hello-world": {"supported": false, "error": "e".repeat(300), "more": 1}});
    fleet.set_resources(1..2, &body(&json!({"hello-world": hello()})), &body(&refusal));
    let router = asking(launch().ips(fleet.list())).start();
    wait_shown(&router, 3);
    let target = format!("{PATH}?model_id=huggingface/Ritual-Net/iris:iris.onnx");
    // The first client waits for the answers, and the others wait with it.
    let mut others: Vec<Connection> = (0..20).map(|_| Connection::open(router.addr())).collect();
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    others.iter_mut().for_each(|other| other.send(&head));
    let known = router.get(&target).json();
    others
        .iter_mut()
        .for_each(|other| assert_eq!(other.receive().json(), known));
    assert_eq!(known.as_object().map(|nodes| nodes.len()), Some(3));
    let supported = json!({"hello-world": {"supported": true}});
    assert_eq!(known[addr(&fleet, 0)], supported);
    let error = "e".repeat(256);
    assert_eq!(
        known[addr(&fleet, 1)],
        json!({"hello-world": {"supported": false, "error": error}})
    );
    let answer = router.get(&format!("{target}&container=hello-world&offset=2"));
    assert_eq!(answer.json(), json!({addr(&fleet, 2): supported}));
    assert_eq!(answer.header("X-Total-Count"), Some("3"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    for _ in 0..50 {
        router.get(&target);
    }
    let asks = fleet.resource_asks();
    let asks: Vec<_> = asks.iter().filter(|(_, target, _)| target != "/resources").collect();
    assert_eq!(asks.len(), 3, "each node once: {asks:?}");
    assert!(
        asks.iter()
            .all(|(_, target, _)| target == "/resources?model_id=huggingface%2FRitual-Net%2Firis%3Airis.onnx"),
        "{asks:?}"
    );
}

#[test]
fn client_gets_six_new_models_per_minute() {
    let fleet = fleet(1);
    let router = asking(launch().ips(fleet.list())).start();
    wait_shown(&router, 1);
    for id in ["a", "b", "c", "d", "e", "f"] {
        let known = router.get(&format!("{PATH}?model_id={id}"));
        assert_eq!(known.header("X-Total-Count"), Some("1"));
    }
    let refused = router.get(&format!("{PATH}?model_id=g"));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json(), json!({"error": "Too many new values of model_id"}));
    let wait: u64 = refused
        .header("Retry-After")
        .and_then(|wait| wait.parse().ok())
        .expect("a number");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(router.get(&format!("{PATH}?model_id=a")).status, 200);
    let metrics = router.get("/metrics");
    let metrics = metrics.text();
    assert!(metrics.contains("infernet_router_resource_surveys_total{outcome=\"refused\"} 1\n"));
    assert!(metrics.contains("infernet_router_resource_surveys_total{outcome=\"new\"} 6\n"));
    assert!(
        metrics.contains("infernet_router_resources_requests_total{outcome=\"ok\"} 7\n"),
        "{metrics}"
    );
}

#[test]
fn five_subnets_leave_new_models_to_others() {
    let router = asking(launch()).start();
    let status = |subnet: u8, host: u8, id: String| {
        let connection = Connection::from(IpAddr::from([127, 6, subnet, host]), router.addr());
        connection
            .close_with("GET", &format!("{PATH}?model_id={id}"), &[])
            .status
    };
    let mut granted = 0;
    for number in 0..60 {
        let (subnet, host) = (number % 5, 1 + number / 5);
        granted += usize::from(status(subnet, host, format!("attack-{number}")) == 200);
    }
    assert_eq!(granted, 20);
    for honest in 10..20 {
        assert_eq!(status(honest, 1, format!("honest-{honest}")), 200);
    }
    assert_eq!(status(20, 1, "late".to_owned()), 429);
    assert_eq!(status(20, 1, "honest-10".to_owned()), 200, "a kept id");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long an answer takes is the point")]
fn invalid_model_answers_are_omitted() {
    let fleet = fleet(5);
    let plain = body(&json!({"hello-world": hello()}));
    let odd = [
        body(&json!({"hello-world": {"supported": "true"}})),
        Behaviour::Hang,
        body(&json!({"other": {"supported": true}})),
        Behaviour::Endless,
    ];
    for (node, behaviour) in odd.iter().enumerate() {
        fleet.set_resources(node + 1..node + 2, &plain, behaviour);
    }
    let router = asking(launch().ips(fleet.list())).start();
    wait_shown(&router, 5);
    let target = format!("{PATH}?model_id=a");
    let begin = Instant::now();
    let known = router.get(&target).json();
    assert!(begin.elapsed() >= Duration::from_millis(1_500), "one of them hangs");
    assert_eq!(known, json!({addr(&fleet, 0): {"hello-world": {"supported": true}}}));
    router.wait_line("expected `supported` to be true or false", PATIENCE);
    router.wait_line("node=\"127.1.0.3", PATIENCE);
    router.wait_line("model=a ", PATIENCE);
    let known = router.get(&target).json();
    assert_eq!(known, json!({addr(&fleet, 0): {"hello-world": {"supported": true}}}));
    assert_eq!(available(&router).len(), 5);
}

#[test]
fn retry_after_is_the_later_of_both_limits() {
    let fleet = fleet(1);
    fleet.set_resources(0..1, &body(&json!({"hello-world": hello()})), &Behaviour::Hang);
    let router = asking(launch().ips(fleet.list()))
        .set("RATELIMIT_REQS_PER_MIN", 1)
        .start();
    router.until("the node has answered", || {
        router
            .get("/metrics")
            .text()
            .contains("resources_requests_total{outcome=\"ok\"} 1\n")
    });
    let ask = |client: u8, id: u8| {
        let connection = Connection::from(IpAddr::from([127, 7, client, 1]), router.addr());
        connection.close_with("GET", &format!("{PATH}?model_id={id}"), &[])
    };
    // The first client waits for the node until the deferral ends.
    assert_eq!(ask(1, 1).status, 200);
    fleet.set_resources(0..1, &body(&json!({"hello-world": hello()})), &supports());
    for client in 2..=30 {
        assert_eq!(ask(client, client).status, 200);
    }
    let refused = ask(31, 31);
    assert_eq!(refused.json(), json!({"error": "Too many new values of model_id"}));
    assert_eq!(refused.header("RateLimit-Remaining"), Some("0"));
    assert_eq!(refused.header("Retry-After"), Some("60"), "{refused:?}");
}

/// Returns the number of responses with 200 so far.
#[track_caller]
fn answered(router: &Router) -> u64 {
    let sample = "infernet_router_requests_total{endpoint=\"/api/v1/resources\",status=\"200\"} ";
    let metrics = router.get("/metrics");
    let count = metrics.text().lines().find_map(|line| line.strip_prefix(sample));
    count.and_then(|count| count.parse().ok()).expect("some were answered")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long an answer takes is the point")]
fn waiting_for_a_survey_delays_no_other_client() {
    let fleet = fleet(4);
    let plain = body(&json!({"hello-world": hello()}));
    fleet.set_resources(1..4, &plain, &Behaviour::Hang);
    let router = asking(launch().ips(fleet.list()))
        .set("RATELIMIT_REQS_PER_MIN", 1000)
        .start();
    wait_shown(&router, 4);
    let before = answered(&router);
    let head = format!("GET {PATH}?model_id=a HTTP/1.1\r\nHost: a\r\n\r\n");
    // More clients than may wait: the last ones get an immediate response with the known entries.
    let sources = (1..=150_u8).map(|client| IpAddr::from([127, 7, 7, client]));
    let mut waiting: Vec<Connection> = sources.map(|source| Connection::from(source, router.addr())).collect();
    waiting.iter_mut().for_each(|connection| connection.send(&head));
    let begin = Instant::now();
    for _ in 0..200 {
        assert_eq!(available(&router).len(), 4);
    }
    assert!(
        fleet
            .resource_asks()
            .iter()
            .any(|(_, target, _)| target.ends_with("=a"))
    );
    let known = json!({addr(&fleet, 0): {"hello-world": {"supported": true}}});
    let mut at_once = 0;
    for connection in &mut waiting {
        let answer = connection.receive();
        let had = answer.json();
        at_once += usize::from(had == json!({}));
        assert!(had == known || had == json!({}), "{had}");
        let left = answer
            .header("RateLimit-Remaining")
            .and_then(|left| left.parse::<u32>().ok());
        assert!(left.is_some_and(|left| left >= 999), "it took one token: {left:?}");
    }
    assert!(at_once <= 50, "a hundred may wait: {at_once}");
    assert!(begin.elapsed() >= Duration::from_millis(1_500), "nodes hang");
    assert_eq!(answered(&router) - before, 150, "each counts once");
}

#[test]
fn router_exits_in_time_while_nodes_hang() {
    let fleet = fleet(20);
    fleet.set_resources(0..20, &Behaviour::Hang, &Behaviour::Hang);
    let router = asking(launch().ips(fleet.list())).start();
    router.until("eight queries are in flight", || fleet.resource_asks().len() >= 8);
    router.signal(super::support::Signal::TERM);
    assert_eq!(router.wait_exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn status_shows_resources_of_each_node() {
    let fleet = fleet(3);
    fleet.set_resources(1..2, &Behaviour::Status(404), &supports());
    fleet.set_resources(2..3, &body(&json!({"<b>\u{1b}": {}})), &supports());
    let router = asking(launch().ips(fleet.list())).start();
    let resources = || -> Vec<String> {
        let status = router.get("/status.json").json();
        let nodes = status["nodes"].as_array().expect("a list").iter();
        nodes
            .map(|node| node["resources"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let is_known = |text: &String| !text.is_empty() && text != "not polled yet";
    router.until("all nodes were queried", || {
        let texts = resources();
        texts.len() == 3 && texts.iter().all(is_known)
    });
    let mut texts = resources();
    texts.sort();
    assert_eq!(
        texts,
        [
            "0 of 1 containers: omitted \"<b>\\u{1b}\": not a container of this node",
            "0 of 1 containers: status 404: infernet-node has resources from 1.4.0 on",
            "1 of 1 containers",
        ]
    );
    let page = router.get("/status");
    let page = page.text();
    assert!(
        page.contains("&#60;b&#62;") && page.contains("not a container of this node"),
        "{page}"
    );
    assert!(!page.contains("omitted \"<b>"));
}
