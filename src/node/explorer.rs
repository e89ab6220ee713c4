//! The Node Explorer's answer: makes nodes that the router may call of its JSON.
//! Asking it, and keeping its last good list, is left to others.

use super::addr::NodeAddr;
use super::json::{self, is_list, is_object};
use super::network_scope::{NetworkScope, deny_reason};
use super::origin::parse_port;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Most entries of an answer: as many nodes as the router is made for.
const MAX_ENTRIES: usize = 100_000;
/// Most ports of one address. Somebody with one machine must not fill the list, nor have the
/// router try all its ports, or at those of somebody else.
const MAX_PORTS: usize = 64;
/// The port of a node whose entry has none.
const DEFAULT_PORT: u16 = 4000;

/// What the Explorer's answer comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplorerList {
    /// Each node once, by address and port, IPv4 first.
    pub nodes: Vec<NodeAddr>,
    /// Entries that are no IP address with a port.
    pub skipped: usize,
    /// Distinct nodes that the router must not call, or beyond the 64 lowest ports of an address; each with the reason.
    pub refused: Vec<(SocketAddr, &'static str)>,
}

/// Parses the answer of an Explorer that is in `scope`: a JSON object with `data`, a list of at
/// most 100,000 entries `{"ip":"1.2.3.4","port":4000}`. `port` may be missing (4000) or a string;
/// an IPv4-mapped address is IPv4. Other fields are ignored. An entry that is no address with a
/// port, whatever it is, is skipped, one that [`deny_reason`] doesn't let pass is refused.
///
/// # Errors
///
/// Any other shape of the whole, more entries, or `data` given twice.
pub fn parse_explorer(body: &[u8], scope: NetworkScope) -> Result<ExplorerList, ExplorerError> {
    let Entries { mut sockets, skipped } = read(body)?;
    sockets.sort_unstable();
    sockets.dedup();
    let mut list = ExplorerList {
        skipped,
        ..ExplorerList::default()
    };
    for ports in sockets.chunk_by(|a, b| a.ip() == b.ip()) {
        let reason = deny_reason(ports[0].ip(), scope);
        let most = if reason.is_none() {
            MAX_PORTS.min(ports.len())
        } else {
            0
        };
        let (called, refused) = ports.split_at(most);
        list.nodes.extend(called.iter().copied().map(NodeAddr::from_socket));
        let reason = reason.unwrap_or("more ports of one address than it may name");
        list.refused.extend(refused.iter().map(|socket| (*socket, reason)));
    }
    Ok(list)
}

/// Why a body is no Explorer's answer: one sentence, foreign text in it escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplorerError(String);

impl fmt::Display for ExplorerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ExplorerError {}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    ip: Cow<'a, str>,
    #[serde(default)]
    port: Port,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

impl Default for Port {
    fn default() -> Self {
        Port::Number(DEFAULT_PORT)
    }
}

/// What `data` lists. Read entry by entry, so that an answer full of them costs no memory.
#[derive(Default)]
struct Entries {
    sockets: Vec<SocketAddr>,
    skipped: usize,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`data` to be a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            if entries.sockets.len() + entries.skipped == MAX_ENTRIES {
                return Err(A::Error::custom(format!("`data` lists more than {MAX_ENTRIES}")));
            }
            match socket(raw) {
                Some(socket) => entries.sockets.push(socket),
                None => entries.skipped += 1,
            }
        }
        Ok(entries)
    }
}

/// An address with a port, or None for an entry of any other kind.
fn socket(raw: &RawValue) -> Option<SocketAddr> {
    let entry: Entry<'_> = is_object(raw).then(|| serde_json::from_str(raw.get()).ok())??;
    let ip: IpAddr = entry.ip.parse().ok()?;
    let port = match entry.port {
        Port::Number(port) => Some(port).filter(|port| *port != 0),
        Port::Text(digits) => parse_port(&digits),
    };
    Some(SocketAddr::new(ip.to_canonical(), port?))
}

/// Reads the sockets that an answer names. A byte that is not UTF-8 spoils only the entry that it stands in.
fn read(body: &[u8]) -> Result<Entries, ExplorerError> {
    let wrong = |error| ExplorerError(json::reason(&error));
    let text = String::from_utf8_lossy(body);
    let whole: &RawValue = serde_json::from_str(&text).map_err(wrong)?;
    if !is_object(whole) {
        return Err(ExplorerError(json::unexpected("an object with `data`", whole)));
    }
    let Answer { data } = serde_json::from_str(whole.get()).map_err(wrong)?;
    if !is_list(data) {
        return Err(ExplorerError(json::unexpected("`data` to be a list", data)));
    }
    serde_json::from_str(data.get()).map_err(wrong)
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
            {"ip":"9.9.9.9","port":500,"id":[1]}, {"ip":"::ffff:9.9.9.9","port":"4000"}"#,
        );
        let wanted = ["9.9.9.9:500", "9.9.9.9:4000", "20.0.0.1:80", "[2600::1]:4000"];
        assert_eq!(listed(&list), wanted);
        assert!(list.nodes.is_sorted());
        assert_eq!((list.skipped, list.refused.len()), (0, 0));
    }

    #[test]
    fn an_empty_list_is_an_empty_list() {
        assert_eq!(entries("").nodes, []);
    }

    #[test]
    fn entries_that_are_no_address_with_a_port_are_skipped_and_counted() {
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
            r#"{"ip":"9.9.9.9","port":null}"#,
            r#"{"ip":"9.9.9.9","port":"0"}"#,
            r#"{"ip":"9.9.9.9","port":"+80"}"#,
            r#"{"ip":"9.9.9.9","port":""}"#,
            r#"{"ip":"9.9.9.9","port":"65536"}"#,
            r#"["9.9.9.9",80]"#,
            r#"{"ip":"9.9.9.9","ip":"9.9.9.9"}"#,
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
    fn what_the_router_must_not_call_is_refused_and_counted() {
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
    fn sixty_four_ports_of_one_address_are_listed() {
        for (ports, refused) in [(64, 0), (65, 1)] {
            let all: Vec<_> = (1..=ports)
                .map(|port| format!(r#"{{"ip":"9.9.9.9","port":{port}}},{{"ip":"8.8.8.8"}}"#))
                .collect();
            let list = entries(&all.join(","));
            assert_eq!((list.nodes.len(), list.refused.len()), (65, refused));
        }
    }

    #[test]
    fn a_byte_that_is_not_utf8_spoils_its_own_entry_at_most() {
        let body = b"{\"x\":\"\xff\",\"data\":[{\"ip\":\"9.9.9.\xff\"},{\"ip\":\"8.8.8.8\",\"city\":\"\xe9\"}]}";
        let list = parse_explorer(body, NetworkScope::Public).expect("a list");
        assert_eq!(listed(&list), ["8.8.8.8:4000"]);
        assert_eq!(list.skipped, 1);
    }

    #[test]
    fn a_hundred_thousand_entries_are_read_and_no_more() {
        let body = |count| format!(r#"{{"data":[{}]}}"#, vec!["0"; count].join(","));
        assert_eq!(parse(&body(100_000), NetworkScope::Public).skipped, 100_000);
        let error = parse_explorer(body(100_001).as_bytes(), NetworkScope::Public);
        let told = error.expect_err("one too many").to_string();
        assert!(told.starts_with("`data` lists more than 100000"), "{told}");
    }

    #[test]
    fn any_other_shape_is_an_error() {
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
