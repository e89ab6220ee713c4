//! Turns the environment and `.env` into a `Config`: names, defaults, ranges; all mistakes at once.
//! Reads that one file and nothing else: no socket, no thread, no clock, and it sets no variable.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use log::LevelFilter;

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

/// Longest `.env` read. Real ones are a few hundred bytes; a mistaken mount may be anything.
const MAX_DOTENV_BYTES: u64 = 256 * 1024;

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

/// The Node Explorer: where its list of nodes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    /// Empty, or with a leading slash and without a trailing one.
    path: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Http,
    Https,
}

impl ApiUrl {
    /// The address that lists the nodes seen within the last hour.
    pub fn nodes_url(&self) -> String {
        format!("{self}/api/nodes?minutes_past=60")
    }

    /// The host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, by the scheme where none is given.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
        })?;
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
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

fn parse_api_url(text: &str) -> Result<ApiUrl, Wanted> {
    const WANTED: Wanted = Cow::Borrowed("an address like https://explorer.example");
    // Everything but these would reach the request line of ureq, or be refused there too late.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an address in ASCII, without spaces".into());
    }
    if text.contains(['?', '#']) {
        return Err("an address without a query and a fragment".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or(WANTED)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err("an address with http:// or https:// in front".into()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("an address without a user name and a password".into());
    }
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !path.bytes().all(is_path_byte) {
        return Err("an address whose path is percent-encoded".into());
    }
    let (host, port) = split_authority(authority).ok_or(WANTED)?;
    let port = match port {
        Some(port) => Some(whole(port, 1..=65535).ok_or("an address whose port is 1 to 65535")?),
        None => None,
    };
    let path = path.trim_end_matches('/').to_owned();
    Ok(ApiUrl {
        scheme,
        host,
        port,
        path,
    })
}

/// The host, without brackets and in lower case, and the port as written.
fn split_authority(authority: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let host: Ipv6Addr = host.parse().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        return Some((host.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    is_host(host).then(|| (host.to_ascii_lowercase(), port))
}

/// A DNS name (RFC 1123, underscores too, as container names have them) or an IPv4 address.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(is_label_byte)
    };
    // A name whose last label is a number would be read as an address, in ways that differ.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// The bytes of `.env`; empty where there is none.
fn read_dotenv() -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    File::open(".env")
        .and_then(|file| file.take(MAX_DOTENV_BYTES + 1).read_to_end(&mut text))
        .or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(0),
            _ => Err(format!(".env: cannot be read: {error}")),
        })?;
    Ok(text)
}

/// The values of `.env`, and what is wrong with it. A name given twice has its last value, as with
/// docker, and empty ones hide nothing. Messages give the line, not the text: it may be a secret.
fn parse_dotenv(bytes: &[u8]) -> (HashMap<String, String>, Vec<String>) {
    let (mut values, mut mistakes) = (HashMap::new(), Vec::new());
    if bytes.len() as u64 > MAX_DOTENV_BYTES {
        mistakes.push(format!(".env: expected at most {MAX_DOTENV_BYTES} bytes"));
        return (values, mistakes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        mistakes.push(".env: expected UTF-8".to_owned());
        return (values, mistakes);
    };
    // dotenvy's iterator keeps a byte order mark.
    let text = tame_comments(text.strip_prefix('\u{feff}').unwrap_or(text));
    let lines_read = Cell::new(0);
    let lines = LineReader {
        rest: text.as_bytes(),
        lines_read: &lines_read,
    };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok((_, value)) if value.trim().is_empty() => {}
            Ok((name, value)) => drop(values.insert(name, value)),
            Err(error) => {
                let line = first_line(&error, lines_read.get());
                mistakes.push(format!(
                    ".env, line {line}: expected NAME=value, with quotes around spaces and every quote closed"
                ));
            }
        }
    }
    (values, mistakes)
}

/// The line where what dotenvy could not parse begins; it stopped at `last_line`.
fn first_line(error: &dotenvy::Error, last_line: usize) -> usize {
    match error {
        dotenvy::Error::LineParse(text, _) => (last_line + 1).saturating_sub(text.lines().count()),
        _ => last_line,
    }
}

/// dotenvy 0.15.7 sees a comment only behind a single blank; behind two, an apostrophe in it would
/// swallow the following lines. It also refuses a blank at the very end without a line break.
fn tame_comments(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        let comment = line.match_indices('#').map(|(at, _)| line.split_at(at));
        let comment = comment
            .filter(|(head, _)| head.ends_with([' ', '\t']) && !head.contains(['"', '\'']))
            .map(|(head, comment)| (head.trim_end(), comment));
        match comment.into_iter().next() {
            Some((head, comment)) => tamed.extend([head, " ", comment, "\n"]),
            None => tamed.extend([line, "\n"]),
        }
    }
    tamed
}

/// Serves one line a call and counts them, since dotenvy's errors have no line number.
struct LineReader<'a> {
    rest: &'a [u8],
    lines_read: &'a Cell<usize>,
}

impl Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line_end = self.rest.iter().position(|byte| *byte == b'\n');
        let length = line_end.map_or(self.rest.len(), |end| end + 1);
        let mut line = &self.rest[..length];
        let count = line.read(buffer)?;
        if count == length && line_end.is_some() {
            self.lines_read.set(self.lines_read.get() + 1);
        }
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::from_lookup(|name| {
            let value = settings.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| OsString::from(value))
        })
    }

    fn accepted(name: &str, value: &str) -> Config {
        let outcome = config(&[(name, value)]);
        outcome.unwrap_or_else(|mistakes| panic!("{name}={value:?} was refused: {mistakes}"))
    }

    fn refused(name: &str, value: &str) -> String {
        match config(&[(name, value)]) {
            Ok(_) => panic!("{name}={value:?} was accepted"),
            Err(mistakes) => mistakes.to_string(),
        }
    }

    fn blocks(text: &str) -> Vec<String> {
        let blocks = accepted("TRUSTED_PROXIES", text).trusted_proxies;
        blocks.iter().map(IpNet::to_string).collect()
    }

    fn api_url(text: &str) -> ApiUrl {
        accepted("API_URL", text).api_url.expect("it is set")
    }

    fn dotenv(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let (values, mistakes) = parse_dotenv(text.as_bytes());
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort();
        (values, mistakes)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = config(&[]).expect("the defaults are valid");
        assert_eq!(config.port, 4000);
        assert_eq!(config.host, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(config.refresh_interval, Duration::from_secs(30));
        assert_eq!(config.requests_per_minute, 10);
        assert_eq!(config.api_url, None);
        assert_eq!(config.ips_file, PathBuf::from("ips.txt"));
        assert_eq!(config.max_probes, 128);
        assert_eq!(config.max_connections, 512);
        assert_eq!(config.trusted_proxies, []);
        assert!(config.promises);
        assert_eq!(config.weights, PendingWeights::default());
        assert_eq!(config.log_level, LevelFilter::Info);
        assert_eq!(config.ssl_cert_file, None);
        assert_eq!(config.warnings, [""; 0]);
    }

    #[test]
    fn the_documented_default_given_as_a_value_changes_nothing() {
        let unset = format!("{:?}", config(&[]).expect("the defaults are valid"));
        for Setting { name, default, .. } in SETTINGS {
            assert_eq!(format!("{:?}", accepted(name, default)), unset, "{name}");
        }
    }

    #[test]
    fn a_blank_value_is_an_unset_one() {
        let unset = format!("{:?}", config(&[]).expect("the defaults are valid"));
        for Setting { name, .. } in SETTINGS {
            for blank in ["", " ", "\t\r\n"] {
                assert_eq!(format!("{:?}", accepted(name, blank)), unset, "{name}");
            }
        }
    }

    #[test]
    fn all_mistakes_are_reported_together_with_name_value_and_what_was_wanted() {
        let outcome = config(&[
            ("PORT", "http"),
            ("HOST", "localhost"),
            ("REFRESH_INTERVAL", "nan"),
            ("PROMISES", "maybe"),
        ]);
        assert_eq!(
            outcome.expect_err("four mistakes").to_string(),
            "PORT=\"http\": expected a port, 0 to 65535\n\
             HOST=\"localhost\": expected an IPv4 or IPv6 address, without a port\n\
             REFRESH_INTERVAL=\"nan\": expected seconds, a decimal number from 0.1 to 86400\n\
             PROMISES=\"maybe\": expected on or off"
        );
    }

    #[test]
    fn a_wrong_value_is_escaped_and_cut() {
        let at_the_limit = "x".repeat(MAX_SHOWN_CHARS);
        let text = refused("PORT", &at_the_limit);
        assert!(text.starts_with(&format!("PORT=\"{at_the_limit}\":")), "{text}");
        let text = refused("PORT", &"ü".repeat(100_000));
        let shown = "ü".repeat(MAX_SHOWN_CHARS);
        assert!(text.starts_with(&format!("PORT=\"{shown}\"…:")), "{text}");
        let text = refused("PORT", "1\n2\u{1b}[31m\u{202e}");
        assert!(text.starts_with(r#"PORT="1\n2\u{1b}[31m\u{202e}":"#), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf8_is_a_mistake_and_for_the_log_level_a_warning() {
        use std::os::unix::ffi::OsStringExt;
        let only = |name: &'static str| {
            let bytes = OsString::from_vec(vec![b'1', 0xff]);
            Config::from_lookup(move |asked| (asked == name).then(|| bytes.clone()))
        };
        for Setting { name, .. } in SETTINGS.iter().filter(|known| known.name != "RUST_LOG") {
            let mistakes = only(name).expect_err("not UTF-8").to_string();
            assert_eq!(mistakes, format!("{name}=\"1\u{fffd}\": expected UTF-8"));
        }
        assert_eq!(only("RUST_LOG").expect("a warning").warnings.len(), 1);
    }

    #[test]
    fn whole_numbers_are_taken_up_to_their_limits_and_not_one_past() {
        for (name, least, most) in [
            ("PORT", 0_u64, 65_535_u64),
            ("RATELIMIT_REQS_PER_MIN", 0, 1_000_000_000),
            ("MAX_PROBES", 1, 4096),
            ("MAX_CONNECTIONS", 16, 65_536),
        ] {
            accepted(name, &least.to_string());
            accepted(name, &most.to_string());
            refused(name, &(most + 1).to_string());
            if let Some(below) = least.checked_sub(1) {
                refused(name, &below.to_string());
            }
            for wrong in [
                "+20",
                "-20",
                "20.0",
                "2e1",
                "0x20",
                "2 0",
                "20s",
                "٢٠",
                "99999999999999999999",
            ] {
                refused(name, wrong);
            }
            accepted(name, " 0020\r");
        }
    }

    #[test]
    fn the_interval_is_a_decimal_number_within_its_range() {
        for (text, millis) in [
            ("0.1", 100),
            ("2", 2000),
            ("2.5", 2500),
            (".5", 500),
            ("86400", 86_400_000),
        ] {
            let interval = accepted("REFRESH_INTERVAL", text).refresh_interval;
            assert_eq!(interval, Duration::from_millis(millis), "{text}");
        }
        for wrong in [
            "0", "0.0", "0.09", "86400.1", "-1", "+1", "1e3", "inf", "NaN", ".", "1.2.3", "1,5", "30s",
        ] {
            refused("REFRESH_INTERVAL", wrong);
        }
    }

    #[test]
    fn an_interval_below_two_seconds_is_worth_a_warning() {
        assert_eq!(accepted("REFRESH_INTERVAL", "2").warnings.len(), 0);
        let warnings = accepted("REFRESH_INTERVAL", "1.99").warnings;
        assert!(warnings[0].starts_with("REFRESH_INTERVAL=1.99:"), "{warnings:?}");
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_log_level_is_one_bare_word_and_else_a_warning() {
        for (text, level) in [
            ("off", LevelFilter::Off),
            ("ERROR", LevelFilter::Error),
            ("Warn", LevelFilter::Warn),
            ("debug", LevelFilter::Debug),
            (" trace ", LevelFilter::Trace),
        ] {
            let config = accepted("RUST_LOG", text);
            assert_eq!((config.log_level, config.warnings.len()), (level, 0), "{text}");
        }
        for text in ["infernet_router=debug", "info,ureq=off", "verbose", "3"] {
            let config = accepted("RUST_LOG", text);
            assert_eq!(config.log_level, LevelFilter::Info, "{text}");
            assert_eq!(
                config.warnings,
                [format!(
                    "RUST_LOG={text:?}: expected off, error, warn, info, debug or trace; info it is"
                )]
            );
        }
    }

    #[test]
    fn host_and_switch_and_paths_are_read() {
        assert_eq!(accepted("HOST", "::").host, IpAddr::from([0_u16; 8]));
        refused("HOST", "127.0.0.1:80");
        assert!(!accepted("PROMISES", "OFF").promises);
        refused("PROMISES", "true");
        let path = accepted("IPS_FILE", " /data/my ips.txt ").ips_file;
        assert_eq!(path, PathBuf::from("/data/my ips.txt"));
        refused("IPS_FILE", "a\0b");
        let roots = accepted("SSL_CERT_FILE", "/ca.pem").ssl_cert_file;
        assert_eq!(roots, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn a_list_of_blocks_takes_addresses_and_blocks_and_trims_host_bits() {
        assert_eq!(
            blocks("10.1.2.3/8 , 192.0.2.1,2001:db8::1/32,::1"),
            ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"]
        );
        assert_eq!(blocks("0.0.0.0/0,::/0"), ["0.0.0.0/0", "::/0"]);
        for wrong in [
            "10.0.0.0/33",
            "::/129",
            "10/8",
            "a",
            ",",
            "::1,",
            ",::1",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "1.2.3.4/8/8",
            "1.2.3.4:80",
            "[::1]",
        ] {
            refused("TRUSTED_PROXIES", wrong);
            refused("METRICS_FROM", wrong);
        }
        assert_eq!(
            refused("TRUSTED_PROXIES", "::1,proxy"),
            "TRUSTED_PROXIES=\"::1,proxy\": expected addresses or CIDR blocks, comma-separated; \"proxy\" is neither"
        );
    }

    #[test]
    fn an_ipv4_mapped_block_becomes_ipv4_down_to_96() {
        assert_eq!(blocks("::ffff:10.0.0.1"), ["10.0.0.1/32"]);
        assert_eq!(blocks("::ffff:10.9.9.9/104"), ["10.0.0.0/8"]);
        assert_eq!(blocks("::ffff:0:0/96"), ["0.0.0.0/0"]);
        let text = refused("TRUSTED_PROXIES", "::ffff:0:0/95");
        assert!(text.contains("to be /96 or longer"), "{text}");
    }

    #[test]
    fn metrics_are_for_loopback_and_private_addresses_unless_told() {
        let may_read = |config: &Config, address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            config.metrics_from.iter().any(|block| block.contains(&address))
        };
        let default = config(&[]).expect("the defaults are valid");
        for local in [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.1",
            "::1",
            "fc00::1",
            "fdff:ffff::1",
        ] {
            assert!(may_read(&default, local), "{local}");
        }
        for other in [
            "128.0.0.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.169.0.0",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "fe80::1",
            "fe00::1",
            "fbff::1",
        ] {
            assert!(!may_read(&default, other), "{other}");
        }
        let told = accepted("METRICS_FROM", "203.0.113.7");
        assert!(may_read(&told, "203.0.113.7") && !may_read(&told, "127.0.0.1"));
    }

    #[test]
    fn weights_are_by_job_type_and_one_for_the_rest() {
        let weights = accepted("PENDING_WEIGHTS", "offchain=0, onchain = 1000").weights;
        assert_eq!(weights.weight("offchain"), 0);
        assert_eq!(weights.weight("onchain"), 1000);
        assert_eq!(weights.weight("Offchain"), 1);
        for wrong in ["a", "a=", "=1", "a=1,", "a=1001", "a=-1", "a=1.5", "a=b=1", ",", "a:1"] {
            refused("PENDING_WEIGHTS", wrong);
        }
        assert_eq!(
            refused("PENDING_WEIGHTS", "a=1,b=2,a=1"),
            "PENDING_WEIGHTS=\"a=1,b=2,a=1\": expected each job type once; \"a\" is named twice"
        );
    }

    #[test]
    fn the_nodes_of_the_explorer_are_below_its_address() {
        for (text, nodes) in [
            ("http://explorer.example", "http://explorer.example"),
            ("https://Explorer.example/", "https://explorer.example"),
            ("HTTP://10.0.0.1:8080//", "http://10.0.0.1:8080"),
            ("http://explorer_1:80/a/b%20c/", "http://explorer_1:80/a/b%20c"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(api_url(text).nodes_url(), format!("{nodes}/api/nodes?minutes_past=60"));
            assert_eq!(api_url(text).to_string(), nodes);
        }
    }

    #[test]
    fn host_and_port_of_the_explorer_are_told_apart() {
        for (text, host, port) in [
            ("http://a.example", "a.example", 80),
            ("https://a.example.", "a.example.", 443),
            ("https://[2001:db8:0::1]/x", "2001:db8::1", 443),
            ("http://[::1]:65535", "::1", 65535),
            ("http://127.0.0.1:1", "127.0.0.1", 1),
        ] {
            assert_eq!((api_url(text).host(), api_url(text).port()), (host, port));
        }
    }

    #[test]
    fn an_explorer_address_that_is_none_is_refused() {
        for wrong in [
            "explorer.example",
            "//explorer.example",
            "ftp://a",
            "http:/a",
            "http://",
            "http:///x",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+80",
            "http://a:b",
            "http://a:1:2",
            "http://::1",
            "http://[::1",
            "http://[]",
            "http://[1.2.3.4]",
            "http://[::1]80",
            "http://[fe80::1%25eth0]",
            "http://a..b",
            "http://.",
            "http://1.2.3.400",
            "http://127.1",
            "http://a b",
            "http://a/\tb",
            "http://a\u{7f}",
            "http://ä.example",
            "http://a?x=1",
            "http://a/#x",
            "http://a\\b",
            "http://a/\"",
            "http://a/{x}",
        ] {
            refused("API_URL", wrong);
        }
        refused("API_URL", &format!("http://{}", "a".repeat(64)));
        refused("API_URL", &format!("http://{}a", "a.".repeat(127)));
        accepted("API_URL", &format!("http://{}a", "a.".repeat(126)));
    }

    #[test]
    fn a_password_in_the_explorer_address_is_refused_and_not_repeated() {
        assert_eq!(
            refused("API_URL", "http://me:se@cret@a.example/x"),
            "API_URL=\"http://***@a.example/x\": expected an address without a user name and a password"
        );
        assert!(!refused("API_URL", "me:secret@a.example").contains("secret"));
    }

    #[test]
    fn dotenv_knows_comments_quotes_export_and_a_byte_order_mark() {
        let text = "\u{feff}PORT=1\r\n# HOST=x\r\n\nexport HOST='::1' # six\nIPS_FILE=\"a b\"\nMAX_PROBES=7 ";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a b"), ("MAX_PROBES", "7"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
        assert_eq!(dotenv(""), (vec![], vec![]));
    }

    #[test]
    fn an_apostrophe_in_a_dotenv_comment_swallows_no_line() {
        let text = "PORT=1   # the router's\nHOST=::1\t\t# it's\nMAX_PROBES=   # isn't\nIPS_FILE=a#b";
        let expected = [("HOST", "::1"), ("IPS_FILE", "a#b"), ("PORT", "1")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn a_hash_within_quotes_begins_no_comment() {
        let text = "IPS_FILE=\"a  # b\"\nHOST='::1  #'\n";
        let expected = [("HOST", "::1  #"), ("IPS_FILE", "a  # b")];
        assert_eq!(dotenv(text), (pairs(&expected), vec![]));
    }

    #[test]
    fn in_dotenv_the_last_value_that_is_not_empty_counts() {
        let text = "PORT=1\nPORT=2\nPORT=\nHOST=' '\n";
        assert_eq!(dotenv(text), (pairs(&[("PORT", "2")]), vec![]));
    }

    #[test]
    fn a_mistake_in_dotenv_is_told_by_its_line_and_the_rest_is_read() {
        let wanted = "expected NAME=value, with quotes around spaces and every quote closed";
        let text = "\nKEY='1\n2'\n\nwhat\nPORT=1\nA=b c\n\nB=\"open\nC=1\n\n";
        let (values, mistakes) = dotenv(text);
        assert_eq!(values, pairs(&[("KEY", "1\n2"), ("PORT", "1")]));
        let lines = [5, 7, 9].map(|line| format!(".env, line {line}: {wanted}"));
        assert_eq!(mistakes, lines);
    }

    #[test]
    fn a_dotenv_that_is_not_utf8_or_too_long_is_a_mistake() {
        assert_eq!(parse_dotenv(b"PORT=\xff").1, [".env: expected UTF-8"]);
        let mut text = vec![b'\n'; MAX_DOTENV_BYTES as usize];
        assert_eq!(parse_dotenv(&text).1, [""; 0]);
        text.push(b'\n');
        assert_eq!(parse_dotenv(&text).1, [".env: expected at most 262144 bytes"]);
    }
}
