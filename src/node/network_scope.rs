//! Decides which addresses the Explorer may list: a party that registers a node must not choose what the router calls
//! inside its own network or its cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the Explorer itself is, and so which addresses it may list. The order is by how much a scope allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkScope {
    /// In the internet: entries may be in the internet.
    Public,
    /// In a private network: entries may be in private networks too.
    Private,
    /// On this machine: entries may be on it too.
    Loopback,
}

impl NetworkScope {
    /// The scope of an Explorer at these addresses: what all of them allow. One public address, or no address, makes
    /// the Explorer public.
    pub fn of(addrs: &[IpAddr]) -> NetworkScope {
        let scope = |class| match class {
            LOOPBACK => NetworkScope::Loopback,
            PRIVATE => NetworkScope::Private,
            _ => NetworkScope::Public,
        };
        let scopes = addrs.iter().flat_map(|addr| classes(*addr)).map(scope);
        scopes.min().unwrap_or(NetworkScope::Public)
    }
}

/// Why the Explorer may not list a node at `addr`, or `None` if it may.
///
/// Denied in any scope: link-local, multicast, unspecified, broadcast, reserved and cloud metadata addresses. Loopback
/// needs [`NetworkScope::Loopback`]; private addresses, and addresses that are not routed in the internet
/// (documentation, benchmarks, protocol assignments), need a scope that is not public. The rule for an embedded IPv4
/// address applies to the IPv6 address around it.
pub fn deny_reason(addr: IpAddr, scope: NetworkScope) -> Option<&'static str> {
    let is_denied = |(least, _): &Class| least.is_none_or(|least| scope < least);
    classes(addr).into_iter().find(is_denied).map(|(_, reason)| reason)
}

/// The least scope that allows an address, or `None` if no scope does, and the reason of a denial. An address that is
/// not routed in the internet belongs to a host inside.
type Class = (Option<NetworkScope>, &'static str);

const PUBLIC: Class = (Some(NetworkScope::Public), "");
const PRIVATE: Class = inside("private");
const LOOPBACK: Class = (Some(NetworkScope::Loopback), "loopback");

const fn inside(reason: &'static str) -> Class {
    (Some(NetworkScope::Private), reason)
}

/// The classes of an address and of the addresses embedded in it. The strictest applies.
fn classes(addr: IpAddr) -> Vec<Class> {
    let v6 = match addr {
        IpAddr::V4(v4) => return vec![class_v4(v4)],
        IpAddr::V6(v6) => v6,
    };
    let mut classes: Vec<_> = carried(v6).into_iter().map(class_v4).collect();
    if classes.is_empty() {
        classes.push(class_v6(v6));
    }
    classes.extend(isatap(v6).map(class_v4));
    classes
}

/// By the IANA registry of special-purpose IPv4 addresses.
fn class_v4(addr: Ipv4Addr) -> Class {
    match addr.octets() {
        [0, ..] => (None, "unspecified"),
        [169, 254, ..] => (None, "link-local"),
        // Alibaba, Oracle (classic), Azure: metadata outside of link-local space.
        [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => (None, "cloud metadata"),
        [224..=239, ..] => (None, "multicast"),
        [255, 255, 255, 255] => (None, "broadcast"),
        [240..=255, ..] => (None, "reserved"),
        [127, ..] => LOOPBACK,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => PRIVATE,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => inside("documentation"),
        [198, 18..=19, ..] => inside("benchmarks"),
        [192, 0, 0, _] | [192, 88, 99, _] => inside("protocol assignments"),
        _ => PUBLIC,
    }
}

/// By the IANA registry of special-purpose IPv6 addresses, without ranges that embed IPv4.
fn class_v6(addr: Ipv6Addr) -> Class {
    match addr.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => (None, "unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => LOOPBACK,
        // AWS (all its services), then Google, Oracle, Scaleway, Alibaba, Akamai.
        [0xfd00, 0xec2, ..]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
        | [0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200]
        | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1] => (None, "cloud metadata"),
        [0xff00..=0xffff, ..] => (None, "multicast"),
        [0xfe80..=0xfebf, ..] => (None, "link-local"),
        // Unique local, and site-local, which it replaced.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => PRIVATE,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => inside("documentation"),
        [0x2001, 2, 0, ..] => inside("benchmarks"),
        [0x2001, 0..=0x1ff, ..] => inside("protocol assignments"),
        [0x2000..=0x3fff, ..] => PUBLIC,
        _ => (None, "reserved"),
    }
}

/// The IPv4 addresses that a packet to this address may reach. Plain IPv6 has none.
fn carried(addr: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = addr.octets();
    let at = |a: usize, b: usize, c: usize, d: usize| Ipv4Addr::new(o[a], o[b], o[c], o[d]);
    let last = at(12, 13, 14, 15);
    match addr.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // Local NAT64 (RFC 8215): the address does not show whether its prefix has 48, 56, 64 or 96 bits. Readings in
        // 0.0.0.0/8 are the zeros around the real one, and no host is there.
        [0x64, 0xff9b, 1, ..] => {
            let readings = [last, at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12)];
            readings.into_iter().filter(|v4| v4.octets()[0] != 0).collect()
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at(2, 3, 4, 5)],
        // Teredo (RFC 4380): the server, and the client with its bits flipped.
        [0x2001, 0, ..] => vec![at(4, 5, 6, 7), Ipv4Addr::from_bits(!last.to_bits())],
        _ => vec![],
    }
}

/// The IPv4 address in an ISATAP interface identifier (RFC 5214), whatever the prefix.
fn isatap(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    match addr.segments() {
        [.., 0 | 0x200, 0x5efe, high, low] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [NetworkScope; 3] = [NetworkScope::Public, NetworkScope::Private, NetworkScope::Loopback];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    /// For each scope of `ALL`, whether the address is refused.
    fn refused(addr: IpAddr) -> [bool; 3] {
        ALL.map(|scope| deny_reason(addr, scope).is_some())
    }

    /// Every IPv6 form that carries an IPv4 address.
    fn carriers(v4: Ipv4Addr) -> Vec<IpAddr> {
        let [a, b, c, d] = v4.octets();
        let v4_hex = format!("{a:02x}{b:02x}:{c:02x}{d:02x}");
        let not = Ipv4Addr::from_bits(!v4.to_bits());
        [
            format!("::ffff:{v4}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("64:ff9b:1::{v4}"),
            format!("64:ff9b:1:{a:02x}{b:02x}:00{c:02x}:{d:02x}00::"),
            format!("64:ff9b:1:00{a:02x}:00{b:02x}:{c:02x}{d:02x}::"),
            format!("64:ff9b:1:0:00{a:02x}:{b:02x}{c:02x}:{d:02x}00::"),
            format!("2002:{v4_hex}::1"),
            format!("2001:0:{v4_hex}::f7f7:f7f7"),
            format!("2001:0:808:808::{not}"),
            format!("2600::5efe:{v4}"),
            format!("2600::200:5efe:{v4}"),
        ]
        .map(|text| ip(&text))
        .into()
    }

    #[test]
    fn some_addresses_are_refused_in_any_scope() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd00:100::100:200",
            "fd00:a9fe:a9fe::1",
            "100::1",
            "4000::1",
            "5f00::1",
            "::169.254.169.254",
            "64:ff9b:1::",
            "64:ff9b:2::8.8.8.8",
        ] {
            assert_eq!(refused(ip(text)), [true; 3], "{text}");
        }
    }

    #[test]
    fn loopback_needs_an_explorer_on_this_machine() {
        for text in ["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "::127.0.0.1"] {
            assert_eq!(refused(ip(text)), [true, true, false], "{text}");
        }
    }

    #[test]
    fn private_addresses_need_a_private_explorer() {
        for text in [
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "fc00::",
            "fdff::1",
            "fec0::1",
            "feff::1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.255",
            "198.18.0.0",
            "198.19.255.255",
            "192.0.0.1",
            "192.88.99.1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "2001:2::1",
            "2001:1ff::1",
            "::10.0.0.1",
            "fd00:ec3::254",
        ] {
            assert_eq!(refused(ip(text)), [true, false, false], "{text}");
        }
    }

    #[test]
    fn neighbours_of_each_block_are_allowed() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:db7::1",
            "2003::1",
            "3ffe::1",
            "3fff:1000::1",
            "2600::1",
            "::8.8.8.8",
        ] {
            assert_eq!(refused(ip(text)), [false; 3], "{text}");
        }
    }

    #[test]
    fn isatap_address_is_denied_by_its_prefix_too() {
        assert_eq!(refused(ip("fe80::5efe:8.8.8.8")), [true; 3]);
        assert_eq!(refused(ip("fd12::5efe:8.8.8.8")), [true, false, false]);
    }

    #[test]
    fn scope_is_what_all_addresses_allow() {
        for (addrs, wanted) in [
            (&[][..], NetworkScope::Public),
            (&["127.0.0.1", "::1", "::ffff:127.0.0.2"], NetworkScope::Loopback),
            (&["127.0.0.1", "10.0.0.1"], NetworkScope::Private),
            (&["172.17.0.2", "fd12::1", "100.64.0.1"], NetworkScope::Private),
            (&["10.0.0.1", "8.8.8.8"], NetworkScope::Public),
            (&["::1", "2600::1"], NetworkScope::Public),
            (&["169.254.1.1"], NetworkScope::Public),
            (&["192.0.2.1"], NetworkScope::Public),
        ] {
            let addrs: Vec<_> = addrs.iter().map(|text| ip(text)).collect();
            assert_eq!(NetworkScope::of(&addrs), wanted, "{addrs:?}");
        }
    }

    proptest! {
        #[test]
        fn denied_ipv4_address_is_denied_when_embedded(
            v4 in prop_oneof![
                (1..=255u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d)),
                (0..=255u8, 0..=255u8).prop_map(|(c, d)| Ipv4Addr::new(169, 254, c, d)),
                (0..=255u8, 0..=255u8).prop_map(|(c, d)| Ipv4Addr::new(10, 0, c, d)),
                Just(Ipv4Addr::LOCALHOST), Just(Ipv4Addr::new(100, 100, 100, 200)),
            ]
        ) {
            let plain = refused(IpAddr::V4(v4));
            for addr in carriers(v4) {
                for (inside, outside) in plain.iter().zip(refused(addr)) {
                    prop_assert!(outside || !inside, "{} in {}", v4, addr);
                }
            }
        }

        #[test]
        fn wider_scope_denies_no_more(addr: IpAddr) {
            let [public, private, loopback] = refused(addr);
            prop_assert!(public >= private && private >= loopback);
        }
    }
}
