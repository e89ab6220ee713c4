//! Limits of the gate: at the limit, above it, and what the client receives.

use super::{IPS, source, with_ten_nodes};
use crate::launch;
use crate::support::attack::{self, Attack, Then};
use crate::support::http::{Ended, get_from};
use crate::support::{Behaviour, Connection, Fleet, Router};

/// A router with a limit of 16 connections: the share of one client is four.
fn with_16_connections() -> (Fleet, Router) {
    let fleet = Fleet::start(10);
    let router = launch().ips(fleet.list()).set("MAX_CONNECTIONS", 16).start();
    router.until("all nodes are up", || router.get(IPS).strings().len() == 3);
    (fleet, router)
}

/// Opens `count` connections from an address. Each has had one response and stays open.
fn kept(router: &Router, from: u8, count: usize) -> Vec<Connection> {
    let open = |_| {
        let mut connection = Connection::from(source(from), router.addr());
        assert_eq!(connection.get(IPS).status, 200);
        connection
    };
    (0..count).map(open).collect()
}

#[track_caller]
fn is_503(connection: &mut Connection) {
    let answer = connection.receive();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(answer.json()["error"].is_string());
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
}

#[test]
fn above_its_share_client_gets_503() {
    let (_fleet, router) = with_16_connections();
    let mut held = kept(&router, 1, 4);
    // The router would evict an idle connection.
    held.iter_mut().for_each(|connection| connection.send("GET "));
    // The router refuses the connection before it has sent a request.
    is_503(&mut Connection::from(source(1), router.addr()));
    assert_eq!(get_from(source(2), router.addr(), IPS).status, 200);
    for connection in &mut held {
        connection.send(format!("{IPS} HTTP/1.1\r\nHost: a\r\n\r\nGET "));
        assert_eq!(connection.receive().status, 200, "existing connections are kept");
    }
    held.pop();
    router.until("a slot is free again", || {
        let mut connection = Connection::from(source(1), router.addr());
        connection.try_send(attack::get(IPS)).is_ok()
            && connection.try_receive().is_ok_and(|answer| answer.status == 200)
    });
    router.wait_line("connection limit reached: 503 sent, client=", crate::support::PATIENCE);
}

#[test]
fn trusted_proxy_may_have_all_connections() {
    let fleet = Fleet::start(10);
    let router = launch()
        .ips(fleet.list())
        .set("MAX_CONNECTIONS", 16)
        .set("TRUSTED_PROXIES", "127.55.0.1")
        .start();
    let mut held = kept(&router, 1, 16);
    for connection in &mut held {
        assert_eq!(connection.get(IPS).status, 200);
    }
}

#[test]
fn at_limit_evicts_longest_idle_of_largest_client() {
    let (_fleet, router) = with_16_connections();
    let mut most = kept(&router, 9, 4);
    let mut others: Vec<Connection> = (1..=4).flat_map(|from| kept(&router, from, 3)).collect();
    // This connection is idle longest. A request makes it the most recent one.
    assert_eq!(most[0].get(IPS).status, 200);
    let mut new = kept(&router, 5, 1);
    assert_eq!(most[1].try_receive(), Err(Ended::Closed), "evicted");
    most.remove(1);
    for connection in most.iter_mut().chain(&mut others).chain(&mut new) {
        assert_eq!(connection.get(IPS).status, 200);
    }
}

#[test]
fn with_all_connections_busy_new_client_gets_503() {
    let fleet = Fleet::start(10);
    let ids: Vec<String> = (0..256).map(|n| format!("{n:0>200}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fleet.set_all(Behaviour::up(1, &ids));
    let router = launch().ips(fleet.list()).set("MAX_CONNECTIONS", 16).start();
    let readers = Attack {
        name: "never read",
        connections: 16,
        sources: 16,
        opening: attack::get("/api/v1/containers").repeat(100),
        then: Then::Flood(attack::get("/api/v1/containers")),
    };
    let readers = readers.start(router.addr());
    router.until("no connection can be evicted", || {
        let mut connection = Connection::from(source(1), router.addr());
        // The router may evict this connection for one of the readers.
        let sent = connection.try_send(attack::get("/health"));
        match sent.map(|()| connection.try_receive()) {
            Ok(Ok(answer)) if answer.status == 503 => {
                assert_eq!(answer.header("Retry-After"), Some("1"));
                true
            }
            _ => false,
        }
    });
    readers.end();
    router.until("a new client is answered", || {
        let mut connection = Connection::from(source(1), router.addr());
        let sent = connection.try_send(attack::get("/health"));
        sent.is_ok() && connection.try_receive().is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(router.count_lines("all connections busy"), 1);
}

#[test]
fn dripped_head_returns_408_after_five_seconds() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    // One byte each 20 ms would reset a deadline per read.
    crate::support::process::until(crate::support::PATIENCE, || {
        let _ = connection.try_send("x");
        let mut waits = [rustix::event::PollFd::new(
            connection.stream(),
            rustix::event::PollFlags::IN,
        )];
        let pause = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        rustix::event::poll(&mut waits, Some(&pause)).is_ok_and(|ready| ready > 0)
    });
    assert_eq!(connection.receive().status, 408);
}

#[test]
fn silent_connection_is_closed_without_a_response() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    let mut with_empty_lines = Connection::open(router.addr());
    with_empty_lines.send("\r\n\r\n");
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
    assert_eq!(with_empty_lines.try_receive(), Err(Ended::Closed));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a duration")]
fn empty_line_after_a_request_is_no_request() {
    let (_fleet, router) = with_ten_nodes();
    for lines in ["\r\n", "\n", "\n\n\r\n", "\r"] {
        let mut half_closed = Connection::open(router.addr());
        half_closed.send([attack::get("/health"), lines.into()].concat());
        half_closed.finish_sending();
        assert_eq!(half_closed.receive_all().len(), 1, "{lines:?}");
    }

    let request = [attack::get("/health"), b"\n".repeat(20_000)].concat();
    let mut kept = Connection::open(router.addr());
    kept.send(&request);
    assert_eq!(kept.receive().status, 200);
    kept.send("\r\n");
    let begin = std::time::Instant::now();
    router.signal(crate::support::Signal::TERM);
    assert_eq!(kept.try_receive(), Err(Ended::Closed));
    assert_eq!(router.wait_exit(crate::support::PATIENCE).code(), Some(0));
    let took = begin.elapsed();
    assert!(
        took < std::time::Duration::from_secs(3),
        "shutdown waited for the connection: {took:?}"
    );
}

#[test]
fn stopped_process_keeps_its_connections() {
    let (_fleet, router) = with_ten_nodes();
    let mut begun: Vec<Connection> = (1..=60)
        .map(|from| Connection::from(source(from), router.addr()))
        .collect();
    begun.iter_mut().for_each(|connection| connection.send("GET "));
    router.until("all connections have arrived", || {
        router
            .get("/metrics")
            .text()
            .contains("infernet_router_open_connections 61")
    });
    router.signal(crate::support::Signal::STOP);
    for connection in &mut begun {
        connection.send(format!("{IPS} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    // Longer than each deadline of a connection.
    let is_over = std::cell::Cell::new(false);
    crate::support::process::until(std::time::Duration::from_secs(6), || is_over.get());
    router.signal(crate::support::Signal::CONT);
    for connection in &mut begun {
        assert_eq!(connection.receive().status, 200);
    }
    assert_eq!(router.count_lines("workers lost"), 0);
}

#[test]
fn head_above_8192_bytes_returns_431() {
    let (_fleet, router) = with_ten_nodes();
    let head = |len: usize| {
        let rest = format!("GET {IPS} HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n").len();
        format!("GET {IPS} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - rest))
    };
    let mut connection = Connection::open(router.addr());
    connection.send(head(8_192));
    assert_eq!(connection.receive().status, 200);
    connection.send(head(8_193));
    let answer = connection.receive();
    assert_eq!((answer.status, answer.header("Connection")), (431, Some("close")));
    assert!(answer.text().contains("8192 bytes"));
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
}

#[test]
fn more_than_100_headers_return_431() {
    let (_fleet, router) = with_ten_nodes();
    let head = |headers: usize| {
        format!(
            "GET {IPS} HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(headers - 1)
        )
    };
    let mut connection = Connection::open(router.addr());
    connection.send(head(100));
    assert_eq!(connection.receive().status, 200);
    connection.send(head(101));
    assert_eq!(connection.receive().status, 431);
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
}

#[test]
fn thousandth_response_announces_the_close() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    for _ in 1..1_000 {
        assert_eq!(connection.get("/health").header("Connection"), None);
    }
    connection.send(attack::get("/health").repeat(2));
    let last = connection.receive();
    assert_eq!((last.status, last.header("Connection")), (200, Some("close")));
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
}

#[test]
fn refusal_ends_pipelined_requests() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    let mut ahead = String::new();
    for n in 0..50 {
        ahead += &format!("GET {IPS}&n={n} HTTP/1.1\r\nHost: a\r\n\r\n");
        ahead += "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    }
    connection.send(&ahead);
    connection.send("GET /x HTTP/1.1\r\n\r\n");
    connection.send(&ahead);
    for n in 0..50 {
        assert_eq!(connection.receive().strings().len(), n.min(10));
        let head = connection.receive();
        assert_eq!(
            (head.status, head.body.len(), head.header("Content-Length")),
            (200, 0, Some("20"))
        );
        assert_eq!(connection.receive().status, 204);
    }
    assert_eq!(connection.receive().status, 400);
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
}

#[test]
fn half_closed_client_is_answered() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    connection.send(attack::get(IPS).repeat(3));
    connection.finish_sending();
    let answers = connection.receive_all();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200; 3]);
}

#[test]
fn at_share_limit_evicts_own_longest_idle() {
    let (_fleet, router) = with_16_connections();
    let mut held = kept(&router, 1, 4);
    assert_eq!(held[0].get(IPS).status, 200);
    let mut other = kept(&router, 2, 1);
    let mut new = kept(&router, 1, 1);
    assert_eq!(held[1].try_receive(), Err(Ended::Closed), "idle longest");
    held.remove(1);
    for connection in held.iter_mut().chain(&mut other).chain(&mut new) {
        assert_eq!(connection.get(IPS).status, 200);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a duration")]
fn kept_connection_is_closed_after_idle_timeout() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).set("IDLE_TIMEOUT", 1).start();
    let mut connection = Connection::open(router.addr());
    assert_eq!(connection.get("/health").status, 200);
    let begin = std::time::Instant::now();
    assert_eq!(connection.try_receive(), Err(Ended::Closed));
    assert!(begin.elapsed() >= std::time::Duration::from_secs(1));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a duration")]
fn slow_reader_with_progress_gets_whole_response() {
    let fleet = Fleet::start(10);
    let ids: Vec<String> = (0..256).map(|n| format!("{n:0>200}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fleet.set_all(Behaviour::up(1, &ids));
    let router = launch().ips(fleet.list()).set("RATELIMIT_REQS_PER_MIN", 0).start();
    router.until("all nodes are up", || {
        router.get("/api/v1/containers").body.len() > 50_000
    });
    let whole = router.get("/api/v1/containers").body.len() * 60;
    let mut stream = std::net::TcpStream::connect(router.addr()).expect("a connection");
    std::io::Write::write_all(&mut stream, &attack::get("/api/v1/containers").repeat(60)).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    // At 256 KiB/s, the data in the socket buffers lasts longer than the 10 s.
    let (begin, mut got, mut buffer) = (std::time::Instant::now(), 0, vec![0; 16 * 1024]);
    let is_slow = |got: usize| begin.elapsed().as_secs_f64() < got as f64 / 262_144.0;
    loop {
        crate::support::process::until(crate::support::PATIENCE, || !is_slow(got));
        match std::io::Read::read(&mut stream, &mut buffer).expect("more data") {
            0 => break,
            more => got += more,
        }
    }
    assert!(got > whole && begin.elapsed().as_secs() > 10, "{got} of {whole}");
}

#[test]
fn untrusted_proxy_gets_404_and_one_warning() {
    let (_fleet, router) = with_ten_nodes();
    for target in ["/metrics", "/status", "/status.json"] {
        assert_eq!(router.get(target).status, 200, "{target}");
        for header in [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")] {
            let answer = crate::support::http::get_with(router.addr(), target, &[header]);
            assert_eq!(answer.status, 404, "{target}, {header:?}");
        }
    }
    assert_eq!(
        crate::support::http::get_with(router.addr(), IPS, &[("X-Forwarded-For", "a")]).status,
        200
    );
    router.wait_line("TRUSTED_PROXIES", crate::support::PATIENCE);
    assert_eq!(router.count_lines("TRUSTED_PROXIES"), 1);
}

#[test]
fn forwarded_header_identifies_the_client() {
    let fleet = Fleet::start(1);
    let router = launch()
        .ips(fleet.list())
        .set("TRUSTED_PROXIES", "127.55.0.1")
        .set("METRICS_FROM", "198.51.100.1,127.55.0.1")
        .set("RATELIMIT_REQS_PER_MIN", 1)
        .start();
    let status = |target: &str, headers: &[(&str, &str)]| {
        let connection = Connection::from(source(1), router.addr());
        connection.close_with("GET", target, headers).status
    };
    for client in ["198.51.100.1", "\"198.51.100.2:80\"", "\"[2001:db8::1]\""] {
        let forwarded = format!("proto=https;for={client}");
        assert_eq!(status(IPS, &[("Forwarded", &forwarded)]), 200, "{client}");
        assert_eq!(status(IPS, &[("Forwarded", &forwarded)]), 429, "{client}");
    }
    assert_eq!(status("/metrics", &[("Forwarded", "for=198.51.100.1")]), 200);
    let contradicting = [("Forwarded", "for=198.51.100.1"), ("X-Forwarded-For", "198.51.100.9")];
    assert_eq!(status("/metrics", &contradicting), 404);
    assert_eq!(status(IPS, &contradicting), 200, "charged to the proxy");
    assert_eq!(status(IPS, &[]), 429, "the proxy has one limit");
}

#[test]
fn ipv6_wildcard_accepts_ipv4() {
    if std::net::TcpListener::bind("[::]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let router = launch().set("HOST", "::").start();
    let addr = (std::net::Ipv4Addr::LOCALHOST, router.addr().port());
    assert_eq!(crate::support::http::get(addr.into(), "/health").status, 200);
}
