//! Every setting at its limits and above them.

use super::reader::MAX_SHOWN_CHARS;
use super::*;

mod choices;
use crate::node::NodeAddr;

impl Config {
    /// Reads the settings from `lookup`.
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigErrors> {
        let lookup = |name: &str| Some((lookup(name)?, SetBy::Environment));
        Loaded::new(&lookup, Vec::new()).config
    }
}

fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_lookup(|name| {
        let value = settings.iter().find(|(known, _)| *known == name);
        value.map(|(_, value)| OsString::from(value))
    })
}

fn accepted(name: &str, value: &str) -> Config {
    let outcome = config(&[(name, value)]);
    outcome.unwrap_or_else(|errors| panic!("{name}={value:?} was refused: {errors}"))
}

fn refused(name: &str, value: &str) -> String {
    match config(&[(name, value)]) {
        Ok(_) => panic!("{name}={value:?} was accepted"),
        Err(errors) => errors.to_string(),
    }
}

fn blocks(text: &str) -> Vec<String> {
    let blocks = accepted("TRUSTED_PROXIES", text).trusted_proxies;
    blocks.iter().map(IpNet::to_string).collect()
}

fn api_url(text: &str) -> ApiUrl {
    accepted("API_URL", text).api_url.expect("it is set")
}

#[test]
fn unset_settings_have_documented_defaults() {
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
fn explicit_default_changes_nothing() {
    let unset = format!("{:?}", config(&[]).expect("the defaults are valid"));
    for Setting { name, default, .. } in SETTINGS {
        // The only intended difference: an explicit value silences the warning.
        let set = Config {
            is_metrics_from_set: false,
            ..accepted(name, default)
        };
        assert_eq!(format!("{set:?}"), unset, "{name}");
    }
}

#[test]
fn blank_value_counts_as_unset() {
    let unset = format!("{:?}", config(&[]).expect("the defaults are valid"));
    for Setting { name, .. } in SETTINGS {
        for blank in ["", " ", "\t\r\n"] {
            assert_eq!(format!("{:?}", accepted(name, blank)), unset, "{name}");
        }
    }
}

#[test]
fn all_errors_are_reported_together() {
    let outcome = config(&[
        ("PORT", "http"),
        ("HOST", "localhost"),
        ("REFRESH_INTERVAL", "nan"),
        ("PROMISES", "maybe"),
    ]);
    assert_eq!(
        outcome.expect_err("four errors").to_string(),
        "PORT=\"http\": expected a port, 0 to 65535\n\
         HOST=\"localhost\": expected an IPv4 or IPv6 address, without a port\n\
         REFRESH_INTERVAL=\"nan\": expected seconds, 0.1 to 86400\n\
         PROMISES=\"maybe\": expected on or off"
    );
}

#[test]
fn invalid_value_is_escaped_and_truncated() {
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
fn non_utf8_value_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let only = |name: &'static str| {
        let bytes = OsString::from_vec(vec![b'1', 0xff]);
        Config::from_lookup(move |asked| (asked == name).then(|| bytes.clone()))
    };
    for Setting { name, .. } in SETTINGS.iter().filter(|known| known.name != "RUST_LOG") {
        let errors = only(name).expect_err("not UTF-8").to_string();
        assert_eq!(errors, format!("{name}=\"1\u{fffd}\": expected UTF-8"));
    }
    assert_eq!(only("RUST_LOG").expect("a warning").warnings.len(), 1);
}

#[test]
fn whole_number_above_its_limit_is_invalid() {
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
fn interval_is_a_decimal_number_in_range() {
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
fn interval_below_two_seconds_gets_warning() {
    assert_eq!(accepted("REFRESH_INTERVAL", "2").warnings.len(), 0);
    let warnings = accepted("REFRESH_INTERVAL", "1.99").warnings;
    assert!(warnings[0].starts_with("REFRESH_INTERVAL=1.99:"), "{warnings:?}");
    assert_eq!(warnings.len(), 1);
}

#[test]
fn invalid_log_level_gets_warning() {
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
                "RUST_LOG={text:?}: expected off, error, warn, info, debug or trace; using info"
            )]
        );
    }
}

#[test]
fn host_switch_and_paths_are_read() {
    assert_eq!(accepted("HOST", "::").host, IpAddr::from([0_u16; 8]));
    refused("HOST", "127.0.0.1:80");
    for (on, off) in [("on", "OFF"), ("True", "false"), ("1", "0"), ("yes", "No")] {
        assert!(accepted("PROMISES", on).promises && !accepted("PROMISES", off).promises);
    }
    refused("PROMISES", "2");
    let path = accepted("IPS_FILE", " /data/my ips.txt ").ips_file;
    assert_eq!(path, PathBuf::from("/data/my ips.txt"));
    refused("IPS_FILE", "a\0b");
    let roots = accepted("SSL_CERT_FILE", "/ca.pem").ssl_cert_file;
    assert_eq!(roots, Some(PathBuf::from("/ca.pem")));
}

#[test]
fn blocks_and_addresses_are_read_without_host_bits() {
    assert_eq!(
        blocks("10.1.2.3/8 , 192.0.2.1,2001:db8::1/32,::1"),
        ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"]
    );
    assert_eq!(blocks("0.0.0.0/0,::/0"), ["0.0.0.0/0", "::/0"]);
    assert_eq!(blocks("10.0.0.0/8 ,"), ["10.0.0.0/8"], "a list may end in a comma");
    for wrong in [
        "10.0.0.0/33",
        "::/129",
        "10/8",
        "a",
        ",",
        "::1,,",
        ",::1",
        "1.2.3.4/",
        "1.2.3.4/+8",
        "1.2.3.4/8/8",
        "1.2.3.4:80",
        "[::1]",
    ] {
        refused("TRUSTED_PROXIES", wrong);
        refused("RATELIMIT_EXEMPT", wrong);
        refused("METRICS_FROM", wrong);
    }
    assert_eq!(
        refused("TRUSTED_PROXIES", "::1,proxy"),
        "TRUSTED_PROXIES=\"::1,proxy\": expected addresses or CIDR blocks, comma-separated; \"proxy\" is invalid"
    );
    assert_eq!(
        refused("METRICS_FROM", "public"),
        "METRICS_FROM=\"public\": expected addresses, CIDR blocks, loopback or private, comma-separated; \"public\" is invalid"
    );
}

#[test]
fn ipv4_mapped_block_becomes_ipv4() {
    assert_eq!(blocks("::ffff:10.0.0.1"), ["10.0.0.1/32"]);
    assert_eq!(blocks("::ffff:10.9.9.9/104"), ["10.0.0.0/8"]);
    assert_eq!(blocks("::ffff:0:0/96"), ["0.0.0.0/0"]);
    let text = refused("TRUSTED_PROXIES", "::ffff:0:0/95");
    assert!(text.contains("of /96 or longer"), "{text}");
}

#[test]
fn metrics_from_defaults_to_loopback() {
    let may_read = |config: &Config, address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        config.metrics_from.iter().any(|block| block.contains(&address))
    };
    let default = config(&[]).expect("the defaults are valid");
    let private = accepted("METRICS_FROM", "private");
    for loopback in ["127.0.0.1", "127.255.255.255", "::1"] {
        assert!(
            may_read(&default, loopback) && may_read(&private, loopback),
            "{loopback}"
        );
    }
    for local in [
        "10.0.0.0",
        "10.255.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.1",
        "fc00::1",
        "fdff:ffff::1",
    ] {
        assert!(!may_read(&default, local) && may_read(&private, local), "{local}");
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
        assert!(!may_read(&default, other) && !may_read(&private, other), "{other}");
    }
    let set = accepted("METRICS_FROM", "203.0.113.7");
    assert!(may_read(&set, "203.0.113.7") && !may_read(&set, "127.0.0.1"));
    let mixed = accepted("METRICS_FROM", "203.0.113.7, Private,");
    assert!(may_read(&mixed, "203.0.113.7") && may_read(&mixed, "10.0.0.1") && may_read(&mixed, "127.0.0.1"));
    assert!(set.is_metrics_from_set && accepted("METRICS_FROM", "loopback").is_metrics_from_set);
    assert!(!default.is_metrics_from_set && !accepted("METRICS_FROM", " ").is_metrics_from_set);
}

#[test]
fn unnamed_job_type_has_weight_one() {
    let weights = accepted("PENDING_WEIGHTS", "offchain=0, onchain = 1000").weights;
    assert_eq!(weights.weight("offchain"), 0);
    assert_eq!(weights.weight("onchain"), 1000);
    assert_eq!(weights.weight("Offchain"), 1);
    assert_eq!(accepted("PENDING_WEIGHTS", "a=2,").weights.weight("a"), 2);
    for wrong in ["a", "a=", "=1", "a=1,,", "a=1001", "a=-1", "a=1.5", "a=b=1", ",", "a:1"] {
        refused("PENDING_WEIGHTS", wrong);
    }
    assert_eq!(
        refused("PENDING_WEIGHTS", "a=1,b=2,a=1"),
        "PENDING_WEIGHTS=\"a=1,b=2,a=1\": expected each job type once; \"a\" is repeated"
    );
}

#[test]
fn explorer_nodes_url_extends_api_url() {
    for (text, nodes) in [
        ("http://explorer.example", "http://explorer.example"),
        ("https://Explorer.example/", "https://Explorer.example"),
        ("HTTP://10.0.0.1:8080//", "HTTP://10.0.0.1:8080"),
        ("http://explorer_1:80/a/b%20c/", "http://explorer_1:80/a/b%20c"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ] {
        assert_eq!(api_url(text).nodes_url(), format!("{nodes}/api/nodes?minutes_past=60"));
        assert_eq!(api_url(text).shown, nodes);
    }
}

#[test]
fn explorer_origin_equals_node_origin() {
    for (text, host, same) in [
        ("https://A.example./x", "a.example.", "https://a.example.:443"),
        ("https://[2001:db8:0::1]/x", "2001:db8::1", "https://[2001:db8::1]:443"),
        ("http://127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"),
    ] {
        let url = api_url(text);
        let origin = &url.origin;
        assert_eq!(
            (origin.host(), origin),
            (host.to_owned(), NodeAddr::parse(same).expect("an address").origin())
        );
    }
}

#[test]
fn invalid_api_url_is_refused() {
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
        "http://0x7f000001:1",
        "http://-a-:1",
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
fn api_url_credentials_are_decoded_and_never_shown() {
    let config = accepted("API_URL", "https://me:s%20e@cr:et@a.example:8443/x/");
    assert!(!format!("{config:?}").contains("cr:et"), "{config:?}");
    assert_eq!(
        config.changed,
        BTreeMap::from([("API_URL".to_owned(), "https://***@a.example:8443/x/".to_owned())])
    );
    let url = config.api_url.expect("it is set");
    assert_eq!(url.credentials.as_deref(), Some(&b"me:s e@cr:et"[..]));
    assert_eq!(url.nodes_url(), "https://a.example:8443/x/api/nodes?minutes_past=60");
    assert_eq!(api_url("http://a.example/b@c").credentials, None);
}

#[test]
fn invalid_api_url_masks_its_password() {
    assert_eq!(
        refused("API_URL", "http://me:se@cret@a..example/x"),
        "API_URL=\"http://***@a..example/x\": expected a host name: letters, digits, \"-\", \"_\", at most 63 bytes between two dots and 253 in all"
    );
    assert!(refused("API_URL", "http://me@a.example").contains("a user name with a password"));
    assert!(!refused("API_URL", "me:secret@a.example").contains("secret"));
}

#[test]
fn error_names_quotes_around_value() {
    for quoted in ["\"4000\"", "'4000'"] {
        let error = refused("PORT", quoted);
        assert!(error.ends_with("expected a value without quotes around it (docker's --env-file passes them on)"));
    }
    assert!(refused("IPS_FILE", "\"ips.txt\"").contains("without quotes"));
}

#[test]
fn changed_settings_are_listed_with_their_value() {
    let changed = |settings: &[(&str, &str)]| config(settings).expect("settings").changed;
    assert_eq!(changed(&[]), BTreeMap::new());
    assert_eq!(
        changed(&[("PROMISES", "TRUE"), ("PORT", " 4000 "), ("RUST_LOG", "Info")]),
        BTreeMap::new()
    );
    let named = [
        ("PORT", "4001"),
        ("API_URL", "http://a.example/"),
        ("RUST_LOG", "debug"),
    ];
    let expected = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(changed(&named), expected.into());
}

#[test]
fn example_of_each_setting_differs_from_default() {
    for Setting { name, example, .. } in SETTINGS {
        let changed = accepted(name, example).changed;
        assert_eq!(changed, [((*name).to_owned(), (*example).to_owned())].into());
    }
}

#[test]
fn typo_of_a_setting_gets_a_suggestion() {
    let typo = |name: &str| !misspelled([name.to_owned()].iter()).is_empty();
    for name in [
        "PROT",
        "port",
        "POR",
        "REFRESH_INTERVALL",
        "API_URI",
        "MAX_CONECTION",
        "CORS_ORIGIN",
    ] {
        assert!(typo(name), "{name}");
    }
    for name in [
        "PORT",
        "PATH",
        "HOME",
        "HTTP_PROXY",
        "MY_OWN",
        "RUST_BACKTRACE",
        "API_KEY_FILE",
        "HOSTNAME",
    ] {
        assert!(!typo(name), "{name}");
    }
    assert_eq!(
        misspelled(["PROT".to_owned()].iter()),
        [".env: unknown setting \"PROT\"; did you mean PORT?"]
    );
}

#[test]
fn every_setting_is_read_in_table_order() {
    let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    let loaded = Loaded::new(
        &|name| (name == "PORT").then(|| ("http".into(), SetBy::Dotenv)),
        Vec::new(),
    );
    assert_eq!(loaded.values.iter().map(|value| value.name).collect::<Vec<_>>(), names);
    assert_eq!(
        (loaded.values[0].value.as_str(), loaded.values[0].set_by),
        ("http", SetBy::Dotenv)
    );
    assert_eq!(
        (loaded.values[1].value.as_str(), loaded.values[1].set_by),
        ("0.0.0.0", SetBy::Default)
    );
    assert!(loaded.config.is_err());
}
