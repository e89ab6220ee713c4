//! `infernet-router health`: one request to `/health` of the router that serves with the same settings.

use std::time::Duration;

use serde_json::Value;

use super::request::{self, RequestError};
use crate::config::Config;

/// Docker gives a health check 30 s, and people wait less.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The response has some 20 bytes; another service may respond at length.
const MAX_BODY_BYTES: u64 = 1024;

/// Checks whether the router that `HOST` and `PORT` name is healthy.
///
/// # Errors
/// No response, a status other than 200, or the response of another service.
pub fn request(config: &Config) -> Result<(), RequestError> {
    let (url, body) = request::get(config, "/health", TIMEOUT, MAX_BODY_BYTES)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match body["status"] == "healthy" {
        true => Ok(()),
        false => Err(RequestError::NotARouter(
            url,
            "expected {\"status\":\"healthy\"}".to_owned(),
        )),
    }
}
