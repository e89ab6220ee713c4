//! One request to the router that serves with the same settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::net::{Bounds, Fetcher};

/// Why the router has not responded as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// `PORT=0`: only the log names the port.
    UnknownPort,
    /// The URL, and why it returned no response.
    NoResponse(String, String),
    /// The URL, and its status other than 200.
    Status(String, u16),
    /// The URL, and why its response is not a router's.
    NotARouter(String, String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::UnknownPort => f.write_str("PORT=\"0\": expected the port that the router serves on"),
            RequestError::NoResponse(url, reason) => write!(f, "{url}: {reason}"),
            RequestError::Status(url, 404) if url.contains("/status") => {
                write!(f, "{url}: status 404, as for clients that METRICS_FROM does not name")
            }
            RequestError::Status(url, status) => write!(f, "{url}: status {status}"),
            RequestError::NotARouter(url, reason) => write!(f, "{url}: not the response of a router: {reason}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// Gets `target` from the router that `HOST` and `PORT` name. Returns the URL and the body of a 200.
pub(super) fn get(
    config: &Config,
    target: &str,
    timeout: Duration,
    max_body_bytes: u64,
) -> Result<(String, Vec<u8>), RequestError> {
    let bounds = Bounds {
        timeout,
        max_body_bytes,
        max_redirects: 0,
    };
    if config.port == 0 {
        return Err(RequestError::UnknownPort);
    }
    let mut outcome = Err(RequestError::UnknownPort);
    for address in addresses(config.host) {
        let url = format!("http://{}{target}", SocketAddr::new(address, config.port));
        outcome = match Fetcher::default().get(&url, bounds) {
            Ok(response) if response.status == 200 => return Ok((url, response.body)),
            Ok(response) => return Err(RequestError::Status(url, response.status)),
            Err(error) => Err(RequestError::NoResponse(url, error.to_string())),
        };
    }
    outcome
}

/// The addresses at which a router with this `HOST` can be reached. A machine may have no ::1.
fn addresses(host: IpAddr) -> Vec<IpAddr> {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        other => vec![other],
    }
}
