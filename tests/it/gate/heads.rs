//! Request heads: each refusal has its status, is JSON, and closes the connection.

use super::{IPS, with_ten_nodes};
use crate::support::http::{Ended, request};
use crate::support::{Connection, Router};

#[track_caller]
fn refused(router: &Router, bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut connection = Connection::open(router.addr());
    connection.send(bytes);
    let answer = connection.receive();
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    assert_eq!(answer.header("Connection"), Some("close"), "{shown:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/json"), "{shown:?}");
    if !shown.starts_with("HEAD") {
        assert!(answer.json()["error"].is_string(), "{shown:?}: {answer:?}");
    }
    assert_eq!(connection.try_receive(), Err(Ended::Closed), "{shown:?}");
}

fn get(lines: &str) -> String {
    format!("GET {IPS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn malformed_or_ambiguous_head_returns_400_and_closes() {
    let (_fleet, router) = with_ten_nodes();
    for head in [
        format!("GET {IPS} HTTP/1.1\r\n\r\n"),
        get("Host: b\r\n"),
        get("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        get("Content-Length: 5\r\nContent-Length: 5\r\n"),
        get("Content-Length: five\r\n"),
        get("Content-Length: -1\r\n"),
        get("Transfer-Encoding: gzip\r\n"),
        format!("GET {IPS} HTTP/1.1\nHost: a\n\n"),
        get("A: b\r\n folded\r\n"),
        get("A : b\r\n"),
        get("A: \u{1}\r\n"),
        get("no colon\r\n"),
        format!("GET {IPS}\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "GET relative HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        // The router ignores bytes after a refused request.
        refused(&router, format!("{head}GET /health HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
    // Also without the end of the head.
    refused(&router, "\u{1}", 400);
    refused(&router, [0x16, 0x03, 0x01, 0x02, 0x00], 400);
}

#[test]
fn truncated_head_returns_400() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    connection.send("GET / HTT");
    connection.finish_sending();
    assert_eq!(connection.receive().status, 400);
}

#[test]
fn unsupported_version_returns_505() {
    let (_fleet, router) = with_ten_nodes();
    refused(&router, "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
    refused(&router, "GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400);
    let mut connection = Connection::open(router.addr());
    connection.send("GET / HTTP/1.9\r\nHost: a\r\n\r\n");
    assert_eq!(connection.receive().status, 200);
    refused(&router, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

#[test]
fn body_on_bodyless_method_returns_413() {
    let (_fleet, router) = with_ten_nodes();
    for method in ["GET", "HEAD", "OPTIONS"] {
        for (lines, body) in [
            ("Content-Length: 5", "hello"),
            ("Content-Length: 100000000000000000", ""),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            refused(
                &router,
                format!("{method} {IPS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}"),
                413,
            );
        }
    }
}

#[test]
fn other_methods_return_405_even_with_body() {
    let (_fleet, router) = with_ten_nodes();
    for lines in [
        "",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\nContent-Length: 9\r\n",
    ] {
        let mut connection = Connection::open(router.addr());
        connection.send(format!("POST {IPS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let answer = connection.receive();
        assert_eq!(answer.status, 405, "{lines:?}");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
        let is_kept = answer.header("Connection").is_none();
        assert_eq!(is_kept, lines.is_empty(), "{lines:?}");
    }
}

#[test]
fn response_to_large_body_arrives_before_close() {
    let (_fleet, router) = with_ten_nodes();
    for (method, status) in [("POST", 405), ("GET", 413)] {
        let mut connection = Connection::open(router.addr());
        connection.send(format!(
            "{method} {IPS} HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n"
        ));
        // The router reads the body until a deadline, so the send may fail.
        let _ = connection.try_send(vec![b'x'; 33_554_432]);
        assert_eq!(connection.receive().status, status);
    }
}

#[test]
fn chunked_request_without_data_is_served_and_closed() {
    let (_fleet, router) = with_ten_nodes();
    for pieces in [
        &["0\r\n\r\n"][..],
        &["0", "\r\n", "\r\n"],
        &["00;a=b\r\nTrailer: x\r\n\r\n"],
    ] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let mut connection = Connection::open(router.addr());
            connection.send(format!(
                "{method} /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            pieces.iter().for_each(|piece| connection.send(piece));
            let answer = connection.receive();
            assert_eq!(answer.status, if method == "OPTIONS" { 204 } else { 200 });
            assert_eq!(answer.header("Connection"), Some("close"));
            assert_eq!(connection.try_receive(), Err(Ended::Closed));
        }
    }
    refused(&router, get("Transfer-Encoding: chunked\r\n") + "x", 400);
}

#[test]
fn content_length_of_zero_is_no_body() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    connection.send(get("Content-Length: 0\r\n"));
    assert_eq!(connection.receive().strings().len(), 3);
    assert_eq!(connection.get(IPS).status, 200);
}

#[test]
fn absolute_targets_and_http_1_0_are_served() {
    let (_fleet, router) = with_ten_nodes();
    let absolute = format!("GET http://router:4000{IPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(request(router.addr(), absolute)[0].strings().len(), 3);
    let old = request(router.addr(), format!("GET {IPS} HTTP/1.0\r\n\r\n"));
    assert_eq!((old.len(), old[0].strings().len()), (1, 3));
    assert_eq!(old[0].header("Connection"), Some("close"));
    let mut kept = Connection::open(router.addr());
    for _ in 0..3 {
        kept.send(format!("GET {IPS} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        let answer = kept.receive();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("keep-alive")));
    }
}

#[test]
fn head_in_single_bytes_is_read() {
    let (_fleet, router) = with_ten_nodes();
    let mut connection = Connection::open(router.addr());
    for byte in get("").bytes() {
        connection.send([byte]);
    }
    assert_eq!(connection.receive().strings().len(), 3);
}
