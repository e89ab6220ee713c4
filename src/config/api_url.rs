//! `API_URL`: where the Node Explorer is.

use std::fmt;

use super::Wanted;
use crate::node::{AddrError, Origin, Url};

/// The Node Explorer: where its list of nodes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl {
    origin: Origin,
    /// Scheme, host and port as they were written.
    shown: String,
    /// Empty, or with a leading slash and without a trailing one.
    path: String,
}

impl ApiUrl {
    /// The address that lists the nodes seen within the last hour.
    pub fn nodes_url(&self) -> String {
        format!("{self}/api/nodes?minutes_past=60")
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.shown, self.path)
    }
}

pub(super) fn parse_api_url(text: &str) -> Result<ApiUrl, Wanted> {
    // Everything but these would reach the request line of ureq, or be refused there too late.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an address in ASCII, without spaces".into());
    }
    if text.contains(['?', '#']) {
        return Err("an address without a query and a fragment".into());
    }
    let url = Url::parse(text).map_err(|error| -> Wanted {
        match error {
            AddrError::Scheme => "an address with http:// or https:// in front".into(),
            other => other.expected().into(),
        }
    })?;
    if !url.has_scheme {
        return Err("an address like https://explorer.example".into());
    }
    if url.user.is_some() {
        return Err("an address without a user name and a password".into());
    }
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !url.rest.bytes().all(is_path_byte) {
        return Err("an address whose path is percent-encoded".into());
    }
    Ok(ApiUrl {
        shown: text[..text.len() - url.rest.len()].to_owned(),
        path: url.rest.trim_end_matches('/').to_owned(),
        origin: url.origin,
    })
}
