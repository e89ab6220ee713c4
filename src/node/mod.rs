//! The domain: what a node is called, what it says about itself, and who else may name one.
//!
//! Text and bytes come in, checked types go out; nothing here opens a socket, starts a thread or
//! reads a clock. Foreign text stands in errors only escaped and cut.

mod addr;
mod body;
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
pub use explorer::{ExplorerError, ExplorerList, parse_explorer};
pub use info::{ContainerId, IdError, InfoError, NodeInfo, Running};
pub use list::{BadLine, LineError, NoList, NodeList, parse_list};
pub use network_scope::{NetworkScope, deny_reason};
pub use origin::{AddrError, Origin, Scheme, Url, split_port};
pub use resources::{Entries, Reading, parse_resources, parse_support};
pub use source::{Rank, Source};
