//! CORS: the header lines of a response that let web pages of other origins read it (Fetch, section 3.2). Pure.

use crate::config::CorsOrigins;
use crate::response::ALLOW;

/// The headers that a page may read.
const EXPOSED: &str = "RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Total-Count";
/// Seconds for which a browser may keep the result of a preflight request. Chrome accepts two hours at most.
const MAX_AGE: &str = "7200";

/// The lines for the response to a request with this header section, which may be incomplete or malformed.
pub(super) fn lines(origins: &CorsOrigins, head: &[u8]) -> String {
    let (allowed, vary) = match origins {
        CorsOrigins::None => return String::new(),
        CorsOrigins::Any => (Some("*"), ""),
        CorsOrigins::Listed(listed) => {
            let origin = field(head, "Origin").unwrap_or_default();
            let allowed = listed
                .iter()
                .find(|listed| listed.as_bytes().eq_ignore_ascii_case(origin));
            (allowed.map(String::as_str), "Vary: Origin\r\n")
        }
    };
    let Some(allowed) = allowed else {
        return vary.to_owned();
    };
    let more = match head.trim_ascii_start().starts_with(b"OPTIONS ") {
        // `*` does not cover the one after it.
        true => format!(
            "Access-Control-Allow-Methods: {ALLOW}\r\nAccess-Control-Allow-Headers: *, Authorization\r\n\
             Access-Control-Max-Age: {MAX_AGE}\r\n{}",
            match field(head, "Access-Control-Request-Private-Network") {
                Some(b"true") => "Access-Control-Allow-Private-Network: true\r\n",
                _ => "",
            }
        ),
        false => format!("Access-Control-Expose-Headers: {EXPOSED}\r\n"),
    };
    format!("Access-Control-Allow-Origin: {allowed}\r\n{more}{vary}")
}

/// The value of a header field. The header section may be incomplete or malformed.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        start.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> CorsOrigins {
        CorsOrigins::Listed(vec!["https://a.example".to_owned(), "http://b.example:8080".to_owned()])
    }

    #[test]
    fn unset_adds_no_lines() {
        assert_eq!(
            lines(
                &CorsOrigins::None,
                b"GET / HTTP/1.1\r\nOrigin: https://a.example\r\n\r\n"
            ),
            ""
        );
    }

    #[test]
    fn star_allows_every_origin() {
        for head in [
            "",
            "nonsense",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: https://x.example\r\n\r\n",
        ] {
            let lines = lines(&CorsOrigins::Any, head.as_bytes());
            assert!(
                lines.starts_with("Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: RateLimit-Limit")
            );
            assert!(!lines.contains("Vary"));
        }
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        for origin in ["https://a.example", "HTTPS://A.example", "http://b.example:8080"] {
            let lines = lines(
                &listed(),
                format!("GET / HTTP/1.1\r\norigin:{origin} \r\n\r\n").as_bytes(),
            );
            let expected = format!("Access-Control-Allow-Origin: {}\r\n", origin.to_ascii_lowercase());
            assert!(
                lines.starts_with(&expected) && lines.ends_with("\r\nVary: Origin\r\n"),
                "{lines}"
            );
        }
        for origin in [
            "https://a.example.evil",
            "http://a.example",
            "https://a.example:443",
            "null",
            "",
        ] {
            let head = format!("GET / HTTP/1.1\r\nOrigin: {origin}\r\nX-Origin: https://a.example\r\n\r\n");
            assert_eq!(lines(&listed(), head.as_bytes()), "Vary: Origin\r\n", "{origin}");
        }
        assert_eq!(lines(&listed(), b"GET / HTTP/1.1\r\nOri"), "Vary: Origin\r\n");
    }

    #[test]
    fn preflight_gets_methods_headers_and_max_age() {
        let lines = lines(
            &listed(),
            b"\r\nOPTIONS /x HTTP/1.1\r\nOrigin: https://a.example\r\n\r\n",
        );
        assert_eq!(
            lines,
            "Access-Control-Allow-Origin: https://a.example\r\nAccess-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n\
             Access-Control-Allow-Headers: *, Authorization\r\nAccess-Control-Max-Age: 7200\r\nVary: Origin\r\n"
        );
    }

    #[test]
    fn preflight_for_a_private_network_is_allowed() {
        let head = |value| {
            format!(
                "OPTIONS / HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Private-Network: {value}\r\n\r\n"
            )
        };
        let allows = |origins: &CorsOrigins, head: String| {
            lines(origins, head.as_bytes()).contains("\r\nAccess-Control-Allow-Private-Network: true\r\n")
        };
        assert!(allows(&listed(), head("true")) && allows(&CorsOrigins::Any, head("true")));
        assert!(!allows(&listed(), head("false")) && !allows(&CorsOrigins::None, head("true")));
        assert!(!allows(&listed(), head("true").replace("a.example", "x.example")));
    }
}
