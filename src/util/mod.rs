//! What any program has: an arena, threads, descriptor limits.

pub(crate) mod arena;
pub(crate) mod descriptors;
pub(crate) mod threads;
