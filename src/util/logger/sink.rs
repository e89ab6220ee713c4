//! Writes lines to stderr, on the log's thread.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::catch_unwind;

use log::{Log, Record};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use simple_logger::SimpleLogger;

use super::format::{Format, Line};

/// Writes a line. Blocks until the reader of stderr accepts it.
///
/// # Errors
/// The reader has closed the pipe, or the file is full.
pub(super) fn write(format: Format, line: &Line) -> io::Result<()> {
    let stderr = io::stderr();
    // Another process may have set stderr to non-blocking mode. A print would fail then.
    retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None))?;
    match format.line(line) {
        Some(text) => io::stderr().write_all(text.as_bytes()),
        None => print(line),
    }
}

/// simple_logger prints, and so panics if the write fails.
fn print(line: &Line) -> io::Result<()> {
    let print = || {
        let mut record = Record::builder();
        record.level(line.level).target(&line.target);
        let logger = SimpleLogger::new().with_utc_timestamps();
        logger.log(&record.args(format_args!("{}", line.message)).build());
    };
    catch_unwind(print).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
