//! `infernet-router health`.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::{launch, run, serving, text};
use crate::support::Fleet;

#[test]
fn serving_router_is_healthy_on_any_address() {
    for (bound, asked) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("::", "::"),
    ] {
        let router = serving(launch().set("HOST", bound));
        let port = router.addr().port();
        let output = run(&launch().set("HOST", asked).set("PORT", port), &["health"]);
        assert_eq!(text(&output.stdout), "healthy\n", "{bound}: {output:?}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn health_costs_no_token() {
    let router = serving(launch().set("RATELIMIT_REQS_PER_MIN", 1));
    let ask = launch().set("PORT", router.addr().port());
    for _ in 0..3 {
        assert_eq!(run(&ask, &["health"]).status.code(), Some(0));
    }
    assert_eq!(router.get("/api/v1/containers").status, 200);
}

#[test]
fn refusing_port_is_not_healthy() {
    let fleet = Fleet::start(1);
    let addr = fleet.refusing_addr(0);
    let output = run(&launch().set("HOST", addr.ip()).set("PORT", addr.port()), &["health"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("http://{addr}/health: connection refused")),
        "{said}"
    );
}

#[test]
fn status_404_is_not_healthy() {
    let fleet = Fleet::start(1);
    let addr = fleet.addr(0);
    let output = run(&launch().set("HOST", addr.ip()).set("PORT", addr.port()), &["health"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("http://{addr}/health: status 404")), "{said}");
}

#[test]
fn unknown_port_is_an_error() {
    let output = run(&launch().set("PORT", 0), &["health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("PORT=\"0\": expected"), "{output:?}");
}

#[test]
fn web_server_with_status_200_is_not_healthy() {
    for body in ["", "ok", r#"{"status":"ending"}"#] {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = server.local_addr().expect("a bound socket").port();
        let launch = launch().set("PORT", port);
        let output = std::thread::scope(|scope| {
            let health = scope.spawn(|| run(&launch, &["health"]));
            let (mut client, _) = server.accept().expect("the command connects");
            let mut request = [0; 1024];
            assert!(client.read(&mut request).expect("a request") > 0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            client.write_all((head + body).as_bytes()).expect("sent");
            health.join().expect("no panic")
        });
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            text(&output.stderr).contains("not the response of a router"),
            "{output:?}"
        );
    }
}

#[test]
fn wildcard_host_falls_back_to_ipv4() {
    // No other socket has this port at ::1, as on a machine without that address.
    let router = serving(launch().set("HOST", "127.0.0.1"));
    let output = run(
        &launch().set("HOST", "::").set("PORT", router.addr().port()),
        &["health"],
    );
    assert_eq!(text(&output.stdout), "healthy\n", "{output:?}");
}
