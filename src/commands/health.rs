//! `infernet-router health`: one request to the `/health` of the router that serves with the same settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::fetch::{Bounds, Fetcher};

/// Docker gives a health check 30 s, and people who type it less.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The answer has some 20 bytes; something else may serve there.
const MAX_BODY_BYTES: u64 = 1024;

/// Why the router is not known to be healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthError {
    /// `PORT=0`: nobody but the log knows the port.
    UnknownPort,
    /// No answer, and why.
    NoAnswer(SocketAddr, String),
    /// Another answer than 200.
    Status(SocketAddr, u16),
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthError::UnknownPort => f.write_str("PORT=\"0\": expected the port that the router serves on"),
            HealthError::NoAnswer(addr, why) => write!(f, "http://{addr}/health: {why}"),
            HealthError::Status(addr, status) => write!(f, "http://{addr}/health: answered {status}"),
        }
    }
}

impl std::error::Error for HealthError {}

/// Asks whether the router that `HOST` and `PORT` name serves.
///
/// # Errors
/// When it doesn't.
pub fn ask(config: &Config) -> Result<(), HealthError> {
    let addr = SocketAddr::new(reachable(config.host), config.port);
    if addr.port() == 0 {
        return Err(HealthError::UnknownPort);
    }
    let url = format!("http://{addr}/health");
    let bounds = Bounds {
        timeout: TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: 0,
    };
    match Fetcher::default().get(&url, bounds) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(HealthError::Status(addr, answer.status)),
        Err(error) => Err(HealthError::NoAnswer(addr, error.to_string())),
    }
}

/// What serves on all addresses serves on loopback.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}
