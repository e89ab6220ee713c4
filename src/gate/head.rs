//! Parses the head of a request: request line and header section (RFC 9112). Pure.
//!
//! The verdict depends only on the bytes, never on packet boundaries: the scanner stops at the first byte that decides.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use httparse::Header;
use ureq::http::Method;

use super::cors;
use super::forwarded::{identify, values};
use super::refusal::{MAX_HEAD_BYTES, MAX_HEADERS, Refusal};
use crate::config::Config;
use crate::node::split_port;
use crate::response::{Deferral, Persistence};

/// Most digits of the size of a chunk. Nothing longer than `0` is needed, but leading zeros are legal.
const MAX_CHUNK_DIGITS: usize = 16;

/// What the gate knows of a request besides its method and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) client: IpAddr,
    /// False if the request came through a proxy that is not trusted or does not name its client.
    pub(crate) is_client_known: bool,
    pub(crate) deferral: Deferral,
    pub(crate) persistence: Persistence,
    /// Header lines for the response, each with its end.
    pub(crate) cors: String,
}

/// A request that the router serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Origin form (path and query), or `*`; printable ASCII without spaces. In the path doubled slashes are one and
    /// what need not be percent-encoded is not (RFC 3986, section 6.2.2).
    pub(crate) target: String,
    pub(crate) context: Context,
}

/// Parses the first request of `bytes`, which are all bytes since the end of the last one. Returns its head's length and
/// the request, or `None` if it is not complete. `scanned` counts the bytes that were examined, from 0.
///
/// # Errors
/// The refusal for the client. The connection closes after it.
pub(crate) fn parse(
    bytes: &[u8],
    scanned: &mut usize,
    peer: IpAddr,
    config: &Config,
) -> Result<Option<(usize, Request)>, Refusal> {
    if !scan(bytes, scanned)? {
        return Ok(None);
    }
    let (head, body) = bytes.split_at(*scanned);
    let request = parse_complete(head, body, peer, config)?;
    Ok(request.map(|request| (head.len(), request)))
}

/// Continues after the last call, up to the end of the head. Returns whether it has arrived. The first byte that cannot
/// be part of a head is an error.
fn scan(bytes: &[u8], at: &mut usize) -> Result<bool, Refusal> {
    loop {
        let (read, rest) = bytes.split_at(*at);
        if read.ends_with(b"\r\n\r\n") && !without_empty_lines(read).is_empty() {
            return Ok(true);
        }
        match (read.last(), rest.first()) {
            (_, None) => return Ok(false),
            _ if *at == MAX_HEAD_BYTES => {
                let line = without_empty_lines(read);
                let is_line = !line.is_empty() && !line.contains(&b'\n');
                return Err(if is_line { Refusal::TARGET } else { Refusal::HEAD });
            }
            (Some(b'\r'), Some(b'\n')) => {}
            (Some(b'\r'), _) => return Err(Refusal::malformed("CR without LF")),
            (_, Some(b'\n')) => return Err(Refusal::malformed("LF without CR")),
            (_, Some(b'\r' | b'\t')) => {}
            (_, Some(..b' ' | 127)) => return Err(Refusal::malformed("control byte")),
            _ => {}
        }
        *at += 1;
    }
}

/// Parses and judges a complete header section, and the `body` that follows as far as it has arrived. `None` if the
/// verdict depends on bytes of the body that are still missing.
fn parse_complete(head: &[u8], body: &[u8], peer: IpAddr, config: &Config) -> Result<Option<Request>, Refusal> {
    let lines = without_empty_lines(head);
    let end = lines.iter().position(|byte| *byte == b'\r').unwrap_or(lines.len());
    let (line, lines) = lines.split_at(end);
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Refusal::malformed("request line"));
    };
    let minor = minor_version(version)?;
    let method = Method::from_bytes(method).map_err(|_| Refusal::malformed("request method"))?;
    let method = method.as_str();
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let headers = parse_headers(lines, &mut headers)?;
    check_host(single(headers, "Host", "two Host headers")?, minor)?;
    let framing = framing(headers, minor)?;
    match framing {
        _ if !matches!(method, "GET" | "HEAD" | "OPTIONS") => {}
        Framing::None => {}
        Framing::Length => return Err(Refusal::BODY),
        Framing::Chunked if is_last_chunk(body)? => {}
        Framing::Chunked => return Ok(None),
    }
    let (client, is_client_known) = identify(headers, peer, &config.trusted_proxies);
    Ok(Some(Request {
        method: method.to_owned(),
        target: canonical_target(method, target)?,
        context: Context {
            client,
            is_client_known,
            deferral: Deferral::First,
            persistence: persistence(headers, minor, framing),
            cors: cors::lines(&config.cors_origins, head),
        },
    }))
}

fn parse_headers<'h, 'b>(
    lines: &'b [u8],
    headers: &'h mut [Header<'b>; MAX_HEADERS],
) -> Result<&'h [Header<'b>], Refusal> {
    match httparse::parse_headers(lines.strip_prefix(b"\r\n").unwrap_or(lines), headers) {
        Ok(httparse::Status::Complete((_, headers))) => Ok(headers),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HEAD),
        Err(httparse::Error::HeaderValue) => Err(Refusal::malformed("header value")),
        _ => Err(Refusal::malformed("header name")),
    }
}

/// `Close` if a body follows, which the router does not read.
fn persistence(headers: &[Header<'_>], minor: u8, framing: Framing) -> Persistence {
    let has_option = |option: &[u8]| {
        let mut options = values(headers, "Connection").flat_map(tokens);
        options.any(|other| other.eq_ignore_ascii_case(option))
    };
    match minor {
        _ if has_option(b"close") || framing != Framing::None => Persistence::Close,
        0 if has_option(b"keep-alive") => Persistence::KeepAlive,
        0 => Persistence::Close,
        _ => Persistence::Persist,
    }
}

/// Whether a chunked body consists of only the last chunk, which has no data (RFC 9112, section 7.1). Proxies send it
/// for a request of HTTP/2 with a separate end. False as long as the bytes do not decide.
fn is_last_chunk(body: &[u8]) -> Result<bool, Refusal> {
    let digits = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match body.get(digits) {
        _ if body[..digits].iter().any(|digit| *digit != b'0') => Err(Refusal::BODY),
        None if digits <= MAX_CHUNK_DIGITS => Ok(false),
        Some(b'\r' | b';' | b' ' | b'\t') if (1..=MAX_CHUNK_DIGITS).contains(&digits) => Ok(true),
        _ => Err(Refusal::malformed("chunk size")),
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
        Some([b'0' | b'2'..=b'9', b'.', b'0'..=b'9'] | [b'2'..=b'9']) => Err(Refusal::VERSION),
        _ => Err(Refusal::malformed("HTTP version")),
    }
}

/// The value of a header that may occur once.
fn single<'a>(headers: &[Header<'a>], name: &str, twice: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::malformed(twice)),
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
        None if minor > 0 => Err(Refusal::malformed("no Host header")),
        Some(host) if !host.is_empty() && !is_authority(host) => Err(Refusal::malformed("Host header")),
        _ => Ok(()),
    }
}

fn framing(headers: &[Header<'_>], minor: u8) -> Result<Framing, Refusal> {
    let length = single(headers, "Content-Length", "two lengths")?;
    let encoding = single(headers, "Transfer-Encoding", "two transfer encodings")?;
    match (length, encoding) {
        (Some(_), Some(_)) => Err(Refusal::malformed("both Content-Length and Transfer-Encoding")),
        (None, Some(_)) if minor == 0 => Err(Refusal::malformed("Transfer-Encoding in HTTP/1.0")),
        (None, Some(encoding)) => match tokens(encoding).last() {
            Some(last) if last.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            _ => Err(Refusal::malformed("Transfer-Encoding")),
        },
        (None, None) => Ok(Framing::None),
        (Some(length), None) => {
            let length = str::from_utf8(length).ok().filter(|length| !length.starts_with('+'));
            match length.and_then(|length| length.parse::<u64>().ok()) {
                Some(0) => Ok(Framing::None),
                Some(_) => Ok(Framing::Length),
                None => Err(Refusal::malformed("Content-Length")),
            }
        }
    }
}

/// The elements of a list, as `Connection` has them.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `uri-host [":" port]` with a host (RFC 3986, section 3.2.2), without a comma: two of them are none.
fn is_authority(authority: &[u8]) -> bool {
    let authority = str::from_utf8(authority).ok();
    let Some((host, port)) = authority.and_then(|authority| split_port(authority).ok()) else {
        return false;
    };
    let is_host = match host.strip_prefix('[') {
        // Its only `]` is the last character.
        Some(address) => address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
        None => is_reg_name(host.as_bytes()),
    };
    is_host && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_reg_name(name: &[u8]) -> bool {
    let is_legal = |byte: &u8| is_unreserved(*byte) || b"!$&'()*+;=%".contains(byte);
    let mut after_percent = name.split(|byte| *byte == b'%').skip(1);
    !name.is_empty() && name.iter().all(is_legal) && after_percent.all(|rest| escaped(rest).is_some())
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The target as `api` routes it (RFC 9112, section 3.2). curl sends what is typed, so bytes above ASCII are encoded.
fn canonical_target(method: &str, target: &[u8]) -> Result<String, Refusal> {
    const WRONG: Refusal = Refusal::malformed("request target");
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
            b'#' | ..=b' ' | 127 => return Err(Refusal::malformed("request target")),
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
