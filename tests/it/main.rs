//! The real binary against stand-in nodes.
#[path = "../support/mod.rs"]
mod support;
