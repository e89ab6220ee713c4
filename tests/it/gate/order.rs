//! Each client gets its responses complete and in order, for any split into packets.

use super::{IPS, source, with_ten_nodes};
use crate::support::{Connection, attack};

/// Pseudo-random numbers from a seed (SplitMix64).
fn numbers(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }
}

#[test]
fn requests_in_small_packets_are_answered_in_order() {
    let (_fleet, router) = with_ten_nodes();
    let mut number = numbers(1);
    for _ in 0..3 {
        let mut connection = Connection::open(router.addr());
        let requests: Vec<String> = (0..900)
            .map(|n| format!("GET /api/v1/ips?container=a&n=x{n}x HTTP/1.1\r\nHost: a\r\n\r\n"))
            .collect();
        let mut rest = &*requests.concat();
        let mut sender = connection.stream().try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !rest.is_empty() {
                    let (packet, more) = rest.split_at((1 + number(200)).min(rest.len()));
                    std::io::Write::write_all(&mut sender, packet.as_bytes()).expect("sent");
                    rest = more;
                }
            });
            for n in 0..900 {
                let error = connection.receive().json()["error"].to_string();
                assert!(error.contains(&format!("x{n}x")), "{error} instead of {n}");
            }
        });
        number = numbers(2);
    }
}

#[test]
fn split_requests_on_110_connections_block_no_client() {
    let (_fleet, router) = with_ten_nodes();
    let head = "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held: Vec<Connection> = (0..110).map(|_| Connection::from(source(1), router.addr())).collect();
    for _ in 0..5 {
        for connection in &mut held {
            connection.send([&*attack::get("/health"), &head.as_bytes()[..9]].concat());
        }
        held.iter_mut().for_each(|connection| connection.send(&head[9..]));
        assert_eq!(router.get(IPS).status, 200);
        for connection in &mut held {
            assert_eq!(connection.receive().body.len(), r#"{"status":"healthy"}"#.len());
            let answer = connection.receive();
            assert_eq!((answer.status, answer.body.len()), (200, 0));
        }
    }
}

#[test]
fn half_closed_client_gets_complete_long_responses() {
    let (_fleet, router) = with_ten_nodes();
    for _ in 0..5 {
        let mut connection = Connection::open(router.addr());
        connection.send(attack::get("/openapi.json").repeat(150));
        connection.finish_sending();
        let answers = connection.receive_all();
        assert_eq!(answers.len(), 150);
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    }
}
