//! The log: lines to stderr through a bounded queue and one thread that writes them.
//!
//! Logging never blocks: if the reader of a pipe stalls, lines that overflow the queue are dropped and counted, and a
//! later line reports the count. simple_logger alone would write on the thread that logs, and block it; here it writes
//! on the log's thread.

mod fields;
mod format;
mod sink;

use std::io;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_throttle::{LogRate, LogThrottle};
use super::threads;
pub use format::Format;
use format::Line;

/// Lines in the queue: more than a large fleet logs at its start. A line has 200 bytes on average and its message at
/// most [`format::MAX_MESSAGE_BYTES`], so the queue has at most 10 MiB.
const MAX_LINES: usize = 2_048;
/// How long the exit waits for the queue.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Lines about panics: a defect that occurs with each request must not fill the disk.
const PANIC_RATE: LogRate = LogRate {
    burst: 10,
    refill: Duration::from_secs(10),
};
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

struct Logger {
    queue: Sender<Entry>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(CRATE)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = Line::new(SystemTime::now(), record);
            if self.queue.try_send(Some(line)).is_err() {
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
    threads::spawn_detached(THREAD, move || run(format, &lines, writing))?;
    let logger = Logger { queue: queue.clone() };
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(panic_hook());
    Ok(Logging { queue, written })
}

/// Logs a panic. The standard library's hook writes to stderr and so blocks on its reader.
fn panic_hook() -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
    let throttle = Mutex::new(LogThrottle::new(PANIC_RATE));
    Box::new(move |panic| {
        // The log's thread counts a line that it cannot write. Another line could not be written either.
        let thread = std::thread::current();
        if thread.name() == Some(THREAD) {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a panic has no caller with a clock")]
        let now = Instant::now();
        let admitted = throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        if let Some(suppressed) = admitted {
            let name = thread.name().unwrap_or_default();
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            log::error!(thread:% = name, at:% = at, reason:% = text, suppressed = suppressed; "panic: a thread panicked");
        }
    })
}

/// Writes lines until the last entry. Drops `writing` then.
fn run(format: Format, lines: &Receiver<Entry>, writing: Sender<()>) {
    let mut reported = 0;
    while let Ok(Some(line)) = lines.recv() {
        write(format, &line);
        let dropped = dropped_lines();
        if dropped > reported && lines.is_empty() {
            let fields = [("lines", dropped - reported)];
            let record = Record::builder()
                .level(Level::Warn)
                .target(TARGET)
                .args(format_args!("log lines dropped: the reader of the log is too slow"))
                .key_values(&fields)
                .build();
            write(format, &Line::new(SystemTime::now(), &record));
            reported = dropped;
        }
    }
    drop(writing);
}

fn write(format: Format, line: &Line) {
    if sink::write(format, line).is_err() {
        DROPPED.fetch_add(1, Relaxed);
    }
}
