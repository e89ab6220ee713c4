//! Inputs that crash, block or exhaust bare tiny_http. The router survives each and serves an honest client meanwhile.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{HONEST, IPS, source, under_attack, with_ten_nodes};
use crate::support::attack::{self, Attack, FIRST_ATTACKER, Then, connect};
use crate::support::http::Ended;
use crate::support::{Connection, PATIENCE, Router};

/// Memory limit of a router with ten nodes.
const MAX_RSS_KIB: u64 = 64 * 1024;

fn head(lines: &str) -> Vec<u8> {
    format!("GET {IPS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[track_caller]
fn stayed_small(router: &Router) {
    assert!(router.peak_rss_kib() < MAX_RSS_KIB, "{} KiB", router.peak_rss_kib());
}

/// Opens `count` connections from one address and asserts that the response to `opening` has `status` on each.
#[track_caller]
fn each_is_answered(router: &Router, count: usize, opening: &[u8], status: u16) {
    let open = |_| {
        let mut connection = Connection::from(source(1), router.addr());
        connection.send(opening);
        connection
    };
    let connections: Vec<Connection> = (0..count).map(open).collect();
    for mut connection in connections {
        assert_eq!(connection.receive().status, status);
        assert_eq!(connection.try_receive(), Err(Ended::Closed));
    }
}

#[test]
fn content_length_of_100_petabytes_is_refused() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        each_is_answered(&router, 10, &head("Content-Length: 100000000000000000\r\n"), 413);
    });
    stayed_small(&router);
}

#[test]
fn content_length_of_a_gigabyte_allocates_nothing() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
        each_is_answered(&router, 6, post, 405);
        each_is_answered(&router, 6, &head("Content-Length: 1000000000\r\n"), 413);
    });
    stayed_small(&router);
}

#[test]
fn missing_bodies_block_no_worker() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        each_is_answered(&router, 64, &head("Content-Length: 5000\r\n"), 413);
        let post = format!("POST {IPS} HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
        each_is_answered(&router, 64, post.as_bytes(), 405);
    });
}

#[test]
fn silent_connections_use_no_thread_and_are_closed() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        let threads = router.threads();
        let mut silent: Vec<Connection> = (0..120).map(|_| Connection::from(source(1), router.addr())).collect();
        assert!(router.threads() <= threads);
        for connection in &mut silent {
            assert_eq!(connection.wait_closed(), b"");
        }
    });
}

#[test]
fn endless_head_is_refused_after_8_kib() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        let mut endless = head(&"X: y\r\n".repeat(10));
        endless.truncate(endless.len() - 2);
        endless.extend(b"Y: ");
        endless.extend(vec![b'y'; 1_000_000]);
        for _ in 0..20 {
            let mut connection = Connection::from(source(1), router.addr());
            let _ = connection.try_send(&endless);
            assert_eq!(connection.receive().status, 431);
        }
    });
    stayed_small(&router);
}

#[test]
fn unread_pipelined_responses_block_no_worker() {
    let (_fleet, router) = with_ten_nodes();
    let pipelining = Attack {
        name: "pipelining",
        connections: 32,
        sources: 2,
        opening: Vec::new(),
        then: Then::Flood(attack::get(IPS)),
    };
    under_attack(&router, || {
        let pipelining = pipelining.start(router.addr());
        let mut honest = Connection::from(source(1), router.addr());
        for _ in 0..200 {
            assert_eq!(honest.get(IPS).status, 200);
        }
        assert_eq!(pipelining.end().most, 32);
    });
    stayed_small(&router);
}

#[test]
fn http_2_0_leaks_nothing() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        for _ in 0..4 {
            each_is_answered(&router, 50, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
        }
    });
}

#[test]
fn three_thousand_resets_leave_nothing_open() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        for number in 0..3_000_u32 {
            let from = Ipv4Addr::from(u32::from(FIRST_ATTACKER) + number % 100);
            let Ok(mut stream) = connect(from, router.addr(), PATIENCE) else {
                continue;
            };
            let _ = std::io::Write::write_all(&mut stream, &attack::get(IPS)[..number as usize % 40]);
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("set");
        }
    });
}

#[test]
fn twelve_concurrent_kept_connections_are_all_answered() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        for _ in 0..20 {
            let mut held: Vec<Connection> = (0..12).map(|_| Connection::from(source(1), router.addr())).collect();
            held.iter_mut().for_each(|connection| connection.send(attack::get(IPS)));
            for connection in &mut held {
                assert_eq!(connection.receive().strings().len(), 3);
            }
        }
    });
}

#[test]
fn ambiguous_heads_are_refused_by_the_gate() {
    let (_fleet, router) = with_ten_nodes();
    under_attack(&router, || {
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Host: b\r\n",
        ] {
            each_is_answered(&router, 20, &head(lines), 400);
        }
        each_is_answered(&router, 20, b"GET / HTTP/1.1\r\n\r\n", 400);
    });
}

#[test]
fn forged_gate_headers_are_ignored() {
    let (_fleet, router) = with_ten_nodes();
    // The gate drops headers that it uses towards the workers itself.
    let forged = head("Client: 127.77.0.1\r\nPersistence: close\r\n");
    let mut connection = Connection::from(HONEST.into(), router.addr());
    connection.send(forged);
    let answer = connection.receive();
    assert_eq!((answer.status, answer.header("Connection")), (200, None));
}
