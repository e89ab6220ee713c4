//! The table of settings: names, defaults, forms, examples and meanings. Ranges, error messages, `--help`,
//! `.env.example` and the documented table come from it.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The name of the variable.
    pub name: &'static str,
    /// The default; empty if the setting is unset by default.
    pub default: &'static str,
    /// A valid value other than the default.
    pub example: &'static str,
    /// What the setting does, in one line.
    pub meaning: &'static str,
    pub(super) form: Form,
}

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// What the number is, its minimum and its maximum. All bounds are exact in an `f64`.
    Whole(&'static str, f64, f64),
    Decimal(&'static str, f64, f64),
    /// A decimal number in the range, or 0.
    DecimalOrZero(&'static str, f64, f64),
    /// Any other form, as an error message names it.
    Other(&'static str),
}

use Form::{Decimal, DecimalOrZero, Other, Whole};

const BLOCKS: Form = Other("addresses or CIDR blocks, comma-separated");
const PATH: Form = Other("a path without control characters");

/// Every setting, in the order of the documents.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting { name: "PORT", default: "4000", example: "8080", form: Whole("a port", 0.0, 65_535.0),
        meaning: "listen port; 0 selects a free port" },
    Setting { name: "HOST", default: "0.0.0.0", example: "::", form: Other("an IPv4 or IPv6 address, without a port"),
        meaning: "bind address; :: accepts IPv4 clients too" },
    Setting { name: "REFRESH_INTERVAL", default: "30", example: "10", form: Decimal("seconds", 0.1, 86_400.0),
        meaning: "time between two probes of a node; nodes allow 60 requests per minute by default" },
    Setting { name: "RATELIMIT_REQS_PER_MIN", default: "10", example: "60", form: Whole("a whole number", 0.0, 1e9),
        meaning: "requests per minute for each client and endpoint; 0 disables the limit" },
    Setting { name: "RATELIMIT_EXEMPT", default: "", example: "10.0.0.5", form: BLOCKS,
        meaning: "clients without a rate limit" },
    Setting { name: "API_URL", default: "", example: "https://explorer.example",
        form: Other("an http or https URL without a query"),
        meaning: "Node Explorer, with or without a trailing slash; user:password@ is sent as Basic authentication" },
    Setting { name: "IPS_FILE", default: "ips.txt", example: "/etc/infernet-router/ips.txt", form: PATH,
        meaning: "list of pre-specified nodes" },
    Setting { name: "MAX_PROBES", default: "128", example: "256", form: Whole("a whole number", 1.0, 4_096.0),
        meaning: "maximum concurrent probes" },
    Setting { name: "MAX_CONNECTIONS", default: "512", example: "2048", form: Whole("a whole number", 16.0, 65_536.0),
        meaning: "maximum concurrent client connections; one client may hold a quarter" },
    Setting { name: "TRUSTED_PROXIES", default: "", example: "10.0.0.0/8", form: BLOCKS,
        meaning: "proxies that may name the client in X-Forwarded-For or Forwarded" },
    Setting { name: "METRICS_FROM", default: "loopback", example: "private",
        form: Other("addresses, CIDR blocks, loopback or private, comma-separated"),
        meaning: "clients that may read /metrics and /status; other clients get 404" },
    Setting { name: "PROMISES", default: "on", example: "off", form: Other("on or off"),
        meaning: "off: order by pending jobs only, as the original does" },
    Setting { name: "MAX_SPEEDUP", default: "", example: "4", form: Decimal("a decimal number", 1.0, 64.0),
        meaning: "speed cap for listed nodes, as a multiple of the typical speed; unset: the upper quartile is the cap"
    },
    Setting { name: "RESOURCES_INTERVAL", default: "600", example: "3600",
        form: DecimalOrZero("seconds", 60.0, 86_400.0),
        meaning: "time between two resource polls of a node; 0 disables polling and /api/v1/resources" },
    Setting { name: "IDLE_TIMEOUT", default: "75", example: "610", form: Decimal("seconds", 1.0, 3_600.0),
        meaning: "keep-alive idle timeout; a load balancer in front must close idle connections earlier" },
    Setting { name: "SHUTDOWN_DELAY", default: "0", example: "10", form: Decimal("seconds", 0.0, 300.0),
        meaning: "drain delay: time to keep serving after SIGTERM while /health returns 503" },
    Setting { name: "CORS_ORIGINS", default: "", example: "https://app.example",
        form: Other("* or origins like https://app.example, comma-separated"),
        meaning: "origins whose web pages may read the API" },
    Setting { name: "PENDING_WEIGHTS", default: "", example: "onchain=3",
        form: Other("weights like offchain=1,onchain=2, whole numbers 0 to 1000"),
        meaning: "weights of job types; an unnamed type has weight 1" },
    Setting { name: "LOG_FORMAT", default: "text", example: "json", form: Other("text or json"),
        meaning: "json: one JSON object per line" },
    Setting { name: "RUST_LOG", default: "info", example: "debug",
        form: Other("off, error, warn, info, debug or trace"),
        meaning: "log level" },
    Setting { name: "SSL_CERT_FILE", default: "", example: "/etc/ssl/private-ca.pem", form: PATH,
        meaning: "additional roots for https nodes, in PEM form" },
];

impl Setting {
    /// The accepted values, as an error message names them after "expected".
    pub fn expected(&self) -> String {
        match self.form {
            Whole(noun, min, max) | Decimal(noun, min, max) => format!("{noun}, {min} to {max}"),
            DecimalOrZero(noun, min, max) => format!("{noun}, {min} to {max}, or 0"),
            Other(form) => form.to_owned(),
        }
    }

    pub(super) fn named(name: &str) -> &'static Setting {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.expect("only names of the table are read, and a test reads all of them")
    }
}

impl Form {
    /// Parses a number in the range of the form.
    pub(super) fn number(self, text: &str) -> Option<f64> {
        // `str::parse` alone accepts signs, exponents and `inf`.
        let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'.' && !matches!(self, Whole(..));
        let number: f64 = text.parse().ok().filter(|_| text.bytes().all(is_digit))?;
        let is_valid = match self {
            Whole(_, min, max) | Decimal(_, min, max) => (min..=max).contains(&number),
            DecimalOrZero(_, min, max) => number == 0.0 || (min..=max).contains(&number),
            Other(_) => false,
        };
        is_valid.then_some(number)
    }
}
