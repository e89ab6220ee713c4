//! The response to a client, as the bytes of HTTP/1.1 (RFC 9112). The workers and the gate both make responses.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;
use ureq::http::StatusCode;

use crate::util::calendar;

/// The methods of every path.
pub(crate) const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Whether the connection persists after the response (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// The default of HTTP/1.1, without a header.
    Persist,
    /// An HTTP/1.0 client requested it and expects the header.
    KeepAlive,
    Close,
}

/// How long a response may be deferred after the request was read: the client times out after 3 s.
pub(crate) const MAX_DEFERRAL: Duration = Duration::from_secs(2);

/// Whether a response may be deferred until more is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// It may; the request is here for the first time.
    First,
    /// It may, and was before.
    More,
    /// It was, and may not be any more.
    Over,
}

/// Replaces the status of a deferred response.
const DEFERRED: u16 = 0;

/// One response.
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
        let body = json!({ "error": message }).to_string().into_bytes();
        Self::new(status, "application/json", body)
    }

    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// More will be known in a moment: no response yet.
    pub(crate) fn deferred() -> Self {
        Self::new(DEFERRED, "", &b""[..])
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.status == DEFERRED
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

    /// The response as it goes over the wire, with further header lines. The response to a HEAD has only the length of
    /// its body.
    pub(crate) fn to_bytes(&self, is_head: bool, persistence: Persistence, lines: &str, now: SystemTime) -> Vec<u8> {
        let mut head = String::with_capacity(320);
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Writing to a String cannot fail.
        let _ = write!(head, "HTTP/1.1 {status}\r\n");
        // httpdate panics at a time that the format cannot express. Such a clock is not reliable (RFC 9110, section
        // 6.6.1).
        if calendar::is_sane(now) {
            let _ = write!(head, "Date: {}\r\n", httpdate::HttpDate::from(now));
        }
        if self.status != 204 {
            let (media_type, len) = (self.content_type, self.body.len());
            let _ = write!(head, "Content-Type: {media_type}\r\nContent-Length: {len}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str(lines);
        head.push_str(match persistence {
            Persistence::Persist => "\r\n",
            Persistence::KeepAlive => "Connection: keep-alive\r\n\r\n",
            Persistence::Close => "Connection: close\r\n\r\n",
        });
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Response, is_head: bool, persistence: Persistence) -> String {
        String::from_utf8(reply.to_bytes(is_head, persistence, "", SystemTime::UNIX_EPOCH)).expect("text")
    }

    #[test]
    fn error_is_json_with_connection_header() {
        let reply = Response::error(400, "a \"quoted\" word").with("Retry-After", "1");
        assert_eq!(
            text(&reply, false, Persistence::Close),
            "HTTP/1.1 400 Bad Request\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: 29\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"a \\\"quoted\\\" word\"}"
        );
    }

    #[test]
    fn head_has_length_without_body() {
        let reply = Response::json(b"[]".to_vec());
        let head = text(&reply, true, Persistence::KeepAlive);
        assert!(head.contains("Content-Length: 2\r\n") && head.ends_with("Connection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn inexpressible_date_is_omitted() {
        let at = |now| {
            let bytes = Response::json(Vec::new()).to_bytes(false, Persistence::Persist, "", now);
            String::from_utf8(bytes).expect("text")
        };
        let year_10000 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        let last = year_10000 - Duration::from_secs(1);
        assert!(at(last).contains("\r\nDate: Fri, 31 Dec 9999 23:59:59 GMT\r\n"));
        for now in [SystemTime::UNIX_EPOCH - Duration::from_secs(1), year_10000] {
            assert!(at(now).starts_with("HTTP/1.1 200 OK\r\nContent-Type"), "{}", at(now));
        }
    }

    #[test]
    fn a_204_has_neither_length_nor_type() {
        let options = text(&Response::options(), false, Persistence::Persist);
        assert!(options.contains("Allow: GET, HEAD, OPTIONS\r\n\r\n"));
        assert!(!options.contains("Content-"));
    }
}
