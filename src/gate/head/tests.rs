use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::canonical;
use super::*;

/// What becomes of bytes that are all here: the head's length and its request, or none while it isn't complete.
fn judge(bytes: &[u8]) -> Result<Option<(usize, Request)>, Refusal> {
    judge_in_pieces(bytes, &[])
}

/// The same for bytes that arrive cut at these places, which are in order.
fn judge_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<(usize, Request)>, Refusal> {
    let mut scanner = Scanner::default();
    for end in cuts.iter().chain([&bytes.len()]) {
        if let Some(len) = scanner.scan(&bytes[..*end])? {
            return parse(&bytes[..len]).map(|request| Some((len, request)));
        }
    }
    Ok(None)
}

fn accepted(head: impl AsRef<[u8]>) -> Request {
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

/// A GET of HTTP/1.1 with these header lines, none of which is Host.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn malformed(head: impl AsRef<[u8]>, what: &'static str) {
    let head = head.as_ref();
    assert_eq!(
        refused(head),
        Refusal::Malformed(what),
        "{:?}",
        String::from_utf8_lossy(head)
    );
}

#[test]
fn a_usual_request_is_method_target_and_what_becomes_of_the_connection() {
    let request = accepted("GET /api/v1/ips?container=a&n=1 HTTP/1.1\r\nHost: r:4000\r\nAccept: */*\r\n\r\n");
    let expected = Request {
        method: "GET".to_owned(),
        target: "/api/v1/ips?container=a&n=1".to_owned(),
        persistence: Persistence::Persist,
        has_body: false,
        forwarded: Vec::new(),
    };
    assert_eq!(request, expected);
}

#[test]
fn a_head_ends_at_its_empty_line_and_not_before() {
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
fn a_head_of_8192_bytes_is_read_and_one_of_8193_is_too_long() {
    let padded = |len: usize| {
        let rest = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "x".repeat(len - rest)))
    };
    let (longest, longer) = (padded(MAX_HEAD_BYTES), padded(MAX_HEAD_BYTES + 1));
    assert_eq!((longest.len(), longer.len()), (8_192, 8_193));
    accepted(longest);
    assert_eq!(refused(longer), Refusal::TooLong);
    assert_eq!(judge(&vec![b'x'; 8_192]), Ok(None));
    assert_eq!(refused(vec![b'x'; 8_193]), Refusal::TooLong);
    assert_eq!(refused("\r\n".repeat(4_097)), Refusal::TooLong);
}

#[test]
fn a_hundred_headers_are_read_and_one_more_is_too_many() {
    accepted(get(&"X: y\r\n".repeat(99)));
    assert_eq!(refused(get(&"X: y\r\n".repeat(100))), Refusal::TooLong);
}

#[test]
fn http_1_0_needs_no_host_and_closes_unless_it_asks_otherwise() {
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").persistence, Persistence::Close);
    let kept = accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_eq!(kept.persistence, Persistence::KeepAlive);
    let both = accepted("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n");
    assert_eq!(both.persistence, Persistence::Close);
}

#[test]
fn http_1_1_persists_unless_any_connection_header_says_close() {
    for (lines, persistence) in [
        ("Connection: keep-alive\r\n", Persistence::Persist),
        ("Connection: closed\r\n", Persistence::Persist),
        ("Connection: CLOSE\r\n", Persistence::Close),
        ("Connection: x , close,y\r\n", Persistence::Close),
        ("Connection: x\r\nconnection:close\r\n", Persistence::Close),
    ] {
        assert_eq!(accepted(get(lines)).persistence, persistence, "{lines:?}");
    }
}

#[test]
fn other_versions_get_505_and_what_is_no_version_too() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/3.0", "HTTP/0.9"] {
        let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(head), Refusal::Version, "{version}");
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refusal::Version);
}

#[test]
fn http_1_1_has_one_host_of_host_bytes() {
    malformed("GET / HTTP/1.1\r\n\r\n", "no Host header");
    malformed(get("Host: a\r\n"), "two Host headers");
    malformed("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "two Host headers");
    for host in ["a/b", "a b", "a,b", "a@b", "a\"b", "\u{e4}"] {
        malformed(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "Host header");
    }
    for host in ["", "router", "192.0.2.1:4000", "[2001:db8::1]:4000", "a.b-c_d~%20"] {
        accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn a_body_on_a_method_that_has_none_is_refused() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        for lines in ["Content-Length: 1", "Transfer-Encoding: chunked"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
            assert_eq!(refused(head), Refusal::Body, "{method}, {lines}");
        }
    }
    assert_eq!(refused(get("Content-Length: 18446744073709551615\r\n")), Refusal::Body);
}

#[test]
fn other_methods_go_on_to_their_405_and_the_connection_ends() {
    let request = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((request.has_body, request.persistence), (true, Persistence::Close));
    let request = accepted("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n");
    assert_eq!((request.has_body, request.persistence), (true, Persistence::Close));
    let request = accepted("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((request.has_body, request.persistence), (false, Persistence::Persist));
}

#[test]
fn a_length_of_zero_is_no_body() {
    for length in ["0", "000"] {
        let request = accepted(get(&format!("Content-Length: {length}\r\n")));
        assert_eq!((request.has_body, request.persistence), (false, Persistence::Persist));
    }
}

#[test]
fn a_length_that_can_be_read_in_two_ways_is_malformed() {
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
fn an_encoding_that_does_not_end_in_chunked_is_malformed() {
    for encoding in ["", "identity", "chunked, gzip", "chunked;q=1", "xchunked"] {
        malformed(get(&format!("Transfer-Encoding: {encoding}\r\n")), "Transfer-Encoding");
    }
    let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
    malformed(get(&twice), "two transfer encodings");
    let old = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    malformed(old, "Transfer-Encoding in HTTP/1.0");
}

#[test]
fn a_line_ends_in_cr_and_lf_and_both_stand_nowhere_else() {
    malformed("GET / HTTP/1.1\nHost: a\n\n", "LF without CR");
    malformed("GET / HTTP/1.1\r\nHost: a\n\r\n", "LF without CR");
    malformed("\nGET / HTTP/1.1\r\n", "LF without CR");
    malformed("GET / HTTP/1.1\rHost: a\r\n\r\n", "CR without LF");
    malformed("GET / HTTP/1.1\r\n\rX", "CR without LF");
    malformed("GET / HTTP/1.1\r\r\n", "CR without LF");
}

#[test]
fn control_bytes_are_refused_wherever_they_stand() {
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
fn header_lines_have_a_name_a_colon_and_no_fold() {
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
fn a_request_line_has_three_parts_with_one_space_between() {
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
        assert!(
            matches!(refused(&head), Refusal::Malformed(_) | Refusal::Version),
            "{line:?}"
        );
    }
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / / HTTP/1.1",
        "GET / http/1.1",
    ] {
        let head = format!("{line}\r\nHost: a\r\n\r\n");
        assert!(
            matches!(refused(&head), Refusal::Malformed(_) | Refusal::Version),
            "{line:?}"
        );
    }
}

#[test]
fn an_absolute_target_is_the_path_it_has() {
    for (target, origin) in [
        ("http://a/b?c=d", "/b?c=d"),
        ("HTTPS://a:1/b", "/b"),
        ("http://a", "/"),
        ("http://a?c", "/"),
        ("http://a//b", "//b"),
        ("//a/b", "//a/b"),
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
    ] {
        malformed(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), "request target");
    }
}

#[test]
fn options_may_ask_of_the_whole_server_and_connect_of_nothing() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    assert_eq!(accepted("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
}

#[test]
fn bytes_above_ascii_are_encoded_on_their_way_inside() {
    let request = accepted("GET /api/v1/ips?container=h\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.target, "/api/v1/ips?container=h%C3%A4");
}

#[test]
fn all_lines_of_x_forwarded_for_are_one_list() {
    let request = accepted(get(
        "X-Forwarded-For: 192.0.2.1\r\nA: b\r\nx-forwarded-for: 192.0.2.2, c\r\n",
    ));
    assert_eq!(request.forwarded, b"192.0.2.1,192.0.2.2, c");
}

#[test]
fn each_refusal_says_what_it_is() {
    for (refusal, status, says) in [
        (Refusal::Malformed("this"), 400, "Malformed request: this"),
        (Refusal::Late, 408, "not complete in time"),
        (Refusal::Body, 413, "no body"),
        (Refusal::TooLong, 431, "8192 bytes and 100 headers"),
        (Refusal::Lost, 502, "lost"),
        (Refusal::Busy, 503, "busy"),
        (Refusal::Version, 505, "HTTP/1.1 or HTTP/1.0"),
    ] {
        assert_eq!(refusal.status(), status);
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
}

/// What the workers' server makes of the gate's bytes: split as tiny_http splits them.
fn as_tiny_http_reads(canonical: &[u8]) -> (String, String, Vec<String>) {
    let text = str::from_utf8(canonical).expect("canonical is ASCII");
    let (head, rest) = text.split_once("\r\n\r\n").expect("a head ends");
    assert_eq!(rest, "", "nothing follows a head");
    let mut lines = head.split("\r\n");
    let parts: Vec<&str> = lines.next().expect("a line").trim().split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        panic!("not three parts: {parts:?}");
    };
    (method.to_owned(), target.to_owned(), lines.map(str::to_owned).collect())
}

fn methods() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET", "HEAD", "OPTIONS", "POST", "CONNECT", "get", "M-SEARCH", "X'Y",
    ])
}

fn targets() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/",
        "*",
        "/api/v1/ips?container=a&container=b&n=3&offset=0",
        "http://router:4000/api/v1/containers",
        "/h\u{e4}?\u{20ac}",
        "//x?y=%00%ff",
        "http://a?b",
    ])
}

fn header_lines() -> impl Strategy<Value = Vec<&'static str>> {
    let lines = vec![
        "Host: router\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 7\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "X-Forwarded-For: 192.0.2.1\r\n",
        "User-Agent: Python/3.11 aiohttp/3.9.5\r\n",
        "Client: 192.0.2.9\r\n",
        "A : b\r\n",
        " folded\r\n",
    ];
    prop::collection::vec(prop::sample::select(lines), 0..5)
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let versions = prop::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]);
    (methods(), targets(), versions, header_lines(), any::<bool>()).prop_map(
        |(method, target, version, lines, has_host)| {
            let host = if has_host { "Host: a\r\n" } else { "" };
            let lines = lines.concat();
            format!("{method} {target} {version}\r\n{host}{lines}\r\nGET / HTTP/1.1\r\n").into_bytes()
        },
    )
}

/// Realistic heads with some bytes changed, put in, taken out or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(b"\r\n :\t,\0/".to_vec()), any::<u8>()];
    let mutations = prop::collection::vec((0..4_u8, any::<Index>(), byte), 0..4);
    (heads(), mutations).prop_map(|(mut head, mutations)| {
        for (kind, at, byte) in mutations {
            let at = at.index(head.len());
            match kind {
                0 => head[at] = byte,
                1 => head.insert(at, byte),
                2 if head.len() > 1 => drop(head.remove(at)),
                _ => head.extend_from_within(at..),
            }
        }
        head
    })
}

/// Bytes that a parser may trip over: anything, the vocabulary of HTTP in any order, heads that are nearly right, and
/// ones about as long as a head may be.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "GET",
        " ",
        "/",
        "\r\n",
        "\r",
        "\n",
        ":",
        "Host",
        "HTTP/1.1",
        "\t",
        "a",
        "\0",
        "Content-Length: 1",
    ];
    let words = prop::collection::vec(prop::sample::select(words), 0..40);
    let long = (heads(), 0..400_usize).prop_map(|(head, more)| {
        let padding = format!("X: {}\r\n", "x".repeat(7_900 + more));
        let line = head.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        [&head[..line], padding.as_bytes(), &head[line..]].concat()
    });
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..200),
        2 => words.prop_map(|words| words.concat().into_bytes()),
        6 => mutated(),
        1 => long,
    ]
}

proptest! {
    // A counterexample is printed; without this a file would be left beside the sources too.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_the_same_for_any_cutting(bytes in bytes(), cuts in prop::collection::vec(any::<Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let verdict = judge(&bytes);
        prop_assert_eq!(&judge_in_pieces(&bytes, &cuts), &verdict);
        let each_byte: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&judge_in_pieces(&bytes, &each_byte), &verdict);
    }

    #[test]
    fn the_verdict_on_a_head_does_not_depend_on_what_follows(bytes in bytes(), more in bytes()) {
        match judge(&bytes) {
            Ok(None) => {}
            verdict => prop_assert_eq!(judge(&[bytes, more].concat()), verdict),
        }
    }

    #[test]
    fn what_is_handed_on_reads_as_the_same_method_and_target(bytes in bytes()) {
        let Ok(Some((len, request))) = judge(&bytes) else {
            return Ok(());
        };
        prop_assert!(len <= MAX_HEAD_BYTES);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let handed_on = canonical(&request, client, request.persistence);
        let (method, target, lines) = as_tiny_http_reads(&handed_on);
        prop_assert_eq!((&method, &target), (&request.method, &request.target));
        prop_assert!(bytes[..len].windows(method.len()).any(|part| part == method.as_bytes()));
        prop_assert!(target == "*" || target.starts_with('/'));
        prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(lines.len(), 2);
        prop_assert_eq!(&lines[0], "Client: 127.0.0.1");
        let again = accepted(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        prop_assert_eq!((again.method, again.target), (method, target));
    }
}
