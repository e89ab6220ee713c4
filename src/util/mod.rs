//! What any program has: an arena, the calendar, threads, descriptor limits, files, a log that holds nobody up.

pub(crate) mod arena;
pub(crate) mod calendar;
pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod log_throttle;
pub mod logger;
pub(crate) mod threads;
