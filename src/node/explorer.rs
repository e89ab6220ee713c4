//! The Node Explorer's list: its JSON in, the nodes that the router may probe out.

use super::addr::NodeAddr;
use super::json::{self, ParseError, expect, once, text};
use super::network_scope::{NetworkScope, deny_reason};
use super::origin::parse_port;
use serde_json::value::RawValue;
use std::net::{IpAddr, SocketAddr};

/// The most entries of a list: as many nodes as the router is made for.
const MAX_ENTRIES: usize = 100_000;
/// The most ports of one address. A party with one machine must not fill the list, nor have the router scan all ports
/// of that machine or of another one.
const MAX_PORTS: usize = 64;
/// The port of a node whose entry has none.
const DEFAULT_PORT: u16 = 4000;

/// An accepted list of the Explorer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplorerList {
    /// Each node once, by address and port, IPv4 first.
    pub nodes: Vec<NodeAddr>,
    /// Entries that are not an IP address with a port.
    pub skipped: usize,
    /// Distinct nodes that the router must not probe, or above the 64 lowest ports of an address, each with the reason.
    pub refused: Vec<(SocketAddr, &'static str)>,
}

/// Parses the list of an Explorer that is in `scope`: a JSON object with `data`, a list of at most 100,000 entries
/// `{"ip":"1.2.3.4","port":4000}`. `port` may be missing or null (4000), or a string; an IPv4-mapped address is IPv4. Other
/// fields are ignored. An entry of any other kind is skipped. An entry that [`deny_reason`] denies is refused.
///
/// # Errors
/// Any other shape of the whole, more entries, or two of `data`.
pub fn parse_explorer(body: &[u8], scope: NetworkScope) -> Result<ExplorerList, ParseError> {
    // A byte that is not UTF-8 affects only the entry that contains it.
    let body = String::from_utf8_lossy(body);
    let [data] = json::fields(json::parse(body.as_bytes())?, "an object with `data`", ["data"])?;
    let data = expect(once(&data, "data")?, '[', "`data` to be a list")?;
    let (mut list, mut sockets) = (ExplorerList::default(), Vec::new());
    json::each(data, |_, raw| {
        if sockets.len() + list.skipped == MAX_ENTRIES {
            return Err(ParseError(format!("`data` lists more than {MAX_ENTRIES}")));
        }
        match socket(raw) {
            Some(socket) => sockets.push(socket),
            None => list.skipped += 1,
        }
        Ok(())
    })?;
    sockets.sort_unstable();
    sockets.dedup();
    for ports in sockets.chunk_by(|a, b| a.ip() == b.ip()) {
        let reason = deny_reason(ports[0].ip(), scope);
        let most = if reason.is_some() { 0 } else { MAX_PORTS };
        let (allowed, refused) = ports.split_at(most.min(ports.len()));
        let nodes = allowed.iter().flat_map(|socket| NodeAddr::parse(&socket.to_string()));
        list.nodes.extend(nodes);
        let reason = reason.unwrap_or("more than 64 ports of one address");
        list.refused.extend(refused.iter().map(|socket| (*socket, reason)));
    }
    Ok(list)
}

/// An address with a port. `None` for an entry of any other kind.
fn socket(raw: &RawValue) -> Option<SocketAddr> {
    let [ip, port] = json::fields(raw, "an object", ["ip", "port"]).ok()?;
    let ip: IpAddr = text(once(&ip, "ip").ok()?)?.parse().ok()?;
    let port = match &port[..] {
        [] => Some(DEFAULT_PORT),
        [raw] if raw.get() == "null" => Some(DEFAULT_PORT),
        [raw] => parse_port(&text(raw).unwrap_or_else(|| raw.get().to_owned())),
        _ => None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &str, scope: NetworkScope) -> ExplorerList {
        parse_explorer(body.as_bytes(), scope).unwrap_or_else(|e| panic!("{body:.200}: {e}"))
    }

    fn entries(list: &str) -> ExplorerList {
        parse(&format!(r#"{{"data":[{list}]}}"#), NetworkScope::Public)
    }

    fn listed(list: &ExplorerList) -> Vec<&str> {
        list.nodes.iter().map(NodeAddr::as_listed).collect()
    }

    #[test]
    fn nodes_are_sorted_by_address_and_listed_once() {
        let list = entries(
            r#"{"ip":"2600::1","port":4000}, {"ip":"20.0.0.1","port":"80"}, {"ip":"9.9.9.9"},
            {"ip":"9.9.9.9","port":500,"id":[1],"id":2,"\ud800":3}, {"ip":"8.8.8.8","port": null }, {"ip":"::ffff:9.9.9.9","port":"4000"}"#,
        );
        let wanted = [
            "8.8.8.8:4000",
            "9.9.9.9:500",
            "9.9.9.9:4000",
            "20.0.0.1:80",
            "[2600::1]:4000",
        ];
        assert_eq!(listed(&list), wanted);
        assert_eq!((list.skipped, list.refused.len()), (0, 0));
    }

    #[test]
    fn empty_list_is_accepted() {
        assert_eq!(entries("").nodes, []);
        assert_eq!(parse("\u{feff}{\"data\":[]}", NetworkScope::Public).nodes, []);
    }

    #[test]
    fn entries_without_address_and_port_are_skipped() {
        let bad = [
            "null",
            "true",
            "1",
            "-1",
            "0.5",
            "\"9.9.9.9:80\"",
            "[]",
            "{}",
            r#"{"port":80}"#,
            r#"{"ip":null}"#,
            r#"{"ip":1}"#,
            r#"{"ip":[{}]}"#,
            r#"{"ip":""}"#,
            r#"{"ip":" 9.9.9.9"}"#,
            r#"{"ip":"node.example"}"#,
            r#"{"ip":"9.9.9"}"#,
            r#"{"ip":"9.9.9.9:80"}"#,
            r#"{"ip":"[2600::1]"}"#,
            r#"{"ip":"fe80::1%1"}"#,
            r#"{"ip":"9.9.9.9","port":0}"#,
            r#"{"ip":"9.9.9.9","port":65536}"#,
            r#"{"ip":"9.9.9.9","port":-1}"#,
            r#"{"ip":"9.9.9.9","port":80.0}"#,
            r#"{"ip":"9.9.9.9","port":null,"port":null}"#,
            r#"{"ip":"9.9.9.9","port":"0"}"#,
            r#"{"ip":"9.9.9.9","port":"+80"}"#,
            r#"{"ip":"9.9.9.9","port":""}"#,
            r#"{"ip":"9.9.9.9","port":"65536"}"#,
            r#"["9.9.9.9",80]"#,
            r#"{"ip":"9.9.9.9","ip":"9.9.9.9"}"#,
            r#"{"ip":"9.9.9.9","port":1,"port":1}"#,
            r#"{"ip":"\ud800"}"#,
            r#"{"ip":"9.9.9.9","port":1e400}"#,
            "1e400",
            r#""\udfff""#,
        ];
        let list = entries(&format!(r#"{},{{"ip":"9.9.9.9","port":65535}}"#, bad.join(",")));
        assert_eq!(listed(&list), ["9.9.9.9:65535"]);
        assert_eq!((list.skipped, list.refused.len()), (bad.len(), 0));
    }

    #[test]
    fn nodes_out_of_scope_are_refused() {
        let body = r#"{"data":[{"ip":"127.0.0.1"},{"ip":"10.0.0.1"},{"ip":"169.254.169.254"},
            {"ip":"::ffff:10.0.0.2"},{"ip":"9.9.9.9"},{"ip":"127.0.0.1","port":1}]}"#;
        for (scope, nodes) in [
            (NetworkScope::Public, 1),
            (NetworkScope::Private, 3),
            (NetworkScope::Loopback, 5),
        ] {
            let list = parse(body, scope);
            assert_eq!((list.nodes.len(), list.refused.len()), (nodes, 6 - nodes));
        }
    }

    #[test]
    fn one_address_has_at_most_64_ports() {
        for (ports, refused) in [(64, 0), (65, 1)] {
            let all: Vec<_> = (1..=ports)
                .map(|port| format!(r#"{{"ip":"9.9.9.9","port":{port}}},{{"ip":"8.8.8.8"}}"#))
                .collect();
            let list = entries(&all.join(","));
            assert_eq!((list.nodes.len(), list.refused.len()), (65, refused));
        }
    }

    #[test]
    fn invalid_utf8_affects_only_its_entry() {
        let body = b"{\"x\":\"\xff\",\"data\":[{\"ip\":\"9.9.9.\xff\"},{\"ip\":\"8.8.8.8\",\"city\":\"\xe9\"}]}";
        let list = parse_explorer(body, NetworkScope::Public).expect("a list");
        assert_eq!(listed(&list), ["8.8.8.8:4000"]);
        assert_eq!(list.skipped, 1);
    }

    #[test]
    fn at_most_100_000_entries_are_read() {
        let body = |count| format!(r#"{{"data":[{}]}}"#, vec!["0"; count].join(","));
        assert_eq!(parse(&body(100_000), NetworkScope::Public).skipped, 100_000);
        let error = parse_explorer(body(100_001).as_bytes(), NetworkScope::Public);
        let told = error.expect_err("one too many").to_string();
        assert!(told.starts_with("`data` lists more than 100000"), "{told}");
    }

    #[test]
    fn other_shape_is_an_error() {
        for (body, wanted) in [
            (r#"{"data":null}"#, "expected `data` to be a list, found null"),
            (r#"{"data":{}}"#, "expected `data` to be a list, found {}"),
            (r#"{"data":[],"data":[]}"#, "duplicate field `data`"),
            ("{}", "missing field `data`"),
            ("[]", "expected an object with `data`"),
            ("null", "expected an object with `data`"),
            ("<html>", "not JSON: expected value at line 1 column 1"),
            (r#"{"data":[]}]"#, "not JSON: trailing characters"),
            (r#"{"data":[{"ip":"9.9.9.9"}"#, "not JSON: EOF"),
            ("", "not JSON: EOF"),
        ] {
            let error = parse_explorer(body.as_bytes(), NetworkScope::Public);
            let told = error.expect_err(body).to_string();
            assert!(told.contains(wanted), "{body}: {told}");
        }
    }

    #[test]
    fn deep_nesting_is_skipped() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let list = entries(&format!(r#"{deep},{{"ip":{deep}}},{{"x":{deep},"ip":"9.9.9.9"}}"#));
        assert_eq!((list.nodes.len(), list.skipped), (1, 2));
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes: Vec<u8>, text in r#"\{"data":\[(\{"ip":"[0-9a-f.:]{0,9}"\},?){0,3}\PC{0,9}"#) {
            let _ = parse_explorer(&bytes, NetworkScope::Public);
            let _ = parse_explorer(text.as_bytes(), NetworkScope::Loopback);
        }
    }
}
