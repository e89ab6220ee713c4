//! Merges the two lists.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::node::{Attributes, ListedNode, NodeAddr, Rank};

/// Returns the nodes of both lists. A node in both is a listed node. An Explorer node is also a listed node if its
/// address and port are those of a listed host name, or of an `as=` address. `known` returns the addresses
/// that a name last resolved to.
pub(crate) fn merge(
    listed: &[ListedNode],
    explorer: &[NodeAddr],
    known: impl Fn(&str) -> Vec<IpAddr>,
) -> HashMap<NodeAddr, (Rank, Attributes)> {
    let mut nodes = HashMap::with_capacity(listed.len() + explorer.len());
    for (line, node) in listed.iter().enumerate() {
        let entry = (Rank::Listed(line as u32), node.attributes.clone());
        nodes.entry(node.addr.clone()).or_insert(entry);
    }
    let mut taken: HashSet<SocketAddr> = HashSet::new();
    if !explorer.is_empty() {
        let names = listed.iter().filter(|node| node.addr.socket_addr().is_none());
        let public = listed.iter().filter_map(|node| node.attributes.public.as_ref());
        for addr in names.map(|node| &node.addr).chain(public) {
            taken.extend(sockets(addr, &known));
        }
    }
    for addr in explorer {
        if let Some(socket) = addr.socket_addr().filter(|socket| !taken.contains(socket)) {
            let entry = (Rank::Explorer(socket), Attributes::default());
            nodes.entry(addr.clone()).or_insert(entry);
        }
    }
    nodes
}

/// Counts the nodes of `before` that are not in `after`.
pub(super) fn missing<'a>(
    before: impl Iterator<Item = &'a NodeAddr>,
    after: impl Iterator<Item = &'a NodeAddr>,
) -> usize {
    let after: HashSet<_> = after.collect();
    before.filter(|node| !after.contains(node)).count()
}

/// The sockets of an address as far as they are known. An address with a path shares its socket with others.
fn sockets(addr: &NodeAddr, known: impl Fn(&str) -> Vec<IpAddr>) -> Vec<SocketAddr> {
    let port = addr.origin().port;
    let ips = match addr.socket_addr() {
        _ if addr.has_path() => Vec::new(),
        Some(socket) => vec![socket.ip()],
        None => known(&addr.origin().host()),
    };
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip.to_canonical(), port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::parse_list;

    /// Merges the lists and returns the nodes in their order. `name.example` is 1.1.1.1 and 2600::1.
    fn merged(listed: &str, explorer: &[&str]) -> Vec<(String, bool)> {
        let listed = parse_list(listed.as_bytes()).expect("a list").nodes;
        let explorer: Vec<_> = explorer
            .iter()
            .map(|text| NodeAddr::parse(text).expect("an address"))
            .collect();
        let known = |host: &str| match host {
            "name.example" => ["1.1.1.1", "2600::1"].map(|ip| ip.parse().expect("an address")).into(),
            _ => Vec::new(),
        };
        let mut merged: Vec<_> = merge(&listed, &explorer, known).into_iter().collect();
        merged.sort_unstable_by_key(|(_, (rank, _))| *rank);
        let row = |(addr, (rank, _)): (NodeAddr, (Rank, Attributes))| (addr.to_string(), rank.is_listed());
        merged.into_iter().map(row).collect()
    }

    fn row(addr: &str, is_listed: bool) -> (String, bool) {
        (addr.to_owned(), is_listed)
    }

    #[test]
    fn node_in_both_lists_is_a_listed_node() {
        let nodes = merged(
            "node.example:1\nhttp://1.1.1.1:1\n",
            &["1.1.1.1:1", "2.2.2.2:2", "other.example:1"],
        );
        let expected = [
            row("node.example:1", true),
            row("http://1.1.1.1:1", true),
            row("2.2.2.2:2", false),
        ];
        assert_eq!(nodes, expected, "names are for ips.txt only");
    }

    #[test]
    fn explorer_node_at_listed_name_is_listed_node() {
        let explorer = ["1.1.1.1:1", "[2600::1]:1", "1.1.1.1:2"];
        let name = row("name.example:1", true);
        assert_eq!(merged("name.example:1", &explorer), [name, row("1.1.1.1:2", false)]);
        assert_eq!(
            merged("name.example:1/path", &explorer).len(),
            4,
            "a path is another node"
        );
        assert_eq!(merged("unknown.example:1", &explorer).len(), 4);
    }

    #[test]
    fn explorer_node_at_as_address_is_listed_node() {
        let explorer = ["1.1.1.1:1", "2.2.2.2:2"];
        for listed in ["10.0.0.1:9 as=1.1.1.1:1", "10.0.0.1:9 as=name.example:1"] {
            assert_eq!(
                merged(listed, &explorer),
                [row("10.0.0.1:9", true), row("2.2.2.2:2", false)],
                "{listed}"
            );
        }
    }
}
