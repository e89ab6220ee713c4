//! Decides whether the router follows a redirect.
//!
//! The operator of a node chooses the targets of its redirects. The router can reach what that operator cannot:
//! services of its own machine, and the metadata of its cloud. So the router follows a redirect only on the same host
//! name: to another path, or from http to https. The latter may change the port, because the server has to show a
//! certificate for that name first.

use super::reason::{FetchError, quoted};
use crate::node::{Origin, Scheme, Url};
use crate::util::text::redact;

/// Parses an absolute URL without a user name, to which a request can be sent.
pub(super) fn parse(url: &str) -> Option<Url<'_>> {
    let url = Url::parse(url).ok()?;
    (url.has_scheme && url.user.is_none() && !url.rest.contains('\\')).then_some(url)
}

/// Returns the target of a redirect from an absolute URL.
///
/// # Errors
/// If the router does not follow that redirect.
pub(super) fn follow(from: &str, location: &str, status: u16) -> Result<String, FetchError> {
    let to = join(from, location).unwrap_or_default();
    let why = match (parse(from), parse(&to)) {
        (Some(from), Some(to)) => deny_reason(&from.origin, &to.origin),
        _ => Some("not a URL without a user name"),
    };
    why.map_or(Ok(to), |why| {
        let location = shown(location);
        let reason = format!("status {status}: redirect to {location} not followed: {why}");
        Err(FetchError::of_peer(reason))
    })
}

/// Resolves `Location` against an absolute URL (RFC 3986, section 5.2, without dot segments).
fn join(from: &str, location: &str) -> Option<String> {
    let location = location.split('#').next()?;
    let authority_at = from.find("//")?;
    let path_at = authority_at + 2 + from[authority_at + 2..].find('/')?;
    let (own, _) = from.split_once('?').unwrap_or((from, ""));
    Some(match location {
        "" => from.to_owned(),
        // A colon in the first segment terminates a scheme. A later colon belongs to the path or the query.
        _ if location.split(['/', '?']).next()?.contains(':') => location.to_owned(),
        _ if location.starts_with("//") => format!("{}{location}", &from[..authority_at]),
        _ if location.starts_with('/') => format!("{}{location}", &from[..path_at]),
        _ if location.starts_with('?') => format!("{own}{location}"),
        _ => format!("{}/{location}", own.rsplit_once('/')?.0),
    })
}

/// Returns why the router does not follow a redirect from here to there. `None` if the router follows it.
fn deny_reason(from: &Origin, to: &Origin) -> Option<&'static str> {
    match (from.scheme, to.scheme) {
        _ if from.host() != to.host() => Some("another host"),
        _ if from == to => None,
        (Scheme::Http, Scheme::Https) => None,
        (Scheme::Https, Scheme::Http) => Some("plain http"),
        _ => Some("another port"),
    }
}

/// Quotes `Location`, without a password before the host.
pub(super) fn shown(location: &str) -> String {
    let begin = location.find("//").map_or(0, |slashes| slashes + 2);
    let length = location[begin..].find(['/', '?', '#']);
    let (start, rest) = location.split_at(length.map_or(location.len(), |length| begin + length));
    quoted(&format!("{}{rest}", redact(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_may_be_absolute_or_relative() {
        let from = "http://node.example:4000/v1/info?a=b";
        for (location, expected) in [
            ("https://node.example/info", "https://node.example/info"),
            ("HTTPS://node.example?x", "HTTPS://node.example?x"),
            ("//node.example:1/x#y", "http://node.example:1/x"),
            ("/info/", "http://node.example:4000/info/"),
            ("info/", "http://node.example:4000/v1/info/"),
            ("?c", "http://node.example:4000/v1/info?c"),
            ("#c", "http://node.example:4000/v1/info?a=b"),
            ("/to?u=http://b/", "http://node.example:4000/to?u=http://b/"),
            ("to?u=http://b/", "http://node.example:4000/v1/to?u=http://b/"),
            ("?u=http://b/", "http://node.example:4000/v1/info?u=http://b/"),
            ("a/b:c", "http://node.example:4000/v1/a/b:c"),
        ] {
            let joined = join(from, location).unwrap_or_else(|| panic!("{location}"));
            assert_eq!(joined, expected, "{location}");
            assert!(parse(&joined).is_some(), "{location}");
        }
        for location in [
            "ftp://a/",
            "mailto:a",
            "http://",
            "http://a:0/",
            "http://me@a/",
            "http://a\\b/",
            "//",
        ] {
            let joined = join(from, location).unwrap_or_default();
            assert!(parse(&joined).is_none(), "{location}");
        }
    }

    #[test]
    fn password_in_location_is_masked() {
        for (location, expected) in [
            ("http://me:secret@a/b?c=d@e", "\"http://***@a/b?c=d@e\""),
            ("//me:secret@a", "\"***@a\""),
            ("/a?b=c@d", "\"/a?b=c@d\""),
            ("me:secret@a", "\"***@a\""),
            ("http://[", "\"http://[\""),
        ] {
            assert_eq!(shown(location), expected);
        }
        let error = follow("http://a/", "http://me:secret@b:x/", 302).expect_err("not a URL");
        let reason = "status 302: redirect to \"http://***@b:x/\" not followed: not a URL without a user name";
        assert_eq!(error.to_string(), reason);
    }

    #[test]
    fn redirect_on_same_host_is_followed() {
        for (from, to, expected) in [
            ("http://a/info", "http://A:80/other", None),
            ("http://a:4000/info", "https://a/info", None),
            ("http://a:4000/info", "https://a:8443/info", None),
            ("http://127.0.0.1:1/", "http://[::ffff:127.0.0.1]:1/", None),
            ("http://a:4000/info", "http://a:4001/info", Some("another port")),
            ("https://a/info", "https://a:8443/info", Some("another port")),
            ("https://a/info", "http://a/info", Some("plain http")),
            ("http://a/info", "http://b/info", Some("another host")),
            ("http://a/info", "https://a.b/info", Some("another host")),
            ("http://localhost:1/", "http://127.0.0.1:1/", Some("another host")),
            ("http://a/info", "http://169.254.169.254/", Some("another host")),
        ] {
            let [from, to] = [from, to].map(|url| parse(url).expect("a URL").origin);
            assert_eq!(deny_reason(&from, &to), expected, "{from} to {to}");
        }
    }
}
