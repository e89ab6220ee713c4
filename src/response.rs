//! What a client is sent, as the bytes of HTTP/1.1 (RFC 9112). The workers and the gate both answer with it.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

/// Methods that every path has.
pub(crate) const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The first moment that a Date can't say, since 1970.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

/// What becomes of the connection, as the answer tells it (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// HTTP/1.1's default, which goes without saying.
    Persist,
    /// HTTP/1.0 asked for it and wants to be told.
    KeepAlive,
    Close,
}

/// Whether the answer is to a HEAD: then its body is counted and not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Send,
    Count,
}

/// A worker's word that the answer had better be asked for again in a moment; no client gets it.
pub(crate) const DEFERRED: &[u8] = b"HTTP/1.1 102 ";
/// How long an answer may be put off in this way, after the request was read: the client gives an answer 3 s.
pub(crate) const MAX_DEFERRAL: Duration = Duration::from_secs(2);

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
}

impl Response {
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self::new(200, "application/json", body)
    }

    /// `{"error":"…"}`
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::new(
            status,
            "application/json",
            json!({ "error": message }).to_string().into_bytes(),
        )
    }

    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// More will be known soon. See [`DEFERRED`].
    pub(crate) fn deferred() -> Self {
        Self::new(102, "", &b""[..])
    }

    /// 204 to an OPTIONS.
    pub(crate) fn options() -> Self {
        Self::new(204, "", &b""[..]).with("Allow", ALLOW)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::error(405, "Method not allowed").with("Allow", ALLOW)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as it goes over the wire.
    pub(crate) fn to_bytes(&self, body: Body, persistence: Persistence, now: SystemTime) -> Vec<u8> {
        let mut head = String::with_capacity(320);
        // Writing to a String can't fail.
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        // httpdate panics at what the format can't say; a clock that is that wrong is none (RFC 9110, section 6.6.1).
        if now
            .duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|since| since < YEAR_10000)
        {
            let _ = write!(head, "Date: {}\r\n", httpdate::HttpDate::from(now));
        }
        if self.status != 204 {
            let _ = write!(
                head,
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.content_type,
                self.body.len()
            );
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str(match persistence {
            Persistence::Persist => "\r\n",
            Persistence::KeepAlive => "Connection: keep-alive\r\n\r\n",
            Persistence::Close => "Connection: close\r\n\r\n",
        });
        let mut bytes = head.into_bytes();
        if body == Body::Send {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        102 => "Processing",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Response, body: Body, persistence: Persistence) -> String {
        String::from_utf8(reply.to_bytes(body, persistence, SystemTime::UNIX_EPOCH)).expect("text")
    }

    #[test]
    fn an_error_is_json_and_says_what_becomes_of_the_connection() {
        let reply = Response::error(400, "a \"quoted\" word").with("Retry-After", "1");
        assert_eq!(
            text(&reply, Body::Send, Persistence::Close),
            "HTTP/1.1 400 Bad Request\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: 29\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"a \\\"quoted\\\" word\"}"
        );
    }

    #[test]
    fn a_head_has_the_length_and_not_the_body() {
        let reply = Response::json(b"[]".to_vec());
        let head = text(&reply, Body::Count, Persistence::KeepAlive);
        assert!(head.contains("Content-Length: 2\r\n") && head.ends_with("Connection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn a_clock_that_no_date_can_say_is_left_out() {
        let at = |now| {
            String::from_utf8(Response::json(Vec::new()).to_bytes(Body::Send, Persistence::Persist, now)).expect("text")
        };
        let last = SystemTime::UNIX_EPOCH + YEAR_10000 - Duration::from_secs(1);
        assert!(at(last).contains("\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\n"));
        for now in [
            SystemTime::UNIX_EPOCH - Duration::from_secs(1),
            SystemTime::UNIX_EPOCH + YEAR_10000,
        ] {
            assert!(at(now).starts_with("HTTP/1.1 200 OK\r\nContent-Type"), "{}", at(now));
        }
    }

    #[test]
    fn a_204_has_neither_length_nor_type() {
        let options = text(&Response::options(), Body::Send, Persistence::Persist);
        assert!(options.contains("Allow: GET, HEAD, OPTIONS\r\n\r\n"));
        assert!(!options.contains("Content-"));
    }
}
