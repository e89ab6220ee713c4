//! The Node Explorer: asked once an interval which nodes there are.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Outputs, Update};
use crate::config::ApiUrl;
use crate::metrics::{Success, unix_seconds};
use crate::net::{Bounds, Fetcher, Response};
use crate::node::{self, NetworkScope, NodeAddr};
use crate::status::Board;
use crate::util::threads::{self, Alarm, Joined};

/// The Explorer's answer, in all.
const EXPLORER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of the Explorer: 100,000 entries of 160 bytes.
const MAX_EXPLORER_BYTES: u64 = 16 * 1024 * 1024;
/// The Explorer is asked once an interval, and no more often than this.
const MIN_EXPLORER_INTERVAL: Duration = Duration::from_secs(1);
/// How often in a row the Explorer has to list no node after a list with nodes before that is believed: a database that
/// is being restored lists none either, and five minutes of that should cost no fleet its nodes.
const EMPTY_LISTS_BELIEVED: u32 = 10;

/// The Explorer, and what was last logged of it.
pub(crate) struct Explorer {
    url: ApiUrl,
    fetcher: Fetcher,
    last_reported: Option<Reported>,
    /// Whether the list that was believed last has nodes.
    has_nodes: bool,
    /// Lists without a node that have come in a row and were not believed.
    empty_lists: u32,
}

#[derive(PartialEq, Eq)]
enum Reported {
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
            last_reported: None,
            has_nodes: false,
            empty_lists: 0,
        }
    }

    /// Asks once, and tells the board what came of it. Takes no longer than ten seconds.
    ///
    /// # Errors
    /// Why there is no list that is believed.
    pub(crate) fn ask(&mut self, board: &Board) -> Result<Vec<NodeAddr>, String> {
        let answer = self.fetch();
        if answer.is_err() {
            self.empty_lists = 0;
        }
        let list = answer.and_then(|list| self.believe(list));
        match &list {
            Ok(list) => board.explorer_answered(list),
            Err(trouble) => board.explorer_failed(trouble),
        }
        let report = match &list {
            Ok(list) => Reported::Lists {
                skipped: list.skipped,
                refused: list.refused.len(),
            },
            Err(error) => Reported::Failed(error.clone()),
        };
        if self.last_reported.as_ref() != Some(&report) {
            self.log(&report, list.as_ref().map_or(0, |list| list.nodes.len()));
            self.last_reported = Some(report);
        }
        list.map(|list| list.nodes)
    }

    /// A list without a node after one with nodes is believed when it has come often enough in a row.
    fn believe(&mut self, list: node::ExplorerList) -> Result<node::ExplorerList, String> {
        self.empty_lists = match list.nodes.is_empty() && self.has_nodes {
            true => self.empty_lists + 1,
            false => 0,
        };
        if (1..EMPTY_LISTS_BELIEVED).contains(&self.empty_lists) {
            return Err(format!(
                "lists no node any more, which is believed when it has come {EMPTY_LISTS_BELIEVED} times in a row"
            ));
        }
        self.has_nodes = !list.nodes.is_empty();
        Ok(list)
    }

    /// One request, of which nothing is logged.
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
        let body = answer
            .and_then(Response::into_body)
            .map_err(|error| error.to_string())?;
        let after = NetworkScope::of(&self.fetcher.resolver().known(&host));
        node::parse_explorer(&body, before.min(after)).map_err(|error| error.to_string())
    }

    fn log(&self, report: &Reported, nodes: usize) {
        match report {
            Reported::Failed(error) => log::warn!("Explorer {}: {error}; its last good list stays", self.url),
            Reported::Lists { skipped: 0, refused: 0 } => log::info!("Explorer {}: lists {nodes} nodes", self.url),
            Reported::Lists { skipped, refused } => log::warn!(
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
    outputs: Outputs,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let interval = interval.max(MIN_EXPLORER_INTERVAL);
    threads::spawn_vital("explorer", alarm, move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
            let begin = Instant::now();
            let update = match explorer.ask(&outputs.board) {
                Ok(nodes) => {
                    outputs.metrics.explorer_requests[Success::Ok].add(1);
                    outputs.metrics.explorer_success.set(unix_seconds());
                    Update::Explorer(nodes)
                }
                Err(_) => {
                    outputs.metrics.explorer_requests[Success::Failed].add(1);
                    Update::ExplorerFailed
                }
            };
            if outputs.updates.send(update).is_err() {
                return;
            }
            let left = interval.saturating_sub(begin.elapsed());
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) = stop.recv_timeout(left) {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use super::*;
    use crate::config::Config;

    const HOST: &str = "explorer.test";
    const LIST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{\"data\":[{\"ip\":\"127.0.0.1\"}]}";

    /// What is listed by an Explorer on this machine whose name means `after` when its answer is judged.
    fn listed(after: IpAddr) -> node::ExplorerList {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let url = format!("http://{HOST}:{}", listener.local_addr().expect("it is bound").port());
        let config = Config::from_lookup(|name| (name == "API_URL").then(|| url.clone().into())).expect("valid");
        let fetcher = Fetcher::default();
        let resolver = fetcher.resolver();
        resolver.learn(HOST, vec![Ipv4Addr::LOCALHOST.into()]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().expect("it listens");
                // The head fits into one segment.
                let _ = client.read(&mut [0; 4096]);
                resolver.learn(HOST, vec![after]);
                client.write_all(LIST).expect("it is read");
            });
            let explorer = Explorer::new(config.api_url.clone().expect("it is set"), &fetcher);
            explorer.fetch().expect("a list")
        })
    }

    #[test]
    fn entries_get_what_both_meanings_of_the_name_allow() {
        let here = listed(Ipv4Addr::LOCALHOST.into());
        assert_eq!((here.nodes.len(), here.refused.len()), (1, 0));
        let elsewhere = listed(IpAddr::from([9, 9, 9, 9]));
        assert_eq!((elsewhere.nodes.len(), elsewhere.refused.len()), (0, 1));
    }
}
