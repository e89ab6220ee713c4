//! Responses of nodes: accepted, failed and oversized ones.

use super::support::{Behaviour, Fleet, PATIENCE};
use super::{addresses, available, launch, line};

/// Returns the behaviour of a node with this `/info`.
fn reports(body: &str) -> Behaviour {
    Behaviour::Body(body.into())
}

/// Ways in which a node fails, each with the reason in the log.
fn failing() -> Vec<(Behaviour, &'static str)> {
    let deep = format!(
        r#"{{"containers":{}{},"pending":{{}}}}"#,
        "[".repeat(9999),
        "]".repeat(9999)
    );
    let long = format!(r#"{{"containers":[],"pending":{{}}}}{}"#, " ".repeat(256 * 1024));
    let many = vec![r#"{"id":"hello-world"}"#; 257].join(",");
    let many = format!(r#"{{"containers":[{many}],"pending":{{}}}}"#);
    vec![
        (Behaviour::Hang, "timeout: no complete response"),
        (Behaviour::HangAfterHead, "timeout: no complete response"),
        (Behaviour::Drip, "timeout: no complete response"),
        (Behaviour::DripHead, "timeout: no complete response"),
        (Behaviour::Endless, "response body above 262144 bytes"),
        (Behaviour::EndlessContinue, "header section above 8192 bytes"),
        (Behaviour::EndlessHead, "header section of too many lines"),
        (reports(&long), "response body above 262144 bytes"),
        (Behaviour::Reset, "connection reset"),
        (Behaviour::CloseAtOnce, ""),
        (
            Behaviour::Raw(b"\x00\xff SSH-2.0 \r\n\r\n".into()),
            "not an HTTP response: wrong service, or a TLS port (if so, list the node with https://)",
        ),
        (
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n".into()),
            "malformed header line: folded, or without a colon",
        ),
        (
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n".into()),
            "malformed header line: folded, or without a colon",
        ),
        (
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b".into()),
            "Content-Encoding \"gzip\" though none was requested",
        ),
        (
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".into()),
            "",
        ),
        (
            Behaviour::Raw(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n".into()),
            "TLS port: list the node with https://",
        ),
        (
            Behaviour::Raw(
                b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 66\r\n\r\n\
                  <center>The plain HTTP request was sent to HTTPS port</center>\r\n\r\n"
                    .into(),
            ),
            "TLS port: list the node with https://",
        ),
        (Behaviour::Status(400), "status 400"),
        (Behaviour::Status(500), "status 500"),
        (Behaviour::Status(404), "status 404"),
        (Behaviour::Status(204), "status 204"),
        (reports(""), "not JSON"),
        (reports("<html>"), "not JSON"),
        (
            reports("[]"),
            "expected an object with `containers` and `pending`, found []",
        ),
        (reports("{}"), "missing field"),
        (
            reports(r#"{"containers":[{"id":"hello-world"}]}"#),
            "missing field `pending`",
        ),
        (
            reports(r#"{"containers":[{"id":"hello-world"}],"pending":null}"#),
            "expected `pending` to be a map of whole numbers, found null",
        ),
        (
            reports(r#"{"containers":[{"id":"hello-world"}],"pending":{"offchain":1.5}}"#),
            r#"expected `pending` "offchain" to be a whole number, at most 2^64-1, found 1.5"#,
        ),
        (
            reports(r#"{"containers":[{"id":"hello-world"}],"pending":{"offchain":18446744073709551616}}"#),
            "",
        ),
        (
            reports(r#"{"containers":[{"id":"hello-world"}],"pending":{"offchain":"1"}}"#),
            r#"expected `pending` "offchain" to be a whole number, at most 2^64-1, found "1""#,
        ),
        (
            reports(r#"{"containers":{"id":"hello-world"},"pending":{}}"#),
            "expected `containers` to be a list, found {",
        ),
        (
            reports(r#"{"containers":["hello-world"],"pending":{}}"#),
            "expected a container to be an object with an `id`, found \"hello-world\"",
        ),
        (
            reports(r#"{"containers":[{"id":7}],"pending":{}}"#),
            "expected a container id, 1 to 256 bytes",
        ),
        (reports(r#"{"containers":[{"id":""}],"pending":{}}"#), ""),
        (reports(&many), "`containers` lists more than 256"),
        (reports(&deep), ""),
        (
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\xfc".into()),
            "not JSON",
        ),
    ]
}

#[test]
fn failing_node_is_logged_once_and_delays_none() {
    let failing = failing();
    let fleet = Fleet::start(failing.len() + 2);
    for (node, (behaviour, _)) in failing.iter().enumerate() {
        fleet.set(node, behaviour.clone());
    }
    let good = failing.len()..fleet.len();
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(
        available(&router),
        addresses(&fleet, good.clone()),
        "in the first answer"
    );
    for node in 0..failing.len() {
        fleet.wait_asked(node, 4, PATIENCE);
    }
    assert_eq!(available(&router), addresses(&fleet, good.clone()));
    for (node, (behaviour, reason)) in failing.iter().enumerate() {
        let addr = fleet.addr(node);
        let down = line("node down", addr, "");
        let told = router.wait_line(&down, PATIENCE);
        let shown = reason.replace('\\', "\\\\").replace('"', "\\\"");
        assert!(told.contains(&format!("reason=\"{shown}")), "{behaviour:?}: {told}");
        // A truncated reason ends in an ellipsis.
        let text = told.replace('…', "");
        assert!(text.is_ascii() && text.len() < 500, "{told}");
        let lines = router.count_lines(&format!("\"{addr}\""));
        assert_eq!(lines, 1, "{behaviour:?}: {:?}", router.log());
    }
    let slowest = *fleet.asked_each()[..4].iter().max().expect("four hang");
    for node in good {
        assert!(fleet.asked(node) > slowest, "{:?}", fleet.asked_each());
    }
}

#[test]
fn irrelevant_oddities_do_not_fail_a_node() {
    let fleet = Fleet::start(6);
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for (node, body) in [
        format!(r#"{{"containers":[{{"id":"hello-world","image":{nested}}}],"pending":{{}},"x":{nested}}}"#),
        r#"{"pending":{"offchain":18446744073709551615,"onchain":18446744073709551615},"containers":[{"id":"hello-world"}]}"#.into(),
        r#"{"containers":[{"id":"hello-world"},{"id":"hello-world","description":null}],"pending":{}}"#.into(),
        format!(r#"{}{{"containers":[{{"id":"hello-world"}}],"pending":{{}}}}"#, " ".repeat(256 * 1024 - 50)),
        format!(r#"{{"containers":[{}],"pending":{{}}}}"#, vec![r#"{"id":"hello-world"}"#; 256].join(",")),
        // Nodes of 0.2.0 report negative counts at times. The description has half a surrogate pair.
        r#"{"containers":[{"id":"hello-world","description":"\ud800"}],"pending":{"offchain":-1}}"#.into(),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(node != 3 || body.len() == 256 * 1024, "at the limit");
        fleet.set(node, reports(&body));
    }
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, 0..6), "{:?}", router.log());
}

#[test]
fn node_response_head_is_limited_to_8_kib() {
    let fleet = Fleet::start(2);
    let with_head = |bytes: usize| {
        let body = br#"{"containers":[{"id":"a"}],"pending":{}}"#;
        let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Long: ", body.len());
        let filler = "a".repeat(bytes - begin.len() - 4);
        Behaviour::Raw([format!("{begin}{filler}\r\n\r\n").as_bytes(), body].concat())
    };
    fleet.set(0, with_head(8192));
    fleet.set(1, with_head(8193));
    let router = launch().ips(fleet.list()).start();
    let down = format!("node down:…node=\"{}\"…header section above 8192 bytes", fleet.addr(1));
    router.wait_line(&down, PATIENCE);
    assert_eq!(
        router.get("/api/v1/ips?container=a").strings(),
        [fleet.addr(0).to_string()]
    );
}
