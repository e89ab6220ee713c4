use super::*;

const PEER: [u8; 4] = [192, 0, 2, 7];

/// Parses bytes that arrive together: the head's length and its request, `None` if incomplete.
pub(super) fn judge(bytes: &[u8]) -> Result<Option<(usize, Request)>, Refusal> {
    judge_in_pieces(bytes, &[])
}

/// Parses bytes that arrive split at these sorted positions.
pub(super) fn judge_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<(usize, Request)>, Refusal> {
    let (mut scanned, peer) = (0, IpAddr::from(PEER));
    let config = Config::from_lookup(|_| None).expect("the defaults are valid");
    for end in cuts.iter().chain([&bytes.len()]) {
        if let Some(judged) = parse(&bytes[..*end], &mut scanned, peer, &config)? {
            return Ok(Some(judged));
        }
    }
    Ok(None)
}

pub(super) fn accepted(head: impl AsRef<[u8]>) -> Request {
    let head = head.as_ref();
    match judge(head) {
        Ok(Some((len, request))) if len == head.len() => request,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(head)),
    }
}

fn refused(head: impl AsRef<[u8]>) -> Refusal {
    let head = head.as_ref();
    match judge(head) {
        Err(refusal) => refusal,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(head)),
    }
}

/// A GET of HTTP/1.1 with these header lines besides Host.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn malformed(head: impl AsRef<[u8]>, what: &'static str) {
    let head = head.as_ref();
    assert_eq!(
        refused(head),
        Refusal::malformed(what),
        "{:?}",
        String::from_utf8_lossy(head)
    );
}

#[test]
fn usual_request_has_method_target_and_persistence() {
    let request = accepted("GET /api/v1/ips?container=a&n=1 HTTP/1.1\r\nHost: r:4000\r\nAccept: */*\r\n\r\n");
    let expected = Request {
        method: "GET".to_owned(),
        target: "/api/v1/ips?container=a&n=1".to_owned(),
        context: Context {
            client: PEER.into(),
            is_client_known: true,
            deferral: Deferral::First,
            persistence: Persistence::Persist,
            cors: String::new(),
        },
    };
    assert_eq!(request, expected);
}

#[test]
fn head_ends_at_its_empty_line() {
    let head = get("");
    for end in 0..head.len() {
        assert_eq!(judge(&head.as_bytes()[..end]), Ok(None), "{end}");
    }
    let (len, _) = judge(format!("{head}GET /next").as_bytes())
        .expect("fine")
        .expect("complete");
    assert_eq!(len, head.len());
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    assert_eq!(accepted(format!("\r\n\r\n{}", get(""))).target, "/");
    assert_eq!(judge(b"\r\n\r\n\r\n"), Ok(None));
}

#[test]
fn head_above_8192_bytes_is_too_long() {
    let padded = |len: usize| {
        let rest = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "x".repeat(len - rest)))
    };
    let (longest, longer) = (padded(MAX_HEAD_BYTES), padded(MAX_HEAD_BYTES + 1));
    assert_eq!((longest.len(), longer.len()), (8_192, 8_193));
    accepted(longest);
    assert_eq!(refused(longer), Refusal::HEAD);
    assert_eq!(judge(&vec![b'x'; 8_192]), Ok(None));
    assert_eq!(refused(vec![b'x'; 8_193]), Refusal::TARGET);
    assert_eq!(
        refused(format!("GET /{} HTTP/1.1\r\n", "x".repeat(10_000))),
        Refusal::TARGET
    );
    assert_eq!(refused("\r\n".repeat(4_097)), Refusal::HEAD);
}

#[test]
fn more_than_100_headers_are_too_many() {
    accepted(get(&"X: y\r\n".repeat(99)));
    assert_eq!(refused(get(&"X: y\r\n".repeat(100))), Refusal::HEAD);
}

#[test]
fn http_1_0_needs_no_host_and_closes() {
    assert_eq!(
        accepted("GET / HTTP/1.0\r\n\r\n").context.persistence,
        Persistence::Close
    );
    let kept = accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_eq!(kept.context.persistence, Persistence::KeepAlive);
    let both = accepted("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n");
    assert_eq!(both.context.persistence, Persistence::Close);
}

#[test]
fn http_1_1_persists_without_connection_close() {
    for (lines, persistence) in [
        ("Connection: keep-alive\r\n", Persistence::Persist),
        ("Connection: closed\r\n", Persistence::Persist),
        ("Connection: CLOSE\r\n", Persistence::Close),
        ("Connection: x , close,y\r\n", Persistence::Close),
        ("Connection: x\r\nconnection:close\r\n", Persistence::Close),
    ] {
        assert_eq!(accepted(get(lines)).context.persistence, persistence, "{lines:?}");
    }
}

#[test]
fn higher_minor_version_is_served_other_major_refused() {
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        let request = accepted(format!("GET / {version}\r\nHost: a\r\n\r\n"));
        assert_eq!(request.context.persistence, Persistence::Persist, "{version}");
        malformed(format!("GET / {version}\r\n\r\n"), "no Host header");
    }
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/2"] {
        let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(head), Refusal::VERSION, "{version}");
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refusal::VERSION);
}

#[test]
fn invalid_version_is_malformed() {
    for version in [
        "HTTP/1.x",
        "HTTP/1",
        "HTTP/1.10",
        "HTTP/11.1",
        "http/1.1",
        "HTTP/",
        "HTTP",
        "HTTPS/1.1",
        "HTTP/1.1x",
    ] {
        malformed(format!("GET / {version}\r\nHost: a\r\n\r\n"), "HTTP version");
    }
    malformed("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "request line");
}

#[test]
fn path_is_normalized_and_query_is_not() {
    for (target, read) in [
        ("/api/v1/%69ps", "/api/v1/ips"),
        ("//api///v1/ips", "/api/v1/ips"),
        ("/%7Ea%2D%2e%5f", "/~a-._"),
        ("/a%2Fb%20", "/a%2Fb%20"),
        ("/a?b=//%69", "/a?b=//%69"),
        ("/%", "/%25"),
        ("/%6", "/%256"),
        ("/%zz", "/%25zz"),
        ("/%%36%39", "/%2569"),
        ("//", "/"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(accepted(head).target, read, "{target}");
    }
}

#[test]
fn http_1_1_needs_one_valid_host() {
    malformed("GET / HTTP/1.1\r\n\r\n", "no Host header");
    malformed(get("Host: a\r\n"), "two Host headers");
    malformed("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "two Host headers");
    for host in [
        "a/b",
        "a b",
        "a,b",
        "a@b",
        "a\"b",
        "\u{e4}",
        "a:b:c",
        "[::1",
        "a:-1",
        "u:p@a",
        ":80",
        "::1",
        "[::1]x",
        "[::1]80",
        "[a]",
        "a%2",
        "a%zz",
        "a:+1",
        "[::1%25eth0]",
    ] {
        malformed(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "Host header");
    }
    for host in [
        "a:",
        "[::ffff:192.0.2.1]",
        "",
        "router",
        "192.0.2.1:4000",
        "[2001:db8::1]:4000",
        "a.b-c_d~%20",
    ] {
        accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn body_on_method_without_body_is_refused() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        for (lines, body) in [
            ("Content-Length: 1", ""),
            ("Transfer-Encoding: chunked", "5"),
            ("Transfer-Encoding: chunked", "00a"),
        ] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}");
            assert_eq!(refused(head), Refusal::BODY, "{method}, {lines}, {body}");
        }
    }
    assert_eq!(refused(get("Content-Length: 18446744073709551615\r\n")), Refusal::BODY);
}

#[test]
fn other_methods_close_only_with_a_body() {
    let request = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(request.context.persistence, Persistence::Close);
    let request = accepted("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n");
    assert_eq!(request.context.persistence, Persistence::Close);
    let request = accepted("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.context.persistence, Persistence::Persist);
}

#[test]
fn chunked_body_without_data_is_served_and_closes() {
    let head = get("Transfer-Encoding: chunked\r\n");
    for body in ["0\r\n\r\n", "0\r", "000;a=b\r\n\r\n", "0 \r\n"] {
        let judged = judge(format!("{head}{body}").as_bytes());
        let request = judged.expect("fine").expect("complete").1;
        assert_eq!(request.context.persistence, Persistence::Close, "{body:?}");
    }
    for body in ["", "0", "0000000000000000"] {
        assert_eq!(judge(format!("{head}{body}").as_bytes()), Ok(None), "{body:?}");
    }
    for body in ["x", "\r\n", "0x", "00000000000000000"] {
        malformed(format!("{head}{body}"), "chunk size");
    }
}

#[test]
fn zero_length_is_no_body() {
    for length in ["0", "000"] {
        let request = accepted(get(&format!("Content-Length: {length}\r\n")));
        assert_eq!(request.context.persistence, Persistence::Persist);
    }
}

#[test]
fn ambiguous_length_is_malformed() {
    for length in [
        "",
        "-1",
        "+1",
        "1 1",
        "1,1",
        "0x1",
        "1a",
        "18446744073709551616",
        "\u{661}",
    ] {
        malformed(get(&format!("Content-Length: {length}\r\n")), "Content-Length");
    }
    malformed(get("Content-Length: 1\r\nContent-Length: 1\r\n"), "two lengths");
    malformed(get("Content-Length: 0\r\ncontent-length: 5\r\n"), "two lengths");
    let both = "both Content-Length and Transfer-Encoding";
    malformed(get("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), both);
    malformed(get("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"), both);
}

#[test]
fn encoding_without_final_chunked_is_malformed() {
    for encoding in ["", "identity", "chunked, gzip", "chunked;q=1", "xchunked"] {
        malformed(get(&format!("Transfer-Encoding: {encoding}\r\n")), "Transfer-Encoding");
    }
    let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
    malformed(get(&twice), "two transfer encodings");
    let old = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    malformed(old, "Transfer-Encoding in HTTP/1.0");
}

#[test]
fn cr_and_lf_occur_only_at_line_ends() {
    malformed("GET / HTTP/1.1\nHost: a\n\n", "LF without CR");
    malformed("GET / HTTP/1.1\r\nHost: a\n\r\n", "LF without CR");
    malformed("\nGET / HTTP/1.1\r\n", "LF without CR");
    malformed("GET / HTTP/1.1\rHost: a\r\n\r\n", "CR without LF");
    malformed("GET / HTTP/1.1\r\n\rX", "CR without LF");
    malformed("GET / HTTP/1.1\r\r\n", "CR without LF");
}

#[test]
fn control_bytes_are_refused_everywhere() {
    for byte in (0..=31).chain([127]).filter(|byte| !b"\t\r\n".contains(byte)) {
        for head in [
            "GE?T / HTTP/1.1\r\n",
            "GET /? HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nA: ?\r\n",
        ] {
            malformed(head.replace('?', &char::from(byte).to_string()), "control byte");
        }
    }
    accepted(get("A: b\tc\r\n"));
    malformed("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "request line");
}

#[test]
fn header_line_without_name_or_folded_is_malformed() {
    malformed(get("A : b\r\n"), "header name");
    malformed(get("A: b\r\n c\r\n"), "header name");
    malformed(get("A: b\r\n\tc\r\n"), "header name");
    malformed(get(" A: b\r\n"), "header name");
    malformed(get("A\r\n"), "header name");
    malformed(get(": b\r\n"), "header name");
    malformed(get("A(: b\r\n"), "header name");
    malformed("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "header name");
    accepted(get("A:\r\nB:b\r\nC: \u{e4}\r\n"));
}

#[test]
fn request_line_needs_three_parts_and_single_spaces() {
    for line in [
        "GET",
        "GET /",
        "GET / ",
        "/ HTTP/1.1",
        " GET / HTTP/1.1",
        "GET  HTTP/1.1",
        "G(T / HTTP/1.1",
    ] {
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        assert!(matches!(refused(&head), Refusal { status: 400 | 505, .. }), "{line:?}");
    }
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / / HTTP/1.1",
        "GET / http/1.1",
    ] {
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        assert!(matches!(refused(&head), Refusal { status: 400 | 505, .. }), "{line:?}");
    }
}

#[test]
fn absolute_target_is_reduced_to_its_path() {
    for (target, origin) in [
        ("http://a/b?c=d", "/b?c=d"),
        ("HTTPS://a:1/b", "/b"),
        ("http://a", "/"),
        ("http://a?c", "/?c"),
        ("http://a//b", "/b"),
        ("http://[2001:db8::1]:80/b", "/b"),
        ("//a/b", "/a/b"),
    ] {
        assert_eq!(
            accepted(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).target,
            origin
        );
    }
    for target in [
        "ftp://a/b",
        "http:///b",
        "http:/a",
        "a/b",
        "*",
        "a:80",
        "?a",
        "/a#b",
        "http://a/b#c",
        "http://a#c",
        "http://u:p@a/b",
        "http://a:b/c",
        "http://:80/",
    ] {
        malformed(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), "request target");
    }
}

#[test]
fn options_of_server_and_connect_have_asterisk_target() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    assert_eq!(accepted("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    assert_eq!(accepted("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").target, "/");
    assert_eq!(accepted("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
}

#[test]
fn forwarded_bytes_above_ascii_are_percent_encoded() {
    let request = accepted("GET /api/v1/ips?container=h\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.target, "/api/v1/ips?container=h%C3%A4");
}

#[test]
fn headers_of_untrusted_proxies_make_the_client_unknown() {
    for lines in [
        "X-Forwarded-For: 192.0.2.1\r\nA: b\r\nx-forwarded-for: 192.0.2.2, c\r\n",
        "Forwarded: for=a\r\n",
        "Via: 1.1 a\r\n",
        "X-Real-IP: a\r\n",
        "X-Forwarded-For:\r\n",
        "X-Forwarded-Host: a\r\n",
    ] {
        assert!(!accepted(get(lines)).context.is_client_known, "{lines}");
    }
    assert!(accepted(get("X-Forwarder: a\r\n")).context.is_client_known);
}

#[test]
fn each_refusal_states_its_reason() {
    for (refusal, status, says) in [
        (Refusal::malformed("this"), 400, "Malformed request: this"),
        (Refusal::LATE, 408, "not complete in time"),
        (Refusal::BODY, 413, "no body"),
        (Refusal::TARGET, 414, "8192 bytes"),
        (Refusal::FULL, 503, "busy"),
        (Refusal::HEAD, 431, "8192 bytes and 100 headers"),
        (Refusal::LOST, 502, "lost"),
        (Refusal::BUSY, 503, "busy"),
        (Refusal::SHARE, 503, "connections"),
        (Refusal::VERSION, 505, "HTTP/1.1 or HTTP/1.0"),
    ] {
        assert_eq!(refusal.status, status);
        let message = refusal.message();
        assert!(message.contains(says), "{message}");
    }
}
