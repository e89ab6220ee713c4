//! The address of a node: parsed once, compared by what it names, shown as it was listed.

use super::addr_error::AddrError;
use super::host::Host;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// All but what RFC 3986, section 2.3, calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Most digits of a port. 65535 has five.
const MAX_PORT_DIGITS: usize = 5;

/// Where a node is: scheme, host and port. Cheap to clone.
///
/// Two addresses are equal when they name the same node: the same scheme, the same host (names in
/// any case, IP addresses in any spelling, an IPv4-mapped one being IPv4) and the same port. What
/// is shown is the text that was listed, whichever spelling that is.
#[derive(Clone)]
pub struct NodeAddr(Arc<Inner>);

struct Inner {
    listed: Box<str>,
    origin: Origin,
}

/// What makes a node that node. The order is: http before https, IP addresses before names.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scheme {
    Http,
    Https,
}

impl NodeAddr {
    /// Parses one address, without spaces or a comment around it: `ip:port`, `[v6]:port`, `host`,
    /// `host:port`, or one of them behind `http://` or `https://`. Without a port it is 80, or 443
    /// for https. A slash at the end is dropped.
    ///
    /// # Errors
    ///
    /// Anything else: a path, a query, a user name, a bad port, a bare IPv6 address or one with a zone, something that looks
    /// like an IPv4 address and is none, a host name beyond letters, digits, `-` and `_`.
    pub fn parse(text: &str) -> Result<NodeAddr, AddrError> {
        let (scheme, authority) = split_scheme(text)?;
        // Clients append a path to what they are given, so the slash is not part of it.
        let (text, authority) = match (text.strip_suffix('/'), authority.strip_suffix('/')) {
            (Some(text), Some(authority)) => (text, authority),
            _ => (text, authority),
        };
        if authority.contains(['/', '\\']) {
            return Err(AddrError::Path);
        }
        if authority.contains('?') {
            return Err(AddrError::Query);
        }
        if authority.contains('@') {
            return Err(AddrError::User);
        }
        let (host, port) = split_port(authority)?;
        let origin = Origin {
            scheme,
            host: Host::parse(host)?,
            port: match port {
                Some(digits) => parse_port(digits).ok_or(AddrError::Port)?,
                None => scheme.default_port(),
            },
        };
        Ok(NodeAddr::new(text.into(), origin))
    }

    /// The node at `addr`, over plain http. It is listed as `ip:port` or `[v6]:port`, an
    /// IPv4-mapped address as IPv4; zone and flow are dropped. Port 0 names no node: callers
    /// leave it out.
    pub fn from_socket(addr: SocketAddr) -> NodeAddr {
        let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let origin = Origin {
            scheme: Scheme::Http,
            host: Host::Ip(plain.ip()),
            port: plain.port(),
        };
        NodeAddr::new(plain.to_string().into(), origin)
    }

    fn new(listed: Box<str>, origin: Origin) -> NodeAddr {
        NodeAddr(Arc::new(Inner { listed, origin }))
    }

    /// The address as it was listed: what `/ips` returns. Printable ASCII without spaces.
    pub fn as_listed(&self) -> &str {
        &self.0.listed
    }

    /// Where the node tells about itself, with the port always written out.
    pub fn info_url(&self) -> String {
        self.url() + "/info"
    }

    /// Where the node tells what its containers can run.
    pub fn resources_url(&self) -> String {
        self.url() + "/resources"
    }

    /// Where the node tells which of its containers support a model. The id is percent-encoded.
    pub fn support_url(&self, model_id: &str) -> String {
        let id = percent_encode(model_id.as_bytes(), RESERVED);
        format!("{}/resources?model_id={id}", self.url())
    }

    /// Scheme, host and port, the port always written out, without a slash at the end.
    pub fn url(&self) -> String {
        let Origin { scheme, host, port } = &self.0.origin;
        let scheme = scheme.name();
        match host {
            Host::Ip(ip) => format!("{scheme}://{}", SocketAddr::new(*ip, *port)),
            Host::Name(name) => format!("{scheme}://{name}:{port}"),
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.0.origin.scheme.name()
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.0.origin.scheme == Scheme::Https
    }

    /// The host name in lower case, or the IP address without brackets.
    pub fn host(&self) -> String {
        match &self.0.origin.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.to_string(),
        }
    }

    /// Where to connect, if that is known without looking up a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.0.origin.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.0.origin.port)),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_listed())
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeAddr").field(&self.as_listed()).finish()
    }
}

impl PartialEq for NodeAddr {
    fn eq(&self, other: &NodeAddr) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.origin == other.0.origin
    }
}

impl Eq for NodeAddr {}

impl Hash for NodeAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.origin.hash(state);
    }
}

impl PartialOrd for NodeAddr {
    fn partial_cmp(&self, other: &NodeAddr) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeAddr {
    fn cmp(&self, other: &NodeAddr) -> Ordering {
        self.0.origin.cmp(&other.0.origin)
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), AddrError> {
    match text.split_once("://") {
        None => Ok((Scheme::Http, text)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Scheme::Http, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Scheme::Https, rest)),
        Some(_) => Err(AddrError::Scheme),
    }
}

/// Splits into the host, with its brackets, and what stands behind the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddrError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(AddrError::Ipv6)? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(AddrError::Ipv6),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => Err(AddrError::BareIpv6),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// A port from 1 to 65535 in one to five digits, without a sign.
pub(super) fn parse_port(digits: &str) -> Option<u16> {
    if digits.len() > MAX_PORT_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests;
