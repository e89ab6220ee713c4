//! Watches one file: reads it after it has changed and settled, on request, and again while the system refuses to read
//! it.
//!
//! The disk may hang, so a separate thread touches it. Neither startup nor shutdown waits for that thread.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::files;
use super::log_throttle::{LogThrottle, ONE_A_MINUTE};
use super::polled::Polled;
use super::threads::{self, Alarm, Joined};

/// Time between two looks at the file: four `stat` calls a second cost nothing.
const LOOK: Duration = Duration::from_millis(250);
/// How long a changed file must remain unchanged before it is read, so that a half-written file never takes effect.
const SETTLED: Duration = Duration::from_secs(1);
/// A file that keeps changing is read after this time, so that a busy writer cannot keep an old version in effect.
const MAX_UNSETTLED: Duration = Duration::from_secs(5);
/// A read that takes longer is reported. 32 MiB come over a slow network in less.
const SLOW_DISK: Duration = Duration::from_secs(3);
const REPLACED: &str = "replaced on the host, where this file alone is mounted, so that the new file is not visible: \
                        mount the directory and name the file by its setting, or write the file in place";

/// Makes a value of the bytes. The second argument is the value in effect.
pub(crate) type Parse<T> = fn(&[u8], Option<&T>) -> Result<T, String>;

/// The file and what it is read into.
#[derive(Debug)]
pub(crate) struct WatchedFile<T> {
    pub(crate) path: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) parse: Parse<T>,
    pub(crate) polled: Arc<Polled<T>>,
}

/// A read that is to be reported: the value and the one before, or the problem.
pub(crate) type Outcome<T> = Result<(Arc<T>, Option<Arc<T>>), String>;

/// The router shuts down.
#[derive(Debug)]
pub(crate) struct Stopping;

/// Reads the file, then follows its changes until `stop` closes. A message on `reload` has it read immediately. Calls
/// `report` for the first read and for each later one that is to be reported.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn watch<T: Send + Sync + 'static>(
    file: WatchedFile<T>,
    report: impl FnMut(Outcome<T>) -> Result<(), Stopping> + Send + 'static,
    reload: Receiver<()>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let (requests, asked) = bounded(1);
    let (answers, found) = bounded(1);
    let polled = Arc::clone(&file.polled);
    threads::spawn_detached("disk", move || touch_disk(file, &asked, &answers))?;
    let mut watch = Watch {
        polled,
        report,
        requests,
        found,
        stop,
    };
    threads::spawn_vital("files", alarm, move || {
        // It exits only at shutdown.
        let _ = watch.run(&reload);
    })
}

/// A request to the thread that reads the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Read the file, changed or not.
    Load,
    /// Read the file if it has changed and settled.
    Look,
}

/// Exits after the watch, as soon as the disk permits.
#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn touch_disk<T>(file: WatchedFile<T>, asked: &Receiver<Request>, answers: &Sender<Option<Result<T, String>>>) {
    let mut reader = Reader::new(file, Instant::now());
    for request in asked {
        let found = match request {
            Request::Load => Some(reader.load(Instant::now())),
            Request::Look => reader.look(Instant::now()),
        };
        if answers.send(found).is_err() {
            return;
        }
    }
}

struct Watch<T, F> {
    polled: Arc<Polled<T>>,
    report: F,
    requests: Sender<Request>,
    found: Receiver<Option<Result<T, String>>>,
    stop: Receiver<()>,
}

impl<T, F: FnMut(Outcome<T>) -> Result<(), Stopping>> Watch<T, F> {
    fn run(&mut self, reload: &Receiver<()>) -> Result<(), Stopping> {
        let mut request = Request::Load;
        loop {
            // After a hang even an unchanged file is read: that ends the problem.
            let found = match self.ask(request)? {
                (None, true) => self.ask(Request::Load)?.0,
                (found, _) => found,
            };
            if let Some(found) = found {
                self.take(found, request)?;
            }
            request = select_biased! {
                recv(self.stop) -> _ => return Err(Stopping),
                recv(reload) -> _ => Request::Load,
                default(LOOK) => Request::Look,
            };
        }
    }

    /// Has the disk touched and waits for that until shutdown. Returns whether the disk was reported as slow, too.
    fn ask(&mut self, request: Request) -> Result<(Option<Result<T, String>>, bool), Stopping> {
        // The channel is empty: the last request has its result.
        self.requests.send(request).map_err(|_| Stopping)?;
        let (found, stop) = (self.found.clone(), self.stop.clone());
        select_biased! {
            recv(stop) -> _ => return Err(Stopping),
            recv(found) -> found => return found.map(|found| (found, false)).map_err(|_| Stopping),
            default(SLOW_DISK) => {}
        }
        let problem = format!("not read within {} s, as when its disk hangs", SLOW_DISK.as_secs());
        self.take(Err(problem), request)?;
        select_biased! {
            recv(stop) -> _ => Err(Stopping),
            recv(found) -> found => found.map(|found| (found, true)).map_err(|_| Stopping),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "when the value was accepted")]
    fn take(&mut self, found: Result<T, String>, request: Request) -> Result<(), Stopping> {
        match found {
            Ok(value) => {
                let value = Arc::new(value);
                let before = self.polled.accept(Arc::clone(&value), Instant::now());
                (self.report)(Ok((value, before.value)))
            }
            // A caller that requests a reload expects a result.
            Err(problem) if self.polled.reject(&problem) || request == Request::Load => (self.report)(Err(problem)),
            Err(_) => Ok(()),
        }
    }
}

/// The file as it was last seen. A file that is the same in all of this is not read again.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([u64; 4], [i64; 4]);

/// Decides when to read the file, and reads it. Each look resolves the path again, so a symlink that points elsewhere
/// (Kubernetes swaps a ConfigMap like that) is a change.
struct Reader<T> {
    file: WatchedFile<T>,
    seen: Option<Stamp>,
    /// When the file was first seen like that, or last read without success.
    since: Instant,
    /// When the file began to change, until it is read.
    unsettled: Option<Instant>,
    /// Whether the file is to be read once it has settled.
    is_due: bool,
    warnings: LogThrottle,
}

impl<T> Reader<T> {
    fn new(file: WatchedFile<T>, now: Instant) -> Self {
        Self {
            file,
            seen: None,
            since: now,
            unsettled: None,
            is_due: false,
            warnings: LogThrottle::new(ONE_A_MINUTE),
        }
    }

    /// Reads the file, changed and settled or not.
    fn load(&mut self, now: Instant) -> Result<T, String> {
        self.seen = self.stamp();
        self.read(now)
    }

    /// Reads the file if it has changed since it was read and then settled, or has not settled for too long.
    fn look(&mut self, now: Instant) -> Option<Result<T, String>> {
        let stamp = self.stamp();
        if stamp != self.seen {
            (self.seen, self.since, self.is_due) = (stamp, now, true);
            self.unsettled.get_or_insert(now);
        }
        let is_settled = now.duration_since(self.since) >= SETTLED;
        let is_overdue = |since: Instant| now.duration_since(since) >= MAX_UNSETTLED;
        let is_overdue = self.unsettled.is_some_and(is_overdue);
        if !self.is_due || !(is_settled || is_overdue) {
            return None;
        }
        let unsettled = self.unsettled;
        let found = self.read(now);
        let is_torn = self.stamp() != self.seen;
        if is_torn && !is_overdue {
            // It may be half of the file. The next look sees the change.
            self.unsettled = unsettled;
            return None;
        }
        if is_torn || !is_settled {
            self.warn_unsettled(now);
        }
        Some(found)
    }

    fn warn_unsettled(&mut self, now: Instant) {
        if let Some(suppressed) = self.warnings.admit(now) {
            let (file, after_s) = (self.file.polled.name(), MAX_UNSETTLED.as_secs());
            log::warn!(file, after_s, suppressed; "file unsettled: read while it keeps changing");
        }
    }

    fn read(&mut self, now: Instant) -> Result<T, String> {
        (self.since, self.unsettled) = (now, None);
        let bytes = match self.read_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                // An error of the system (a lack of descriptors, a failing disk) may pass without a change of the file.
                self.is_due = error.raw_os_error().is_some();
                return Err(problem(&error));
            }
        };
        self.is_due = false;
        (self.file.parse)(&bytes, self.file.polled.value().as_deref())
    }

    fn read_bytes(&self) -> io::Result<Vec<u8>> {
        let WatchedFile { path, polled, .. } = &self.file;
        if polled.value().is_some() && fs::metadata(path).is_ok_and(|meta| meta.nlink() == 0) {
            return Err(io::Error::other(REPLACED));
        }
        files::read_regular(path, self.file.max_bytes)
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.file.path).ok()?;
        Some(Stamp(
            [meta.dev(), meta.ino(), meta.nlink(), meta.size()],
            [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()],
        ))
    }
}

/// Reads the file once, for a command.
///
/// # Errors
/// Why there is no value.
pub(crate) fn read_once<T>(path: &Path, max_bytes: u64, parse: Parse<T>) -> Result<T, String> {
    let bytes = files::read_regular(path, max_bytes).map_err(|error| problem(&error))?;
    parse(&bytes, None)
}

/// Why a file cannot be read, with a remedy.
fn problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::IsADirectory => {
            "a directory (docker makes one when the file to mount is missing on the host)".to_owned()
        }
        io::ErrorKind::PermissionDenied => format!("permission denied to uid {}", rustix::process::geteuid().as_raw()),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::PathBuf;

    const SECOND: Duration = Duration::from_secs(1);

    fn parse(bytes: &[u8], _: Option<&String>) -> Result<String, String> {
        String::from_utf8(bytes.to_owned()).map_err(|error| error.to_string())
    }

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn reader(text: &str) -> (tempfile::TempDir, Reader<String>, Instant) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, text).expect("a file");
        let file = WatchedFile {
            path,
            max_bytes: 64,
            parse,
            polled: Arc::new(Polled::new("file")),
        };
        let now = Instant::now();
        (dir, Reader::new(file, now), now)
    }

    fn path(reader: &Reader<String>) -> PathBuf {
        reader.file.path.clone()
    }

    #[test]
    fn changed_file_is_read_after_one_unchanged_second() {
        let (_dir, mut reader, now) = reader("a");
        assert_eq!(reader.load(now).as_deref(), Ok("a"));
        assert_eq!(reader.look(now + SECOND), None);
        fs::write(path(&reader), "ab").expect("written");
        assert_eq!(reader.look(now + 2 * SECOND), None);
        fs::write(path(&reader), "abc").expect("written");
        assert_eq!(reader.look(now + 5 * SECOND / 2), None);
        assert_eq!(reader.look(now + 3 * SECOND), None);
        assert_eq!(reader.look(now + 7 * SECOND / 2), Some(Ok("abc".to_owned())));
        assert_eq!(reader.look(now + 9 * SECOND), None);
    }

    #[test]
    fn constantly_changing_file_is_read_after_five_seconds() {
        let (_dir, mut reader, now) = reader("");
        reader.load(now).expect("a text");
        let mut text = String::new();
        let mut read = Vec::new();
        for tenth in 0..=110_u32 {
            if tenth % 7 == 0 {
                text.push('a');
                fs::write(path(&reader), &text).expect("written");
            }
            let found = reader.look(now + tenth * SECOND / 10);
            read.extend(found.map(|found| (tenth, found.expect("a text").len())));
        }
        // Each sequence begins with the first change after a read: at 0 and at 5.6 s.
        assert_eq!(read, [(50, 8), (106, 16)]);
    }

    #[test]
    fn refused_read_is_retried_each_second() {
        let (_dir, mut reader, now) = reader("a");
        reader.load(now).expect("a text");
        fs::remove_file(path(&reader)).expect("removed");
        let missing = Some(Err("no such file".to_owned()));
        assert_eq!(reader.look(now + SECOND), None);
        assert_eq!(reader.look(now + 3 * SECOND), missing);
        assert_eq!(
            reader.look(now + 7 * SECOND / 2),
            None,
            "not before a second has passed"
        );
        assert_eq!(reader.look(now + 4 * SECOND), missing);
        fs::create_dir(path(&reader)).expect("made");
        assert_eq!(reader.look(now + 6 * SECOND), None);
        let found = reader
            .look(now + 8 * SECOND)
            .expect("it settled")
            .expect_err("a directory");
        assert!(found.starts_with("a directory"), "{found}");
        assert_eq!(reader.look(now + 20 * SECOND), None, "only a change ends that");
    }

    #[test]
    fn file_has_at_most_its_limit_of_bytes() {
        let (_dir, mut reader, now) = reader(&"a".repeat(64));
        assert_eq!(reader.load(now).map(|text| text.len()), Ok(64));
        fs::write(path(&reader), "a".repeat(65)).expect("written");
        assert_eq!(reader.load(now), Err("longer than 64 bytes".to_owned()));
    }
}
