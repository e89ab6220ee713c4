//! The address of a node: parsed once, compared by the server that it names, shown as it was listed.

use super::error::AddrError;
use super::origin::{Origin, Url};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All bytes that RFC 3986, section 2.3, does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Scheme, host, port and path prefix of a node. Cheap to clone.
///
/// Two addresses are equal if they name the same node: the same [`Origin`] and the same path, compared byte by byte.
/// `Display` shows the text that was listed, whichever spelling that is.
#[derive(Clone, Debug)]
pub struct NodeAddr(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Origin,
    has_port: bool,
    listed: Box<str>,
    /// Where the path begins in `listed`: it is empty, or has a slash at the start and none at the end.
    path_at: usize,
}

impl NodeAddr {
    /// Parses one address, without spaces or a comment around it: `ip:port`, `[v6]:port`, `host` or `host:port`, each
    /// with or without `http://` or `https://` before it and a path after it. The default port is 80, or 443 for https.
    /// A slash at the end is dropped.
    ///
    /// # Errors
    /// Any other text: a query, a user name, an invalid port, a bare IPv6 address or one with a zone, text that looks
    /// like an IPv4 address and is not one, a path that a client or a proxy could read as another one.
    pub fn parse(text: &str) -> Result<NodeAddr, AddrError> {
        let url = Url::parse(text)?;
        if url.user.is_some() {
            return Err(AddrError::USER);
        }
        if url.rest.contains('?') {
            return Err(AddrError::QUERY);
        }
        // Clients append a path to the address, so the slash is not part of it.
        let path = url.rest.strip_suffix('/').unwrap_or(url.rest);
        check_path(path)?;
        let listed = text.strip_suffix('/').unwrap_or(text);
        Ok(NodeAddr(Arc::new(Inner {
            origin: url.origin,
            has_port: url.has_port,
            listed: listed.into(),
            path_at: listed.len() - path.len(),
        })))
    }

    /// The address as it was listed: what `/ips` returns. Printable ASCII without spaces.
    pub fn as_listed(&self) -> &str {
        &self.0.listed
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// The port, if the listed text has none. An operator may not expect 80 or 443.
    pub fn implied_port(&self) -> Option<u16> {
        (!self.0.has_port).then(|| self.0.origin.port)
    }

    /// The URL of `/resources?model_id=`: which containers support a model. The id is percent-encoded.
    pub fn support_url(&self, model_id: &str) -> String {
        let id = percent_encode(model_id.as_bytes(), RESERVED);
        format!("{}/resources?model_id={id}", self.url())
    }

    /// Scheme, host, port and path, the port always written out, without a slash at the end.
    pub fn url(&self) -> String {
        let (origin, path) = self.target();
        format!("{origin}{path}")
    }

    /// Whether there is a path between the port and `/info`.
    pub fn has_path(&self) -> bool {
        !self.target().1.is_empty()
    }

    /// What identifies the node.
    fn target(&self) -> (&Origin, &str) {
        (&self.0.origin, &self.0.listed[self.0.path_at..])
    }

    /// Where to connect, if no name needs to be resolved.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.origin().socket_addr()
    }
}

/// Checks a path prefix, without its slash at the end.
///
/// # Errors
/// The path has empty segments, dot segments, escaped slashes or special characters, or ends in `/info`.
fn check_path(path: &str) -> Result<(), AddrError> {
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !path.bytes().all(is_path_byte) || !path.split('%').skip(1).all(is_escape) {
        return Err(AddrError::PATH);
    }
    // The part before the first slash is empty.
    for segment in path.split('/').skip(1) {
        let plain: Vec<u8> = percent_decode_str(segment).collect();
        if matches!(&plain[..], b"" | b"." | b"..") || plain.contains(&b'/') {
            return Err(AddrError::PATH);
        }
    }
    match path.ends_with("/info") {
        true => Err(AddrError::INFO_PATH),
        false => Ok(()),
    }
}

/// Whether the text after a `%` begins with two hexadecimal digits.
fn is_escape(after: &str) -> bool {
    matches!(after.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_listed())
    }
}

impl PartialEq for NodeAddr {
    fn eq(&self, other: &NodeAddr) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.target() == other.target()
    }
}

impl Eq for NodeAddr {}

impl Hash for NodeAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target().hash(state);
    }
}

#[cfg(test)]
mod tests;
