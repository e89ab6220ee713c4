//! Writes lines to stderr, on the log's thread.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use log::{Log, Record};
use rustix::event::{PollFd, PollFlags, poll};
use simple_logger::SimpleLogger;

use super::format::{Format, Line};
use crate::util::calendar;

/// A line that waited longer shows its age: simple_logger shows when it is written.
const MAX_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Sink {
    format: Format,
    timed: SimpleLogger,
    /// For a clock outside the range of simple_logger.
    untimed: SimpleLogger,
}

impl Sink {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            timed: SimpleLogger::new().with_utc_timestamps(),
            untimed: SimpleLogger::new().without_timestamps(),
        }
    }

    /// Writes a line. Blocks until the reader of stderr accepts it.
    ///
    /// # Errors
    /// The reader has closed the pipe, or the file is full.
    pub(super) fn write(&self, line: Line, now: SystemTime) -> io::Result<()> {
        let text = self.format.line(&line);
        // Another process may have set stderr to non-blocking mode. A print would fail then.
        wait_until_writable()?;
        match text {
            Some(text) => io::stderr().write_all(text.as_bytes()),
            None => self.print(line, now),
        }
    }

    /// simple_logger prints, and so panics if the write fails.
    fn print(&self, mut line: Line, now: SystemTime) -> io::Result<()> {
        let waited = now.duration_since(line.time).unwrap_or_default();
        if waited > MAX_WAIT {
            line.message += &format!(" ({:.1} s ago)", waited.as_secs_f64());
        }
        let logger = match calendar::is_sane(now) {
            true => &self.timed,
            false => &self.untimed,
        };
        let print = || {
            let args = format_args!("{}", line.message);
            let record = Record::builder()
                .level(line.level)
                .target(&line.target)
                .args(args)
                .build();
            logger.log(&record);
        };
        catch_unwind(AssertUnwindSafe(print)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn wait_until_writable() -> io::Result<()> {
    let stderr = io::stderr();
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
