//! The commands besides serving.

pub mod check;
mod request;
pub mod settings;
pub mod status;
mod table;

pub use request::health;
pub use table::{Format, Printout};
