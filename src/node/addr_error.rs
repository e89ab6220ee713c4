//! Why a text is no address of a node.

use std::error::Error;
use std::fmt;

/// Why a text is no [`NodeAddr`](super::NodeAddr). Its `Display` says what was expected instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrError {
    /// Nothing where the host should be.
    NoHost,
    /// A scheme other than http and https.
    Scheme,
    /// A path other than a slash.
    Path,
    /// A query.
    Query,
    /// A user name.
    User,
    /// No port behind the colon, or none from 1 to 65535.
    Port,
    /// More than one colon outside brackets.
    BareIpv6,
    /// No IPv6 address between the brackets, or something else behind them.
    Ipv6,
    /// An IPv6 address with a zone.
    Zone,
    /// A number, or several with dots between, that are no IPv4 address.
    Ipv4,
    /// Not a host name.
    HostName,
    /// Bytes that are not UTF-8.
    NotUtf8,
}

impl AddrError {
    /// What was expected instead.
    pub fn wanted(&self) -> &'static str {
        match self {
            AddrError::NoHost => "a host",
            AddrError::Scheme => "http:// or https:// or no scheme",
            AddrError::Path => "an address without a path",
            AddrError::Query => "an address without a query",
            AddrError::User => "an address without a user name",
            AddrError::Port => "a port, 1 to 65535, behind the colon",
            AddrError::BareIpv6 => "one colon, or an IPv6 address in brackets",
            AddrError::Ipv6 => "[IPv6 address] or [IPv6 address]:port",
            AddrError::NotUtf8 => "UTF-8",
            AddrError::Zone => "an IPv6 address without a zone",
            AddrError::Ipv4 => "an IPv4 address, four numbers from 0 to 255",
            AddrError::HostName => {
                "a host name: letters, digits, \"-\", \"_\", at most 63 bytes between two \
                 dots and 253 in all"
            }
        }
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.wanted())
    }
}

impl Error for AddrError {}
