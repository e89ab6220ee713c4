//! The real binary against stand-in nodes.

#[path = "../support/mod.rs"]
mod support;

mod settings;

use support::Launch;

/// The router that these tests are about.
fn launch() -> Launch {
    Launch::of(env!("CARGO_BIN_EXE_infernet-router"))
}
