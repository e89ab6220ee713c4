//! The host of an address: an IP address, or a name that no resolver reads as an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::AddrError;

/// The longest host name, without a final dot (RFC 1035: 255 bytes on the wire).
const MAX_HOST_BYTES: usize = 253;
/// The longest part of a host name between two dots (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;

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

fn parse_name(host: &str) -> Result<Host, AddrError> {
    // A final dot keeps resolvers from trying search domains; it is not a label.
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(AddrError::NO_HOST);
    }
    if labels.len() > MAX_HOST_BYTES || !labels.split('.').all(is_label) {
        return Err(AddrError::HOST_NAME);
    }
    // Resolvers read `1.2.3`, `127.1` and `0x7f.1` as addresses, so these are not names.
    if labels.rsplit('.').next().is_some_and(is_number) {
        return Err(AddrError::IPV4);
    }
    Ok(Host::Name(host.to_ascii_lowercase().into()))
}

/// Letters, digits and inner hyphens, and underscores, which Docker's service names have.
fn is_label(label: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(legal)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())) || label.bytes().all(|b| b.is_ascii_digit())
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
        for host in ["a1", "1a", "0xg", "1.a", "1_0", "0x1.a"] {
            assert!(matches!(Host::parse(host), Ok(Host::Name(_))), "{host}");
        }
    }
}
