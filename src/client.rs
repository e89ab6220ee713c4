//! Identifies a client: the key of its rate limit, its connection share and its promises.

use std::net::IpAddr;

use ipnet::IpNet;

/// The key of a client: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Client {
    /// The address.
    V4(u32),
    /// The first 64 bits of the address; a customer chooses the others.
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

impl Client {
    /// The IPv4 /24 or the IPv6 /48 of the client: what one customer of a hosting company gets.
    pub(crate) fn subnet(self) -> Self {
        match self {
            Client::V4(address) => Client::V4(address >> 8),
            Client::V6(prefix) => Client::V6(prefix >> 16),
        }
    }
}

/// Whether one of the blocks contains the address. An IPv4-mapped address is IPv4.
pub(crate) fn is_in(blocks: &[IpNet], addr: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(&addr.to_canonical()))
}
