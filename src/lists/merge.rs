//! The two lists as one.

use std::collections::HashMap;

use crate::node::{NodeAddr, Rank};

/// Both lists as one: a node in both is as ips.txt has it.
pub(crate) fn merge(listed: &[NodeAddr], explorer: &[NodeAddr]) -> HashMap<NodeAddr, Rank> {
    let mut ranked = HashMap::with_capacity(listed.len() + explorer.len());
    for (line, addr) in listed.iter().enumerate() {
        ranked.entry(addr.clone()).or_insert(Rank::Listed(line as u32));
    }
    for addr in explorer {
        if let Some(socket) = addr.socket_addr() {
            ranked.entry(addr.clone()).or_insert(Rank::Explorer(socket));
        }
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::parse_list;

    #[test]
    fn a_node_in_both_lists_is_as_ips_txt_has_it_and_names_are_for_ips_txt_alone() {
        let listed = parse_list("node.example:1\nhttp://1.1.1.1:1\n".as_bytes())
            .expect("a list")
            .nodes;
        let explorer = parse_list("1.1.1.1:1\n2.2.2.2:2\nother.example:1\n".as_bytes())
            .expect("a list")
            .nodes;
        let mut merged: Vec<_> = merge(&listed, &explorer).into_iter().collect();
        merged.sort_unstable_by_key(|(_, rank)| *rank);
        let merged: Vec<_> = merged.iter().map(|(addr, rank)| (addr.as_listed(), *rank)).collect();
        let second = explorer[1].socket_addr().expect("an address");
        let wanted = [
            ("node.example:1", Rank::Listed(0)),
            ("http://1.1.1.1:1", Rank::Listed(1)),
            ("2.2.2.2:2", Rank::Explorer(second)),
        ];
        assert_eq!(merged, wanted);
    }
}
