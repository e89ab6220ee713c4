//! Words after an address in ips.txt, through the built binary.

use super::support::{Behaviour, Explorer, Fleet, Listing, PATIENCE, Router};
use super::{addresses, available, launch, wait_available};

/// The addresses that a client gets, in their order.
fn order(router: &Router) -> Vec<String> {
    let response = router.get("/api/v1/ips?container=hello-world&n=100&offset=0").json();
    let list = response.as_array().expect("a list").iter();
    list.map(|addr| addr.as_str().expect("an address").to_owned()).collect()
}

/// The row of a node in `/status.json`.
fn status(router: &Router, addr: &str) -> serde_json::Value {
    let report = router.get("/status.json").json();
    let nodes = report["nodes"].as_array().expect("a list");
    let row = nodes.iter().find(|row| row["address"] == addr);
    row.unwrap_or_else(|| panic!("{addr} in {report}")).clone()
}

#[test]
fn draining_node_is_probed_and_not_returned() {
    let fleet = Fleet::start(2);
    let [a, b] = [0, 1].map(|node| fleet.addr(node).to_string());
    let router = launch()
        .ips(format!("{a} drain # rack 3\n{b}\n"))
        .set("REFRESH_INTERVAL", 1)
        .start();
    wait_available(&router, &fleet, [1]);
    fleet.wait_asked(0, 2, PATIENCE);
    assert_eq!(available(&router), addresses(&fleet, [1]));
    let metrics = router.get("/metrics");
    let metrics = metrics.text();
    for (state, nodes) in [("draining", 1), ("up", 1), ("down", 0)] {
        let line = format!("infernet_router_nodes{{source=\"ips_file\",state=\"{state}\"}} {nodes}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let node = status(&router, &a);
    assert_eq!(
        (&node["draining"], &node["name"], &node["state"]),
        (&true.into(), &"rack 3".into(), &"up".into())
    );
    assert_eq!(node["containers"], serde_json::json!(["hello-world"]));
    assert!(node["speed"].is_object(), "{node}");
    let filtered = router.get("/status.json?container=hello-world").json();
    assert_eq!(filtered["matched"], 2, "the filter finds the draining node");
    let count = router.get("/api/v1/containers").json()[0]["count"].clone();
    assert_eq!(count, 1);
    let table = launch().set("PORT", router.addr().port()).arg("status").run().stdout;
    let row = table.lines().find(|line| line.starts_with(&a)).expect("a row");
    assert!(row.contains(" draining "), "{table}");
    // The node keeps its state: no probe is needed.
    fleet.set(0, Behaviour::Hang);
    router.write_ips(format!("{a}\n{b} drain\n"));
    wait_available(&router, &fleet, [0]);
    router.write_ips(format!("{a} drain\n{b} drain\n"));
    wait_available(&router, &fleet, []);
    let page = router.get("/status");
    assert!(page.text().contains("No node is available"), "{}", page.text());
    assert_eq!(router.count_lines("node removed"), 0, "{:?}", router.log());
}

#[test]
fn backup_ranks_below_other_nodes() {
    let fleet = Fleet::start(3);
    fleet.set(1, Behaviour::up(50, &["hello-world"]));
    let [a, b, c] = [0, 1, 2].map(|node| fleet.addr(node).to_string());
    let list = format!("{a} backup\n{b}\n{c} backup\n");
    let router = launch().ips(list).set("REFRESH_INTERVAL", 1).start();
    wait_available(&router, &fleet, 0..3);
    for _ in 0..20 {
        assert_eq!(order(&router)[0], b);
    }
    assert_eq!(status(&router, &a)["backup"], true);
    assert_eq!(status(&router, &b)["backup"], false);
    fleet.set(1, Behaviour::Status(500));
    wait_available(&router, &fleet, [0, 2]);
}

#[test]
fn clients_get_the_as_address_once() {
    let fleet = Fleet::start(3);
    let [a, b, c] = [0, 1, 2].map(|node| fleet.addr(node).to_string());
    let list = format!("{a} as=203.0.113.7:4000\n{b} as=http://203.0.113.7:4000/\n{c} as=https://gateway.example/c/\n");
    let router = launch().ips(list).start();
    router.until("all nodes are up", || {
        router.get("/api/v1/containers").json()[0]["count"] == 3
    });
    let mut found = order(&router);
    found
        .iter_mut()
        .for_each(|addr| *addr = addr.replace("http://203", "203"));
    found.sort_unstable();
    assert_eq!(found, ["203.0.113.7:4000", "https://gateway.example/c"]);
    assert_eq!(status(&router, &a)["as"], "203.0.113.7:4000");
    let page = router.get("/api/v1/ips?container=hello-world&n=1&offset=1").json();
    assert_eq!(page.as_array().map(Vec::len), Some(1), "pages are filled");
    let page = router.get("/api/v1/ips?container=hello-world&n=1&offset=2").json();
    assert_eq!(page.as_array().map(Vec::len), Some(0));
}

#[test]
fn explorer_node_at_as_address_is_listed_node() {
    let fleet = Fleet::start(3);
    let [a, b] = [0, 1].map(|node| fleet.addr(node));
    let explorer = Explorer::start(Listing::Nodes(vec![b, fleet.addr(2)]));
    let router = launch()
        .ips(format!("{a} as={b}\n"))
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    // The Explorer's list may arrive before the file: then its node is probed until the file is read.
    router.until("only the private address is probed", || {
        available(&router) == addresses(&fleet, 1..3) && fleet.asked(0) > 0
    });
    let asked = fleet.asked(1);
    fleet.wait_asked(0, fleet.asked(0) + 2, PATIENCE);
    assert_eq!(fleet.asked(1), asked);
}

#[test]
fn typo_in_an_attribute_is_suggested() {
    let fleet = Fleet::start(1);
    let a = fleet.addr(0);
    let router = launch()
        .ips(format!(
            "{a}\n127.0.0.1:1 drian\n127.0.0.1:2 drain drain\n127.0.0.1:3 as=\n"
        ))
        .start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    for line in [
        r#"line=2 text="127.0.0.1:1 drian" reason="unknown word \"drian\"; did you mean drain?""#,
        r#"line=3 text="127.0.0.1:2 drain drain" reason="expected drain at most once""#,
        r#"line=4 text="127.0.0.1:3 as=" reason="as=: expected a host""#,
    ] {
        assert_eq!(router.count_lines(line), 1, "{line} in {:?}", router.log());
    }
}

#[test]
fn check_shows_attributes() {
    let fleet = Fleet::start(1);
    let list = format!("{} drain backup as=203.0.113.7:4000 # rack 3\n", fleet.addr(0));
    let launch = launch().ips(&list).arg("check");
    let output = launch.run();
    let text = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("rack 3; draining; backup; as=203.0.113.7:4000"), "{text}");
    assert!(text.contains("0 of 1 nodes available"), "{text}");
}
