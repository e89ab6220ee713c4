//! Identifies the client of a request: the peer, or the client that a trusted proxy names. Pure.

use std::net::{IpAddr, SocketAddr};

use httparse::Header;
use ipnet::IpNet;

use crate::client::{self, Client};

/// The client of a request from `peer` with these header fields, and whether it is known: false if the request came
/// through a proxy that is not trusted or does not name its client.
pub(super) fn identify(headers: &[Header<'_>], peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, bool) {
    let peer = peer.to_canonical();
    let unknown = (peer, !headers.iter().any(|header| is_of_proxy(header.name)));
    if !client::is_in(trusted, peer) {
        return unknown;
    }
    let read = |name, hops: fn(&[u8]) -> Vec<Option<IpAddr>>| {
        let lines: Vec<&[u8]> = values(headers, name).collect();
        (!lines.is_empty()).then(|| walk(peer, hops(&lines.join(&b","[..])), trusted))
    };
    match (read("X-Forwarded-For", addresses), read("Forwarded", for_parameters)) {
        (Some((one, true)), Some((other, true))) if Client::from(one) != Client::from(other) => unknown,
        (Some(identity), _) | (None, Some(identity)) => identity,
        (None, None) => unknown,
    }
}

/// Whether only proxies add this header: `X-Forwarded-…`, `Forwarded` (RFC 7239), `Via` (RFC 9110) or `X-Real-IP`.
fn is_of_proxy(name: &str) -> bool {
    const PREFIX: &str = "X-Forwarded-";
    let start = name.get(..PREFIX.len()).unwrap_or(name);
    let mut others = [PREFIX, "Forwarded", "Via", "X-Real-IP"].into_iter();
    others.any(|other| start.eq_ignore_ascii_case(other))
}

/// The values of a header, line by line.
pub(super) fn values<'a>(headers: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// Reads the hops from the right up to the first address that is not a trusted proxy. A hop that is not an address ends
/// the search at the last valid one: a client can forge only what is left of the entries of trusted proxies.
fn walk(peer: IpAddr, hops: Vec<Option<IpAddr>>, trusted: &[IpNet]) -> (IpAddr, bool) {
    let (mut client, mut is_known) = (peer, false);
    let mut hops = hops.into_iter().rev();
    while client::is_in(trusted, client)
        && let Some(hop) = hops.next()
    {
        match hop {
            Some(hop) => (client, is_known) = (hop, true),
            None => return (client, false),
        }
    }
    (client, is_known)
}

/// The entries of `X-Forwarded-For`.
fn addresses(list: &[u8]) -> Vec<Option<IpAddr>> {
    list.split(|byte| *byte == b',').map(address).collect()
}

/// The parameter `for=` of each element of `Forwarded` (RFC 7239, section 4).
fn for_parameters(list: &[u8]) -> Vec<Option<IpAddr>> {
    let value = |pair: &[u8]| {
        let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| address(value.trim().trim_matches('"').as_bytes()))
    };
    let parameter = |element: &[u8]| element.split(|byte| *byte == b';').find_map(value).flatten();
    match without_quoted_separators(list) {
        Some(list) => list.split(|byte| *byte == b',').map(parameter).collect(),
        None => vec![None],
    }
}

/// Replaces the separators of `Forwarded` within quotes by a byte that no address has. Returns `None` if a quote is
/// unbalanced or does not begin a value: with such a quote, a client could hide the element that a proxy appends.
fn without_quoted_separators(list: &[u8]) -> Option<Vec<u8>> {
    let mut list = list.to_vec();
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, 0);
    for byte in &mut list {
        match *byte {
            _ if is_escaped => (is_escaped, *byte) = (false, b'_'),
            b'\\' if is_quoted => is_escaped = true,
            b'"' if is_quoted || before == b'=' => is_quoted = !is_quoted,
            b'"' => return None,
            b',' | b';' if is_quoted => *byte = b'_',
            _ => {}
        }
        before = *byte;
    }
    (!is_quoted).then_some(list)
}

/// An address as proxies write it: bare, in brackets, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let bare = hop
        .strip_prefix('[')
        .and_then(|hop| hop.strip_suffix(']'))
        .unwrap_or(hop);
    let addr = bare.parse().or_else(|_| hop.parse().map(|addr: SocketAddr| addr.ip()));
    addr.ok().map(|addr: IpAddr| addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(peer: &str, lines: &[(&str, &str)]) -> (String, bool) {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a block"));
        let headers = lines.iter().map(|(name, value)| Header {
            name,
            value: value.as_bytes(),
        });
        let headers: Vec<Header<'_>> = headers.collect();
        let (client, is_known) = super::identify(&headers, peer.parse().expect("an address"), &trusted);
        (client.to_string(), is_known)
    }

    #[track_caller]
    fn check(peer: &str, lines: &[(&str, &str)], client: &str, is_known: bool) {
        assert_eq!(identify(peer, lines), (client.to_owned(), is_known), "{lines:?}");
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn untrusted_peer_is_the_client() {
        check("192.0.2.1", &[], "192.0.2.1", true);
        check("192.0.2.1", &[(XFF, "198.51.100.1")], "192.0.2.1", false);
        check("::ffff:192.0.2.1", &[(XFF, "")], "192.0.2.1", false);
        check("192.0.2.1", &[("forwarded", "for=198.51.100.1")], "192.0.2.1", false);
    }

    #[test]
    fn rightmost_untrusted_address_is_the_client() {
        for (peer, value, client) in [
            ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.1.1.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("fd00::1", "[2001:db8::1]:80,10.2.2.2", "2001:db8::1"),
            ("10.0.0.1", "[2001:db8::2]", "2001:db8::2"),
            ("10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ] {
            check(peer, &[(XFF, value)], client, true);
        }
        check("10.0.0.1", &[(XFF, "192.0.2.1"), (XFF, "192.0.2.2")], "192.0.2.2", true);
        check(
            "10.0.0.1",
            &[
                (XFF, "192.0.2.1"),
                ("a", "b"),
                ("X-Forwarded-For", "192.0.2.2, 10.1.1.1"),
            ],
            "192.0.2.2",
            true,
        );
    }

    #[test]
    fn invalid_entry_ends_the_search() {
        for (value, client) in [
            ("198.51.100.1, unknown, 10.1.1.1", "10.1.1.1"),
            ("", "10.0.0.1"),
            (",,", "10.0.0.1"),
            ("198.51.100.1, \u{fffd}", "10.0.0.1"),
        ] {
            check("10.0.0.1", &[(XFF, value)], client, false);
        }
        check("10.0.0.1", &[("via", "1.1 a")], "10.0.0.1", false);
    }

    #[test]
    fn forwarded_is_read_like_x_forwarded_for() {
        for (value, client, is_known) in [
            ("for=198.51.100.1", "198.51.100.1", true),
            ("by=10.0.0.1;For=\"198.51.100.1:80\";proto=https", "198.51.100.1", true),
            (
                "for=203.0.113.9, for=\"[2001:db8::1]:4711\", for=10.1.1.1",
                "2001:db8::1",
                true,
            ),
            ("for=\"_a,for=203.0.113.9\"", "10.0.0.1", false),
            ("for=\"203.0.113.9, for=198.51.100.1", "10.0.0.1", false),
            ("for=unknown", "10.0.0.1", false),
            ("for=\"203.0.113.9;\"", "10.0.0.1", false),
            ("for=\",203.0.113.9\"", "10.0.0.1", false),
            ("for=\"203.0.113.9,\", for=10.1.1.1", "10.1.1.1", false),
            ("proto=https", "10.0.0.1", false),
        ] {
            check("10.0.0.1", &[("forwarded", value)], client, is_known);
        }
        check(
            "10.0.0.1",
            &[("forwarded", "for=192.0.2.1"), ("forwarded", "for=192.0.2.2")],
            "192.0.2.2",
            true,
        );
    }

    #[test]
    fn quote_cannot_hide_the_element_of_a_proxy() {
        for value in [
            "for=10.0.0.9;x=\", for=192.0.2.8",
            "for=127.0.0.1;x=\", for=\"[2001:db8::8]:1\"",
            "for=127.0.0.1;x=\"\\, for=192.0.2.8;host=\"a\"",
            "for=192.0.2.7\"",
        ] {
            check("10.0.0.1", &[("forwarded", value)], "10.0.0.1", false);
        }
        let lines = [("forwarded", "for=127.0.0.1;x=\""), ("forwarded", "for=192.0.2.8")];
        check("10.0.0.1", &lines, "10.0.0.1", false);
        let escaped = "for=192.0.2.8;host=\"a\\\",for=127.0.0.1\"";
        check("10.0.0.1", &[("forwarded", escaped)], "192.0.2.8", true);
    }

    #[test]
    fn contradicting_headers_make_the_client_unknown() {
        let forged = [(XFF, "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        check("10.0.0.1", &forged, "10.0.0.1", false);
        let same = [(XFF, "2001:db8::1"), ("forwarded", "for=\"[2001:db8::2]\"")];
        check("10.0.0.1", &same, "2001:db8::1", true);
        check(
            "10.0.0.1",
            &[(XFF, "192.0.2.1"), ("forwarded", "proto=https")],
            "192.0.2.1",
            true,
        );
    }
}
