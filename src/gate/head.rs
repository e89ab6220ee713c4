//! Parses the head of a request: request line and header section (RFC 9112). Pure.
//!
//! The verdict depends only on the bytes, never on packet boundaries: the scanner stops at the first byte that decides.

use std::fmt::Write;
use std::net::Ipv6Addr;

use super::forwarded::ProxyFields;
use super::refusal::{MAX_HEAD_BYTES, MAX_HEADERS, Refusal};
use crate::node::split_port;
use crate::response::Persistence;

/// Most digits of the size of a chunk. Nothing longer than `0` is needed, but leading zeros are legal.
const MAX_CHUNK_DIGITS: usize = 16;

/// Finds the end of a head that arrives in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes that were examined.
    at: usize,
    /// Bytes of the line at `at`, and whether the last one was a CR.
    line: usize,
    cr: bool,
    /// Whether the request line has begun. Empty lines before it are ignored (section 2.2).
    begun: bool,
    /// The end, once it is found.
    end: Option<usize>,
}

impl Scanner {
    /// Continues after the last call. `bytes` are all bytes since the end of the last head.
    ///
    /// # Errors
    /// The first byte that cannot be part of a head.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while self.end.is_none()
            && let Some(byte) = bytes.get(self.at)
        {
            if self.at == MAX_HEAD_BYTES {
                return Err(match self.begun || self.line == 0 {
                    true => Refusal::TooLong,
                    false => Refusal::TargetTooLong,
                });
            }
            self.at += 1;
            match (self.cr, *byte) {
                (true, b'\n') if self.line == 0 && self.begun => self.end = Some(self.at),
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
        Ok(self.end)
    }
}

/// The parts of a request that the router uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Origin form (path and query), or `*`; printable ASCII without spaces. In the path doubled slashes are one and
    /// what need not be percent-encoded is not (RFC 3986, section 6.2.2).
    pub(crate) target: String,
    /// `Close` if a body follows, which the router does not read.
    pub(crate) persistence: Persistence,
    pub(crate) proxies: ProxyFields,
}

/// Parses and judges a complete header section and the `body` that follows as far as it has arrived. `None` if the
/// verdict depends on bytes of the body that are still missing.
///
/// # Errors
/// The refusal for the client. The connection closes after it.
pub(crate) fn parse(head: &[u8], body: &[u8]) -> Result<Option<Request>, Refusal> {
    let head = without_empty_lines(head);
    let end = head.iter().position(|byte| *byte == b'\r').unwrap_or(head.len());
    let (line, lines) = head.split_at(end);
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Refusal::Malformed("request line"));
    };
    let minor = minor_version(version)?;
    let method = str::from_utf8(method).ok().filter(|method| is_token(method));
    let method = method.ok_or(Refusal::Malformed("request method"))?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let headers = match httparse::parse_headers(lines.strip_prefix(b"\r\n").unwrap_or(lines), &mut headers) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Ok(httparse::Status::Partial) => return Err(Refusal::Malformed("incomplete head")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(httparse::Error::HeaderValue) => return Err(Refusal::Malformed("header value")),
        Err(_) => return Err(Refusal::Malformed("header name")),
    };
    check_host(single(headers, "Host", "two Host headers")?, minor)?;
    let length = single(headers, "Content-Length", "two lengths")?;
    let encoding = single(headers, "Transfer-Encoding", "two transfer encodings")?;
    let framing = framing(length, encoding, minor)?;
    if matches!(method, "GET" | "HEAD" | "OPTIONS") {
        match framing {
            Framing::None => {}
            Framing::Length => return Err(Refusal::Body),
            Framing::Chunked if is_last_chunk(body)? => {}
            Framing::Chunked => return Ok(None),
        }
    }
    let has_option = |option| values(headers, "Connection").any(|value| has_token(value, option));
    let closes = has_option("close") || framing != Framing::None;
    let persistence = match (closes, minor, has_option("keep-alive")) {
        (true, ..) | (_, 0, false) => Persistence::Close,
        (_, 0, true) => Persistence::KeepAlive,
        _ => Persistence::Persist,
    };
    let mut proxies = ProxyFields::default();
    headers.iter().for_each(|header| proxies.add(header.name, header.value));
    Ok(Some(Request {
        method: method.to_owned(),
        target: canonical_target(method, target)?,
        persistence,
        proxies,
    }))
}

/// Whether a chunked body consists of only the last chunk, which has no data (RFC 9112, section 7.1). Proxies send it
/// for a request of HTTP/2 with a separate end. False as long as the bytes do not decide.
fn is_last_chunk(body: &[u8]) -> Result<bool, Refusal> {
    let digits = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match body.get(digits) {
        _ if body[..digits].iter().any(|digit| *digit != b'0') => Err(Refusal::Body),
        None if digits <= MAX_CHUNK_DIGITS => Ok(false),
        Some(b'\r' | b';' | b' ' | b'\t') if (1..=MAX_CHUNK_DIGITS).contains(&digits) => Ok(true),
        _ => Err(Refusal::Malformed("chunk size")),
    }
}

/// The bytes after the empty lines that a client may send before a request (RFC 9112, section 2.2).
pub(super) fn without_empty_lines(head: &[u8]) -> &[u8] {
    let begin = head.iter().position(|byte| !b"\r\n".contains(byte));
    &head[begin.unwrap_or(head.len())..]
}

/// `HTTP/1.` and a digit (RFC 9112, section 2.3). A higher minor version is served as 1.1. Another major version, with
/// or without a minor one, is refused.
fn minor_version(version: &[u8]) -> Result<u8, Refusal> {
    match version.strip_prefix(b"HTTP/") {
        Some([b'1', b'.', minor @ b'0'..=b'9']) => Ok(minor - b'0'),
        Some([b'0' | b'2'..=b'9', b'.', b'0'..=b'9'] | [b'2'..=b'9']) => Err(Refusal::Version),
        _ => Err(Refusal::Malformed("HTTP version")),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn values<'a>(headers: &[httparse::Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// The value of a header that may occur once.
fn single<'a>(headers: &[httparse::Header<'a>], name: &str, twice: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::Malformed(twice)),
    }
}

/// How the end of the body is found (RFC 9112, section 6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    /// By a length that is not zero.
    Length,
    Chunked,
}

/// Checks `Host` (RFC 9112, section 3.2), which may be empty.
fn check_host(host: Option<&[u8]>, minor: u8) -> Result<(), Refusal> {
    match host {
        None if minor > 0 => Err(Refusal::Malformed("no Host header")),
        Some(host) if !host.is_empty() && !is_authority(host) => Err(Refusal::Malformed("Host header")),
        _ => Ok(()),
    }
}

fn framing(length: Option<&[u8]>, encoding: Option<&[u8]>, minor: u8) -> Result<Framing, Refusal> {
    match (length, encoding) {
        (Some(_), Some(_)) => Err(Refusal::Malformed("both Content-Length and Transfer-Encoding")),
        (None, Some(_)) if minor == 0 => Err(Refusal::Malformed("Transfer-Encoding in HTTP/1.0")),
        (None, Some(encoding)) if !ends_chunked(encoding) => Err(Refusal::Malformed("Transfer-Encoding")),
        (None, Some(_)) => Ok(Framing::Chunked),
        (None, None) => Ok(Framing::None),
        (Some(length), None) => {
            let length = str::from_utf8(length).ok().filter(|length| !length.starts_with('+'));
            match length.and_then(|length| length.parse::<u64>().ok()) {
                Some(0) => Ok(Framing::None),
                Some(_) => Ok(Framing::Length),
                None => Err(Refusal::Malformed("Content-Length")),
            }
        }
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

/// `uri-host [":" port]` with a host (RFC 3986, section 3.2.2), without a comma: two of them are none.
fn is_authority(authority: &[u8]) -> bool {
    let Ok(authority) = str::from_utf8(authority) else {
        return false;
    };
    let Ok((host, port)) = split_port(authority) else {
        return false;
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => is_reg_name(host.as_bytes()),
    };
    is_host && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_reg_name(mut name: &[u8]) -> bool {
    let is_some = !name.is_empty();
    while let [byte, rest @ ..] = name {
        name = match (byte, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            _ if is_unreserved(*byte) || b"!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        };
    }
    is_some
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The target as `api` routes it (RFC 9112, section 3.2). curl sends what is typed, so bytes above ASCII are encoded.
fn canonical_target(method: &str, target: &[u8]) -> Result<String, Refusal> {
    const WRONG: Refusal = Refusal::Malformed("request target");
    match (method, target) {
        // The router responds with 405.
        ("CONNECT", _) if is_authority(target) => Ok("*".to_owned()),
        ("OPTIONS", b"*") => Ok("*".to_owned()),
        (_, [b'/', ..]) => normalized(target),
        _ => {
            let end = target.iter().position(|byte| *byte == b':').ok_or(WRONG)?;
            let (scheme, rest) = target.split_at(end);
            let is_known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
            let rest = rest.strip_prefix(b"://").filter(|_| is_known).ok_or(WRONG)?;
            let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
            match rest.split_at(end) {
                (authority, _) if !is_authority(authority) => Err(WRONG),
                (_, b"") if method == "OPTIONS" => Ok("*".to_owned()),
                (_, path @ [b'/', ..]) => normalized(path),
                (_, query) => normalized(&[b"/", query].concat()),
            }
        }
    }
}

/// Path and query, the path in its plainest form.
fn normalized(target: &[u8]) -> Result<String, Refusal> {
    let mut plain = String::with_capacity(target.len());
    let (mut rest, mut is_path) = (target, true);
    while let [byte, more @ ..] = rest {
        is_path &= *byte != b'?';
        let escaped = if *byte == b'%' { escaped(more) } else { None };
        rest = more;
        match byte {
            b'%' if is_path && escaped.is_none() => plain.push_str("%25"),
            b'%' if is_path && escaped.is_some_and(is_unreserved) => {
                plain.extend(escaped.map(char::from));
                rest = &more[2..];
            }
            b'/' if is_path && plain.ends_with('/') => {}
            b'#' | ..=b' ' | 127 => return Err(Refusal::Malformed("request target")),
            b'!'..=b'~' => plain.push(char::from(*byte)),
            // Writing to a String cannot fail.
            128.. => drop(write!(plain, "%{byte:02X}")),
        }
    }
    Ok(plain)
}

/// The byte of the two hexadecimal digits at the start.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let digits = bytes.get(..2)?.iter();
    digits
        .map(|digit| char::from(*digit).to_digit(16))
        .try_fold(0, |byte, digit| Some(byte << 4 | digit? as u8))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
