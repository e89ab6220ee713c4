//! ips.txt, looked at again and again and read when it changed.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::Update;
use crate::fetch;
use crate::metrics::{Metrics, Success};
use crate::node::{self, NodeAddr, NodeList};
use crate::status::Board;
use crate::util::threads::{self, Alarm, Joined};

/// How often the file is looked at: four `stat` calls a second cost nothing.
const LOOK: Duration = Duration::from_millis(250);
/// How long a changed file must have stayed the same: a half-written list counts for nothing.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest ips.txt: 100,000 lines of 160 bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Bad lines of one list that are logged one by one.
const MAX_BAD_LINES: usize = 20;

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
    seen: Stamp,
    /// When it was first seen like that, or last read in vain.
    since: Instant,
    /// Whether what was seen last has been read.
    is_read: bool,
    /// The last trouble that was reported.
    trouble: Option<Trouble>,
    board: Arc<Board>,
}

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    text: String,
    /// A lack of ours, such as descriptors: the file need not change for it to pass.
    is_local: bool,
}

impl Trouble {
    fn of_file(text: String) -> Self {
        Self { text, is_local: false }
    }
}

impl File {
    /// What becomes of the file is told to `board`.
    pub(crate) fn new(path: &Path, board: Arc<Board>, now: Instant) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
            since: now,
            is_read: false,
            trouble: None,
            board,
        }
    }

    /// Reads the file as it is, settled or not: for the start.
    ///
    /// # Errors
    /// Why there is no list.
    pub(crate) fn load(&mut self) -> Result<Vec<NodeAddr>, String> {
        self.seen = self.stamp();
        let read = try_read(&self.path);
        self.note(&read);
        self.told(read)
    }

    /// The list as it stands, changed and settled or not: somebody says that it is whole.
    fn reread(&mut self, now: Instant) -> Result<Vec<NodeAddr>, String> {
        self.since = now;
        self.load()
    }

    /// The list, if it changed since it was read and then stayed the same for a second.
    fn look(&mut self, now: Instant) -> Option<Result<Vec<NodeAddr>, String>> {
        let stamp = self.stamp();
        if stamp != self.seen {
            (self.seen, self.since, self.is_read) = (stamp, now, false);
        }
        if self.is_read || now.duration_since(self.since) < SETTLED {
            return None;
        }
        let read = try_read(&self.path);
        // It changed while it was read, so that may be half of it; the next look sees the change.
        if self.stamp() != self.seen {
            return None;
        }
        self.take(read, now)
    }

    fn take(&mut self, read: Result<NodeList, Trouble>, now: Instant) -> Option<Result<Vec<NodeAddr>, String>> {
        let before = self.trouble.take();
        self.note(&read);
        self.since = now;
        let is_news = read.is_ok() || self.trouble != before;
        is_news.then(|| self.told(read))
    }

    fn note(&mut self, read: &Result<NodeList, Trouble>) {
        match read {
            Ok(list) => self.board.file_read(list),
            Err(trouble) => self.board.file_failed(&trouble.text),
        }
        self.trouble = read.as_ref().err().cloned();
        self.is_read = !self.trouble.as_ref().is_some_and(|trouble| trouble.is_local);
    }

    /// The nodes; bad lines are logged.
    fn told(&self, read: Result<NodeList, Trouble>) -> Result<Vec<NodeAddr>, String> {
        let list = read.map_err(|trouble| trouble.text)?;
        let path = self.path.display();
        for bad in list.bad.iter().take(MAX_BAD_LINES) {
            log::warn!("{path}: {bad}; skipped");
        }
        if let Some(more) = list.bad_count.checked_sub(MAX_BAD_LINES).filter(|more| *more > 0) {
            log::warn!("{path}: {more} more bad lines; skipped");
        }
        Ok(list.nodes)
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
    try_read(path).map_err(|trouble| trouble.text)
}

fn try_read(path: &Path) -> Result<NodeList, Trouble> {
    let bytes = read_bytes(path).map_err(|error| Trouble {
        text: trouble(&error),
        is_local: fetch::is_local(&error),
    })?;
    node::parse_list_bytes(&bytes).map_err(|error| Trouble::of_file(error.to_string()))
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

/// Watches the file until `stop` closes; what comes by `reread` has it read at once.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn watch(
    mut file: File,
    updates: Sender<Update>,
    reread: Receiver<()>,
    stop: Receiver<()>,
    metrics: Arc<Metrics>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    threads::spawn_vital("ips", alarm, move || {
        #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
        let clock = Instant::now;
        loop {
            let news = select_biased! {
                recv(stop) -> _ => return,
                recv(reread) -> _ => Some(file.reread(clock())),
                default(LOOK) => file.look(clock()),
            };
            match news {
                Some(Ok(nodes)) => {
                    metrics.file_reads[Success::Ok].add(1);
                    log::info!("{}: read again, {} nodes", file.path.display(), nodes.len());
                    if updates.send(Update::Listed(nodes)).is_err() {
                        return;
                    }
                }
                Some(Err(trouble)) => {
                    metrics.file_reads[Success::Failed].add(1);
                    log::warn!("{}: {trouble}; the list that was read last stays", file.path.display());
                }
                None => {}
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
        let file = File::new(&path, Arc::default(), now);
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
    fn a_lack_of_ours_is_told_once_and_passes_without_a_change_of_the_file() {
        let (_dir, mut file, now) = file(b"1.1.1.1:1\n");
        let lack = || {
            Err(Trouble {
                text: "too many open files".to_owned(),
                is_local: true,
            })
        };
        file.load().expect("a list");
        assert_eq!(file.take(lack(), now), Some(Err("too many open files".to_owned())));
        assert_eq!(file.take(lack(), now + SECOND), None);
        assert_eq!(file.look(now + 3 * SECOND / 2), None, "tried once a second");
        let list = file.look(now + 2 * SECOND).expect("tried again").expect("a list");
        assert_eq!(listed(&list), ["1.1.1.1:1"]);
        assert_eq!(file.look(now + 4 * SECOND), None);
    }

    #[test]
    fn a_file_that_goes_away_and_comes_back_the_same_is_read_again() {
        let (dir, mut file, now) = file(b"1.1.1.1:1\n");
        file.load().expect("a list");
        let away = dir.path().join("away");
        fs::rename(&file.path, &away).expect("moved");
        assert_eq!(file.look(now), None);
        assert_eq!(file.look(now + SECOND), Some(Err("no such file".to_owned())));
        fs::rename(&away, &file.path).expect("moved back");
        assert_eq!(file.look(now + 2 * SECOND), None);
        assert!(matches!(file.look(now + 3 * SECOND), Some(Ok(_))));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let (_dir, mut file, _) = file(b"");
        file.path = "/dev/zero".into();
        assert_eq!(file.load(), Err("not a regular file".to_owned()));
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
        let (_dir, mut file, _) = file(&vec![b'#'; MAX_FILE_BYTES as usize]);
        assert_eq!(file.load().expect("at the limit"), []);
        fs::write(&file.path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).expect("written");
        assert!(file.load().expect_err("past it").contains("longer"));
    }
}
