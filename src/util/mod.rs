//! What any program has: an arena, threads, descriptor limits, files.

pub(crate) mod arena;
pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod threads;
