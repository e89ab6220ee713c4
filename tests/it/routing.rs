//! Routing with clients and nodes that try to distort it.

use super::support::{Behaviour, Explorer, Fleet, Listing};
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

#[test]
fn many_ids_of_explorer_address_evict_none() {
    // Each fleet is another port of one address.
    let hostile: Vec<Fleet> = (0..40).map(|_| Fleet::start(1)).collect();
    for (port, fleet) in hostile.iter().enumerate() {
        let containers = (0..256).map(|number| format!("junk-{port}-{number}")).collect();
        fleet.set_all(Behaviour::Up { pending: 0, containers });
    }
    let honest = Fleet::start(2);
    let mut listing: Vec<_> = hostile.iter().map(|fleet| fleet.addr(0)).collect();
    let explorer = Explorer::start(Listing::Nodes(listing.clone()));
    let router = launch()
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", 1)
        .start();
    router.until("the catalogue is full", || {
        router.get("/api/v1/containers").json().as_array().map(Vec::len) == Some(10_000)
    });
    listing.push(honest.addr(1));
    explorer.set(Listing::Nodes(listing));
    wait_available(&router, &honest, [1]);
}
