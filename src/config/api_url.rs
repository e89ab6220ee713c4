//! `API_URL`: where the Node Explorer is.

use std::fmt;

use super::Wanted;
use crate::node::{AddrError, NodeAddr};

/// The Node Explorer: where its list of nodes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl {
    origin: NodeAddr,
    /// Empty, or with a leading slash and without a trailing one.
    path: String,
}

impl ApiUrl {
    /// The address that lists the nodes seen within the last hour.
    pub fn nodes_url(&self) -> String {
        format!("{self}/api/nodes?minutes_past=60")
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &NodeAddr {
        &self.origin
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
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
    let authority = text
        .find("://")
        .map(|at| at + 3)
        .ok_or("an address like https://explorer.example")?;
    let path_begin = text[authority..].find('/').map_or(text.len(), |at| authority + at);
    let (origin, path) = text.split_at(path_begin);
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !path.bytes().all(is_path_byte) {
        return Err("an address whose path is percent-encoded".into());
    }
    let origin = NodeAddr::parse(origin).map_err(|error| -> Wanted {
        match error {
            AddrError::Scheme => "an address with http:// or https:// in front".into(),
            AddrError::User => "an address without a user name and a password".into(),
            other => other.wanted().into(),
        }
    })?;
    let path = path.trim_end_matches('/').to_owned();
    Ok(ApiUrl { origin, path })
}
