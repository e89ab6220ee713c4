//! The lists: ips.txt as it changes, and one bounded `GET` to the Explorer each interval → node addresses.
//! What becomes of a list is the poller's business; a list that can't be had is reported here, once.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ureq::Agent;

use crate::config::ApiUrl;
use crate::metrics::{Metrics, unix_seconds};
use crate::names::Names;
use crate::node::{self, NodeAddr, NodeList, Reach};
use crate::probe::{self, Prober};
use crate::threads::{self, Joined};

/// How often the file is looked at: four `stat` calls a second cost nothing.
const LOOK: Duration = Duration::from_millis(250);
/// How long a changed file must have stayed the same: a half-written list counts for nothing.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest ips.txt: 100,000 lines of 160 bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The Explorer's answer, in all.
const EXPLORER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of the Explorer: 100,000 entries of 160 bytes.
const MAX_EXPLORER_BYTES: u64 = 16 * 1024 * 1024;
/// The Explorer is asked once an interval, and no more often than this.
const MIN_EXPLORER_INTERVAL: Duration = Duration::from_secs(1);
/// Bad lines of one list that are logged one by one.
const MAX_BAD_LINES: usize = 20;

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

/// The file as it was last seen: one that is the same in all of this is not read again.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(meta: &Metadata) -> Stamp {
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

/// ips.txt, read when it changed and has settled.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    read: Stamp,
    seen: Stamp,
    since: Instant,
    /// The last trouble that was reported.
    trouble: Option<String>,
}

impl File {
    pub(crate) fn new(path: &Path, now: Instant) -> Self {
        Self {
            path: path.to_owned(),
            read: None,
            seen: None,
            since: now,
            trouble: None,
        }
    }

    /// Reads the file as it is, settled or not: for the start.
    ///
    /// # Errors
    /// Why there is no list.
    pub(crate) fn load(&mut self) -> Result<Vec<NodeAddr>, String> {
        self.read = self.stamp();
        self.seen = self.read;
        let list = read(&self.path);
        self.trouble = list.as_ref().err().cloned();
        list.map(|list| {
            self.tell_bad_lines(&list);
            list.nodes
        })
    }

    /// The list, if it changed since it was read and then stayed the same for a second.
    fn look(&mut self, now: Instant) -> Option<Result<Vec<NodeAddr>, String>> {
        let stamp = self.stamp();
        if stamp != self.seen {
            (self.seen, self.since) = (stamp, now);
        }
        let settled = now.duration_since(self.since) >= SETTLED;
        if self.seen == self.read || !settled {
            return None;
        }
        let before = self.trouble.clone();
        let list = self.load();
        match &list {
            Err(trouble) if Some(trouble) == before.as_ref() => None,
            _ => Some(list),
        }
    }

    fn tell_bad_lines(&self, list: &NodeList) {
        let path = self.path.display();
        for bad in list.bad.iter().take(MAX_BAD_LINES) {
            log::warn!("{path}: {bad}; skipped");
        }
        if let Some(more) = list.bad_count.checked_sub(MAX_BAD_LINES).filter(|more| *more > 0) {
            log::warn!("{path}: {more} more bad lines; skipped");
        }
    }

    fn stamp(&self) -> Stamp {
        fs::metadata(&self.path).ok().as_ref().and_then(stamp)
    }
}

/// The list as it stands in a file, of which nothing is said.
///
/// # Errors
/// Why there is none.
pub(crate) fn read(path: &Path) -> Result<NodeList, String> {
    let bytes = read_bytes(path).map_err(|error| trouble(&error))?;
    node::parse_list_bytes(&bytes).map_err(|error| error.to_string())
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn trouble(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::IsADirectory => {
            "a directory (docker makes one when the file to mount is missing on the host)".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("permission denied to uid {}", rustix::process::geteuid().as_raw())
        }
        _ => error.to_string(),
    }
}

/// Watches the file until `stop` closes.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn watch(
    mut file: File,
    updates: Sender<Update>,
    stop: Receiver<()>,
    metrics: Arc<Metrics>,
) -> io::Result<Joined> {
    threads::spawn("ips", move || {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(LOOK) {
            #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
            let now = Instant::now();
            match file.look(now) {
                Some(Ok(nodes)) => {
                    metrics.file_reloads.add(1);
                    log::info!("{}: read again, {} nodes", file.path.display(), nodes.len());
                    if updates.send(Update::Listed(nodes)).is_err() {
                        return;
                    }
                }
                Some(Err(trouble)) => {
                    metrics.file_failures.add(1);
                    log::warn!("{}: {trouble}; the list that was read last stays", file.path.display());
                }
                None => {}
            }
        }
    })
}

/// The Explorer, and what was last said of it.
pub(crate) struct Explorer {
    url: ApiUrl,
    agent: Agent,
    names: Names,
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
    pub(crate) fn new(url: ApiUrl, prober: &Prober) -> Self {
        Self {
            url,
            agent: prober.agent(EXPLORER_TIMEOUT),
            names: prober.names().clone(),
            said: None,
        }
    }

    /// What cuts a request under way short.
    pub(crate) fn agent(&self) -> Agent {
        self.agent.clone()
    }

    /// Asks once. Takes no longer than ten seconds.
    ///
    /// # Errors
    /// Why there is no list.
    pub(crate) fn ask(&mut self) -> Result<Vec<NodeAddr>, String> {
        let list = self.fetch();
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
        let mut response = self
            .agent
            .get(self.url.nodes_url())
            .call()
            .map_err(|error| probe::reason(&error))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(format!("answered {status}"));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_EXPLORER_BYTES)
            .read_to_vec();
        let body = body.map_err(|error| probe::reason(&error))?;
        let reach = Reach::of(&self.names.known(self.url.host()));
        node::parse_explorer(&body, reach).map_err(|error| error.to_string())
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
) -> io::Result<Joined> {
    let interval = interval.max(MIN_EXPLORER_INTERVAL);
    threads::spawn("explorer", move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
            let begin = Instant::now();
            let update = match explorer.ask() {
                Ok(nodes) => {
                    metrics.explorer_lists.add(1);
                    metrics.explorer_success.set(unix_seconds());
                    Update::Explorer(nodes)
                }
                Err(_) => {
                    metrics.explorer_failures.add(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn file(text: &[u8]) -> (tempfile::TempDir, File, Instant) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ips.txt");
        fs::write(&path, text).expect("a file");
        let now = Instant::now();
        let file = File::new(&path, now);
        (dir, file, now)
    }

    fn listed(list: &[NodeAddr]) -> Vec<&str> {
        list.iter().map(NodeAddr::as_listed).collect()
    }

    #[test]
    fn a_change_counts_when_it_has_stayed_the_same_for_a_second() {
        let (_dir, mut file, now) = file(b"1.1.1.1:1\n");
        assert_eq!(listed(&file.load().expect("a list")), ["1.1.1.1:1"]);
        assert!(file.look(now + SECOND).is_none());
        fs::write(&file.path, "1.1.1.1:1\n2.2.2.2:22").expect("written");
        assert!(file.look(now + 2 * SECOND).is_none());
        fs::write(&file.path, "1.1.1.1:1\n2.2.2.2:2222\n").expect("written");
        assert!(file.look(now + 5 * SECOND / 2).is_none());
        assert!(file.look(now + 3 * SECOND).is_none());
        let list = file.look(now + 7 * SECOND / 2).expect("settled").expect("a list");
        assert_eq!(listed(&list), ["1.1.1.1:1", "2.2.2.2:2222"]);
        assert!(file.look(now + 9 * SECOND).is_none());
    }

    #[test]
    fn each_trouble_is_told_once() {
        let (_dir, mut file, now) = file(b"\xff\xfe");
        assert!(file.load().is_err());
        fs::remove_file(&file.path).expect("removed");
        assert!(file.look(now + SECOND).is_none());
        assert_eq!(file.look(now + 3 * SECOND), Some(Err("no such file".to_owned())));
        assert_eq!(file.look(now + 5 * SECOND), None);
        fs::create_dir(&file.path).expect("made");
        assert_eq!(file.look(now + 6 * SECOND), None);
        let told = file.look(now + 8 * SECOND).expect("told").expect_err("trouble");
        assert!(told.starts_with("a directory"), "{told}");
        assert_eq!(file.look(now + 20 * SECOND), None);
    }

    #[test]
    fn a_file_that_is_too_long_is_no_list() {
        let (_dir, mut file, _) = file(&vec![b'\n'; MAX_FILE_BYTES as usize]);
        assert_eq!(file.load().expect("at the limit"), []);
        fs::write(&file.path, vec![b'\n'; MAX_FILE_BYTES as usize + 1]).expect("written");
        assert!(file.load().expect_err("past it").contains("longer"));
    }
}
