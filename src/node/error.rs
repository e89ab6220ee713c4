//! Why a text is not an address.

use std::error::Error;
use std::fmt;

/// Why a text is not an address: the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrError(pub &'static str);

impl AddrError {
    pub(super) const NO_HOST: Self = Self("a host");
    /// The scheme is neither http nor https.
    pub const SCHEME: Self = Self("http:// or https:// or no scheme");
    pub(super) const PATH: Self =
        Self("a path without \"//\", \".\", \"..\", \"%2F\" and unescaped special characters");
    pub(super) const INFO_PATH: Self = Self("an address without /info, which the router appends");
    pub(super) const QUERY: Self = Self("an address without a query");
    pub(super) const USER: Self = Self("an address without a user name");
    pub(super) const PORT: Self = Self("a port, 1 to 65535, after the colon");
    /// There is more than one colon outside brackets.
    pub(super) const BARE_IPV6: Self = Self("one colon, or an IPv6 address in brackets");
    pub(super) const IPV6: Self = Self("[IPv6 address] or [IPv6 address]:port");
    pub(super) const ZONE: Self = Self("an IPv6 address without a zone");
    /// Numbers, with dots between them, that are not an IPv4 address.
    pub(super) const IPV4: Self = Self("an IPv4 address, four numbers from 0 to 255");
    pub(super) const HOST_NAME: Self =
        Self("a host name: letters, digits, \"-\", \"_\", at most 63 bytes between two dots and 253 in all");
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl Error for AddrError {}
