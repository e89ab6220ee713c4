//! `infernet-router health`: one request to the `/health` of the router that serves with the same settings.

use std::time::Duration;

use super::ask::{self, AskError};
use crate::config::Config;
use crate::net::Bounds;

/// Docker gives a health check 30 s, and people who type it less.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The answer has some 20 bytes; something else may serve there.
const MAX_BODY_BYTES: u64 = 1024;

/// Asks whether the router that `HOST` and `PORT` name serves.
///
/// # Errors
/// When it doesn't.
pub fn ask(config: &Config) -> Result<(), AskError> {
    let bounds = Bounds {
        timeout: TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: 0,
    };
    ask::get(&ask::url(config, "/health")?, bounds).map(|_| ())
}
