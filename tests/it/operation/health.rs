//! `infernet-router health`.

use super::{launch, run, serving, text};
use crate::support::Fleet;

#[test]
fn a_router_that_serves_is_healthy_on_whatever_address() {
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
fn it_costs_no_token() {
    let router = serving(launch().set("RATELIMIT_REQS_PER_MIN", 1));
    let ask = launch().set("PORT", router.addr().port());
    for _ in 0..3 {
        assert_eq!(run(&ask, &["health"]).status.code(), Some(0));
    }
    assert_eq!(router.get("/api/v1/containers").status, 200);
}

#[test]
fn a_port_where_nobody_serves_is_not_healthy() {
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
fn another_service_on_the_port_is_not_healthy() {
    let fleet = Fleet::start(1);
    let addr = fleet.addr(0);
    let output = run(&launch().set("HOST", addr.ip()).set("PORT", addr.port()), &["health"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("http://{addr}/health: answered 404")), "{said}");
}

#[test]
fn a_port_that_only_the_log_knows_can_not_be_asked() {
    let output = run(&launch().set("PORT", 0), &["health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("PORT=\"0\": expected"), "{output:?}");
}
