//! The two lists of nodes: `ips.txt` as it changes, and one bounded `GET` to the Explorer per interval. Reports a
//! rejected list once and keeps the last accepted one. The poller decides what a new list means for the nodes.

mod explorer;
mod ips_file;
mod merge;

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::{ExplorerList, NodeList};
use crate::util::polled::Polled;
pub(crate) use explorer::{fetch, follow};
pub(crate) use ips_file::{read, watch};
pub(crate) use merge::merge;

/// Both lists with their problems, as `/status` shows them.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    /// `ips.txt`.
    pub(crate) file: Arc<Polled<NodeList>>,
    /// `None` without `API_URL`.
    pub(crate) explorer: Option<Arc<Polled<ExplorerList>>>,
}

impl Lists {
    /// Both lists before the first attempt.
    pub(crate) fn new(config: &Config) -> Self {
        let explorer = config.api_url.as_ref();
        Self {
            file: Arc::new(Polled::new(config.ips_file.display().to_string())),
            explorer: explorer.map(|url| Arc::new(Polled::new(url.shown.clone()))),
        }
    }
}

/// Receivers of new lists and of counts.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    pub(crate) updates: Sender<Update>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A result that the poller needs.
#[derive(Debug)]
pub(crate) enum Update {
    /// `ips.txt` was accepted. At startup also an empty list in place of a rejected one.
    Listed(Arc<NodeList>),
    /// The Explorer's list was accepted.
    Explorer(Arc<ExplorerList>),
    /// The Explorer's list was not accepted. The last list stays in effect.
    ExplorerFailed,
}
