//! Failed requests in words that an operator can act on.

use std::io;

use rustix::io::Errno;

use super::{MAX_HEAD_BYTES, MAX_REDIRECTS};

/// Whether an error is a lack on this machine. No address available: the ports are used up, since addresses that can't be reached
/// from here are left out before a connect (`names`).
pub(crate) fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// A failed request in words that don't change from one time to the next.
pub(crate) fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => "host name not looked up in time".to_owned(),
        ureq::Error::Timeout(_) => "no complete answer in time".to_owned(),
        ureq::Error::HostNotFound => "host name not found".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("answer of more than {limit} bytes"),
        ureq::Error::LargeResponseHeader(..) => format!("head of more than {MAX_HEAD_BYTES} bytes"),
        ureq::Error::TooManyRedirects => format!("more than {MAX_REDIRECTS} redirects"),
        ureq::Error::Io(error) => io_reason(error),
        other => short(&format!("{other}")),
    }
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "answer ended too early".to_owned(),
        _ => short(&error.to_string()),
    }
}

/// Text that a node may have had a hand in: escaped, and no longer than a log line should be.
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect()
}
