//! Where a redirect leads, and whether it may be followed.
//!
//! The operator of a node chooses where its redirects lead, and the router can reach what that operator can't: services
//! of its own machine, its cloud's metadata. So a redirect is followed only on the same host name, and there only
//! to another path, or from http to https. Another port is allowed then: it has to show a
//! certificate for that name first.

use super::reason::short;
use crate::node::{Origin, Scheme, Url};

/// A place that a request can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    origin: Origin,
    /// Path and query, with the slash that begins them.
    path: String,
}

impl Target {
    /// Reads an absolute address; a fragment is dropped.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let url = Url::parse(url.split('#').next()?).ok()?;
        if !url.has_scheme || url.user.is_some() || url.rest.starts_with('\\') {
            return None;
        }
        let slash = if url.rest.starts_with('/') { "" } else { "/" };
        Some(Self {
            origin: url.origin,
            path: format!("{slash}{}", url.rest),
        })
    }

    /// What `Location` means in an answer from here (RFC 3986, section 5.2, without dot segments).
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next()?;
        let here = |path: String| Self {
            origin: self.origin.clone(),
            path,
        };
        let own_path = self.path.split('?').next()?;
        match location {
            "" => Some(self.clone()),
            _ if location.contains("://") => Self::parse(location),
            _ if location.starts_with("//") => Self::parse(&format!("{}:{location}", self.origin.scheme().name())),
            _ if location.starts_with('/') => Some(here(location.to_owned())),
            _ if location.starts_with('?') => Some(here(format!("{own_path}{location}"))),
            _ => {
                let (folder, _) = own_path.rsplit_once('/')?;
                Some(here(format!("{folder}/{location}")))
            }
        }
    }

    /// Why a redirect from here to there is not followed, or None if it may be.
    pub(super) fn deny_reason(&self, to: &Target) -> Option<&'static str> {
        let is_upgrade = self.origin.scheme() == Scheme::Http && to.origin.scheme() == Scheme::Https;
        match () {
            () if self.origin.host() != to.origin.host() => Some("another host"),
            () if self.origin == to.origin || is_upgrade => None,
            () if to.origin.scheme() == self.origin.scheme() => Some("another port"),
            () => Some("plain http"),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }
}

/// A place as a reason shows it: foreign text in quotes.
pub(super) fn shown(location: &str) -> String {
    format!("\"{}\"", short(location))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|| panic!("{url}"))
    }

    #[test]
    fn a_location_may_be_absolute_or_relative() {
        let from = target("http://Node.example:4000/v1/info?a=b");
        for (location, wanted) in [
            ("https://node.example/info", "https://node.example:443/info"),
            ("HTTPS://node.example?x", "https://node.example:443/?x"),
            ("//node.example:1/x#y", "http://node.example:1/x"),
            ("/info/", "http://node.example:4000/info/"),
            ("info/", "http://node.example:4000/v1/info/"),
            ("?c", "http://node.example:4000/v1/info?c"),
            ("#c", "http://node.example:4000/v1/info?a=b"),
        ] {
            let joined = from.join(location).unwrap_or_else(|| panic!("{location}"));
            assert_eq!(joined.url(), wanted, "{location}");
        }
        for location in [
            "ftp://a/",
            "http://",
            "http://a:0/",
            "http://me@a/",
            "http://a\\b/",
            "//",
        ] {
            assert_eq!(from.join(location), None, "{location}");
        }
    }

    #[test]
    fn a_redirect_is_followed_to_another_path_and_to_https_of_the_same_host() {
        for (from, to, wanted) in [
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
            assert_eq!(target(from).deny_reason(&target(to)), wanted, "{from} to {to}");
        }
    }
}
