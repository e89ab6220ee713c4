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

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased};

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
const SLOW_DISK_S: u32 = 3;
const SECOND: Duration = Duration::from_secs(1);
const HUNG: &str = "not read within 3 s, as when its disk hangs";
const REPLACED: &str = "replaced on the host, where this file alone is mounted, so that the new file is not visible: \
                        mount the directory and name the file by its setting, or write the file in place";

/// Makes a value of the bytes. The second argument is the value in effect.
pub(crate) type Parse<T> = fn(&[u8], Option<&T>) -> Result<T, String>;

/// The file, what it is read into, and what was seen of it. Each look resolves the path again, so a symlink that points
/// elsewhere (Kubernetes swaps a ConfigMap like that) is a change.
#[derive(Debug)]
pub(crate) struct WatchedFile<T> {
    path: PathBuf,
    max_bytes: u64,
    parse: Parse<T>,
    polled: Arc<Polled<T>>,
    seen: Option<Stamp>,
    /// When the file began to change, or the system refused to read it, and the last change. `None` once it is read.
    due: Option<(Instant, Instant)>,
    warnings: LogThrottle,
}

/// The file as it was last seen: device, inode, links and size, and the times of its changes. A file that is the same
/// in all of this is not read again.
type Stamp = ([u64; 4], [i64; 4]);

/// A read that is to be reported: the value and the one before, or the problem.
pub(crate) type Outcome<T> = Result<(Arc<T>, Option<Arc<T>>), String>;

/// Reads the file, then follows its changes until `stop` closes. A message on `reload` has it read immediately. Calls
/// `report` for the first read, for each value, once for each problem, and for the result of each message.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn watch<T: Clone + Send + Sync + 'static>(
    file: WatchedFile<T>,
    mut report: impl FnMut(Outcome<T>) + Send + 'static,
    reload: Receiver<()>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let polled = Arc::clone(&file.polled);
    let (looks, looked) = bounded(0);
    threads::spawn_detached("disk", move || touch_disk(file, &reload, &looks))?;
    threads::spawn_vital("files", alarm, move || {
        let mut quiet_seconds = 0;
        loop {
            let outcome = select_biased! {
                recv(stop) -> _ => return,
                recv(looked) -> outcome => {
                    quiet_seconds = 0;
                    outcome
                }
                // Counted, because each deadline is over after the process was stopped.
                default(SECOND) => {
                    quiet_seconds += 1;
                    let is_hung = quiet_seconds == SLOW_DISK_S && polled.reject(HUNG);
                    Ok(is_hung.then(|| Err(HUNG.to_owned())))
                }
            };
            let Ok(outcome) = outcome else { return };
            outcome.into_iter().for_each(&mut report);
        }
    })
}

/// Reads the file if it is requested or has changed and settled, and sends what is to be reported. Exits after the
/// watch, as soon as the disk permits.
#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn touch_disk<T: Clone>(mut file: WatchedFile<T>, reload: &Receiver<()>, looks: &Sender<Option<Outcome<T>>>) {
    let mut is_requested = true;
    loop {
        // After a hang even an unchanged file is read: that ends the problem.
        let is_due = is_requested || file.polled.snapshot().problem.as_deref() == Some(HUNG);
        let result = file.look(is_due, Instant::now());
        if looks
            .send(result.and_then(|result| apply(&file.polled, result, is_requested)))
            .is_err()
        {
            return;
        }
        is_requested = match reload.recv_timeout(LOOK) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// Accepts or rejects the result of a read. Returns the outcome if it is to be reported: a requested read always is.
#[expect(clippy::disallowed_methods, reason = "when the value was accepted")]
pub(crate) fn apply<T>(polled: &Polled<T>, result: Result<T, String>, is_requested: bool) -> Option<Outcome<T>> {
    match result {
        Ok(value) => {
            let value = Arc::new(value);
            let before = polled.accept(Arc::clone(&value), Instant::now());
            Some(Ok((value, before.value)))
        }
        Err(problem) => (polled.reject(&problem) || is_requested).then_some(Err(problem)),
    }
}

impl<T> WatchedFile<T> {
    pub(crate) fn new(path: &Path, max_bytes: u64, parse: Parse<T>, polled: &Arc<Polled<T>>) -> Self {
        Self {
            path: path.to_owned(),
            max_bytes,
            parse,
            polled: Arc::clone(polled),
            seen: None,
            due: None,
            warnings: ONE_A_MINUTE,
        }
    }

    /// Reads the file if it is requested, or if it has changed since it was read and then settled, or has not settled
    /// for too long.
    fn look(&mut self, is_requested: bool, now: Instant) -> Option<Result<T, String>> {
        let stamp = self.stamp();
        if stamp != self.seen {
            self.seen = stamp;
            self.due = Some((self.due.map_or(now, |(begun, _)| begun), now));
        }
        if is_requested {
            return Some(self.read(now));
        }
        let (begun, changed) = self.due?;
        let is_settled = now.duration_since(changed) >= SETTLED;
        let is_overdue = now.duration_since(begun) >= MAX_UNSETTLED;
        if !is_settled && !is_overdue {
            return None;
        }
        let result = self.read(now);
        let is_torn = self.stamp() != self.seen;
        if is_torn && !is_overdue {
            // It may be half of the file. The next look sees the change.
            self.due = Some((begun, now));
            return None;
        }
        if (is_torn || !is_settled)
            && let Some(suppressed) = self.warnings.admit(now)
        {
            let (file, after_s) = (self.polled.name(), MAX_UNSETTLED.as_secs());
            log::warn!(file, after_s, suppressed; "file unsettled: read while it keeps changing");
        }
        Some(result)
    }

    fn read(&mut self, now: Instant) -> Result<T, String> {
        self.due = None;
        let last = self.polled.value();
        if last.is_some() && matches!(self.seen, Some(([_, _, 0, _], _))) {
            return Err(REPLACED.to_owned());
        }
        match files::read_regular(&self.path, self.max_bytes) {
            Ok(bytes) => (self.parse)(&bytes, last.as_deref()),
            Err(error) => {
                // An error of the system (a lack of descriptors, a failing disk) may pass without a change of the file.
                self.due = error.raw_os_error().map(|_| (now, now));
                Err(problem(&error))
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.path).ok()?;
        Some((
            [meta.dev(), meta.ino(), meta.nlink(), meta.size()],
            [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()],
        ))
    }
}

/// Reads the file once. Waits no longer than the watch does without a report.
///
/// # Errors
/// Why there is no value.
pub(crate) fn read_once<T>(path: &Path, max_bytes: u64, parse: Parse<T>) -> Result<T, String> {
    let (results, result) = bounded(1);
    let path = path.to_owned();
    let read = move || drop(results.send(files::read_regular(&path, max_bytes)));
    // A read on a hung disk cannot be interrupted.
    threads::spawn_detached("disk", read).map_err(|error| error.to_string())?;
    let bytes = result.recv_timeout(SECOND * SLOW_DISK_S).map_err(|_| HUNG)?;
    parse(&bytes.map_err(|error| problem(&error))?, None)
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

    fn parse(bytes: &[u8], _: Option<&String>) -> Result<String, String> {
        String::from_utf8(bytes.to_owned()).map_err(|error| error.to_string())
    }

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn reader(text: &str) -> (tempfile::TempDir, WatchedFile<String>, Instant) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, text).expect("a file");
        let polled = Arc::new(Polled::new("file"));
        (dir, WatchedFile::new(&path, 64, parse, &polled), Instant::now())
    }

    fn load(reader: &mut WatchedFile<String>, now: Instant) -> Result<String, String> {
        reader.look(true, now).expect("it is read")
    }

    fn look(reader: &mut WatchedFile<String>, now: Instant) -> Option<Result<String, String>> {
        reader.look(false, now)
    }

    fn path(reader: &WatchedFile<String>) -> PathBuf {
        reader.path.clone()
    }

    #[test]
    fn changed_file_is_read_after_one_unchanged_second() {
        let (_dir, mut reader, now) = reader("a");
        assert_eq!(load(&mut reader, now).as_deref(), Ok("a"));
        assert_eq!(look(&mut reader, now + SECOND), None);
        fs::write(path(&reader), "ab").expect("written");
        assert_eq!(look(&mut reader, now + 2 * SECOND), None);
        fs::write(path(&reader), "abc").expect("written");
        assert_eq!(look(&mut reader, now + 5 * SECOND / 2), None);
        assert_eq!(look(&mut reader, now + 3 * SECOND), None);
        assert_eq!(look(&mut reader, now + 7 * SECOND / 2), Some(Ok("abc".to_owned())));
        assert_eq!(look(&mut reader, now + 9 * SECOND), None);
    }

    #[test]
    fn constantly_changing_file_is_read_after_five_seconds() {
        let (_dir, mut reader, now) = reader("");
        load(&mut reader, now).expect("a text");
        let mut text = String::new();
        let mut read = Vec::new();
        for tenth in 0..=110_u32 {
            if tenth % 7 == 0 {
                text.push('a');
                fs::write(path(&reader), &text).expect("written");
            }
            let found = look(&mut reader, now + tenth * SECOND / 10);
            read.extend(found.map(|found| (tenth, found.expect("a text").len())));
        }
        // Each sequence begins with the first change after a read: at 0 and at 5.6 s.
        assert_eq!(read, [(50, 8), (106, 16)]);
    }

    #[test]
    fn refused_read_is_retried_each_second() {
        let (_dir, mut reader, now) = reader("a");
        load(&mut reader, now).expect("a text");
        fs::remove_file(path(&reader)).expect("removed");
        let missing = Some(Err("no such file".to_owned()));
        assert_eq!(look(&mut reader, now + SECOND), None);
        assert_eq!(look(&mut reader, now + 3 * SECOND), missing);
        assert_eq!(
            look(&mut reader, now + 7 * SECOND / 2),
            None,
            "not before a second has passed"
        );
        assert_eq!(look(&mut reader, now + 4 * SECOND), missing);
        fs::create_dir(path(&reader)).expect("made");
        assert_eq!(look(&mut reader, now + 6 * SECOND), None);
        let found = look(&mut reader, now + 8 * SECOND)
            .expect("it settled")
            .expect_err("a directory");
        assert!(found.starts_with("a directory"), "{found}");
        assert_eq!(look(&mut reader, now + 20 * SECOND), None, "only a change ends that");
    }

    #[test]
    fn file_has_at_most_its_limit_of_bytes() {
        let (_dir, mut reader, now) = reader(&"a".repeat(64));
        assert_eq!(load(&mut reader, now).map(|text| text.len()), Ok(64));
        fs::write(path(&reader), "a".repeat(65)).expect("written");
        assert_eq!(load(&mut reader, now), Err("longer than 64 bytes".to_owned()));
    }
}
