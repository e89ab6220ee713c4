//! The lists: ips.txt as it changes, and one bounded `GET` to the Explorer each interval → node addresses.
//! What becomes of a list is the poller's business; a list that can't be had is reported here, once.

mod explorer;
mod ips_file;
mod merge;

use crate::node::NodeAddr;
pub(crate) use explorer::{Explorer, follow};
pub(crate) use ips_file::{File, read, watch};
pub(crate) use merge::merge;

/// News of a list.
#[derive(Debug)]
pub(crate) enum Update {
    /// ips.txt, in its order.
    Listed(Vec<NodeAddr>),
    /// What the Explorer named, by address.
    Explorer(Vec<NodeAddr>),
    /// The Explorer was asked and gave nothing: its last list stays.
    ExplorerFailed,
}
