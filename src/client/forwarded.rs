//! Whose request it is: the peer's, or, behind a trusted proxy, the one that `X-Forwarded-For` names. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The client of a request from `peer` with these `X-Forwarded-For` lines, joined by commas: read from the right, the
/// first address that is no trusted proxy. What isn't an address ends the walk at the last good one, so that nobody
/// can forge more than what stands left of the last proxy that the operator trusts. And whether the lines name it: not
/// where `peer` is no trusted proxy, or one that they tell nothing of.
pub(crate) fn client(peer: IpAddr, forwarded: &[u8], trusted: &[IpNet]) -> (IpAddr, bool) {
    let (mut client, mut is_named) = (peer.to_canonical(), false);
    let mut hops = forwarded.rsplit(|byte| *byte == b',').map(address);
    while is_trusted(client, trusted)
        && let Some(hop) = hops.next()
    {
        match hop {
            Some(hop) => (client, is_named) = (hop, true),
            None => return (client, false),
        }
    }
    (client, is_named)
}

pub(crate) fn is_trusted(addr: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&addr.to_canonical()))
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

    fn of(peer: &str, forwarded: &str) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a block"));
        let (client, _) = client(peer.parse().expect("an address"), forwarded.as_bytes(), &trusted);
        client.to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_says() {
        assert_eq!(of("192.0.2.1", "198.51.100.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1", ""), "192.0.2.1");
    }

    #[test]
    fn behind_proxies_it_is_the_first_from_the_right_that_is_none() {
        assert_eq!(of("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.1.1.1"), "198.51.100.1");
        assert_eq!(of("::ffff:10.0.0.1", "198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(of("fd00::1", "[2001:db8::1]:80,10.2.2.2"), "2001:db8::1");
        assert_eq!(of("10.0.0.1", "[2001:db8::2]"), "2001:db8::2");
        assert_eq!(of("10.0.0.1", "10.0.0.9, 10.0.0.2"), "10.0.0.9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
        assert_eq!(of("10.0.0.1", "198.51.100.1, unknown, 10.1.1.1"), "10.1.1.1");
        assert_eq!(of("10.0.0.1", ""), "10.0.0.1");
        assert_eq!(of("10.0.0.1", ",,"), "10.0.0.1");
        assert_eq!(of("10.0.0.1", "198.51.100.1, \u{fffd}"), "10.0.0.1");
    }
}
