//! Why a request failed: the cause, and a reason that an operator can act on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use super::MAX_HEADER_BYTES;
use crate::util::text;

/// Characters of untrusted text in a reason.
const MAX_UNTRUSTED_CHARS: usize = 200;

/// Where the cause of a failure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The peer, or the network on the way.
    Peer,
    /// This process or machine: descriptors, memory, ports. The state of the peer remains unknown.
    Local,
    /// The local network stack refuses to reach addresses of this family. Either the uplink is lost, or the family
    /// never was reachable from here.
    LocalNetwork(Family),
}

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl From<SocketAddr> for Family {
    fn from(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Why there is no response. Its `Display` is escaped for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchError {
    reason: String,
    cause: Cause,
}

impl FetchError {
    fn new(cause: Cause, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { reason, cause }
    }

    pub(super) fn of_peer(reason: impl Into<String>) -> Self {
        Self::new(Cause::Peer, reason)
    }

    pub(super) fn timeout() -> Self {
        Self::of_peer("timeout: no complete response")
    }

    /// Judges a failed connect.
    pub(super) fn of_connect(error: io::Error, addr: SocketAddr) -> Self {
        let family = Family::from(addr);
        let name = format!("{family:?}").replace('V', "IPv");
        match Errno::from_io_error(&error) {
            // Two causes have these errors in common. They differ in whether a datagram socket could be connected.
            Some(Errno::ADDRNOTAVAIL) if has_route(addr) => Self::new(Cause::Local, "no free local port"),
            Some(Errno::NETUNREACH | Errno::HOSTUNREACH) if has_route(addr) => Self::of_peer("no route to host"),
            Some(Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN) => {
                let reason = format!("this machine has no {name} route to it");
                Self::new(Cause::LocalNetwork(family), reason)
            }
            Some(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::AGAIN) => {
                let reason = format!("a route or firewall of this machine refuses to connect over {name} ({error})");
                Self::new(Cause::LocalNetwork(family), reason)
            }
            _ => error.into(),
        }
    }

    /// Returns the family that the local network stack refuses, if that is the cause.
    pub(crate) fn network(&self) -> Option<Family> {
        match self.cause {
            Cause::LocalNetwork(family) => Some(family),
            _ => None,
        }
    }

    /// Returns true if the cause is not the peer or the network on the way.
    pub(crate) fn is_local(&self) -> bool {
        self.cause != Cause::Peer
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        const EXHAUSTED: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
        if Errno::from_io_error(&error).is_some_and(|errno| EXHAUSTED.contains(&errno)) {
            return Self::new(Cause::Local, error.to_string());
        }
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::of_peer(tls_reason(error));
        }
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::timeout(),
            io::ErrorKind::ConnectionRefused => Self::of_peer("connection refused"),
            io::ErrorKind::ConnectionReset => Self::of_peer("connection reset"),
            io::ErrorKind::UnexpectedEof => Self::of_peer("connection closed before the response was complete"),
            _ => Self::of_peer(escaped(&error.to_string())),
        }
    }
}

impl From<FetchError> for ureq::Error {
    fn from(error: FetchError) -> Self {
        ureq::Error::Other(Box::new(error))
    }
}

impl From<ureq::Error> for FetchError {
    fn from(error: ureq::Error) -> Self {
        let reason = match error {
            ureq::Error::Io(error) => return Self::from(error),
            ureq::Error::Other(error) => match error.downcast() {
                Ok(error) => return *error,
                Err(error) => error.to_string(),
            },
            ureq::Error::BodyExceedsLimit(limit) => format!("response body above {limit} bytes"),
            ureq::Error::LargeResponseHeader(..) => format!("header section above {MAX_HEADER_BYTES} bytes"),
            ureq::Error::Protocol(error) => protocol_reason(&error.to_string()),
            other => other.to_string(),
        };
        Self::of_peer(escaped(&reason))
    }
}

/// Returns whether the system has a route and a source address for `addr`. Connecting a datagram socket sends nothing.
fn has_route(addr: SocketAddr) -> bool {
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any).and_then(|socket| socket.connect(addr)).is_ok()
}

/// Escapes text that a peer may have chosen, and truncates it.
pub(super) fn escaped(text: &str) -> String {
    text::shorten(text, MAX_UNTRUSTED_CHARS)
}

/// Quotes such text.
pub(super) fn quoted(text: &str) -> String {
    text::quote(text, MAX_UNTRUSTED_CHARS)
}

/// ureq has only the text of httparse's errors.
fn protocol_reason(error: &str) -> String {
    use httparse::Error::{HeaderName, HeaderValue, NewLine};
    let is = |malformed: httparse::Error| error.ends_with(&malformed.to_string());
    let reason = match error {
        "http parse resulted in too many headers" => "header section of too many lines",
        _ if is(HeaderName) => "malformed header line: folded, or without a colon after the name",
        _ if is(HeaderValue) || is(NewLine) => "malformed header line: control characters in it",
        _ if error.starts_with("http parse fail") => {
            "not an HTTP response: wrong service, or a TLS port (if so, list the node with https://)"
        }
        _ => error,
    };
    reason.to_owned()
}

fn tls_reason(error: &rustls::Error) -> String {
    let reason = match error {
        rustls::Error::InvalidCertificate(error) => {
            return format!("certificate rejected: {}", certificate_reason(error));
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "not a TLS response: wrong service, or a plain HTTP port (if so, list the node with http://)"
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) | rustls::Error::PeerIncompatible(_) => {
            "no TLS version or cipher in common: the router supports TLS 1.2 and 1.3"
        }
        // RFC 8446, section 6.2, has these names.
        rustls::Error::AlertReceived(alert) => return format!("TLS refused by the server: alert {alert:?}"),
        _ => "TLS handshake failed: protocol violated by the server",
    };
    reason.to_owned()
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (or the clock of this machine is wrong)"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (or the clock of this machine is wrong)"
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it names no host: add a subjectAltName (a common name is not enough)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than the listed one"
        }
        CertificateError::UnknownIssuer => "its issuer is not trusted; name the issuer's certificate in SSL_CERT_FILE",
        CertificateError::BadSignature => "its signature is not that of the trusted issuer with this name",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers: issue one with extendedKeyUsage=serverAuth"
        }
        CertificateError::Other(other) if is_authority(other) => {
            "it is self-signed with CA:TRUE, which may sign but not serve; make one with CA:FALSE (openssl req -x509 \
             -addext basicConstraints=critical,CA:FALSE) and name it in SSL_CERT_FILE"
        }
        _ => "it is malformed, or of an unsupported kind, such as X.509 version 1; issue one of version 3",
    }
}

fn is_authority(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn certificate_reasons_contain_no_type_names() {
        let reasons = [
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::NotValidForName,
            CertificateError::UnknownIssuer,
            CertificateError::BadEncoding,
            CertificateError::InvalidPurpose,
            CertificateError::Other(OtherError(Arc::new(webpki::Error::UnsupportedCertVersion))),
            CertificateError::Other(OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity))),
        ]
        .map(|error| tls_reason(&rustls::Error::InvalidCertificate(error)));
        for reason in reasons {
            assert!(reason.starts_with("certificate rejected: it"), "{reason}");
            assert!(!reason.contains("::") && !reason.contains('{'), "{reason}");
        }
    }

    #[test]
    fn alert_of_an_old_server_names_versions() {
        let reason = tls_reason(&rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));
        assert!(reason.ends_with("the router supports TLS 1.2 and 1.3"), "{reason}");
    }

    fn cause(errno: Errno, addr: SocketAddr) -> Cause {
        FetchError::of_connect(errno.into(), addr).cause
    }

    #[test]
    fn errors_of_the_local_stack_have_an_address() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        for errno in [Errno::ACCESS, Errno::PERM, Errno::INVAL, Errno::AGAIN, Errno::NETDOWN] {
            assert_eq!(cause(errno, here), Cause::LocalNetwork(Family::V4), "{errno:?}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
            assert_eq!(cause(errno, here), Cause::Local, "{errno:?}");
        }
        assert_eq!(cause(Errno::CONNREFUSED, here), Cause::Peer);
    }

    #[test]
    fn with_route_only_missing_address_is_local() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(cause(Errno::HOSTUNREACH, here), Cause::Peer);
        assert_eq!(cause(Errno::NETUNREACH, here), Cause::Peer);
        assert_eq!(cause(Errno::ADDRNOTAVAIL, here), Cause::Local);
    }

    #[test]
    fn malformed_header_lines_are_distinguished_from_other_protocols() {
        for (response, expected) in [
            (
                &b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n"[..],
                "malformed header line: folded",
            ),
            (
                b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
                "malformed header line: folded, or without a colon",
            ),
            (
                b"HTTP/1.1 200 OK\r\na: \x01\r\n\r\n",
                "malformed header line: control characters",
            ),
            (b"SSH-2.0-OpenSSH\r\n", "not an HTTP response"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "not an HTTP response"),
        ] {
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let error = httparse::Response::new(&mut headers)
                .parse(response)
                .expect_err("malformed");
            let reason = protocol_reason(&format!("http parse fail: {error}"));
            assert!(reason.starts_with(expected), "{response:?}: {reason}");
        }
    }
}
