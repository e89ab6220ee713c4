//! `API_URL`: where the Node Explorer is.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Wanted, whole};

/// The Node Explorer: where its list of nodes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    /// Empty, or with a leading slash and without a trailing one.
    path: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Http,
    Https,
}

impl ApiUrl {
    /// The address that lists the nodes seen within the last hour.
    pub fn nodes_url(&self) -> String {
        format!("{self}/api/nodes?minutes_past=60")
    }

    /// The host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, by the scheme where none is given.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
        })?;
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

pub(super) fn parse_api_url(text: &str) -> Result<ApiUrl, Wanted> {
    const WANTED: Wanted = Cow::Borrowed("an address like https://explorer.example");
    // Everything but these would reach the request line of ureq, or be refused there too late.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an address in ASCII, without spaces".into());
    }
    if text.contains(['?', '#']) {
        return Err("an address without a query and a fragment".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or(WANTED)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err("an address with http:// or https:// in front".into()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("an address without a user name and a password".into());
    }
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !path.bytes().all(is_path_byte) {
        return Err("an address whose path is percent-encoded".into());
    }
    let (host, port) = split_authority(authority).ok_or(WANTED)?;
    let port = match port {
        Some(port) => Some(whole(port, 1..=65535).ok_or("an address whose port is 1 to 65535")?),
        None => None,
    };
    let path = path.trim_end_matches('/').to_owned();
    Ok(ApiUrl {
        scheme,
        host,
        port,
        path,
    })
}

/// The host, without brackets and in lower case, and the port as written.
fn split_authority(authority: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let host: Ipv6Addr = host.parse().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        return Some((host.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    is_host(host).then(|| (host.to_ascii_lowercase(), port))
}

/// A DNS name (RFC 1123, underscores too, as container names have them) or an IPv4 address.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(is_label_byte)
    };
    // A name whose last label is a number would be read as an address, in ways that differ.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}
