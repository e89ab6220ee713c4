//! Stand-ins for everything around the router, and handles of the router itself. Tests, benches and examples share
//! them, so no target uses all of them.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "included by several targets, each of which uses a part"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a stand-in reads the clock and starts threads of its own"
)]

pub mod attack;
pub mod explorer;
pub mod fleet;
pub mod honest;
pub mod http;
pub mod hung_disk;
pub mod launch;
pub mod process;
pub mod silent;
pub mod terminal;
pub mod tls;
pub mod v6;

pub use attack::Attack;
pub use explorer::{Explorer, Listing};
pub use fleet::{Behaviour, Fleet};
pub use honest::Honest;
pub use http::{Answer, Connection};
pub use hung_disk::HungDisk;
pub use launch::Launch;
pub use process::{Router, Signal};
pub use silent::Silent;

use std::time::Duration;

/// A deadline that only a hang reaches, on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(120);
