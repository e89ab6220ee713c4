//! The log: lines to stderr through a bounded queue and one thread that writes them.
//!
//! Whatever logs never waits: when the reader of a pipe stalls, lines that find no room are counted, dropped, and told
//! of as soon as there is room again. simple_logger writes where the line is made, so each thread that logs would wait
//! for that reader.

mod format;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};

use super::log_throttle::{LogRate, LogThrottle};
use super::threads;
pub use format::Format;

/// Lines that wait to be written: more than a large fleet has at the start. They are of 200 bytes by habit, and never
/// above [`format::MAX_MESSAGE_BYTES`], so below 10 MiB in all.
const MAX_LINES: usize = 2_048;
/// Written at one go.
const BATCH_BYTES: usize = 16 * 1024;
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

/// Lines that found no room, or could not be written, since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log were dropped since the start.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Relaxed)
}

/// What the writer's thread is handed.
enum Entry {
    Line(String),
    /// Nothing more comes; the other end closes when all before it has been written.
    End(Sender<()>),
}

struct Logger {
    format: Format,
    queue: Sender<Entry>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(CRATE)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            let line = self
                .format
                .line(SystemTime::now(), record.level(), record.target(), &message);
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
    threads::spawn_detached("log", move || run(format, &lines))?;
    let logger = Logger {
        format,
        queue: queue.clone(),
    };
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(panic_hook());
    Ok(Logging { queue })
}

/// The standard library's own writes to stderr, and so waits for its reader.
fn panic_hook() -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
    let throttle = Mutex::new(LogThrottle::new(PANIC_RATE));
    Box::new(move |panic| {
        #[expect(clippy::disallowed_methods, reason = "panics come at their own time")]
        let now = Instant::now();
        let admitted = throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        if let Some(suppressed) = admitted {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            log::error!("thread {name:?} panicked at {place}: {text:?}{suppressed}");
        }
    })
}

/// Writes what comes until the end.
fn run(format: Format, lines: &Receiver<Entry>) {
    let mut told = 0;
    for entry in lines {
        let mut batch = String::new();
        let mut count = 0;
        let mut next = Some(entry);
        let mut end = None;
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => {
                    batch.push_str(&line);
                    count += 1;
                }
                Entry::End(written) => end = Some(written),
            }
            let has_room = batch.len() < BATCH_BYTES && end.is_none();
            next = has_room.then(|| lines.try_recv().ok()).flatten();
        }
        let dropped = dropped_lines();
        if dropped > told && lines.is_empty() {
            batch.push_str(&lost_line(format, dropped - told));
            told = dropped;
        }
        if write(batch.as_bytes()).is_err() {
            DROPPED.fetch_add(count, Relaxed);
        }
        if end.is_some() {
            return;
        }
    }
}

fn lost_line(format: Format, lines: u64) -> String {
    let message = format!("{lines} lines of this log are lost: they were not read as fast as they came");
    format.line(SystemTime::now(), Level::Warn, TARGET, &message)
}

/// Writes all of it. A stderr that another process has set to not block is waited for all the same.
fn write(mut bytes: &[u8]) -> io::Result<()> {
    let mut stderr = io::stderr();
    while !bytes.is_empty() {
        match stderr.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
