//! `infernet-router health`: one request to `/health` of the router that serves with the same settings.

use std::time::Duration;

use serde_json::Value;

use super::request::{self, RequestError};
use crate::config::Config;
use crate::net::Bounds;

/// Docker gives a health check 30 s, and people wait less. The response has some 20 bytes; another service may respond
/// at length.
const BOUNDS: Bounds = Bounds {
    timeout: Duration::from_secs(3),
    max_body_bytes: 1024,
    max_redirects: 0,
};

/// Checks whether the router that `HOST` and `PORT` name is healthy.
///
/// # Errors
/// No response, a status other than 200, or the response of another service.
pub fn request(config: &Config) -> Result<(), RequestError> {
    request::get(config, "/health", BOUNDS, |body| {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_healthy = body["status"] == "healthy";
        is_healthy.then_some(()).ok_or("expected {\"status\":\"healthy\"}")
    })
}
