//! The Node Explorer: queried once per interval for its list of nodes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::merge::missing;
use super::{Outputs, Update};
use crate::config::ApiUrl;
use crate::metrics::{Success, unix_seconds};
use crate::net::{Bounds, Fetcher, Response};
use crate::node::{self, ExplorerList, NetworkScope};
use crate::util::polled::Polled;
use crate::util::threads::{self, Alarm, Joined};

/// For one poll of the Explorer in total.
const EXPLORER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest response of the Explorer: 100,000 entries of 160 bytes.
const MAX_EXPLORER_BYTES: u64 = 16 * 1024 * 1024;
/// The shortest time between two polls, whatever the interval.
const MIN_EXPLORER_INTERVAL: Duration = Duration::from_secs(1);
/// A shrunken list is accepted when it is the tenth in a row or one hour old: a database that is being restored, or a
/// second Explorer at the same URL, must not remove the nodes of a fleet.
const SHRUNKEN_LISTS: u32 = 10;
const SHRUNKEN_TIME: Duration = Duration::from_secs(3600);
/// Below this number of nodes only an empty list is shrunken: one node of three is not worth an hour.
const MIN_SHRINKABLE: usize = 4;

/// One request to the Explorer at `url`. Logs nothing.
///
/// # Errors
/// Why there is no list.
pub(crate) fn fetch(url: &ApiUrl, fetcher: &Fetcher) -> Result<ExplorerList, String> {
    // The name may mean something else from one lookup to the next, and who serves the list may own the name: its
    // entries get what both lookups allow.
    let host = url.origin.host();
    #[expect(clippy::disallowed_methods, reason = "one deadline over the lookup and the rest")]
    let begin = Instant::now();
    let before = NetworkScope::of(&fetcher.resolver().look_up(&host, EXPLORER_TIMEOUT));
    let bounds = Bounds {
        timeout: EXPLORER_TIMEOUT.saturating_sub(begin.elapsed()),
        max_body_bytes: MAX_EXPLORER_BYTES,
        max_redirects: 0,
    };
    let response = fetcher.get_as(url.credentials.as_deref(), &url.nodes_url(), bounds);
    let body = response.and_then(Response::into_body);
    let body = body.map_err(|error| error.to_string())?;
    let after = NetworkScope::of(&fetcher.resolver().known(&host));
    node::parse_explorer(&body, before.min(after)).map_err(|error| error.to_string())
}

/// Polls the Explorer once per interval until `stop` closes.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn follow(
    (url, polled): (ApiUrl, Arc<Polled<ExplorerList>>),
    fetcher: Fetcher,
    interval: Duration,
    outputs: Outputs,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let interval = interval.max(MIN_EXPLORER_INTERVAL);
    let mut poll = Poll {
        url,
        fetcher,
        polled,
        outputs,
        shrink: Shrink::default(),
    };
    threads::spawn_vital("explorer", alarm, move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
            let begin = Instant::now();
            let update = poll.once(begin);
            if poll.outputs.updates.send(update).is_err() {
                return;
            }
            let left = interval.saturating_sub(begin.elapsed());
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) = stop.recv_timeout(left) {
                return;
            }
        }
    })
}

struct Poll {
    url: ApiUrl,
    fetcher: Fetcher,
    polled: Arc<Polled<ExplorerList>>,
    outputs: Outputs,
    shrink: Shrink,
}

impl Poll {
    fn once(&mut self, now: Instant) -> Update {
        let accepted = self.polled.value();
        let list = fetch(&self.url, &self.fetcher);
        let list = self.shrink.judge(list, accepted.as_deref(), now).map(Arc::new);
        let success = if list.is_ok() { Success::Ok } else { Success::Failed };
        self.outputs.metrics.explorer_requests[success].add(1);
        self.outputs.metrics.explorer_ok.set(list.is_ok().into());
        match list {
            Ok(list) => {
                self.outputs.metrics.explorer_success.set(unix_seconds());
                let before = self.polled.accept(Arc::clone(&list), now);
                self.log_accepted(&list, before.value.as_deref(), before.problem.is_some());
                Update::Explorer(list)
            }
            Err(reason) => {
                if self.polled.reject(&reason) {
                    let (url, nodes) = (self.polled.name(), accepted.map_or(0, |list| list.nodes.len()));
                    log::warn!(url, reason, nodes; "explorer failed: last good list stays in effect");
                }
                Update::ExplorerFailed
            }
        }
    }

    fn log_accepted(&self, list: &ExplorerList, before: Option<&ExplorerList>, is_recovered: bool) {
        let url = self.polled.name();
        let (nodes, skipped, refused) = (list.nodes.len(), list.skipped, list.refused.len());
        let is_changed = before.is_none_or(|before| (before.skipped, before.refused.len()) != (skipped, refused));
        if is_recovered {
            log::info!(url, nodes, skipped, refused; "explorer recovered: list accepted");
        } else if is_changed && skipped + refused > 0 {
            log::warn!(url, nodes, skipped, refused; "explorer entries skipped: not an address with a port, or not allowed");
        } else if is_changed {
            log::info!(url, nodes; "explorer loaded: list accepted");
        }
    }
}

/// Judges whether a list lost too many nodes to be accepted immediately. Holds the sequence of shrunken lists: when the
/// first came, how many there are, and what describes the first, so that the sequence is reported once.
#[derive(Debug, Default)]
struct Shrink(Option<(Instant, u32, String)>);

impl Shrink {
    /// Rejects a list that lacks half or more of the accepted nodes, until it has come often or long enough. A failed
    /// poll and any other list end the sequence.
    fn judge(
        &mut self,
        list: Result<ExplorerList, String>,
        accepted: Option<&ExplorerList>,
        now: Instant,
    ) -> Result<ExplorerList, String> {
        let sequence = self.0.take();
        let accepted = accepted.map_or(&[][..], |list| &list.nodes);
        let list = list?;
        let missing = missing(accepted.iter(), list.nodes.iter());
        let is_shrunken = match accepted.len() {
            ..MIN_SHRINKABLE => list.nodes.is_empty(),
            all => missing * 2 >= all,
        };
        if !is_shrunken || missing == 0 {
            return Ok(list);
        }
        let (begin, lists, problem) = sequence.unwrap_or_else(|| {
            let (nodes, all) = (list.nodes.len(), accepted.len());
            let rule = "accepted at the tenth such list in a row or after one hour";
            (
                now,
                0,
                format!("lists {nodes} nodes, {missing} of {all} are missing; {rule}"),
            )
        });
        if lists + 1 >= SHRUNKEN_LISTS || now.duration_since(begin) >= SHRUNKEN_TIME {
            return Ok(list);
        }
        self.0 = Some((begin, lists + 1, problem.clone()));
        Err(problem)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use super::*;
    use crate::config::Config;

    const HOST: &str = "explorer.test";
    const LIST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{\"data\":[{\"ip\":\"127.0.0.1\"}]}";

    /// Returns the list of an Explorer on this machine. Its name resolves to `after` when the response is judged.
    fn listed(after: IpAddr) -> ExplorerList {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let url = format!("http://{HOST}:{}", listener.local_addr().expect("it is bound").port());
        let config = Config::from_lookup(|name| (name == "API_URL").then(|| url.clone().into())).expect("valid");
        let fetcher = Fetcher::new(Duration::from_secs(30));
        let resolver = fetcher.resolver();
        resolver.learn(HOST, vec![Ipv4Addr::LOCALHOST.into()]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().expect("it listens");
                // The request fits into one segment.
                let _ = client.read(&mut [0; 4096]);
                resolver.learn(HOST, vec![after]);
                client.write_all(LIST).expect("it is read");
            });
            fetch(config.api_url.as_ref().expect("it is set"), &fetcher).expect("a list")
        })
    }

    #[test]
    fn entries_need_both_lookups_to_allow_them() {
        let here = listed(Ipv4Addr::LOCALHOST.into());
        assert_eq!((here.nodes.len(), here.refused.len()), (1, 0));
        let elsewhere = listed(IpAddr::from([9, 9, 9, 9]));
        assert_eq!((elsewhere.nodes.len(), elsewhere.refused.len()), (0, 1));
    }

    fn list(nodes: std::ops::Range<u8>) -> ExplorerList {
        let entries: Vec<_> = nodes.map(|last| format!(r#"{{"ip":"9.9.9.{last}"}}"#)).collect();
        let body = format!(r#"{{"data":[{}]}}"#, entries.join(","));
        node::parse_explorer(body.as_bytes(), NetworkScope::Public).expect("a list")
    }

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn list_without_half_of_its_nodes_is_shrunken() {
        for (accepted, next, is_accepted) in [
            (0..20, 0..11, true),
            (0..20, 0..10, false),
            (0..20, 10..30, false),
            (0..20, 9..29, true),
            (0..4, 0..2, false),
            (0..4, 0..3, true),
            (0..3, 0..1, true),
            (0..3, 5..6, true),
            (0..3, 0..0, false),
            (0..1, 0..0, false),
            (0..0, 0..0, true),
        ] {
            let what = format!("{accepted:?}, {next:?}");
            let judged = Shrink::default().judge(Ok(list(next)), Some(&list(accepted)), now());
            assert_eq!(judged.is_ok(), is_accepted, "{what}");
        }
        assert!(
            Shrink::default().judge(Ok(list(0..0)), None, now()).is_ok(),
            "the first list"
        );
    }

    #[test]
    fn shrunken_list_accepted_at_tenth_or_after_hour() {
        let (now, accepted) = (now(), list(0..20));
        let mut shrink = Shrink::default();
        let mut judge = |nodes: Result<u8, &str>, seconds: u64| {
            let list = nodes.map(|nodes| list(0..nodes)).map_err(str::to_owned);
            shrink.judge(list, Some(&accepted), now + Duration::from_secs(seconds))
        };
        let problem = "lists 3 nodes, 17 of 20 are missing; accepted at the tenth such list in a row or after one hour";
        for nodes in [3, 0, 1, 2, 3, 4, 5, 6, 7] {
            assert_eq!(judge(Ok(nodes), 0), Err(problem.to_owned()));
        }
        assert!(judge(Ok(9), 0).is_ok(), "the tenth");
        // A failed poll and a whole list reset the sequence.
        for end in [Err("status 500"), Ok(20)] {
            for _ in 0..9 {
                assert!(judge(Ok(1), 0).is_err());
            }
            assert_eq!(judge(end, 0).is_ok(), end.is_ok());
            assert!(judge(Ok(1), 0).is_err());
            assert!(judge(Ok(1), 3599).is_err());
            assert!(judge(Ok(1), 3600).is_ok(), "one hour old");
        }
    }
}
