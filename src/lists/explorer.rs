//! The Node Explorer: asked once an interval which nodes there are.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Update;
use crate::config::ApiUrl;
use crate::fetch::{Bounds, Fetcher};
use crate::metrics::{Metrics, Success, unix_seconds};
use crate::node::{self, NetworkScope, NodeAddr};
use crate::status::Board;
use crate::util::threads::{self, Alarm, Joined};

/// The Explorer's answer, in all.
const EXPLORER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of the Explorer: 100,000 entries of 160 bytes.
const MAX_EXPLORER_BYTES: u64 = 16 * 1024 * 1024;
/// The Explorer is asked once an interval, and no more often than this.
const MIN_EXPLORER_INTERVAL: Duration = Duration::from_secs(1);
/// The Explorer, and what was last said of it.
pub(crate) struct Explorer {
    url: ApiUrl,
    fetcher: Fetcher,
    said: Option<Said>,
}

#[derive(PartialEq, Eq)]
enum Said {
    Failed(String),
    Lists { skipped: usize, refused: usize },
}

impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Explorer {
    pub(crate) fn new(url: ApiUrl, fetcher: &Fetcher) -> Self {
        Self {
            url,
            fetcher: fetcher.clone(),
            said: None,
        }
    }

    /// Asks once, and tells the board what came of it. Takes no longer than ten seconds.
    ///
    /// # Errors
    /// Why there is no list.
    pub(crate) fn ask(&mut self, board: &Board) -> Result<Vec<NodeAddr>, String> {
        let list = self.fetch();
        match &list {
            Ok(list) => board.explorer_answered(list),
            Err(trouble) => board.explorer_failed(trouble),
        }
        let says = match &list {
            Ok(list) => Said::Lists {
                skipped: list.skipped,
                refused: list.refused.len(),
            },
            Err(error) => Said::Failed(error.clone()),
        };
        if self.said.as_ref() != Some(&says) {
            self.say(&says, list.as_ref().map_or(0, |list| list.nodes.len()));
            self.said = Some(says);
        }
        list.map(|list| list.nodes)
    }

    /// One request, of which nothing is said.
    ///
    /// # Errors
    /// Why there is no list.
    pub(crate) fn fetch(&self) -> Result<node::ExplorerList, String> {
        // The name may mean something else from one look-up to the next, and who serves the list may own the name: its
        // entries get what both answers allow.
        let host = self.url.origin().host();
        #[expect(clippy::disallowed_methods, reason = "one deadline over the look-up and the rest")]
        let begin = Instant::now();
        let before = NetworkScope::of(&self.fetcher.resolver().look_up(&host, EXPLORER_TIMEOUT));
        let bounds = Bounds {
            timeout: EXPLORER_TIMEOUT.saturating_sub(begin.elapsed()),
            max_body_bytes: MAX_EXPLORER_BYTES,
            max_redirects: 0,
        };
        let answer = self.fetcher.get(&self.url.nodes_url(), bounds);
        let body = answer.map_err(|error| error.to_string())?.into_body()?;
        let after = NetworkScope::of(&self.fetcher.resolver().known(&host));
        node::parse_explorer(&body, before.min(after)).map_err(|error| error.to_string())
    }

    fn say(&self, says: &Said, nodes: usize) {
        match says {
            Said::Failed(error) => log::warn!("Explorer {}: {error}; its last good list stays", self.url),
            Said::Lists { skipped: 0, refused: 0 } => log::info!("Explorer {}: lists {nodes} nodes", self.url),
            Said::Lists { skipped, refused } => log::warn!(
                "Explorer {}: lists {nodes} nodes; {skipped} entries are no address with a port, \
                 {refused} are addresses that it may not name",
                self.url
            ),
        }
    }
}

/// Asks the Explorer once an interval until `stop` closes.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn follow(
    mut explorer: Explorer,
    interval: Duration,
    updates: Sender<Update>,
    stop: Receiver<()>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let interval = interval.max(MIN_EXPLORER_INTERVAL);
    threads::spawn_vital("explorer", alarm, move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
            let begin = Instant::now();
            let update = match explorer.ask(&board) {
                Ok(nodes) => {
                    metrics.explorer_requests[Success::Ok].add(1);
                    metrics.explorer_success.set(unix_seconds());
                    Update::Explorer(nodes)
                }
                Err(_) => {
                    metrics.explorer_requests[Success::Failed].add(1);
                    Update::ExplorerFailed
                }
            };
            if updates.send(update).is_err() {
                return;
            }
            let left = interval.saturating_sub(begin.elapsed());
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) = stop.recv_timeout(left) {
                return;
            }
        }
    })
}
