//! The domain: what a node is called, what it reports about itself, and who else may name a node.
//!
//! Text and bytes come in, checked types go out. Nothing here opens a socket, starts a thread or reads a clock. Errors
//! contain untrusted text only escaped and truncated.

mod addr;
mod error;
mod explorer;
mod host;
mod info;
mod json;
mod list;
mod network_scope;
mod origin;
mod resources;
mod source;

pub use addr::NodeAddr;
pub use error::AddrError;
pub use explorer::{ExplorerList, parse_explorer};
pub use info::{ContainerId, NodeInfo, Running};
pub use json::ParseError;
pub use list::{Attributes, BadLine, ListedNode, NodeList, parse_list};
pub use network_scope::{NetworkScope, deny_reason};
pub use origin::{Origin, Scheme, Url, split_port};
pub use resources::{Entries, Reading, parse_resources, parse_support};
pub use source::{Rank, Source};
