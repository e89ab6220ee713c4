//! Values that are more than a number or a word, and their parsers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use super::reader::{Invalid, shown};
use crate::node::Url;

/// The blocks of `loopback`.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// The blocks that `private` adds to `loopback`. Link-local addresses are not among them: on a shared network segment
/// they belong to untrusted peers.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
/// Largest weight in `PENDING_WEIGHTS`. Sums of weighted jobs then saturate late.
const MAX_WEIGHT: u32 = 1_000;
/// An IPv4-mapped address has this prefix in front of the IPv4 address.
const MAPPED_PREFIX_BITS: u8 = 96;

/// The origins (RFC 6454) whose web pages may read the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// None: the router sends no CORS headers.
    #[default]
    None,
    /// `*`
    Any,
    /// These origins, in lower case, as browsers write them: without the default port.
    Listed(Vec<String>),
}

/// The weights of pending jobs by their type.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PendingWeights(BTreeMap<String, u32>);

impl PendingWeights {
    /// The weight of one pending job of this type; 1 for an unnamed type.
    pub fn weight(&self, job_type: &str) -> u32 {
        self.0.get(job_type).copied().unwrap_or(1)
    }
}

pub(super) fn parse_host(text: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::Form)
}

pub(super) fn parse_path(text: &str) -> Result<PathBuf, Invalid> {
    match text.contains(char::is_control) {
        true => Err(Invalid::Form),
        false => Ok(PathBuf::from(text)),
    }
}

pub(super) fn parse_switch(text: &str) -> Result<bool, Invalid> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err(Invalid::Form),
    }
}

/// The items of a list, which may end in a comma.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim)
}

pub(super) fn parse_blocks(text: &str) -> Result<Vec<IpNet>, Invalid> {
    items(text).map(parse_block).collect()
}

/// Parses `METRICS_FROM`: blocks and the words `loopback` and `private`, mixed.
pub(super) fn parse_readers(text: &str) -> Result<Vec<IpNet>, Invalid> {
    let mut blocks = Vec::new();
    for item in items(text) {
        let of_word: &[&[&str]] = match item.to_ascii_lowercase().as_str() {
            "loopback" => &[&LOOPBACK],
            "private" => &[&LOOPBACK, &PRIVATE],
            _ => &[&[item]],
        };
        for block in of_word.concat() {
            blocks.push(parse_block(block)?);
        }
    }
    Ok(blocks)
}

pub(super) fn parse_origins(text: &str) -> Result<CorsOrigins, Invalid> {
    match text {
        "*" => Ok(CorsOrigins::Any),
        _ => items(text)
            .map(|item| parse_origin(item).ok_or_else(|| Invalid::Item(item.to_owned())))
            .collect::<Result<_, _>>()
            .map(CorsOrigins::Listed),
    }
}

/// Parses an origin as browsers write it (RFC 6454, section 6.2): lower case, no default port, no path.
fn parse_origin(item: &str) -> Option<String> {
    let item = item.strip_suffix('/').unwrap_or(item).to_ascii_lowercase();
    let url = Url::parse(&item).ok()?;
    if !url.has_scheme || url.user.is_some() || !url.rest.is_empty() {
        return None;
    }
    let default_port = format!(":{}", url.origin.scheme().default_port());
    Some(item.strip_suffix(&default_port).unwrap_or(&item).to_owned())
}

fn parse_block(item: &str) -> Result<IpNet, Invalid> {
    let invalid = || Invalid::Item(item.to_owned());
    let (address, prefix) = match item.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (item, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let block = match prefix {
        Some(prefix) => IpNet::new(address, digits(prefix).ok_or_else(invalid)?).map_err(|_| invalid())?,
        None => IpNet::from(address),
    };
    match (block, address.to_canonical()) {
        (IpNet::V6(_), IpAddr::V4(mapped)) => unmap(mapped, block.prefix_len()).ok_or_else(|| {
            Invalid::Expected(format!("IPv4-mapped blocks of /96 or longer; {} is invalid", shown(item)).into())
        }),
        _ => Ok(block.trunc()),
    }
}

/// The IPv4 block of an IPv4-mapped block. Clients with an IPv4-mapped address are IPv4 clients.
fn unmap(mapped: std::net::Ipv4Addr, prefix: u8) -> Option<IpNet> {
    let block = Ipv4Net::new(mapped, prefix.checked_sub(MAPPED_PREFIX_BITS)?).ok()?;
    Some(IpNet::V4(block.trunc()))
}

/// Parses digits only: `str::parse` alone accepts a `+`.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

pub(super) fn parse_weights(text: &str) -> Result<PendingWeights, Invalid> {
    let mut weights = BTreeMap::new();
    for item in items(text) {
        let (job_type, weight) = parse_weight(item).ok_or_else(|| Invalid::Item(item.to_owned()))?;
        if weights.insert(job_type.to_owned(), weight).is_some() {
            let repeated = format!("each job type once; {} is repeated", shown(job_type));
            return Err(Invalid::Expected(repeated.into()));
        }
    }
    Ok(PendingWeights(weights))
}

fn parse_weight(item: &str) -> Option<(&str, u32)> {
    let (job_type, weight) = item.split_once('=')?;
    let weight = digits(weight.trim()).filter(|weight| *weight <= MAX_WEIGHT)?;
    let job_type = job_type.trim();
    (!job_type.is_empty()).then_some((job_type, weight))
}
