//! The table of settings: names, defaults, forms, examples and meanings. Parsers, error messages, `--help`,
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
    Words(&'static [&'static str]),
    /// Any other form, as an error message names it.
    Other(&'static str),
}

use Form::{Decimal, DecimalOrZero, Other, Whole, Words};

const BLOCKS: Form = Other("addresses or CIDR blocks, comma-separated");
const PATH: Form = Other("a path without control characters");

/// Every setting, in the order of the documents.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("PORT", "4000", Whole("a port", 0.0, 65_535.0), "8080",
        "listen port; 0 selects a free port"),
    setting("HOST", "0.0.0.0", Other("an IPv4 or IPv6 address, without a port"), "::",
        "bind address; :: accepts IPv4 clients too"),
    setting("REFRESH_INTERVAL", "30", Decimal("seconds", 0.1, 86_400.0), "10",
        "time between two probes of a node; nodes allow 60 requests per minute by default"),
    setting("RATELIMIT_REQS_PER_MIN", "10", Whole("a whole number", 0.0, 1e9), "60",
        "requests per minute for each client and endpoint; 0 disables the limit"),
    setting("RATELIMIT_EXEMPT", "", BLOCKS, "10.0.0.5",
        "clients without a rate limit"),
    setting("API_URL", "", Other("an http or https URL without a query"), "https://explorer.example",
        "Node Explorer, with or without a trailing slash; user:password@ is sent as Basic authentication"),
    setting("IPS_FILE", "ips.txt", PATH, "/etc/infernet-router/ips.txt",
        "list of pre-specified nodes"),
    setting("MAX_PROBES", "128", Whole("a whole number", 1.0, 4_096.0), "256",
        "maximum concurrent probes"),
    setting("MAX_CONNECTIONS", "512", Whole("a whole number", 16.0, 65_536.0), "2048",
        "maximum concurrent client connections; one client may hold a quarter"),
    setting("TRUSTED_PROXIES", "", BLOCKS, "10.0.0.0/8",
        "proxies that may name the client in X-Forwarded-For or Forwarded"),
    setting("METRICS_FROM", "loopback", Other("addresses, CIDR blocks, loopback or private, comma-separated"), "private",
        "clients that may read /metrics and /status; other clients get 404"),
    setting("PROMISES", "on", Words(&["on", "off"]), "off",
        "off: order by pending jobs only, as the original does"),
    setting("MAX_SPEEDUP", "", Decimal("a decimal number", 1.0, 64.0), "4",
        "speed cap for listed nodes, as a multiple of the typical speed; unset: the upper quartile is the cap"),
    setting("RESOURCES_INTERVAL", "600", DecimalOrZero("seconds", 60.0, 86_400.0), "3600",
        "time between two resource polls of a node; 0 disables polling and /api/v1/resources"),
    setting("IDLE_TIMEOUT", "75", Decimal("seconds", 1.0, 3_600.0), "610",
        "keep-alive idle timeout; a load balancer in front must close idle connections earlier"),
    setting("SHUTDOWN_DELAY", "0", Decimal("seconds", 0.0, 300.0), "10",
        "drain delay: time to keep serving after SIGTERM while /health returns 503"),
    setting("CORS_ORIGINS", "", Other("* or origins like https://app.example, comma-separated"), "https://app.example",
        "origins whose web pages may read the API"),
    setting("PENDING_WEIGHTS", "", Other("weights like offchain=1,onchain=2, whole numbers 0 to 1000"), "onchain=3",
        "weights of job types; an unnamed type has weight 1"),
    setting("LOG_FORMAT", "text", Words(&["text", "json"]), "json",
        "json: one JSON object per line"),
    setting("RUST_LOG", "info", Words(&["off", "error", "warn", "info", "debug", "trace"]), "debug",
        "log level"),
    setting("SSL_CERT_FILE", "", PATH, "/etc/ssl/private-ca.pem",
        "additional roots for https nodes, in PEM form"),
];

const fn setting(
    name: &'static str,
    default: &'static str,
    form: Form,
    example: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        example,
        meaning,
        form,
    }
}

impl Setting {
    /// The accepted values, as an error message names them after "expected".
    pub fn expected(&self) -> String {
        match self.form {
            Whole(noun, min, max) | Decimal(noun, min, max) => format!("{noun}, {min} to {max}"),
            DecimalOrZero(noun, min, max) => format!("{noun}, {min} to {max}, or 0"),
            Words([rest @ .., last]) => format!("{} or {last}", rest.join(", ")),
            Words([]) => String::new(),
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
            Words(_) | Other(_) => false,
        };
        is_valid.then_some(number)
    }

    /// Parses one of the words, in any case.
    pub(super) fn word(self, text: &str) -> Option<&'static str> {
        let Words(words) = self else { return None };
        words.iter().copied().find(|word| word.eq_ignore_ascii_case(text))
    }
}
