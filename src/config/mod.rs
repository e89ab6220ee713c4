//! Turns the environment and `.env` into a `Config`: names, defaults, ranges; all mistakes at once.
//! Reads that one file and nothing else: no socket, no thread, no clock, and it sets no variable.

mod api_url;
mod dotenv;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use log::LevelFilter;

pub use api_url::ApiUrl;
use api_url::parse_api_url;
use dotenv::{parse_dotenv, read_dotenv};

/// One setting as `--help`, the README and `.env.example` show it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name of the variable.
    pub name: &'static str,
    /// The default; empty where the setting is unset by default.
    pub default: &'static str,
    /// What it means, in a line.
    pub meaning: &'static str,
}

/// Every setting. The defaults are read from here, so what is documented is what happens.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("PORT", "4000", "port to serve on; 0 takes a free one"),
    setting("HOST", "0.0.0.0", "address to bind, IPv4 or IPv6"),
    setting("REFRESH_INTERVAL", "30", "seconds (a decimal number, 0.1 to 86400) between two probes of a node"),
    setting("RATELIMIT_REQS_PER_MIN", "10", "requests a minute for one client and one endpoint, 0 to 10^9; 0 turns the limit off"),
    setting("API_URL", "", "Node Explorer, http or https, with or without a trailing slash"),
    setting("IPS_FILE", "ips.txt", "the list of pre-specified nodes"),
    setting("MAX_PROBES", "128", "probes under way at once, at most (1 to 4096)"),
    setting("MAX_CONNECTIONS", "512", "client connections at once, at most (16 to 65536); one client may hold a quarter"),
    setting("TRUSTED_PROXIES", "", "addresses or CIDR blocks, comma-separated, whose X-Forwarded-For is believed"),
    setting("METRICS_FROM", LOCAL, "addresses or CIDR blocks that may read /metrics"),
    setting("PROMISES", "on", "off: order by pending jobs alone"),
    setting("PENDING_WEIGHTS", "", "weight of a job type, 0 to 1000: offchain=1,onchain=2; one that is not named weighs 1"),
    setting("RUST_LOG", "info", "log level: off, error, warn, info, debug or trace"),
];

/// The default of `METRICS_FROM`, in words. Link-local addresses are not among them: on a shared
/// network segment they are strangers.
const LOCAL: &str = "loopback and private addresses";
const LOCAL_BLOCKS: &str = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1,fc00::/7";

/// Real nodes allow 60 `/info` requests a minute, and a failed probe is repeated once.
const GENTLE_INTERVAL: Duration = Duration::from_secs(2);

/// Characters of a wrong value that a message repeats: enough for any right one, and one line.
const MAX_SHOWN_CHARS: usize = 80;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `REFRESH_INTERVAL`
    pub refresh_interval: Duration,
    /// `RATELIMIT_REQS_PER_MIN`; 0 turns the limit off.
    pub requests_per_minute: u32,
    /// `API_URL`
    pub api_url: Option<ApiUrl>,
    /// `IPS_FILE`
    pub ips_file: PathBuf,
    /// `MAX_PROBES`
    pub max_probes: usize,
    /// `MAX_CONNECTIONS`
    pub max_connections: usize,
    /// `TRUSTED_PROXIES`, never IPv4-mapped.
    pub trusted_proxies: Vec<IpNet>,
    /// `METRICS_FROM`, never IPv4-mapped.
    pub metrics_from: Vec<IpNet>,
    /// `PROMISES`
    pub promises: bool,
    /// `PENDING_WEIGHTS`
    pub weights: PendingWeights,
    /// `RUST_LOG`
    pub log_level: LevelFilter,
    /// `SSL_CERT_FILE`: further roots for https nodes.
    pub ssl_cert_file: Option<PathBuf>,
    /// What is allowed and yet worth a word, to be logged once logging works.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the environment and, for what is unset or empty there, `.env` in the working directory.
    pub fn from_env() -> Result<Config, ConfigErrors> {
        let (file, mistakes) = match read_dotenv() {
            Ok(text) => parse_dotenv(&text),
            Err(mistake) => (HashMap::new(), vec![mistake]),
        };
        let lookup = |name: &str| {
            let own = std::env::var_os(name).filter(|value| !is_blank(value));
            own.or_else(|| file.get(name).map(OsString::from))
        };
        read(Reader { lookup, mistakes })
    }

    /// Reads the settings from `lookup`; an empty value is an unset one.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigErrors> {
        let mistakes = Vec::new();
        read(Reader { lookup, mistakes })
    }
}

/// What a pending job counts, by its type.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PendingWeights(BTreeMap<String, u32>);

impl PendingWeights {
    /// The weight of one pending job of this type; 1 for a type that is not named.
    pub fn weight(&self, job_type: &str) -> u32 {
        self.0.get(job_type).copied().unwrap_or(1)
    }
}

/// Every mistake in the settings, one line each.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// What was wanted instead; stands behind "expected".
type Wanted = Cow<'static, str>;

/// Collects the mistakes while the settings are read one by one.
struct Reader<L> {
    lookup: L,
    mistakes: Vec<String>,
}

impl<L: Fn(&str) -> Option<OsString>> Reader<L> {
    /// A setting with a default. After a mistake the default stands in, so that the rest is read too.
    fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Wanted>) -> T {
        self.read_optional(name, &parse)
            .unwrap_or_else(|| parse(default_of(name)).expect("a test parses every default of SETTINGS"))
    }

    /// A setting that may stay unset.
    fn read_optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Wanted>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !is_blank(value))?;
        let parsed = match value.to_str() {
            Some(text) => parse(text.trim()),
            None => Err("UTF-8".into()),
        };
        parsed
            .map_err(|wanted| {
                let shown = shown(&value);
                self.mistakes.push(format!("{name}={shown}: expected {wanted}"));
            })
            .ok()
    }
}

fn read(mut reader: Reader<impl Fn(&str) -> Option<OsString>>) -> Result<Config, ConfigErrors> {
    let r = &mut reader;
    let mut warnings = Vec::new();
    let port = r.read("PORT", |text| whole(text, 0..=65535).ok_or("a port, 0 to 65535".into()));
    let host = r.read("HOST", |text| {
        text.parse()
            .map_err(|_| "an IPv4 or IPv6 address, without a port".into())
    });
    let refresh_interval = r.read("REFRESH_INTERVAL", parse_interval);
    if refresh_interval < GENTLE_INTERVAL {
        warnings.push(format!(
            "REFRESH_INTERVAL={}: nodes allow 60 requests a minute by default and refuse more; 2 or above is safe",
            refresh_interval.as_secs_f64()
        ));
    }
    let log_level = (r.lookup)("RUST_LOG").filter(|value| !is_blank(value));
    let log_level = parse_level(log_level.as_deref(), &mut warnings);
    let config = Config {
        host,
        port,
        refresh_interval,
        requests_per_minute: r.read("RATELIMIT_REQS_PER_MIN", |text| {
            whole(text, 0..=1_000_000_000).ok_or("a whole number, 0 to 1000000000".into())
        }),
        api_url: r.read_optional("API_URL", parse_api_url),
        ips_file: r.read("IPS_FILE", parse_path),
        max_probes: r.read("MAX_PROBES", |text| {
            whole(text, 1..=4096).ok_or("a whole number, 1 to 4096".into())
        }),
        max_connections: r.read("MAX_CONNECTIONS", |text| {
            whole(text, 16..=65536).ok_or("a whole number, 16 to 65536".into())
        }),
        trusted_proxies: r.read_optional("TRUSTED_PROXIES", parse_blocks).unwrap_or_default(),
        metrics_from: r.read("METRICS_FROM", |text| match text {
            LOCAL => parse_blocks(LOCAL_BLOCKS),
            other => parse_blocks(other),
        }),
        promises: r.read("PROMISES", parse_switch),
        weights: r.read_optional("PENDING_WEIGHTS", parse_weights).unwrap_or_default(),
        log_level,
        ssl_cert_file: r.read_optional("SSL_CERT_FILE", parse_path),
        warnings,
    };
    match reader.mistakes.is_empty() {
        true => Ok(config),
        false => Err(ConfigErrors(reader.mistakes)),
    }
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

fn default_of(name: &str) -> &'static str {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    setting.map_or("", |setting| setting.default)
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// The value as a message may repeat it: escaped, cut, and without a password.
fn shown(value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let secret = text.find("://").map_or(0, |at| at + 3);
    let text = match text.rfind('@').filter(|end| secret < *end) {
        Some(end) => format!("{}***{}", &text[..secret], &text[end..]),
        None => text.into_owned(),
    };
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Digits only: `str::parse` alone would take a `+` as well.
fn whole<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Option<T> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = text.parse().ok().filter(|number| range.contains(number))?;
    T::try_from(number).ok()
}

fn parse_interval(text: &str) -> Result<Duration, Wanted> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse().ok().filter(|_| is_decimal);
    seconds
        .filter(|seconds| (0.1..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or("seconds, a decimal number from 0.1 to 86400".into())
}

fn parse_path(text: &str) -> Result<PathBuf, Wanted> {
    match text.contains(char::is_control) {
        true => Err("a path without control characters".into()),
        false => Ok(PathBuf::from(text)),
    }
}

fn parse_switch(text: &str) -> Result<bool, Wanted> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off".into()),
    }
}

/// The log level is no reason not to serve: what isn't understood is a warning, and `info`.
fn parse_level(value: Option<&OsStr>, warnings: &mut Vec<String>) -> LevelFilter {
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

fn parse_blocks(text: &str) -> Result<Vec<IpNet>, Wanted> {
    text.split(',').map(|item| parse_block(item.trim())).collect()
}

fn parse_block(item: &str) -> Result<IpNet, Wanted> {
    let wrong = || -> Wanted {
        let item = shown(OsStr::new(item));
        format!("addresses or CIDR blocks, comma-separated; {item} is neither").into()
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

fn parse_weights(text: &str) -> Result<PendingWeights, Wanted> {
    let mut weights = BTreeMap::new();
    for item in text.split(',').map(str::trim) {
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

#[cfg(test)]
mod tests;
