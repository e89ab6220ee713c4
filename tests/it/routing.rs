//! Routing under clients and nodes that would bend it.

use super::support::{Behaviour, Fleet};
use super::{launch, wait_available};

/// Longer than any test, so that each node is probed once.
const ONE_PROBE: u32 = 3_600;

#[test]
fn one_address_is_spread_evenly() {
    let fleet = Fleet::start(3);
    let router = launch()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", ONE_PROBE)
        .set("MAX_CONNECTIONS", 64)
        .start();
    wait_available(&router, &fleet, 0..3);
    let first = || router.get("/api/v1/ips?container=hello-world").strings().swap_remove(0);
    let nodes: Vec<String> = (0..3).map(|node| fleet.addr(node).to_string()).collect();
    for hundred in 0..10 {
        let sent: Vec<String> = (0..100).map(|_| first()).collect();
        let on = |node: &String| sent.iter().filter(|sent| *sent == node).count();
        let counts: Vec<usize> = nodes.iter().map(on).collect();
        assert!(
            counts.iter().all(|count| (30..=37).contains(count)),
            "hundred {hundred}: {counts:?}"
        );
    }
}

#[test]
fn many_containers_at_a_deep_offset_are_rejected() {
    const NODES: usize = 2_100;
    let containers: Vec<String> = (0..64).map(|number| format!("c{number}")).collect();
    let fleet = Fleet::start(NODES);
    fleet.set_all(Behaviour::Up {
        pending: 0,
        containers: containers.clone(),
    });
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", ONE_PROBE).start();
    let path = |count: usize, offset: usize| {
        let containers: String = containers[..count]
            .iter()
            .map(|id| format!("container={id}&"))
            .collect();
        format!("/api/v1/ips?{containers}n=1&offset={offset}")
    };
    router.until("all nodes are available", || {
        router.get(&path(1, NODES - 1)).strings().len() == 1
    });
    let error = router.get(&path(64, NODES - 1));
    assert_eq!(error.status, 400);
    let text = error.json()["error"].as_str().expect("an error").to_owned();
    assert!(text.starts_with("offset=\"2099\": expected a smaller offset"), "{text}");
    assert_eq!(router.get(&path(64, 1_000)).strings().len(), 1);
    assert_eq!(router.get(&path(32, NODES - 1)).strings().len(), 1);
}
