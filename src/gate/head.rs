//! The head of a request: found byte by byte, then parsed and judged as a whole (RFC 9112). Pure.
//!
//! What it judges a head to be depends on the bytes alone, never on how they were cut into packets: the scanner stops
//! at the first byte that decides.

use std::fmt;

use crate::response::{Persistence, Response};

/// Longest head, as nginx has it. Real ones are a few hundred bytes; 64 container ids fit.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Most header lines, as HAProxy has it.
const MAX_HEADERS: usize = 100;

/// Why a request is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400, with what is wrong.
    Malformed(&'static str),
    /// 408
    Late,
    /// 413
    Body,
    /// 431
    TooLong,
    /// 503: no worker was free for long, or all places are taken.
    Busy,
    /// 503: the client holds its whole share of the connections.
    Share,
    /// 502: what was to answer is gone.
    Lost,
    /// 505
    Version,
}

impl Refusal {
    pub(crate) fn reply(self) -> Response {
        let error = Response::error(self.status(), &self.to_string());
        match self {
            Refusal::Busy | Refusal::Share | Refusal::Lost => error.with("Retry-After", "1"),
            _ => error,
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Late => 408,
            Refusal::Body => 413,
            Refusal::TooLong => 431,
            Refusal::Lost => 502,
            Refusal::Busy | Refusal::Share => 503,
            Refusal::Version => 505,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(what) => write!(f, "Malformed request: {what}"),
            Refusal::Late => f.write_str("The request was not complete in time"),
            Refusal::Body => f.write_str("A request with this method has no body"),
            Refusal::TooLong => write!(
                f,
                "A request head has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers"
            ),
            Refusal::Busy => f.write_str("The router is busy"),
            Refusal::Share => f.write_str("Too many connections from this address"),
            Refusal::Lost => f.write_str("The answer was lost"),
            Refusal::Version => f.write_str("Expected HTTP/1.1 or HTTP/1.0"),
        }
    }
}

/// Finds the end of a head in bytes that arrive in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes looked at.
    at: usize,
    /// Bytes of the line at `at`, and whether the last one was a CR.
    line: usize,
    cr: bool,
    /// Whether the request line was seen; before it, empty lines are left over from a request before (section 2.2).
    begun: bool,
}

impl Scanner {
    pub(crate) fn has_seen_all_of(&self, bytes: &[u8]) -> bool {
        self.at == bytes.len()
    }

    /// Goes on where it stopped. `bytes` are all bytes since the end of the last head.
    ///
    /// # Errors
    /// At the first byte that can't be part of a head.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(byte) = bytes.get(self.at) {
            if self.at == MAX_HEAD_BYTES {
                return Err(Refusal::TooLong);
            }
            self.at += 1;
            match (self.cr, *byte) {
                (true, b'\n') if self.line == 0 && self.begun => return Ok(Some(self.at)),
                (true, b'\n') => {
                    self.begun = self.line > 0;
                    (self.line, self.cr) = (0, false);
                }
                (true, _) => return Err(Refusal::Malformed("CR without LF")),
                (false, b'\n') => return Err(Refusal::Malformed("LF without CR")),
                (false, b'\r') => self.cr = true,
                (false, 0..=8 | 11..=31 | 127) => return Err(Refusal::Malformed("control byte")),
                (false, _) => self.line += 1,
            }
        }
        Ok(None)
    }
}

/// What of a request matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Origin form (path and query), or `*`; printable ASCII without spaces.
    pub(crate) target: String,
    pub(crate) persistence: Persistence,
    /// A body follows, which nobody reads.
    pub(crate) has_body: bool,
    /// All lines of `X-Forwarded-For`, joined by commas.
    pub(crate) forwarded: Vec<u8>,
}

/// Parses and judges a complete head.
///
/// # Errors
/// What the client is to be told; the connection ends there.
pub(crate) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(status) if status.is_complete() => {}
        Ok(_) => return Err(Refusal::Malformed("incomplete head")),
        Err(error) => return Err(refusal(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Malformed("incomplete request line"));
    };
    let fields = Fields::read(parsed.headers)?;
    fields.check_host(minor)?;
    let has_body = fields.has_body(minor)?;
    if has_body && matches!(method, "GET" | "HEAD" | "OPTIONS") {
        return Err(Refusal::Body);
    }
    let persistence = match (fields.close || has_body, minor, fields.keep_alive) {
        (true, ..) | (_, 0, false) => Persistence::Close,
        (_, 0, true) => Persistence::KeepAlive,
        _ => Persistence::Persist,
    };
    Ok(Request {
        method: method.to_owned(),
        target: origin_form(method, target)?,
        persistence,
        has_body,
        forwarded: fields.forwarded,
    })
}

fn refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::Version => Refusal::Version,
        httparse::Error::TooManyHeaders => Refusal::TooLong,
        httparse::Error::HeaderName => Refusal::Malformed("header name"),
        httparse::Error::HeaderValue => Refusal::Malformed("header value"),
        _ => Refusal::Malformed("request line"),
    }
}

/// The header lines that decide anything.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    forwarded: Vec<u8>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let name = |name: &str| header.name.eq_ignore_ascii_case(name);
            if name("host") {
                once(&mut fields.host, header.value, "two Host headers")?;
            } else if name("content-length") {
                once(&mut fields.length, header.value, "two lengths")?;
            } else if name("transfer-encoding") {
                once(&mut fields.encoding, header.value, "two transfer encodings")?;
            } else if name("connection") {
                fields.close |= has_token(header.value, "close");
                fields.keep_alive |= has_token(header.value, "keep-alive");
            } else if name("x-forwarded-for") {
                if !fields.forwarded.is_empty() {
                    fields.forwarded.push(b',');
                }
                fields.forwarded.extend_from_slice(header.value);
            }
        }
        Ok(fields)
    }

    /// RFC 9112, section 3.2.
    fn check_host(&self, minor: u8) -> Result<(), Refusal> {
        match self.host {
            None if minor > 0 => Err(Refusal::Malformed("no Host header")),
            Some(host) if !host.iter().all(|byte| is_host_byte(*byte)) => Err(Refusal::Malformed("Host header")),
            _ => Ok(()),
        }
    }

    /// RFC 9112, section 6.
    fn has_body(&self, minor: u8) -> Result<bool, Refusal> {
        match (self.length, self.encoding) {
            (Some(_), Some(_)) => Err(Refusal::Malformed("both Content-Length and Transfer-Encoding")),
            (None, Some(_)) if minor == 0 => Err(Refusal::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, Some(encoding)) if !ends_chunked(encoding) => Err(Refusal::Malformed("Transfer-Encoding")),
            (None, Some(_)) => Ok(true),
            (None, None) => Ok(false),
            (Some(length), None) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(length)
                    .ok()
                    .filter(|_| digits)
                    .and_then(|length| length.parse::<u64>().ok());
                length
                    .map(|length| length > 0)
                    .ok_or(Refusal::Malformed("Content-Length"))
            }
        }
    }
}

fn once<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8], twice: &'static str) -> Result<(), Refusal> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Malformed(twice)),
    }
}

fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|other| other.eq_ignore_ascii_case(token.as_bytes()))
}

fn ends_chunked(encoding: &[u8]) -> bool {
    tokens(encoding)
        .next_back()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"))
}

/// Bytes of `uri-host [":" port]` (RFC 3986, section 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// The target as `api` routes it (RFC 9112, section 3.2). curl sends what is typed, so bytes above ASCII are encoded.
fn origin_form(method: &str, target: &str) -> Result<String, Refusal> {
    let origin = match target {
        // Nothing that we have a path for: the router answers 405.
        _ if method == "CONNECT" => "*",
        "*" if method == "OPTIONS" => "*",
        _ if target.starts_with('/') => target,
        _ => path_of_absolute(target).ok_or(Refusal::Malformed("request target"))?,
    };
    let mut encoded = String::with_capacity(origin.len());
    for byte in origin.bytes() {
        match byte {
            b'#' | ..=b' ' | 127 => return Err(Refusal::Malformed("request target")),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            128.. => encoded.extend(["%", HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    Ok(encoded)
}

const HEX: [&str; 16] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B", "C", "D", "E", "F",
];

/// What stands behind the authority of an absolute URI; `/` where nothing does.
fn path_of_absolute(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match (known && end > 0, &rest[end..]) {
        (false, _) => None,
        (true, path) if path.starts_with('/') => Some(path),
        // A query without a path is one of "/", for which there is nothing either.
        (true, _) => Some("/"),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
