//! Values that are more than a number or a word, and their parsers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::reader::{Invalid, Parsed, shown};
use super::table::Form;
use crate::node::Url;

/// The blocks of `loopback`.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";
/// The blocks of `private`. Link-local addresses are not among them: on a shared network segment they belong to
/// untrusted peers.
const PRIVATE: &str = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7";
/// A weight in `PENDING_WEIGHTS`. Sums of weighted jobs then saturate late.
const WEIGHT: Form = Form::Whole("a weight", 0.0, 1_000.0);
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

pub(super) fn parse_path(text: &str) -> Parsed<PathBuf> {
    let is_path = !text.contains(char::is_control);
    is_path.then(|| PathBuf::from(text)).ok_or(Invalid::Form)
}

/// The parser of a word in any case: true for the words of `on`, false for those of `off`.
pub(super) fn one_of<const N: usize>(on: [&str; N], off: [&str; N]) -> impl Fn(&str) -> Parsed<bool> {
    move |text| {
        let is_one = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        (is_one(&on) || is_one(&off)).then(|| is_one(&on)).ok_or(Invalid::Form)
    }
}

/// The items of a list, which may end in a comma.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim)
}

pub(super) fn parse_blocks(text: &str) -> Parsed<Vec<IpNet>> {
    items(text).map(parse_block).collect()
}

/// Parses `METRICS_FROM`: blocks and the words `loopback` and `private`, mixed.
pub(super) fn parse_readers(text: &str) -> Parsed<Vec<IpNet>> {
    let blocks = items(text).flat_map(|item| match item.to_ascii_lowercase().as_str() {
        "loopback" => items(LOOPBACK),
        "private" => items(PRIVATE),
        _ => items(item),
    });
    blocks.map(parse_block).collect()
}

pub(super) fn parse_origins(text: &str) -> Parsed<CorsOrigins> {
    if text == "*" {
        return Ok(CorsOrigins::Any);
    }
    let origins: Parsed<Vec<_>> = items(text).map(parse_origin).collect();
    origins.map(CorsOrigins::Listed)
}

/// Parses an origin as browsers write it (RFC 6454, section 6.2): lower case, no default port, no path.
fn parse_origin(item: &str) -> Parsed<String> {
    let lower = item.strip_suffix('/').unwrap_or(item).to_ascii_lowercase();
    match Url::parse(&lower) {
        Ok(url) if url.has_scheme && url.user.is_none() && url.rest.is_empty() => {
            let default_port = format!(":{}", url.origin.scheme.default_port());
            Ok(lower.strip_suffix(&default_port).unwrap_or(&lower).to_owned())
        }
        _ => Err(Invalid::Item(item.to_owned())),
    }
}

fn parse_block(item: &str) -> Parsed<IpNet> {
    let invalid = || Invalid::Item(item.to_owned());
    let address = |_| item.parse::<IpAddr>().map(IpNet::from);
    let block = item.parse::<IpNet>().or_else(address).map_err(|_| invalid())?;
    // Clients with an IPv4-mapped address are IPv4 clients.
    let client = block.addr().to_canonical();
    let mapped_bits = if client == block.addr() { 0 } else { MAPPED_PREFIX_BITS };
    let prefix = block.prefix_len().checked_sub(mapped_bits).ok_or_else(|| {
        let expected = format!("IPv4-mapped blocks of /96 or longer; {} is invalid", shown(item));
        Invalid::Expected(expected.into())
    })?;
    IpNet::new(client, prefix)
        .map(|block| block.trunc())
        .map_err(|_| invalid())
}

pub(super) fn parse_weights(text: &str) -> Parsed<PendingWeights> {
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
    let (job_type, weight) = (job_type.trim(), weight.trim());
    let weight = WEIGHT.number(weight)? as u32;
    (!job_type.is_empty()).then_some((job_type, weight))
}
