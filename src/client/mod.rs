//! Identifies a client: the key of its limit, of its share of the connections and of its promises, and whose a request is
//! that comes through proxies.

pub(crate) mod forwarded;

use std::net::IpAddr;

/// Who a request is from, for the limit, the share of connections and the promises: an IPv4
/// address or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Client {
    /// The address.
    V4(u32),
    /// The first 64 bits of the address; the others are for a customer to choose.
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V4(address) => Client::V4(address.to_bits()),
            IpAddr::V6(address) => Client::V6((address.to_bits() >> 64) as u64),
        }
    }
}
