//! Turns the environment and `.env` into a `Config`: names, defaults, ranges; all mistakes at once.
//! Reads that one file and nothing else: no socket, no thread, no clock, and it sets no variable.

mod api_url;
mod dotenv;
mod spelling;
mod values;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use crate::util::text::redact;
pub use api_url::ApiUrl;
use api_url::parse_api_url;
use dotenv::{parse_dotenv, read_dotenv};
use spelling::misspelled;
use values::{
    decimal, is_quoted, parse_blocks, parse_level, parse_origins, parse_path, parse_readers, parse_switch,
    parse_weights, seconds, shown, whole,
};

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
    setting("RATELIMIT_EXEMPT", "", "addresses or CIDR blocks, comma-separated, of clients without a rate limit"),
    setting("API_URL", "", "Node Explorer, http or https, with or without a trailing slash"),
    setting("IPS_FILE", "ips.txt", "the list of pre-specified nodes"),
    setting("MAX_PROBES", "128", "probes under way at once, at most (1 to 4096)"),
    setting("MAX_CONNECTIONS", "512", "client connections at once, at most (16 to 65536); one client may hold a quarter"),
    setting("TRUSTED_PROXIES", "", "addresses or CIDR blocks, comma-separated, whose X-Forwarded-For is believed"),
    setting("METRICS_FROM", "loopback", "clients that may read /metrics and /status: addresses, CIDR blocks, loopback, private; other clients get 404"),
    setting("PROMISES", "on", "off: order by pending jobs alone, as the original"),
    setting("MAX_SPEEDUP", "", "1 to 64: how many times the typical node's speed a node of ips.txt may count as; unset: none counts as faster than the upper quartile"),
    setting("RESOURCES_INTERVAL", "600", "seconds between two requests of a node's resources, 60 to 86400; 0: never, and /api/v1/resources does not exist"),
    setting("IDLE_TIMEOUT", "75", "seconds that a kept-alive connection may say nothing, 1 to 3600; a balancer in front must give up sooner"),
    setting("SHUTDOWN_DELAY", "0", "seconds, 0 to 300, that it goes on serving after SIGTERM while /health answers 503"),
    setting("CORS_ORIGINS", "", "origins whose web pages may read the API, comma-separated, or *"),
    setting("PENDING_WEIGHTS", "", "weight of a job type, 0 to 1000: offchain=1,onchain=2; one that is not named weighs 1"),
    setting("LOG_FORMAT", "text", "json: one object a line"),
    setting("RUST_LOG", "info", "log level: off, error, warn, info, debug or trace"),
    setting("SSL_CERT_FILE", "", "roots for https nodes beside the built-in ones, in PEM form"),
];

/// Real nodes allow 60 `/info` requests a minute, and a failed probe is repeated once.
const MIN_POLITE_INTERVAL: Duration = Duration::from_secs(2);

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
    /// `RATELIMIT_EXEMPT`, never IPv4-mapped.
    pub ratelimit_exempt: Vec<IpNet>,
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
    /// Whether `METRICS_FROM` is set.
    pub is_metrics_from_set: bool,
    /// `PROMISES`
    pub promises: bool,
    /// `MAX_SPEEDUP`: how many times the typical node's speed a node of ips.txt may count as, 1 to 64.
    pub max_speedup: Option<f64>,
    /// `RESOURCES_INTERVAL`; none where resources are never asked for.
    pub resources_interval: Option<Duration>,
    /// `IDLE_TIMEOUT`
    pub idle_timeout: Duration,
    /// `SHUTDOWN_DELAY`
    pub shutdown_delay: Duration,
    /// `CORS_ORIGINS`
    pub cors_origins: CorsOrigins,
    /// `PENDING_WEIGHTS`
    pub weights: PendingWeights,
    /// `LOG_FORMAT`
    pub log_format: LogFormat,
    /// `RUST_LOG`
    pub log_level: LevelFilter,
    /// `SSL_CERT_FILE`: further roots for https nodes.
    pub ssl_cert_file: Option<PathBuf>,
    /// Settings whose value differs from their default, by name, as a message may repeat them: without a password.
    pub changed: Vec<(&'static str, String)>,
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
        let mut config = read(lookup, mistakes)?;
        config.warnings.extend(misspelled(file.keys()));
        Ok(config)
    }

    /// Reads the settings from `lookup`; an empty value is an unset one.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigErrors> {
        read(lookup, Vec::new())
    }
}

/// The origins (RFC 6454) whose web pages may read the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// None: no header says anything of origins.
    #[default]
    None,
    /// `*`
    Any,
    /// These, in lower case, as browsers write them: without the default port.
    Listed(Vec<String>),
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
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
    /// Those that differ from their default.
    changed: Vec<(&'static str, String)>,
}

impl<L: Fn(&str) -> Option<OsString>> Reader<L> {
    /// A setting with a default. After a mistake the default stands in, so that the rest is read too.
    fn read<T: PartialEq>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Wanted>) -> T {
        let default = parse(default_of(name)).expect("a test parses every default of SETTINGS");
        match self.read_optional(name, &parse) {
            Some(value) if value == default => {
                self.changed.pop();
                value
            }
            value => value.unwrap_or(default),
        }
    }

    /// A setting that may stay unset.
    fn read_optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Wanted>) -> Option<T> {
        let value = (self.lookup)(name).filter(|value| !is_blank(value))?;
        let parsed = match value.to_str() {
            Some(text) if is_quoted(text.trim()) => {
                Err("a value without quotes around it (docker's --env-file passes them on)".into())
            }
            Some(text) => parse(text.trim()),
            None => Err("UTF-8".into()),
        };
        match &parsed {
            Ok(_) => self
                .changed
                .push((name, redact(&value.to_string_lossy()).trim().to_owned())),
            Err(wanted) => self
                .mistakes
                .push(format!("{name}={}: expected {wanted}", shown(&value))),
        }
        parsed.ok()
    }
}

fn read(lookup: impl Fn(&str) -> Option<OsString>, mistakes: Vec<String>) -> Result<Config, ConfigErrors> {
    let changed = Vec::new();
    let r = &mut Reader {
        lookup,
        mistakes,
        changed,
    };
    let mut warnings = Vec::new();
    let port = r.read("PORT", |text| whole(text, 0..=65535).ok_or("a port, 0 to 65535".into()));
    let host = r.read("HOST", |text| {
        text.parse()
            .map_err(|_| "an IPv4 or IPv6 address, without a port".into())
    });
    let refresh_interval = r.read("REFRESH_INTERVAL", |text| {
        let wanted = "seconds, a decimal number from 0.1 to 86400";
        seconds(text, 0.1, 86_400.0).ok_or(wanted.into())
    });
    if refresh_interval < MIN_POLITE_INTERVAL {
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
        ratelimit_exempt: r.read_optional("RATELIMIT_EXEMPT", parse_blocks).unwrap_or_default(),
        api_url: r.read_optional("API_URL", parse_api_url),
        ips_file: r.read("IPS_FILE", parse_path),
        max_probes: r.read("MAX_PROBES", |text| {
            whole(text, 1..=4096).ok_or("a whole number, 1 to 4096".into())
        }),
        max_connections: r.read("MAX_CONNECTIONS", |text| {
            whole(text, 16..=65536).ok_or("a whole number, 16 to 65536".into())
        }),
        trusted_proxies: r.read_optional("TRUSTED_PROXIES", parse_blocks).unwrap_or_default(),
        is_metrics_from_set: (r.lookup)("METRICS_FROM").is_some_and(|value| !is_blank(&value)),
        metrics_from: r.read("METRICS_FROM", parse_readers),
        promises: r.read("PROMISES", parse_switch),
        max_speedup: r.read_optional("MAX_SPEEDUP", |text| {
            let speedup = decimal(text).filter(|speedup| (1.0..=64.0).contains(speedup));
            speedup.ok_or("a decimal number, 1 to 64".into())
        }),
        resources_interval: r.read("RESOURCES_INTERVAL", |text| match decimal(text) {
            Some(0.0) => Ok(None),
            _ => seconds(text, 60.0, 86_400.0)
                .map(Some)
                .ok_or("seconds, 60 to 86400, or 0".into()),
        }),
        idle_timeout: r.read("IDLE_TIMEOUT", |text| {
            seconds(text, 1.0, 3_600.0).ok_or("seconds, 1 to 3600".into())
        }),
        shutdown_delay: r.read("SHUTDOWN_DELAY", |text| {
            seconds(text, 0.0, 300.0).ok_or("seconds, 0 to 300".into())
        }),
        cors_origins: r.read_optional("CORS_ORIGINS", parse_origins).unwrap_or_default(),
        weights: r.read_optional("PENDING_WEIGHTS", parse_weights).unwrap_or_default(),
        log_format: r.read("LOG_FORMAT", |text| match text.to_ascii_lowercase().as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("text or json".into()),
        }),
        log_level,
        ssl_cert_file: r.read_optional("SSL_CERT_FILE", parse_path),
        changed: Vec::new(),
        warnings,
    };
    if log_level != LevelFilter::Info {
        r.changed.push(("RUST_LOG", log_level.to_string().to_ascii_lowercase()));
    }
    let changed = std::mem::take(&mut r.changed);
    match r.mistakes.is_empty() {
        true => Ok(Config { changed, ..config }),
        false => Err(ConfigErrors(std::mem::take(&mut r.mistakes))),
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

#[cfg(test)]
mod tests;
