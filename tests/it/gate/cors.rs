//! CORS: which responses a web page of another origin may read.

use super::IPS;
use crate::launch;
use crate::support::http::{Answer, Connection};
use crate::support::{Fleet, Router};

fn with_origins(origins: &str) -> (Fleet, Router) {
    let fleet = Fleet::start(3);
    let launch = launch().ips(fleet.list()).set("RATELIMIT_REQS_PER_MIN", 2);
    let router = launch.set("CORS_ORIGINS", origins).start();
    (fleet, router)
}

fn request(router: &Router, head: &str, origin: &str) -> Answer {
    let mut connection = Connection::open(router.addr());
    connection.send(format!("{head}\r\nHost: a\r\nOrigin: {origin}\r\n\r\n"));
    connection.receive()
}

#[test]
fn only_listed_origin_may_read_every_response() {
    let (_fleet, router) = with_origins("https://app.example,http://localhost:3000");
    for (head, status) in [
        (format!("GET {IPS} HTTP/1.1"), 200),
        ("GET /api/v1/ips HTTP/1.1".to_owned(), 400),
        (format!("GET {IPS} HTTP/1.1"), 429),
        ("GET /nothing HTTP/1.1".to_owned(), 404),
        ("POST /health HTTP/1.1".to_owned(), 405),
        ("GET /health HTTP/2.0".to_owned(), 505),
        ("GET /health HTTP/1.1\r\nContent-Length: 5".to_owned(), 413),
        ("GET /health HTTP/1.1\r\nTransfer-Encoding: x".to_owned(), 400),
        (format!("GET /{} HTTP/1.1", "x".repeat(9_000)), 414),
        (format!("GET /health HTTP/1.1\r\nA: {}", "x".repeat(9_000)), 431),
    ] {
        for (origin, allowed) in [
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("https://evil.example", None),
        ] {
            // The request of the allowed origin has used up the rate limit.
            if allowed.is_none() && head.contains("/api/v1/ips") {
                continue;
            }
            let answer = request(&router, &head, origin);
            assert_eq!(answer.status, status, "{head}");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), allowed, "{head}");
            assert_eq!(answer.header("Vary"), Some("Origin"), "{head}");
            let exposed = answer.header("Access-Control-Expose-Headers").unwrap_or_default();
            assert_eq!(exposed.contains("RateLimit-Remaining"), allowed.is_some(), "{head}");
        }
    }
}

#[test]
fn long_head_without_end_is_still_too_long() {
    let (_fleet, router) = with_origins("https://app.example");
    for (head, status) in [
        (format!("GET /{}", "x".repeat(9_000)), 414),
        (format!("GET /health HTTP/1.1\r\nA: {}", "x".repeat(9_000)), 431),
    ] {
        // No end follows within the deadline of a header section.
        let mut connection = Connection::open(router.addr());
        connection.send(head);
        assert_eq!(connection.receive().status, status);
    }
}

#[test]
fn preflight_returns_204() {
    let (_fleet, router) = with_origins("https://app.example");
    let head = format!("OPTIONS {IPS} HTTP/1.1\r\nAccess-Control-Request-Method: GET");
    let answer = request(&router, &head, "https://app.example");
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("Access-Control-Allow-Origin", "https://app.example"),
        ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
        ("Allow", "GET, HEAD, OPTIONS"),
        ("Vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(answer.header("Access-Control-Allow-Headers").is_some());
    assert!(
        answer
            .header("Access-Control-Max-Age")
            .is_some_and(|age| age.parse::<u32>().is_ok())
    );
    let other = request(&router, &head, "https://evil.example");
    assert_eq!((other.status, other.header("Access-Control-Allow-Origin")), (204, None));
}

#[test]
fn preflight_for_a_private_network_is_allowed() {
    const ALLOWED: &str = "Access-Control-Allow-Private-Network";
    let (_fleet, router) = with_origins("https://app.example");
    let head = format!("OPTIONS {IPS} HTTP/1.1\r\nAccess-Control-Request-Private-Network: true");
    let answer = request(&router, &head, "https://app.example");
    assert_eq!((answer.status, answer.header(ALLOWED)), (204, Some("true")));
    assert_eq!(request(&router, &head, "https://evil.example").header(ALLOWED), None);
}

#[test]
fn star_allows_any_origin_unset_allows_none() {
    let (_fleet, router) = with_origins("*");
    let mut connection = Connection::open(router.addr());
    connection.send("nonsense\r\n\r\n");
    let answer = connection.receive();
    assert_eq!(
        (answer.status, answer.header("Access-Control-Allow-Origin")),
        (400, Some("*"))
    );
    assert_eq!(answer.header("Vary"), None);
    assert_eq!(router.get("/health").header("Access-Control-Allow-Origin"), Some("*"));

    let router = launch().start();
    let answer = request(&router, "GET /health HTTP/1.1", "https://app.example");
    assert_eq!(
        (answer.header("Access-Control-Allow-Origin"), answer.header("Vary")),
        (None, None)
    );
}
