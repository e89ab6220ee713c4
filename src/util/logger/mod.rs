//! The log: lines to stderr through a bounded queue and one thread that writes them.
//!
//! Logging never blocks: when the reader of a pipe stalls, lines that find no room are dropped and counted, and a line
//! says so as soon as there is room again. simple_logger alone would write on the thread that logs, and have it wait for that
//! reader; here it writes on the log's own thread.

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
use sink::Sink;

/// Lines that wait to be written: more than a large fleet has at the start. They are of 200 bytes by habit, and never
/// above [`format::MAX_MESSAGE_BYTES`], so below 10 MiB in all.
const MAX_LINES: usize = 2_048;
/// How long the end waits for what is still to be written.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Lines about panics: a defect that comes with each request must not fill the disk.
const PANIC_RATE: LogRate = LogRate {
    burst: 10,
    refill: Duration::from_secs(10),
};
/// Our own lines alone: what libraries have to say comes back as an error, and they don't escape foreign text.
const CRATE: &str = "infernet_router";
const TARGET: &str = "infernet_router::log";
const THREAD: &str = "log";

/// Lines that found no room, or could not be written, since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log were dropped since the start.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Relaxed)
}

/// What the writer's thread is handed.
enum Entry {
    Line(Line),
    /// Nothing more comes; the other end closes when all before it has been written.
    End(Sender<()>),
}

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
            if self.queue.try_send(Entry::Line(line)).is_err() {
                DROPPED.fetch_add(1, Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// A log at work. Dropping it waits for what is still to be written, but not for long.
#[derive(Debug)]
#[must_use = "lines that are not written yet are lost with the process"]
pub struct Logging {
    queue: Sender<Entry>,
}

impl Drop for Logging {
    #[expect(clippy::disallowed_methods, reason = "one deadline over two waits")]
    fn drop(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        let (written, is_written) = bounded(0);
        if self.queue.send_deadline(Entry::End(written), deadline).is_ok() {
            // Both ways it ends there is nothing left to do.
            let _ = is_written.recv_deadline(deadline);
        }
    }
}

/// Starts the log; panics become lines of it.
///
/// # Errors
/// When there is no room for a thread, or another log is at work.
pub fn start(format: Format, level: LevelFilter) -> io::Result<Logging> {
    let (queue, lines) = bounded(MAX_LINES);
    threads::spawn_detached(THREAD, move || run(&Sink::new(format), &lines))?;
    let logger = Logger { queue: queue.clone() };
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(panic_hook());
    Ok(Logging { queue })
}

/// The standard library's own writes to stderr, and so waits for its reader.
fn panic_hook() -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
    let throttle = Mutex::new(LogThrottle::new(PANIC_RATE));
    Box::new(move |panic| {
        // A line that can't be written is counted there; another line about it could not be written either.
        if std::thread::current().name() == Some(THREAD) {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "panics come at their own time")]
        let now = Instant::now();
        let admitted = throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        if let Some(suppressed) = admitted {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            log::error!(thread:% = name, at:% = at, reason:% = text, suppressed = suppressed; "panic: a thread panicked");
        }
    })
}

/// Writes what comes until the end.
fn run(sink: &Sink, lines: &Receiver<Entry>) {
    let mut reported = 0;
    for entry in lines {
        match entry {
            Entry::Line(line) => write(sink, line),
            Entry::End(_written) => return,
        }
        let dropped = dropped_lines();
        if dropped > reported && lines.is_empty() {
            let fields = [("lines", dropped - reported)];
            let record = Record::builder()
                .level(Level::Warn)
                .target(TARGET)
                .args(format_args!("log lines dropped: the reader of the log is too slow"))
                .key_values(&fields)
                .build();
            write(sink, Line::new(SystemTime::now(), &record));
            reported = dropped;
        }
    }
}

fn write(sink: &Sink, line: Line) {
    if sink.write(line, SystemTime::now()).is_err() {
        DROPPED.fetch_add(1, Relaxed);
    }
}
