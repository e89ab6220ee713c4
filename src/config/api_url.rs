//! `API_URL`: the address of the Node Explorer.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::reader::{Invalid, Parsed};
use crate::node::{AddrError, Origin, Url};

/// The Node Explorer's address.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiUrl {
    /// Scheme, host and port.
    pub origin: Origin,
    /// `user:password` for Basic authentication (RFC 7617), percent-decoded.
    pub credentials: Option<Vec<u8>>,
    /// The URL as written, without the credentials and without slashes at its end.
    pub shown: String,
}

impl ApiUrl {
    /// The URL that lists the nodes seen within the last hour, without the credentials.
    pub fn nodes_url(&self) -> String {
        format!("{}/api/nodes?minutes_past=60", self.shown)
    }
}

/// The credentials are never shown.
impl fmt::Debug for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

pub(super) fn parse_api_url(text: &str) -> Parsed<ApiUrl> {
    let expected = |form: &'static str| Err(Invalid::Expected(form.into()));
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    let url = match Url::parse(text) {
        // Other bytes would reach the request line of ureq, or fail there too late.
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => return Err(Invalid::Form),
        Err(AddrError::SCHEME) => return expected("a URL that starts with http:// or https://"),
        Err(other) => return expected(other.0),
        Ok(url) if !url.has_scheme || !url.rest.bytes().all(is_path_byte) => return Err(Invalid::Form),
        Ok(url) if url.user.is_some_and(|user| !user.contains(':')) => {
            return expected("a user name with a password, as in https://user:password@host");
        }
        Ok(url) => url,
    };
    let user = url.user.map(|user| format!("{user}@")).unwrap_or_default();
    Ok(ApiUrl {
        shown: text.replacen(&user, "", 1).trim_end_matches('/').to_owned(),
        credentials: url.user.map(|user| percent_decode_str(user).collect()),
        origin: url.origin,
    })
}
