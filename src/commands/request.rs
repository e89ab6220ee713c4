//! One request to the router that serves with the same settings; `infernet-router health` is one to `/health`.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::config::Config;
use crate::net::{Bounds, Fetcher};

/// Docker gives a health check 30 s, and people wait less. The response has some 20 bytes; another service may respond
/// at length.
const HEALTH_BOUNDS: Bounds = Bounds {
    timeout: Duration::from_secs(3),
    max_body_bytes: 1024,
    max_redirects: 0,
};

/// Checks whether the router that `HOST` and `PORT` name is healthy.
///
/// # Errors
/// No response, a status other than 200, or the response of another service.
pub fn health(config: &Config) -> io::Result<()> {
    get(config, "/health", HEALTH_BOUNDS, |body| {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_healthy = body["status"] == "healthy";
        is_healthy.then_some(()).ok_or("expected {\"status\":\"healthy\"}")
    })
}

/// Gets `target` from the router that `HOST` and `PORT` name. Returns the parsed body of a 200.
pub(super) fn get<T, E: Display>(
    config: &Config,
    target: &str,
    bounds: Bounds,
    parse: impl Fn(&[u8]) -> Result<T, E>,
) -> io::Result<T> {
    let mut error = "PORT=\"0\": expected the port that the router serves on".to_owned();
    for address in addresses(config.host).iter().filter(|_| config.port != 0) {
        let url = format!("http://{}{target}", SocketAddr::new(*address, config.port));
        let response = Fetcher::new(config.refresh_interval).get(&url, bounds);
        let reason = match response.map(|response| (response.status, parse(&response.body))) {
            Ok((200, Ok(parsed))) => return Ok(parsed),
            Ok((200, Err(error))) => format!("not the response of a router: {error}"),
            Ok((404, _)) if target.starts_with("/status") => {
                "status 404: expected a router with the address of this client in METRICS_FROM".to_owned()
            }
            Ok((status, _)) => format!("status {status}"),
            Err(error) => error.to_string(),
        };
        error = format!("{url}: {reason}");
    }
    Err(io::Error::other(error))
}

/// The addresses at which a router with this `HOST` can be reached. A machine may have no ::1.
fn addresses(host: IpAddr) -> Vec<IpAddr> {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        other => vec![other],
    }
}
