//! The commands besides serving.

pub mod check;
pub mod health;
mod request;
pub mod settings;
pub mod status;
mod table;

pub use request::RequestError;
pub use table::{Format, Printout};
