//! Properties of the parser for any bytes.

use proptest::prelude::*;
use proptest::sample::Index;

use super::tests::{accepted, judge, judge_in_pieces};
use super::{MAX_HEAD_BYTES, Request};

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
    // A counterexample is only printed. By default proptest also writes it beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: ProptestConfig::default().cases.max(2_000), ..ProptestConfig::default() })]

    #[test]
    fn verdict_is_the_same_for_any_split(bytes in bytes(), cuts in prop::collection::vec(any::<Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let verdict = judge(&bytes);
        prop_assert_eq!(&judge_in_pieces(&bytes, &cuts), &verdict);
        let each_byte: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&judge_in_pieces(&bytes, &each_byte), &verdict);
    }

    #[test]
    fn head_verdict_is_independent_of_following_bytes(bytes in bytes(), more in bytes()) {
        match judge(&bytes) {
            Ok(None) => {}
            verdict => prop_assert_eq!(judge(&[bytes, more].concat()), verdict),
        }
    }

    #[test]
    fn forwarded_head_has_same_method_and_target(bytes in bytes()) {
        let Ok(Some((len, request))) = judge(&bytes) else {
            return Ok(());
        };
        prop_assert!(len <= MAX_HEAD_BYTES);
        let Request { method, target, .. } = request;
        prop_assert!(bytes[..len].windows(method.len()).any(|part| part == method.as_bytes()));
        // What tiny_http splits at spaces, and the gate at the ticket.
        prop_assert!(target == "*" || target.starts_with('/'));
        prop_assert!(target.bytes().chain(method.bytes()).all(|byte| byte.is_ascii_graphic()));
        prop_assert!(!target.contains('#'));
        let again = accepted(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        prop_assert_eq!((again.method, again.target), (method, target));
    }
}
