//! The log: lines to stderr through a bounded queue and one thread that writes them.
//!
//! Logging never blocks: if the reader of a pipe stalls, lines that overflow the queue are dropped and counted, and a
//! later line reports the count. simple_logger alone would write on the thread that logs, and block it; here it writes
//! on the log's thread.

mod format;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{PanicHookInfo, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use simple_logger::SimpleLogger;

use super::log_throttle::LogThrottle;
use super::threads;
pub use format::Format;
use format::Line;

/// Lines in the queue: more than a large fleet logs at its start. A line has 200 bytes on average and its message at
/// most [`format::MAX_MESSAGE_CHARS`], so the queue has at most 10 MiB.
const MAX_LINES: usize = 2_048;
/// How long the exit waits for the queue.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Lines about panics: a defect that occurs with each request must not fill the disk.
const PANIC_RATE: LogThrottle = LogThrottle::new(10, Duration::from_secs(10));
/// Only the router's own lines: libraries return errors too, and don't escape untrusted text in lines.
const CRATE: &str = "infernet_router";
const TARGET: &str = "infernet_router::log";
const THREAD: &str = "log";

/// Lines that overflowed the queue or could not be written, since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The number of log lines that were dropped since the start.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Relaxed)
}

/// Lines for the log's thread. `None` is the last entry.
type Entry = Option<Line>;

struct Logger(Sender<Entry>);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(CRATE)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = Line::new(SystemTime::now(), record);
            if self.0.try_send(Some(line)).is_err() {
                DROPPED.fetch_add(1, Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// A started log. Dropping it waits for the queue for a short time.
#[derive(Debug)]
#[must_use = "lines that are not written yet are lost with the process"]
pub struct Logging {
    queue: Sender<Entry>,
    /// Closes after the last line has been written.
    written: Receiver<()>,
}

impl Drop for Logging {
    #[expect(clippy::disallowed_methods, reason = "one deadline over two waits")]
    fn drop(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        // Written or not: the process exits.
        let _ = self.queue.send_deadline(None, deadline);
        let _ = self.written.recv_deadline(deadline);
    }
}

/// Starts the log. Panics become log lines.
///
/// # Errors
/// The system cannot start a thread, or a log is started already.
pub fn start(format: Format, level: LevelFilter) -> io::Result<Logging> {
    let (queue, lines) = bounded(MAX_LINES);
    let (writing, written) = bounded(0);
    threads::spawn_detached(THREAD, move || {
        run(format, &lines);
        drop(writing);
    })?;
    log::set_boxed_logger(Box::new(Logger(queue.clone()))).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(panic_hook());
    Ok(Logging { queue, written })
}

/// Logs a panic. The standard library's hook writes to stderr and so blocks on its reader.
fn panic_hook() -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
    let throttle = Mutex::new(PANIC_RATE);
    Box::new(move |panic| {
        // The log's thread counts a line that it cannot write. Another line could not be written either.
        let thread = std::thread::current();
        if thread.name() == Some(THREAD) {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a panic has no caller with a clock")]
        let now = Instant::now();
        if let Some(suppressed) = threads::lock(&throttle).admit(now) {
            let thread = thread.name().unwrap_or_default();
            log::error!(thread, reason:% = panic, suppressed; "panic: a thread panicked");
        }
    })
}

/// Writes lines until the last entry. Reports dropped lines as soon as a line could be written.
fn run(format: Format, lines: &Receiver<Entry>) {
    let mut reported = 0;
    while let Ok(Some(line)) = lines.recv() {
        let is_written = write(format, &line).is_ok();
        let dropped = DROPPED.fetch_add(u64::from(!is_written), Relaxed);
        if is_written && dropped > reported && lines.is_empty() {
            log::warn!(target: TARGET, lines = dropped - reported; "log lines dropped: the reader of the log is too slow");
            reported = dropped;
        }
    }
}

/// Writes a line to stderr. Blocks until its reader accepts the line.
///
/// # Errors
/// The reader has closed the pipe, or the file is full.
fn write(format: Format, line: &Line) -> io::Result<()> {
    let mut stderr = io::stderr();
    // Another process may have set stderr to non-blocking mode. A print would fail then.
    retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None))?;
    let logger = match format {
        Format::Text => SimpleLogger::new().with_utc_timestamps(),
        Format::Journal => SimpleLogger::new().without_timestamps(),
        Format::Json => return stderr.write_all((serde_json::to_string(line)? + "\n").as_bytes()),
    };
    stderr.write_all(format.prefix(line.level).as_bytes())?;
    let print = || {
        let mut record = Record::builder();
        record.level(line.level).target(&line.target);
        logger.log(&record.args(format_args!("{}", line.message)).build());
    };
    // simple_logger prints, and so panics if the write fails.
    catch_unwind(print).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
