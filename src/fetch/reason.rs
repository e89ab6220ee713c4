//! Failed requests in words that an operator can act on.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use rustix::io::Errno;
use rustls::{CertificateError, InvalidMessage};

use super::{MAX_HEAD_BYTES, MAX_REDIRECTS};

/// Characters of a foreign text in a reason.
const MAX_FOREIGN_CHARS: usize = 200;
/// An address that no network has (RFC 5737), so that only a default route leads to it.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Why there is no answer. Its `Display` is fit for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchError {
    reason: String,
    is_local: bool,
}

impl FetchError {
    pub(super) fn of_peer(reason: String) -> Self {
        Self {
            reason,
            is_local: false,
        }
    }

    /// Whether it went wrong on this machine (descriptors, memory, ports, no way out), which says nothing of the peer.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FetchError {}

impl From<ureq::Error> for FetchError {
    fn from(error: ureq::Error) -> Self {
        match &error {
            ureq::Error::Io(io) if is_local(io) => Self {
                reason: io.to_string(),
                is_local: true,
            },
            ureq::Error::Io(io) if is_without_route(io) => Self {
                reason: "this machine has no route to any IPv4 address".to_owned(),
                is_local: true,
            },
            error => Self::of_peer(reason(error)),
        }
    }
}

/// Whether an error is a lack on this machine. No address available: the ports are used up, since IPv6 addresses that
/// can't be reached from here are left out before a connect (`resolver`).
fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 6] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::NETDOWN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// Whether this machine knows no way out of its own networks over IPv4, and an error is what comes of that: its uplink is
/// gone, which says nothing of who is there. A silent neighbour in a network without a way out is another error. Connecting
/// a datagram socket sends nothing.
fn is_without_route(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    if ![Some(Errno::NETUNREACH), Some(Errno::HOSTUNREACH)].contains(&errno) {
        return false;
    }
    let connected = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(ELSEWHERE));
    connected.is_err_and(|elsewhere| Errno::from_io_error(&elsewhere) == errno)
}

/// A text that a peer may have had a hand in: escaped, and no longer than a log line should be.
pub(super) fn short(text: &str) -> String {
    text.chars()
        .take(MAX_FOREIGN_CHARS)
        .flat_map(char::escape_debug)
        .collect()
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => "host name not looked up in time".to_owned(),
        ureq::Error::Timeout(_) => "no complete answer in time".to_owned(),
        ureq::Error::HostNotFound => "host name not found".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("answer of more than {limit} bytes"),
        ureq::Error::LargeResponseHeader(..) => format!("head of more than {MAX_HEAD_BYTES} bytes"),
        ureq::Error::TooManyRedirects => format!("more than {MAX_REDIRECTS} redirects"),
        ureq::Error::Io(error) => io_reason(error),
        ureq::Error::Rustls(error) => tls_reason(error),
        ureq::Error::Protocol(error) => protocol_reason(&error.to_string()),
        other => short(&format!("{other}")),
    }
}

/// A status line that is none comes from another service, or is the alert by which a TLS port answers plain HTTP.
fn protocol_reason(error: &str) -> String {
    match error {
        "http parse resulted in too many headers" => "head of too many lines".to_owned(),
        _ if error.starts_with("http parse fail") => {
            "the answer is no HTTP: another service, or a port that speaks https (then list it with https://)"
                .to_owned()
        }
        _ => short(error),
    }
}

fn io_reason(error: &io::Error) -> String {
    if let Some(error) = tls_error(error) {
        return tls_reason(error);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "answer ended too early".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "no route to it".to_owned(),
        _ => short(&error.to_string()),
    }
}

/// A handshake fails as an error of I/O with the real one inside.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => format!("certificate not accepted: {}", certificate_reason(error)),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the answer is no TLS: a port that speaks plain http (then list it with http://), or another service"
                .to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("TLS refused by the other side (alert {})", u8::from(*alert)),
        rustls::Error::PeerIncompatible(_) => {
            "no version or cipher of TLS in common; 1.2 and 1.3 are known here".to_owned()
        }
        rustls::Error::InvalidMessage(_) | rustls::Error::PeerMisbehaved(_) => {
            "TLS broken by the other side".to_owned()
        }
        _ => "TLS failed".to_owned(),
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (or the clock of this machine is wrong)"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (or the clock of this machine is wrong)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than the one that is listed"
        }
        CertificateError::UnknownIssuer => "its issuer is not known here; SSL_CERT_FILE can name it",
        CertificateError::Revoked => "it has been revoked",
        CertificateError::BadSignature => "its signature is not that of the issuer that is known here by that name",
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is self-signed with CA:TRUE, which may sign but not serve; make one with CA:FALSE (openssl req -x509 \
             -addext basicConstraints=critical,CA:FALSE) and name it in SSL_CERT_FILE"
        }
        _ => "it is malformed, or of a kind that is not supported",
    }
}

/// Why a certificate was refused, if that is what went wrong.
pub(super) fn certificate_error(error: &ureq::Error) -> Option<&CertificateError> {
    let error = match error {
        ureq::Error::Io(error) => tls_error(error)?,
        ureq::Error::Rustls(error) => error,
        _ => return None,
    };
    match error {
        rustls::Error::InvalidCertificate(error) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_without_names_of_types() {
        let reasons = [
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::NotValidForName,
            CertificateError::UnknownIssuer,
            CertificateError::BadEncoding,
            CertificateError::InvalidPurpose,
        ]
        .map(|error| tls_reason(&rustls::Error::InvalidCertificate(error)));
        for reason in reasons {
            assert!(reason.starts_with("certificate not accepted: it"), "{reason}");
            assert!(!reason.contains("::") && !reason.contains('{'), "{reason}");
        }
    }

    #[test]
    fn a_network_that_is_down_is_a_lack_of_this_machine_and_a_refused_connection_is_not() {
        let error = |errno: Errno| FetchError::from(ureq::Error::Io(io::Error::from(errno)));
        assert!(error(Errno::NETDOWN).is_local());
        assert!(error(Errno::MFILE).is_local());
        assert_eq!(
            error(Errno::CONNREFUSED),
            FetchError::of_peer("connection refused".into())
        );
        let unreachable = [error(Errno::NETUNREACH), error(Errno::HOSTUNREACH)];
        let local = unreachable.iter().filter(|error| error.is_local()).count();
        assert!(local <= 1, "a way out that is missing gives one of them");
    }
}
