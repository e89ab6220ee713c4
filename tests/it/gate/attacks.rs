//! Attacks of many clients: the router serves an honest client meanwhile, and its memory stays below a limit.

use std::time::Duration;

use super::{IPS, under_attack, with_ten_nodes};
use crate::launch;
use crate::support::attack::{self, Attack, Then, random_heads};
use crate::support::{Fleet, Router};

const MAX_RSS_KIB: u64 = 64 * 1024;

/// Runs an attack until it has opened `opened` connections. Asserts that memory stays below the limit.
#[track_caller]
fn outlives(attack: &Attack, opened: usize) {
    let (fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        let asked = fleet.asked_total();
        let running = attack.start(router.addr());
        router.until("enough connections were opened", || running.opened() >= opened);
        let outcome = running.end();
        assert!(outcome.opened >= opened, "{outcome:?}");
        assert!(fleet.asked_total() >= asked);
    });
    assert!(router.peak_rss_kib() < MAX_RSS_KIB, "{} KiB", router.peak_rss_kib());
}

#[test]
fn idle_connections_of_one_address_are_survived() {
    outlives(
        &Attack {
            name: "idle",
            connections: 900,
            sources: 1,
            opening: Vec::new(),
            then: Then::Silence,
        },
        1_800,
    );
}

#[test]
fn idle_connections_of_300_addresses_are_survived() {
    outlives(
        &Attack {
            name: "idle, three each",
            connections: 900,
            sources: 300,
            opening: Vec::new(),
            then: Then::Silence,
        },
        1_800,
    );
}

#[test]
fn dripped_heads_are_survived() {
    outlives(
        &Attack {
            name: "dripped heads",
            connections: 200,
            sources: 200,
            opening: b"GET / HTTP/1.1\r\nX: ".to_vec(),
            then: Then::Drip(b"x"),
        },
        // One more than are open concurrently: the router has sent 408 to the first ones.
        201,
    );
}

#[test]
fn missing_bodies_are_survived() {
    outlives(
        &Attack {
            name: "no body",
            connections: 64,
            sources: 1,
            opening: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".to_vec(),
            then: Then::Silence,
        },
        500,
    );
}

#[test]
fn dripped_bodies_are_survived() {
    outlives(
        &Attack {
            name: "dripped bodies",
            connections: 64,
            sources: 64,
            opening: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            then: Then::Drip(b"1\r\nx\r\n"),
        },
        500,
    );
}

#[test]
fn connection_resets_are_survived() {
    outlives(
        &Attack {
            name: "resets",
            connections: 100,
            sources: 10,
            opening: attack::get(IPS),
            then: Then::Reset,
        },
        600,
    );
}

#[test]
fn flood_of_unread_bodies_is_survived() {
    outlives(
        &Attack {
            name: "flood of bodies",
            connections: 16,
            sources: 4,
            opening: b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n".to_vec(),
            then: Then::Flood(vec![b'x'; 1024]),
        },
        50,
    );
}

#[test]
fn overlapping_ranges_of_300_clients_are_survived() {
    let ranges: Vec<String> = (0..500).map(|n| format!("5-{n}")).collect();
    let lines = format!("Host: a\r\nRange: bytes=0-,{}\r\n\r\n", ranges.join(","));
    outlives(
        &Attack {
            name: "ranges",
            connections: 300,
            sources: 300,
            opening: format!("GET {IPS} HTTP/1.1\r\nConnection: close\r\n{lines}").into_bytes(),
            then: Then::Read,
        },
        2_000,
    );
}

#[test]
fn random_heads_are_survived() {
    let (_fleet, router) = with_ten_nodes();
    let sent = under_attack(&router, || {
        random_heads(router.addr(), 1, 1_000_000, Duration::from_secs(5))
    });
    assert!(sent > 0);
    assert!(router.peak_rss_kib() < MAX_RSS_KIB, "{} KiB", router.peak_rss_kib());
}

#[test]
fn large_unread_responses_are_survived() {
    let fleet = Fleet::start(10_000);
    let router: Router = launch().ips(fleet.list()).start();
    let last = format!("{IPS}&n=1&offset=9999");
    router.until("all nodes are up", || router.get(&last).strings().len() == 1);
    let never = Attack {
        name: "never read",
        connections: 500,
        sources: 10,
        opening: attack::get(&format!("{IPS}&n=1000")).repeat(3),
        then: Then::Silence,
    };
    let running = never.start(router.addr());
    router.until("all clients have sent requests", || running.opened() >= 500);
    // A debug build needs longer for these requests than a request may wait. Other clients are served afterwards.
    router.until("another client is answered", || router.get(IPS).status == 200);
    running.end();
    assert!(router.peak_rss_kib() < MAX_RSS_KIB, "{} KiB", router.peak_rss_kib());
    assert_eq!(router.count_lines("panicked"), 0);
}
