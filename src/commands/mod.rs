//! What the binary does besides serving.

pub mod check;
pub mod health;
