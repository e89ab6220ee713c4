//! The lists: ips.txt as it changes, and one bounded `GET` to the Explorer each interval → node addresses.
//! What becomes of a list is the poller's business; a list that can't be read is reported here, once.

mod explorer;
mod ips_file;
mod ips_watch;
mod merge;

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::metrics::Metrics;
use crate::node::NodeAddr;
use crate::status::Board;
pub(crate) use explorer::{Explorer, follow};
pub(crate) use ips_file::read;
pub(crate) use ips_watch::watch;
pub(crate) use merge::merge;

/// Where what becomes of a list goes.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    pub(crate) updates: Sender<Update>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) board: Arc<Board>,
}

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
