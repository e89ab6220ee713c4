//! What any program has: pool, calendar, threads, system limits, files, text, and a log that never blocks.

pub(crate) mod calendar;
pub(crate) mod files;
pub mod glibc;
pub(crate) mod limits;
pub(crate) mod log_throttle;
pub mod logger;
pub(crate) mod polled;
pub(crate) mod pool;
pub(crate) mod text;
pub(crate) mod threads;
pub(crate) mod watched_file;
