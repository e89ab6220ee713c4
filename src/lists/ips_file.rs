//! ips.txt: what it lists, read when it changed and has settled. When to look at it is `ips_watch`'s business.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::{self, NodeAddr, NodeList};
use crate::status::Board;
use crate::util::files;

/// How long a changed file must have stayed the same: a half-written list counts for nothing.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest ips.txt: 100,000 lines of 320 bytes. A million short ones fit, so that it can be said how many are too many.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Bad lines of one list that are logged one by one.
const MAX_BAD_LINES: usize = 20;

/// The file as it was last seen: one that is the same in all of this is not read again.
type Stamp = Option<(u64, u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(meta: &Metadata) -> Stamp {
    Some((
        meta.dev(),
        meta.ino(),
        meta.nlink(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

/// ips.txt, read when it changed and has settled. The path is resolved anew each time, so a symlink that comes to point
/// elsewhere (Kubernetes swaps a ConfigMap like that) is a change.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    seen: Stamp,
    /// When it was first seen like that, or last read without success.
    since: Instant,
    /// Whether what was seen last has been read.
    is_read: bool,
    /// Whether the list that was read last has nodes, so that one without any may be an accident.
    has_nodes: bool,
    /// The last trouble that was reported.
    trouble: Option<Trouble>,
    board: Arc<Board>,
}

/// Why there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    text: String,
    /// The system did not let it be read (a lack of descriptors, a disk that fails): that may pass without a change of the
    /// file.
    may_pass: bool,
}

impl Trouble {
    fn of_file(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            may_pass: false,
        }
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
            has_nodes: false,
            trouble: None,
            board,
        }
    }

    /// The list as it stands, changed and settled or not: at the start, and where somebody says that it is whole.
    ///
    /// # Errors
    /// Why there is no list.
    pub(super) fn load(&mut self, now: Instant) -> Result<Vec<NodeAddr>, String> {
        self.since = now;
        self.seen = self.stamp();
        let read = self.try_read();
        self.note(&read);
        self.listed(read)
    }

    /// The list, if it changed since it was read and then stayed the same for a second.
    pub(super) fn look(&mut self, now: Instant) -> Option<Result<Vec<NodeAddr>, String>> {
        let stamp = self.stamp();
        if stamp != self.seen {
            (self.seen, self.since, self.is_read) = (stamp, now, false);
        }
        if self.is_read || now.duration_since(self.since) < SETTLED {
            return None;
        }
        let read = self.try_read();
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
        is_news.then(|| self.listed(read))
    }

    fn note(&mut self, read: &Result<NodeList, Trouble>) {
        match read {
            Ok(list) => self.board.file_read(list),
            Err(trouble) => self.board.file_failed(&trouble.text),
        }
        self.trouble = read.as_ref().err().cloned();
        self.is_read = !self.trouble.as_ref().is_some_and(|trouble| trouble.may_pass);
        if let Ok(list) = read {
            self.has_nodes = !list.nodes.is_empty();
        }
    }

    /// The nodes; what is left out of them is logged.
    fn listed(&self, read: Result<NodeList, Trouble>) -> Result<Vec<NodeAddr>, String> {
        let list = read.map_err(|trouble| trouble.text)?;
        let path = self.path.display();
        for bad in list.bad.iter().take(MAX_BAD_LINES) {
            log::warn!("{path}: {bad}; skipped");
        }
        if let Some(more) = list.bad_count.checked_sub(MAX_BAD_LINES).filter(|more| *more > 0) {
            log::warn!("{path}: {more} more bad lines; skipped");
        }
        if list.left_out > 0 {
            let (nodes, more) = (list.nodes.len(), list.left_out);
            log::warn!("{path}: {nodes} nodes are as many as there may be; {more} lines with more of them; skipped");
        }
        Ok(list.nodes)
    }

    fn try_read(&self) -> Result<NodeList, Trouble> {
        if self.has_nodes && fs::metadata(&self.path).is_ok_and(|meta| meta.nlink() == 0) {
            return Err(Trouble::of_file(
                "replaced on the host, where this file alone is mounted, so that its successor can't be seen: mount the \
                 directory and name the file by IPS_FILE, or write it in place",
            ));
        }
        let bytes = read_bytes(&self.path)?;
        let list = parse(&bytes)?;
        if self.has_nodes && list.nodes.is_empty() {
            refuse_accident(&bytes, &list)?;
        }
        Ok(list)
    }

    fn stamp(&self) -> Stamp {
        fs::metadata(&self.path).ok().as_ref().and_then(stamp)
    }
}

/// The list as it stands in a file, of which nothing is logged.
///
/// # Errors
/// Why there is none.
pub(crate) fn read(path: &Path) -> Result<NodeList, String> {
    let list = read_bytes(path).and_then(|bytes| parse(&bytes));
    list.map_err(|trouble| trouble.text)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Trouble> {
    files::read_regular(path, MAX_FILE_BYTES).map_err(Trouble::from)
}

fn parse(bytes: &[u8]) -> Result<NodeList, Trouble> {
    node::parse_list(bytes).map_err(|error| Trouble::of_file(error.to_string()))
}

/// A list without a node is one on purpose when it is there and holds blank lines and comments alone: a shell empties a
/// file long before the tool behind `>` has written anything, or an error page, or nothing.
fn refuse_accident(bytes: &[u8], list: &NodeList) -> Result<(), Trouble> {
    if bytes.is_empty() {
        let text = "empty, as a tool that failed leaves it (a comment alone makes a list that is empty on purpose)";
        return Err(Trouble::of_file(text));
    }
    match list.bad.first() {
        Some(bad) => Err(Trouble::of_file(format!("none of its lines is an address; {bad}"))),
        None => Ok(()),
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::NotFound => "no such file".to_owned(),
            io::ErrorKind::IsADirectory => {
                "a directory (docker makes one when the file to mount is missing on the host)".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                format!("permission denied to uid {}", rustix::process::geteuid().as_raw())
            }
            _ => error.to_string(),
        };
        let may_pass = error.raw_os_error().is_some();
        Self { text, may_pass }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::io::Errno;

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
        assert_eq!(listed(&file.load(now).expect("a list")), ["1.1.1.1:1"]);
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
    fn what_the_system_refuses_is_told_once_and_passes_without_a_change_of_the_file() {
        for errno in [Errno::MFILE, Errno::IO, Errno::STALE, Errno::ACCESS] {
            let (_dir, mut file, now) = file(b"1.1.1.1:1\n");
            let refused = || Err(Trouble::from(io::Error::from(errno)));
            file.load(now).expect("a list");
            assert!(matches!(file.take(refused(), now), Some(Err(_))), "{errno}");
            assert_eq!(file.take(refused(), now + SECOND), None);
            assert_eq!(file.look(now + 3 * SECOND / 2), None, "tried once a second");
            let list = file.look(now + 2 * SECOND).expect("tried again").expect("a list");
            assert_eq!(listed(&list), ["1.1.1.1:1"]);
            assert_eq!(file.look(now + 4 * SECOND), None);
        }
    }

    #[test]
    fn a_file_that_goes_away_and_comes_back_the_same_is_read_again() {
        let (dir, mut file, now) = file(b"1.1.1.1:1\n");
        file.load(now).expect("a list");
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
        let (_dir, mut file, now) = file(b"");
        file.path = "/dev/zero".into();
        assert_eq!(file.load(now), Err("not a regular file".to_owned()));
    }

    #[test]
    fn each_trouble_is_told_once() {
        let (_dir, mut file, now) = file(b"a\0");
        assert!(file.load(now).is_err());
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
    fn after_a_list_with_nodes_one_without_any_is_believed_only_when_it_is_one_on_purpose() {
        let (_dir, mut file, now) = file(b"");
        assert_eq!(file.load(now), Ok(Vec::new()), "there was none before");
        let mut load = |text: &str| {
            fs::write(&file.path, text).expect("written");
            file.load(now).map(|list| list.len())
        };
        assert_eq!(load("<html>"), Ok(0));
        assert_eq!(load("a\n"), Ok(1));
        assert!(load("").expect_err("an accident").starts_with("empty, as a tool"));
        let told = load("<html>\n<b>").expect_err("an accident");
        assert!(
            told.starts_with("none of its lines is an address; line 1: \"<html>\": "),
            "{told}"
        );
        assert_eq!(load("<html>\na"), Ok(1));
        assert_eq!(load("# nobody\n"), Ok(0));
        assert_eq!(load(""), Ok(0), "there was none before");
        assert_eq!(load("a"), Ok(1));
        assert_eq!(load("\n"), Ok(0), "blank lines alone");
    }

    #[test]
    fn a_file_that_is_too_long_is_no_list() {
        let (_dir, mut file, now) = file(&vec![b'#'; MAX_FILE_BYTES as usize]);
        assert_eq!(file.load(now).expect("at the limit"), []);
        fs::write(&file.path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).expect("written");
        assert!(file.load(now).expect_err("past it").contains("longer"));
    }
}
