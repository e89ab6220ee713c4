//! Values of settings: what each kind takes, and how a wrong one is shown.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use log::LevelFilter;

use super::{CorsOrigins, PendingWeights, Wanted};
use crate::node::Url;
use crate::util::text;

/// Characters of a wrong value that a message repeats: enough for any right one, and one line.
pub(super) const MAX_SHOWN_CHARS: usize = 80;

/// Whether a value is in quotes, which a shell would have taken off.
pub(super) fn is_quoted(text: &str) -> bool {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).is_some()
}

/// The value as an error message repeats it.
pub(super) fn shown(value: &OsStr) -> String {
    text::quote(&text::redact(&value.to_string_lossy()), MAX_SHOWN_CHARS)
}

/// Digits only: `str::parse` alone would take a `+` as well.
pub(super) fn whole<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Option<T> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = text.parse().ok().filter(|number| range.contains(number))?;
    T::try_from(number).ok()
}

/// Digits and a point: `str::parse` alone would take exponents, signs and `inf`.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_decimal)
}

pub(super) fn seconds(text: &str, least: f64, most: f64) -> Option<Duration> {
    let seconds = decimal(text).filter(|seconds| (least..=most).contains(seconds));
    seconds.map(Duration::from_secs_f64)
}

pub(super) fn parse_path(text: &str) -> Result<PathBuf, Wanted> {
    match text.contains(char::is_control) {
        true => Err("a path without control characters".into()),
        false => Ok(PathBuf::from(text)),
    }
}

pub(super) fn parse_switch(text: &str) -> Result<bool, Wanted> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err("on or off".into()),
    }
}

/// The log level is no reason not to serve: what isn't understood is a warning, and `info`.
pub(super) fn parse_level(value: Option<&OsStr>, warnings: &mut Vec<String>) -> LevelFilter {
    let Some(value) = value else {
        return LevelFilter::Info;
    };
    let level = value.to_str().and_then(|text| text.trim().parse().ok());
    level.unwrap_or_else(|| {
        warnings.push(format!(
            "RUST_LOG={}: expected off, error, warn, info, debug or trace; info it is",
            shown(value)
        ));
        LevelFilter::Info
    })
}

/// The items of a list, which may end in a comma.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim)
}

pub(super) fn parse_blocks(text: &str) -> Result<Vec<IpNet>, Wanted> {
    let parse = |item| parse_block(item, "addresses or CIDR blocks");
    items(text).map(parse).collect()
}

/// The blocks of `loopback`.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// The blocks that `private` adds to `loopback`. Link-local addresses are not among them: on a shared network segment they
/// belong to untrusted peers.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// Parses `METRICS_FROM`: blocks and the words `loopback` and `private`, mixed.
pub(super) fn parse_readers(text: &str) -> Result<Vec<IpNet>, Wanted> {
    let mut blocks = Vec::new();
    for item in items(text) {
        let of_word: &[&[&str]] = match item.to_ascii_lowercase().as_str() {
            "loopback" => &[&LOOPBACK],
            "private" => &[&LOOPBACK, &PRIVATE],
            _ => &[&[item]],
        };
        for block in of_word.concat() {
            blocks.push(parse_block(block, "addresses, CIDR blocks, loopback or private")?);
        }
    }
    Ok(blocks)
}

pub(super) fn parse_origins(text: &str) -> Result<CorsOrigins, Wanted> {
    match text {
        "*" => Ok(CorsOrigins::Any),
        _ => items(text)
            .map(parse_origin)
            .collect::<Result<_, _>>()
            .map(CorsOrigins::Listed),
    }
}

/// An origin as browsers write it (RFC 6454, section 6.2): lower case, no default port, nothing behind the port.
fn parse_origin(item: &str) -> Result<String, Wanted> {
    let wrong = || -> Wanted {
        let item = shown(OsStr::new(item));
        format!("* or origins like https://app.example, comma-separated; {item} is none").into()
    };
    let item = item.strip_suffix('/').unwrap_or(item).to_ascii_lowercase();
    let url = Url::parse(&item).map_err(|_| wrong())?;
    if !url.has_scheme || url.user.is_some() || !url.rest.is_empty() {
        return Err(wrong());
    }
    let default_port = format!(":{}", url.origin.scheme().default_port());
    Ok(item.strip_suffix(&default_port).unwrap_or(&item).to_owned())
}

/// Parses one block. `wanted` names the forms that the setting accepts.
fn parse_block(item: &str, wanted: &str) -> Result<IpNet, Wanted> {
    let wrong = || -> Wanted {
        let item = shown(OsStr::new(item));
        format!("{wanted}, comma-separated; {item} is invalid").into()
    };
    let (address, prefix) = match item.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (item, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = match prefix {
        Some(prefix) => whole(prefix, 0..=bits),
        None => u8::try_from(bits).ok(),
    }
    .ok_or_else(wrong)?;
    let block = match (address.to_canonical(), prefix) {
        // Clients with an IPv4-mapped address are IPv4 clients, so such a block must be one too.
        (IpAddr::V4(inner), prefix) if address.is_ipv6() => prefix
            .checked_sub(96)
            .and_then(|prefix| Ipv4Net::new(inner, prefix).ok())
            .map(IpNet::V4)
            .ok_or_else(|| {
                let item = shown(OsStr::new(item));
                format!("an IPv4-mapped block to be /96 or longer, which {item} is not")
            })?,
        (address, prefix) => IpNet::new(address, prefix).map_err(|_| wrong())?,
    };
    Ok(block.trunc())
}

pub(super) fn parse_weights(text: &str) -> Result<PendingWeights, Wanted> {
    let mut weights = BTreeMap::new();
    for item in items(text) {
        let (job_type, weight) = item
            .split_once('=')
            .map(|(job_type, weight)| (job_type.trim(), whole(weight.trim(), 0..=1000)))
            .unwrap_or_default();
        let Some(weight) = weight.filter(|_| !job_type.is_empty()) else {
            let item = shown(OsStr::new(item));
            let wanted = "weights like offchain=1,onchain=2, whole numbers 0 to 1000";
            return Err(format!("{wanted}; {item} is none").into());
        };
        if weights.insert(job_type.to_owned(), weight).is_some() {
            let job_type = shown(OsStr::new(job_type));
            return Err(format!("each job type once; {job_type} is named twice").into());
        }
    }
    Ok(PendingWeights(weights))
}
