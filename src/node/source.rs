//! Which list names a node, and so how far the node is trusted.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Source {
    /// ips.txt: named by the operator.
    #[serde(rename = "ips_file")]
    IpsFile,
    /// The Node Explorer: named by any party that registers there.
    #[serde(rename = "explorer")]
    Explorer,
}

impl Source {
    /// The name that people read.
    pub fn name(self) -> &'static str {
        match self {
            Source::IpsFile => "ips file",
            Source::Explorer => "Explorer",
        }
    }
}

/// The order of nodes where one takes precedence: those of ips.txt in its order, then the Explorer's by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Position in ips.txt.
    Listed(u32),
    /// Named by the Explorer only.
    Explorer(SocketAddr),
}

impl Rank {
    /// The list that names the node.
    pub fn source(self) -> Source {
        match self {
            Rank::Listed(_) => Source::IpsFile,
            Rank::Explorer(_) => Source::Explorer,
        }
    }

    pub(crate) fn is_listed(self) -> bool {
        self.source() == Source::IpsFile
    }

    /// The IP address of an Explorer node.
    pub(crate) fn explorer_ip(self) -> Option<IpAddr> {
        match self {
            Rank::Listed(_) => None,
            Rank::Explorer(addr) => Some(addr.ip()),
        }
    }
}
