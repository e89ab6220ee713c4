//! Resolves one host name by the system's resolver.

use std::fmt;
use std::net::IpAddr;

use dns_lookup::{AddrFamily, AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};

/// The system's search domains: resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why a host name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupError {
    /// Definite: NXDOMAIN for every search candidate, or no address at all.
    NotFound,
    /// Temporary: the name servers refuse, fail or do not respond.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NotFound => f.write_str("host name not found"),
            LookupError::Failed(reason) => write!(f, "name server failed: {reason}"),
        }
    }
}

/// Returns the addresses of a host name. The lookup cannot be interrupted and may take half a minute.
///
/// # Errors
/// There is no address.
pub(super) fn look_up(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let result = query(host, None);
    if result != Err(LookupError::NotFound) {
        return result;
    }
    // glibc reports one result for all search candidates and both families, and prefers a definite one. So a server
    // that fails for the candidate that has the address would pass for NXDOMAIN. Each of them is therefore queried
    // alone.
    for candidate in candidates(host, &std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()) {
        for family in [AddrFamily::Inet, AddrFamily::Inet6] {
            let result = query(&candidate, Some(family));
            if result != Err(LookupError::NotFound) {
                return result;
            }
        }
    }
    Err(LookupError::NotFound)
}

fn query(host: &str, family: Option<AddrFamily>) -> Result<Vec<IpAddr>, LookupError> {
    let hints = AddrInfoHints {
        socktype: SockType::Stream.into(),
        address: family.map_or(0, i32::from),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|error| match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => LookupError::NotFound,
        LookupErrorKind::Again => {
            LookupError::Failed("temporary failure, such as SERVFAIL, REFUSED or a timeout".to_owned())
        }
        _ => LookupError::Failed(std::io::Error::from(error).to_string()),
    })?;
    let addrs: Vec<IpAddr> = found.filter_map(Result::ok).map(|info| info.sockaddr.ip()).collect();
    (!addrs.is_empty()).then_some(addrs).ok_or(LookupError::NotFound)
}

/// The names that the resolver tries for `host`, each with the final dot that prevents a further search.
fn candidates(host: &str, resolv_conf: &str) -> Vec<String> {
    if host.ends_with('.') {
        return vec![host.to_owned()];
    }
    let is_search = |line: &&str| line.starts_with("search") || line.starts_with("domain");
    // The last line applies.
    let search = resolv_conf.lines().rfind(is_search).unwrap_or_default();
    let domains = search.split_whitespace().skip(1).map(|domain| domain.trim_matches('.'));
    let domains = domains.filter(|domain| !domain.is_empty());
    let mut candidates = vec![format!("{host}.")];
    candidates.extend(domains.map(|domain| format!("{host}.{domain}.")));
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_follow_the_last_search_line() {
        let conf = "domain old.example\nnameserver 192.0.2.1\nsearch a.example b.example. .\noptions ndots:2\n";
        assert_eq!(candidates("n", conf), ["n.", "n.a.example.", "n.b.example."]);
        assert_eq!(candidates("n.", conf), ["n."]);
        assert_eq!(candidates("n", ""), ["n."]);
    }

    #[test]
    fn localhost_is_found() {
        assert!(look_up("localhost").is_ok_and(|addrs| addrs.iter().all(IpAddr::is_loopback)));
    }
}
