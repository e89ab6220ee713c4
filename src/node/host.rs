//! The host of an address: an IP address, or a name that no resolver reads as an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::DnsName;

use super::error::AddrError;

/// A host in the form in which it is compared, whichever way it was spelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(Box<str>),
}

impl Host {
    /// Parses an IPv4 address, an IPv6 address in brackets, or a name.
    pub(super) fn parse(host: &str) -> Result<Host, AddrError> {
        if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            if v6.contains('%') {
                return Err(AddrError::ZONE);
            }
            let ip: Ipv6Addr = v6.parse().map_err(|_| AddrError::IPV6)?;
            return Ok(Host::Ip(IpAddr::V6(ip).to_canonical()));
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Host::Ip(IpAddr::V4(ip)));
        }
        parse_name(host)
    }
}

/// Resolvers read `1.2.3`, `127.1` and `0x7f.1` as addresses, so these are not names. Underscores are legal, because
/// Docker's service names have them.
fn parse_name(host: &str) -> Result<Host, AddrError> {
    // A final dot keeps resolvers from trying search domains; it is not a label.
    let labels = host.strip_suffix('.').unwrap_or(host);
    let last = labels.rsplit('.').next().unwrap_or_default();
    match DnsName::try_from(labels) {
        _ if host.is_empty() => Err(AddrError::NO_HOST),
        Ok(_) if !last.is_empty() => Ok(Host::Name(host.to_ascii_lowercase().into())),
        Err(_) if DnsName::try_from(format!("{labels}.a")).is_ok() => Err(AddrError::IPV4),
        _ => Err(AddrError::HOST_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_at_most_63_and_253_bytes() {
        let label = "a".repeat(63);
        let long = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(long.len(), 253);
        for name in [&label, &long, &format!("{long}.")] {
            assert!(Host::parse(name).is_ok());
        }
        for name in [format!("{label}a"), format!("{long}a"), format!("a{long}.")] {
            assert_eq!(Host::parse(&name), Err(AddrError::HOST_NAME));
        }
    }

    #[test]
    fn numeric_address_forms_are_not_names() {
        for host in [
            "1",
            "127.1",
            "1.2.3.4.5",
            "017700000001",
            "0X7F.1",
            "0x",
            "a.0x0",
            "1.2.3.4.",
        ] {
            assert_eq!(Host::parse(host), Err(AddrError::IPV4), "{host}");
        }
        for host in ["1a-", "a..1", "1\u{e9}", ".5"] {
            assert_eq!(Host::parse(host), Err(AddrError::HOST_NAME), "{host}");
        }
        for host in ["a1", "1a", "0xg", "1.a", "1_0", "0x1.a"] {
            assert!(matches!(Host::parse(host), Ok(Host::Name(_))), "{host}");
        }
    }
}
