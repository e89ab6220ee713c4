//! The one parser of scheme, host and port. Paths, queries and user names are left to the callers.

use std::fmt;
use std::net::SocketAddr;

use super::error::AddrError;
use super::host::Host;

/// The most digits of a port. 65535 has five.
const MAX_PORT_DIGITS: usize = 5;

/// Scheme, host and port: what a connection needs.
///
/// Two origins are equal if they name the same server: host names are compared in lower case, IP addresses by value,
/// and an IPv4-mapped address is IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    host: Host,
    /// The port, 80 or 443 if the text has none.
    pub port: u16,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP, port 80.
    Http,
    /// HTTP over TLS, port 443.
    Https,
}

impl Scheme {
    /// The scheme in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port of a URL without one.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A URL or an address, split at its delimiters. Only the origin is validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    /// Scheme, host and port, with defaults for a missing scheme or port.
    pub origin: Origin,
    /// Whether the text has a scheme. `host:port` has none.
    pub has_scheme: bool,
    /// Whether the text has a port.
    pub has_port: bool,
    /// The text before the last `@` of the authority, such as `user:password`.
    pub user: Option<&'a str>,
    /// Path, query and fragment: empty, or from the first `/`, `\`, `?` or `#` on.
    pub rest: &'a str,
}

impl<'a> Url<'a> {
    /// Parses `[http[s]://][user@]host[:port][rest]`.
    ///
    /// # Errors
    /// The scheme, the host or the port is invalid.
    pub fn parse(text: &'a str) -> Result<Url<'a>, AddrError> {
        let (scheme, after) = split_scheme(text)?;
        let end = after.find(['/', '\\', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let (host, port) = split_port(authority)?;
        let (has_scheme, scheme) = (scheme.is_some(), scheme.unwrap_or(Scheme::Http));
        let origin = Origin {
            scheme,
            host: Host::parse(host)?,
            port: match port {
                Some(digits) => parse_port(digits).ok_or(AddrError::PORT)?,
                None => scheme.default_port(),
            },
        };
        let has_port = port.is_some();
        Ok(Url {
            origin,
            has_scheme,
            has_port,
            user,
            rest,
        })
    }
}

impl Origin {
    /// The host name in lower case, or the IP address without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.to_string(),
        }
    }

    /// Where to connect, if the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

/// `scheme://host:port`, with the port always written out.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { scheme, host, port } = self;
        write!(f, "{}://", scheme.name())?;
        match host {
            Host::Ip(ip) => SocketAddr::new(*ip, *port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{port}"),
        }
    }
}

/// Splits off a scheme. A text like `host:80/path?to=a://b` has none: a scheme consists of letters, digits, `+`, `-`,
/// `.`.
fn split_scheme(text: &str) -> Result<(Option<Scheme>, &str), AddrError> {
    let is_scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    match text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        None => Ok((None, text)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Some(Scheme::Http), rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Some(Scheme::Https), rest)),
        Some(_) => Err(AddrError::SCHEME),
    }
}

/// Splits `host[:port]` into the host, with its brackets, and the text after the colon.
///
/// # Errors
/// The brackets or the colons are not those of `host:port` or `[v6]:port`.
pub fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddrError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(AddrError::IPV6)? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(AddrError::IPV6),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => Err(AddrError::BARE_IPV6),
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
mod tests {
    use super::*;

    fn url(text: &str) -> Url<'_> {
        Url::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn url_is_split_at_its_delimiters() {
        for (text, origin, has_scheme, user, rest) in [
            ("a", "http://a:80", false, None, ""),
            ("HTTPS://A/b?c#d", "https://a:443", true, None, "/b?c#d"),
            ("http://me:p@w@a:1?b", "http://a:1", true, Some("me:p@w"), "?b"),
            ("a:1/b@c", "http://a:1", false, None, "/b@c"),
            ("a:1?to=http://b", "http://a:1", false, None, "?to=http://b"),
            ("[::1]\\b", "http://[::1]:80", false, None, "\\b"),
        ] {
            let Url { origin: found, .. } = url(text);
            assert_eq!(found.to_string(), origin, "{text}");
            let Url {
                has_scheme: scheme,
                user: found,
                rest: end,
                ..
            } = url(text);
            assert_eq!((scheme, found, end), (has_scheme, user, rest), "{text}");
        }
    }

    #[test]
    fn url_without_valid_origin_is_rejected() {
        for (text, error) in [
            ("ftp://a", AddrError::SCHEME),
            ("://a", AddrError::SCHEME),
            ("/a", AddrError::NO_HOST),
            ("http://", AddrError::NO_HOST),
            ("http:/a", AddrError::PORT),
            ("a:0/b", AddrError::PORT),
            ("[::1]b", AddrError::IPV6),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }
}
