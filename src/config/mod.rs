//! Turns the environment and `.env` into a `Config`, or into all errors together.
//! Reads `.env` and no other file. Opens no socket, starts no thread, reads no clock and sets no variable.

mod api_url;
mod dotenv;
mod reader;
mod table;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

pub use api_url::ApiUrl;
use api_url::parse_api_url;
use dotenv::{parse_dotenv, read_dotenv};
use reader::{Reader, from_str, is_blank, number_of};
pub use reader::{SetBy, SettingValue};
pub use table::{SETTINGS, Setting};
pub use values::{CorsOrigins, PendingWeights};
use values::{one_of, parse_blocks, parse_origins, parse_path, parse_readers, parse_weights};

use crate::util::text;

/// Real nodes allow 60 `/info` requests per minute, and the router repeats a failed probe once.
const MIN_POLITE_INTERVAL: Duration = Duration::from_secs(2);

/// The valid settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`; 0 selects a free port.
    pub port: u16,
    /// `REFRESH_INTERVAL`
    pub refresh_interval: Duration,
    /// `RATELIMIT_REQS_PER_MIN`; 0 disables the limit.
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
    /// `MAX_SPEEDUP`: the speed cap for listed nodes, as a multiple of the typical speed.
    pub max_speedup: Option<f64>,
    /// `RESOURCES_INTERVAL`; `None` if the router never polls resources.
    pub resources_interval: Option<Duration>,
    /// `IDLE_TIMEOUT`
    pub idle_timeout: Duration,
    /// `SHUTDOWN_DELAY`
    pub shutdown_delay: Duration,
    /// `CORS_ORIGINS`
    pub cors_origins: CorsOrigins,
    /// `PENDING_WEIGHTS`
    pub weights: PendingWeights,
    /// Whether `LOG_FORMAT` is `json`.
    pub is_json_log: bool,
    /// `RUST_LOG`
    pub log_level: LevelFilter,
    /// `SSL_CERT_FILE`: additional roots for https nodes.
    pub ssl_cert_file: Option<PathBuf>,
    /// The settings that differ from their defaults, without passwords.
    pub changed: BTreeMap<String, String>,
    /// Warnings about valid settings, to be logged once the log is started.
    pub warnings: Vec<String>,
}

/// All settings: their values as they may be shown, and what they amount to.
#[derive(Debug)]
pub struct Loaded {
    /// One value for each setting of the table.
    pub values: Vec<SettingValue>,
    /// The valid settings, or all errors.
    pub config: Result<Config, ConfigErrors>,
}

impl Loaded {
    /// Reads the settings from `lookup`. An empty value is treated as unset. `errors` precede those of the settings.
    pub(crate) fn new(lookup: &dyn Fn(&str) -> Option<(OsString, SetBy)>, errors: Vec<String>) -> Loaded {
        let mut reader = Reader {
            lookup,
            values: Vec::new(),
            changed: BTreeMap::new(),
            errors,
            warnings: Vec::new(),
        };
        let mut config = read_all(&mut reader);
        if config.refresh_interval < MIN_POLITE_INTERVAL {
            let seconds = config.refresh_interval.as_secs_f64();
            let risk = "nodes allow 60 requests per minute by default and refuse more; 2 or above is safe";
            reader.warnings.push(format!("REFRESH_INTERVAL={seconds}: {risk}"));
        }
        (config.changed, config.warnings) = (reader.changed, reader.warnings);
        let is_valid = reader.errors.is_empty();
        Loaded {
            values: reader.values,
            config: is_valid.then_some(config).ok_or(ConfigErrors(reader.errors)),
        }
    }

    /// Reads the environment and, for what is unset or empty there, `.env` in the working directory.
    pub fn from_env() -> Loaded {
        let unread = |error| (BTreeMap::new(), vec![error]);
        let (file, errors) = read_dotenv().map_or_else(unread, |text| parse_dotenv(&text));
        let lookup = |name: &str| {
            let own = std::env::var_os(name).filter(|value| !is_blank(value));
            let own = own.map(|value| (value, SetBy::Environment));
            own.or_else(|| Some((file.get(name)?.into(), SetBy::Dotenv)))
        };
        let mut loaded = Loaded::new(&lookup, errors);
        if let Ok(config) = &mut loaded.config {
            config.warnings.extend(misspelled(file.keys()));
        }
        loaded
    }
}

/// A warning for each name that is a typo of a setting.
fn misspelled<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let warning = |name: &String| {
        let meant = text::closest(&name.to_ascii_uppercase(), SETTINGS.iter().map(|setting| setting.name))?;
        (name != meant).then(|| format!(".env: unknown setting {name:?}; did you mean {meant}?"))
    };
    names.filter_map(warning).collect()
}

/// All errors in the settings, one line each.
#[derive(Debug)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads every setting. The table's ranges make the conversions of numbers exact.
fn read_all(r: &mut Reader<'_>) -> Config {
    Config {
        port: r.number("PORT") as u16,
        host: r.required("HOST", from_str),
        refresh_interval: r.seconds("REFRESH_INTERVAL"),
        requests_per_minute: r.number("RATELIMIT_REQS_PER_MIN") as u32,
        ratelimit_exempt: r.read("RATELIMIT_EXEMPT", parse_blocks).unwrap_or_default(),
        api_url: r.read("API_URL", parse_api_url),
        ips_file: r.required("IPS_FILE", parse_path),
        max_probes: r.number("MAX_PROBES") as usize,
        max_connections: r.number("MAX_CONNECTIONS") as usize,
        trusted_proxies: r.read("TRUSTED_PROXIES", parse_blocks).unwrap_or_default(),
        metrics_from: r.required("METRICS_FROM", parse_readers),
        is_metrics_from_set: r.values.last().is_some_and(|value| value.set_by != SetBy::Default),
        promises: r.required(
            "PROMISES",
            one_of(["on", "true", "1", "yes"], ["off", "false", "0", "no"]),
        ),
        max_speedup: r.read("MAX_SPEEDUP", number_of("MAX_SPEEDUP")),
        resources_interval: Some(r.seconds("RESOURCES_INTERVAL")).filter(|interval| !interval.is_zero()),
        idle_timeout: r.seconds("IDLE_TIMEOUT"),
        shutdown_delay: r.seconds("SHUTDOWN_DELAY"),
        cors_origins: r.read("CORS_ORIGINS", parse_origins).unwrap_or_default(),
        weights: r.read("PENDING_WEIGHTS", parse_weights).unwrap_or_default(),
        is_json_log: r.required("LOG_FORMAT", one_of(["json"], ["text"])),
        log_level: r.level("RUST_LOG"),
        ssl_cert_file: r.read("SSL_CERT_FILE", parse_path),
        changed: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
