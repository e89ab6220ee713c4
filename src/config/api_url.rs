//! `API_URL`: the address of the Node Explorer.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::reader::Invalid;
use crate::node::{AddrError, Origin, Url};

/// The Node Explorer's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl {
    origin: Origin,
    /// Scheme, host and port as written.
    shown: String,
    /// Empty, or with a leading slash and without a trailing one.
    path: String,
    credentials: Option<Credentials>,
}

/// `user:password`. Never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
struct Credentials(Vec<u8>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ApiUrl {
    /// The URL that lists the nodes seen within the last hour, without the credentials.
    pub fn nodes_url(&self) -> String {
        format!("{self}/api/nodes?minutes_past=60")
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// `user:password` for Basic authentication (RFC 7617), percent-decoded.
    pub fn credentials(&self) -> Option<&[u8]> {
        self.credentials.as_ref().map(|credentials| credentials.0.as_slice())
    }
}

/// The URL without the credentials.
impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.shown, self.path)
    }
}

pub(super) fn parse_api_url(text: &str) -> Result<ApiUrl, Invalid> {
    let expected = |form: &'static str| Invalid::Expected(form.into());
    // Other bytes would reach the request line of ureq, or fail there too late.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(expected("a URL in ASCII, without spaces"));
    }
    if text.contains(['?', '#']) {
        return Err(expected("a URL without a query and a fragment"));
    }
    let url = Url::parse(text).map_err(|error| match error {
        AddrError::Scheme => expected("a URL that starts with http:// or https://"),
        other => expected(other.expected()),
    })?;
    if !url.has_scheme {
        return Err(expected("a URL like https://explorer.example"));
    }
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !url.rest.bytes().all(is_path_byte) {
        return Err(expected("a URL whose path is percent-encoded"));
    }
    let user = url.user.unwrap_or_default();
    if url.user.is_some() && !user.contains(':') {
        return Err(expected(
            "a user name with a password, as in https://user:password@host",
        ));
    }
    let shown = text[..text.len() - url.rest.len()].replacen(&format!("{user}@"), "", url.user.iter().count());
    Ok(ApiUrl {
        shown,
        path: url.rest.trim_end_matches('/').to_owned(),
        credentials: url.user.map(|user| Credentials(percent_decode_str(user).collect())),
        origin: url.origin,
    })
}
