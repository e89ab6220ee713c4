//! What the binary does besides serving.

mod ask;
pub mod check;
pub mod health;
pub mod status;
mod table;

pub use ask::AskError;
