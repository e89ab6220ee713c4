//! One request to the router that serves with the same settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Config;
use crate::net::{Bounds, Fetcher};

/// Why the router has not answered as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// `PORT=0`: nobody but the log knows the port.
    UnknownPort,
    /// No answer from this address, and why.
    NoAnswer(String, String),
    /// Another answer than 200.
    Status(String, u16),
    /// An answer that no router gives.
    NotOurs(String, String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::UnknownPort => f.write_str("PORT=\"0\": expected the port that the router serves on"),
            AskError::NoAnswer(url, why) => write!(f, "{url}: {why}"),
            AskError::Status(url, 404) if url.contains("/status") => {
                write!(
                    f,
                    "{url}: answered 404, as to addresses that METRICS_FROM does not name"
                )
            }
            AskError::Status(url, status) => write!(f, "{url}: answered {status}"),
            AskError::NotOurs(url, why) => write!(f, "{url}: not the answer of a router: {why}"),
        }
    }
}

impl std::error::Error for AskError {}

/// The address of `target` at the router that `HOST` and `PORT` name.
///
/// # Errors
/// When the port is not known.
pub(super) fn url(config: &Config, target: &str) -> Result<String, AskError> {
    match config.port {
        0 => Err(AskError::UnknownPort),
        port => Ok(format!(
            "http://{}{target}",
            SocketAddr::new(reachable(config.host), port)
        )),
    }
}

/// The body of a 200.
///
/// # Errors
/// When there is none.
pub(super) fn get(url: &str, bounds: Bounds) -> Result<Vec<u8>, AskError> {
    match Fetcher::default().get(url, bounds) {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(AskError::Status(url.to_owned(), answer.status)),
        Err(error) => Err(AskError::NoAnswer(url.to_owned(), error.to_string())),
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
