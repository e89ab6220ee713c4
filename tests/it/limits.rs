//! The rate limit, and which requests belong to one client.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::json;

use super::launch;
use super::support::http::{self, Answer, Connection};
use super::support::process::until;
use super::support::{PATIENCE, Router};

const IPS: &str = "/api/v1/ips?container=a";
const CONTAINERS: &str = "/api/v1/containers";

/// At 1 per minute, a client that gets 429 has sent a request before.
fn once_a_minute() -> Router {
    launch().set("RATELIMIT_REQS_PER_MIN", 1).start()
}

fn seconds(answer: &Answer, header: &str) -> u64 {
    let value = answer
        .header(header)
        .unwrap_or_else(|| panic!("no {header} in {answer:?}"));
    value.parse().expect("whole seconds")
}

#[test]
fn burst_above_limit_returns_429_with_headers() {
    let router = launch().set("RATELIMIT_REQS_PER_MIN", 3).start();
    for remaining in ["2", "1", "0"] {
        let answer = router.get(IPS);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("RateLimit-Limit"), Some("3"));
        assert_eq!(answer.header("RateLimit-Remaining"), Some(remaining));
        assert_eq!(answer.header("Retry-After"), None);
    }
    let answer = router.get(IPS);
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json(), json!({"error": "Too many requests"}));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("RateLimit-Limit"), Some("3"));
    assert_eq!(answer.header("RateLimit-Remaining"), Some("0"));
    // 20 s for a token and a minute until the bucket is full, less the time since.
    assert!((1..=20).contains(&seconds(&answer, "Retry-After")), "{answer:?}");
    assert!((41..=60).contains(&seconds(&answer, "RateLimit-Reset")), "{answer:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "waits for the time in Retry-After")]
fn request_after_retry_after_is_granted() {
    let router = launch().set("RATELIMIT_REQS_PER_MIN", 60).start();
    let mut refused = router.get(IPS);
    let mut before = 0;
    while refused.status == 200 {
        before += 1;
        refused = router.get(IPS);
    }
    assert!(before >= 60, "{before}");
    let since = Instant::now();
    let wait = Duration::from_secs(seconds(&refused, "Retry-After"));
    assert_eq!(wait, Duration::from_secs(1));
    assert!(until(PATIENCE, || since.elapsed() >= wait));
    assert_eq!(router.get(IPS).status, 200);
}

#[test]
fn each_limited_endpoint_has_its_own_bucket() {
    let router = once_a_minute();
    assert_eq!([router.get(IPS).status, router.get(IPS).status], [200, 429]);
    assert_eq!(
        [router.get(CONTAINERS).status, router.get(CONTAINERS).status],
        [200, 429]
    );
    for target in ["/health", "/openapi.json", "/metrics"] {
        for _ in 0..3 {
            let answer = router.get(target);
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(answer.header("RateLimit-Limit"), None, "{target}");
        }
    }
}

#[test]
fn each_client_has_its_own_bucket() {
    let router = once_a_minute();
    for last in 1..6 {
        let source = IpAddr::from([127, 0, 0, last]);
        let statuses = [0; 2].map(|_| http::get_from(source, router.addr(), IPS).status);
        assert_eq!(statuses, [200, 429], "{source}");
    }
}

#[test]
fn a_400_and_a_head_cost_a_token() {
    for (method, target, status) in [
        ("GET", "/api/v1/ips?n=x", 400),
        ("HEAD", IPS, 200),
        ("HEAD", CONTAINERS, 200),
    ] {
        let router = once_a_minute();
        let answer = http::call(router.addr(), method, target);
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.header("RateLimit-Remaining"), Some("0"));
        let answer = http::call(router.addr(), method, target);
        assert_eq!(answer.status, 429, "{method} {target}");
        assert!(answer.header("Retry-After").is_some());
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
}

#[test]
fn rejected_requests_cost_no_token() {
    let router = once_a_minute();
    for _ in 0..3 {
        assert_eq!(http::call(router.addr(), "OPTIONS", IPS).status, 204);
        assert_eq!(http::call(router.addr(), "POST", IPS).status, 405);
        assert_eq!(router.get("/api/v1/ips/x?container=a").status, 404);
        let malformed = http::request(router.addr(), format!("GET {IPS} HTTP/1.1\r\n\r\n"));
        assert_eq!(malformed[0].status, 400, "no Host");
        for answer in malformed {
            assert_eq!(answer.header("RateLimit-Limit"), None);
        }
    }
    assert_eq!(router.get(IPS).status, 200);
    let options = http::call(router.addr(), "OPTIONS", IPS);
    assert_eq!((options.status, options.header("RateLimit-Limit")), (204, None));
}

#[test]
fn zero_disables_the_limit() {
    let router = launch().set("RATELIMIT_REQS_PER_MIN", 0).start();
    let mut connection = Connection::open(router.addr());
    for _ in 0..100 {
        let answer = connection.get(IPS);
        assert_eq!((answer.status, answer.header("RateLimit-Limit")), (200, None));
        assert_eq!(
            (answer.header("RateLimit-Remaining"), answer.header("RateLimit-Reset")),
            (None, None)
        );
    }
}

#[test]
fn exempt_client_has_no_limit_and_no_headers() {
    let router = launch()
        .set("RATELIMIT_REQS_PER_MIN", 1)
        .set("RATELIMIT_EXEMPT", "127.0.0.2,192.0.2.0/24,127.0.0.9")
        .set("TRUSTED_PROXIES", "127.0.0.9")
        .start();
    let answers = |source: [u8; 4], headers: &[(&str, &str)]| {
        [(); 2].map(|()| Connection::from(source.into(), router.addr()).close_with("GET", IPS, headers))
    };
    let exempt = |answers: [Answer; 2]| {
        let has_headers = |answer: &Answer| answer.header("RateLimit-Limit").is_some();
        let statuses = answers.each_ref().map(|answer| answer.status);
        assert_eq!(answers.iter().any(has_headers), statuses != [200, 200], "{answers:?}");
        statuses == [200, 200]
    };
    let proxy = [127, 0, 0, 9];
    assert!(exempt(answers([127, 0, 0, 2], &[])));
    assert!(
        exempt(answers([127, 0, 0, 2], &[("X-Forwarded-For", "203.0.113.1")])),
        "a gateway"
    );
    assert!(!exempt(answers([127, 0, 0, 3], &[])));
    assert!(
        !exempt(answers([127, 0, 0, 3], &[("X-Forwarded-For", "192.0.2.5")])),
        "a forged header"
    );
    assert!(exempt(answers(proxy, &[("X-Forwarded-For", "192.0.2.5")])));
    assert!(!exempt(answers(proxy, &[("X-Forwarded-For", "203.0.113.1")])));
    assert!(exempt(answers(proxy, &[])), "the proxy's own request");
    assert!(
        !exempt(answers(proxy, &[("X-Forwarded-For", "unknown")])),
        "a client that the proxy does not name"
    );
}

/// A trusted proxy at 127.0.0.9. Proxies in 10.0.0.0/8 and fd00::/8 are trusted too.
struct Proxied {
    router: Router,
}

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

impl Proxied {
    fn start() -> Self {
        let launch = launch().set("RATELIMIT_REQS_PER_MIN", 1);
        let router = launch.set("TRUSTED_PROXIES", "127.0.0.9, 10.0.0.0/8,fd00::/8").start();
        Self { router }
    }

    /// Returns whether these lines of `X-Forwarded-For` from `source` name a client without a request so far.
    fn is_new(&self, source: IpAddr, lines: &[&str]) -> bool {
        let headers: Vec<_> = lines.iter().map(|line| ("X-Forwarded-For", *line)).collect();
        let connection = Connection::from(source, self.router.addr());
        let answer = connection.close_with("GET", IPS, &headers);
        assert!(matches!(answer.status, 200 | 429), "{lines:?}: {answer:?}");
        answer.status == 200
    }
}

#[test]
fn forged_x_forwarded_for_is_ignored() {
    let proxied = Proxied::start();
    let untrusted = IpAddr::from([127, 0, 0, 8]);
    assert!(proxied.is_new(untrusted, &["192.0.2.1"]));
    for forged in ["192.0.2.2", "127.0.0.9", "", "10.0.0.1, 192.0.2.3", "nonsense"] {
        assert!(!proxied.is_new(untrusted, &[forged]), "{forged}");
    }
    // The client that the header names has not paid.
    assert!(proxied.is_new(PROXY, &["192.0.2.1"]));
}

#[test]
fn clients_of_trusted_proxy_have_own_buckets() {
    let proxied = Proxied::start();
    let (new, old) = (true, false);
    for (lines, is_new) in [
        (&["192.0.2.1"][..], new),
        (&["192.0.2.1"], old),
        (&["192.0.2.2"], new),
        // Read from the right: an untrusted client wrote everything left of its own address.
        (&["198.51.100.1, 192.0.2.2"], old),
        (&["198.51.100.1,192.0.2.3"], new),
        (&["192.0.2.3, 10.1.1.1, 127.0.0.9"], old),
        // All lines are one list.
        (&["198.51.100.2", "192.0.2.3"], old),
        (&["192.0.2.3", "10.1.1.1", "fd00::1"], old),
        // Ports and brackets are dropped, and mapped addresses are IPv4.
        (&["192.0.2.3:4711"], old),
        (&["::ffff:192.0.2.3"], old),
        (&["[::ffff:192.0.2.3]:80"], old),
        // IPv6 clients are a /64.
        (&["2001:db8::1"], new),
        (&["[2001:db8::2]:80"], old),
        (&["[2001:db8:0:0:ffff::]"], old),
        (&["2001:db8:0:1::1"], new),
        // An entry that is not an address ends the search at the last valid one.
        (&["192.0.2.9, unknown, 10.7.7.7"], new),
        (&["10.7.7.7"], old),
        (&["192.0.2.10, _hidden, 192.0.2.1"], old),
    ] {
        assert_eq!(proxied.is_new(PROXY, lines), is_new, "{lines:?}");
    }
    // Without a named client, the proxy is the client.
    assert!(proxied.is_new(PROXY, &[]));
    for lines in [&[""][..], &[" , "], &["nonsense"], &["127.0.0.9"], &["300.1.1.1"]] {
        assert!(!proxied.is_new(PROXY, lines), "{lines:?}");
    }
}
