//! The environment, `.env` and the command line, and how errors are reported.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use super::launch;
use super::support::launch::Ended;
use super::support::{Fleet, PATIENCE, http};

/// An invalid value of each setting, and the expected form.
const WRONG: [(&str, &str, &str); 18] = [
    ("PORT", "http", "a port, 0 to 65535"),
    ("HOST", "127.0.0.1:4000", "an IPv4 or IPv6 address, without a port"),
    ("REFRESH_INTERVAL", "nan", "seconds, 0.1 to 86400"),
    ("RATELIMIT_REQS_PER_MIN", "-1", "a whole number, 0 to 1000000000"),
    (
        "API_URL",
        "ftp://explorer.example",
        "a URL that starts with http:// or https://",
    ),
    ("MAX_PROBES", "0", "a whole number, 1 to 4096"),
    ("MAX_CONNECTIONS", "15", "a whole number, 16 to 65536"),
    ("TRUSTED_PROXIES", "proxy", "addresses or CIDR blocks, comma-separated"),
    (
        "RATELIMIT_EXEMPT",
        "gateway",
        "addresses or CIDR blocks, comma-separated",
    ),
    (
        "METRICS_FROM",
        "10.0.0.0/33",
        "addresses, CIDR blocks, loopback or private, comma-separated",
    ),
    ("PROMISES", "maybe", "on or off"),
    ("MAX_SPEEDUP", "65", "a decimal number, 1 to 64"),
    ("RESOURCES_INTERVAL", "59", "seconds, 60 to 86400, or 0"),
    ("IDLE_TIMEOUT", "0", "seconds, 1 to 3600"),
    ("SHUTDOWN_DELAY", "301", "seconds, 0 to 300"),
    ("CORS_ORIGINS", "app.example", "* or origins like https://app.example"),
    ("LOG_FORMAT", "xml", "text or json"),
    ("PENDING_WEIGHTS", "offchain", "weights like offchain=1,onchain=2"),
];

fn with(name: &str, value: &str) -> Ended {
    launch().set(name, value).run()
}

#[test]
fn all_errors_are_reported_and_nothing_starts() {
    let fleet = Fleet::start(1);
    let wrong = WRONG
        .iter()
        .fold(launch().ips(fleet.list()), |launch, (name, value, _)| {
            launch.set(name, value)
        });
    let ended = wrong.file(".env", "no assignment\n").run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for (name, value, expected) in WRONG {
        let line = format!("{name}={value:?}: expected {expected}");
        assert!(ended.stderr.contains(&line), "{line:?} in {}", ended.stderr);
    }
    assert!(ended.stderr.contains(".env, line 1: expected NAME=value"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), WRONG.len() + 1, "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    assert_eq!(fleet.accepted(), 0);
}

#[test]
fn value_above_its_limit_is_an_error() {
    for (name, values) in [
        ("PORT", &["-1", "65536", "4000.0"][..]),
        ("HOST", &["localhost", "1.2.3", "[::1]"]),
        ("REFRESH_INTERVAL", &["0", "0.09", "86400.1", "inf", "-1", "1e3"]),
        ("RATELIMIT_REQS_PER_MIN", &["1000000001", "1.5", "ten"]),
        ("API_URL", &["explorer.example", "http://", "http://a:0", "http://a?b"]),
        ("MAX_PROBES", &["4097"]),
        ("MAX_CONNECTIONS", &["65537"]),
        ("TRUSTED_PROXIES", &["10.0.0.0/8,,", "10.0.0/8", "::/129"]),
        ("PROMISES", &["2", "maybe"]),
        ("MAX_SPEEDUP", &["0.9", "65"]),
        ("RESOURCES_INTERVAL", &["59", "86401"]),
        ("IDLE_TIMEOUT", &["0", "3601"]),
        ("SHUTDOWN_DELAY", &["-1", "301"]),
        ("CORS_ORIGINS", &["app.example", "https://a/b"]),
        ("LOG_FORMAT", &["xml"]),
        ("PENDING_WEIGHTS", &["a=1001", "a=-1", "a=1.5", "a=1,a=1", "=1"]),
    ] {
        for value in values {
            let ended = with(name, value);
            assert_eq!(ended.code, Some(2), "{name}={value}: {ended:?}");
            let error = format!("{name}={value:?}: expected ");
            assert!(ended.stderr.starts_with(&error), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        }
    }
}

#[test]
fn minimum_and_maximum_are_accepted() {
    let least = launch()
        .set("REFRESH_INTERVAL", "0.1")
        .set("RATELIMIT_REQS_PER_MIN", "0")
        .set("MAX_PROBES", "1")
        .set("MAX_CONNECTIONS", "16")
        .set("PENDING_WEIGHTS", "offchain=0")
        .set("PROMISES", "OFF")
        .start();
    let most = launch()
        .set("REFRESH_INTERVAL", "86400")
        .set("RATELIMIT_REQS_PER_MIN", "1000000000")
        .set("MAX_PROBES", "4096")
        .set("MAX_CONNECTIONS", "65536")
        .set("PENDING_WEIGHTS", "offchain=1000, onchain=1000")
        .set("TRUSTED_PROXIES", "127.0.0.1, ::/0")
        .start();
    assert_eq!(least.get("/health").status, 200);
    assert_eq!(most.get("/health").status, 200);
    least.wait_line("REFRESH_INTERVAL=0.1: nodes allow 60 requests per minute", PATIENCE);
    assert_eq!(most.count_lines("REFRESH_INTERVAL"), 0);
}

/// Returns the limit in effect.
fn limit(environment: Option<&str>, dotenv: &str) -> String {
    let launch = launch().unset("RATELIMIT_REQS_PER_MIN").file(".env", dotenv);
    let router = match environment {
        Some(value) => launch.set("RATELIMIT_REQS_PER_MIN", value).start(),
        None => launch.start(),
    };
    let answer = router.get("/api/v1/containers");
    answer.header("RateLimit-Limit").expect("the limit is on").to_owned()
}

#[test]
fn environment_takes_precedence_over_dotenv() {
    let dotenv = "# limits\nexport RATELIMIT_REQS_PER_MIN='7' # a minute\n";
    assert_eq!(limit(None, dotenv), "7");
    assert_eq!(limit(Some("5"), dotenv), "5");
    assert_eq!(limit(Some(""), dotenv), "7");
    assert_eq!(limit(Some(" "), "RATELIMIT_REQS_PER_MIN=\n"), "10");
}

#[test]
fn unreadable_dotenv_is_an_error() {
    let router = launch().set("PROMISES", "maybe");
    std::fs::create_dir(router.directory().join(".env")).expect("made");
    let ended = router.run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains(".env: cannot be read: "), "{ended:?}");
    assert!(
        ended.stderr.contains("PROMISES=\"maybe\": expected on or off"),
        "{ended:?}"
    );
}

#[test]
fn password_in_invalid_setting_is_masked() {
    let ended = with("API_URL", "http://user:secret@explorer..example");
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("http://***@explorer..example"), "{ended:?}");
    assert!(!ended.stderr.contains("secret"), "{ended:?}");
}

#[test]
fn invalid_log_level_is_a_warning() {
    let router = launch().set("RUST_LOG", "infernet=loud\n").start();
    router.wait_line("RUST_LOG=\"infernet=loud\\n\": expected off, error", PATIENCE);
    assert_eq!(router.get("/health").status, 200);
}

#[test]
fn unavailable_address_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("a bound socket");
    let ended = with("PORT", &addr.port().to_string());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("can't serve on {addr}")), "{ended:?}");
    // Reserved for documentation: no machine has this address.
    let ended = with("HOST", "192.0.2.1");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("can't serve on 192.0.2.1:0"), "{ended:?}");
}

#[test]
fn log_names_the_served_address() {
    let router = launch().set("HOST", "127.0.0.3").start();
    assert!(router.addr().ip().to_string() == "127.0.0.3" && router.addr().port() != 0);
    assert_eq!(router.get("/health").status, 200);
}

#[test]
fn serves_on_ipv6() {
    let loopback = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    if !loopback.contains("00000000000000000000000000000001") {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let router = launch().set("HOST", "::1").start();
    assert!(router.addr().is_ipv6());
    assert_eq!(router.get("/health").status, 200);
}

#[test]
fn help_lists_every_setting() {
    for argument in ["--help", "-h"] {
        let ended = launch().arg(argument).run();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        for setting in infernet_router::config::SETTINGS {
            assert!(ended.stdout.contains(setting.name), "{}", setting.name);
        }
    }
    // The commit follows, if the build had one.
    let version = concat!("infernet-router ", env!("CARGO_PKG_VERSION"));
    for argument in ["--version", "-V"] {
        let ended = launch().arg(argument).set("PORT", "http").run();
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.starts_with(version), "{ended:?}");
    }
}

#[test]
fn each_command_has_a_help() {
    let help = launch().arg("help").run();
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(
        help.stdout.contains("\nUsage: infernet-router [-C DIR] [COMMAND]\n"),
        "{help:?}"
    );
    for command in ["check", "status", "health", "settings"] {
        for arguments in [["help", command], [command, "--help"], [command, "-h"]] {
            // Invalid settings do not affect it.
            let ended = arguments
                .into_iter()
                .fold(launch(), |launch, argument| launch.arg(argument))
                .set("PORT", "http")
                .run();
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
            assert!(
                ended
                    .stdout
                    .starts_with(&format!("Usage: infernet-router [-C DIR] {command}")),
                "{ended:?}"
            );
        }
    }
}

#[test]
fn unknown_arguments_exit_with_2() {
    for (arguments, error) in [
        (vec!["serve"], "to serve, run infernet-router without a command"),
        (
            vec!["start", "--help"],
            "to serve, run infernet-router without a command",
        ),
        (vec!["--port", "80"], r#"unknown command or option "--port""#),
        (vec!["help", "\u{1b}[2J"], r#"unknown command or option "\u{1b}[2J""#),
        (vec!["check", "--fast"], r#"check takes no "--fast""#),
        (vec!["check", "--json", "x"], r#"check takes no "x""#),
        (vec!["--print-port", "health"], r#"--print-port takes no "health""#),
        (vec!["--version", "x"], r#"--version takes no "x""#),
        (vec!["chek"], "did you mean check?"),
        (vec!["stauts", "--json"], "did you mean status?"),
        (vec!["check", "--jsno"], "did you mean --json?"),
        (vec!["--verison"], "did you mean --version?"),
    ] {
        let ended = arguments
            .iter()
            .copied()
            .fold(launch(), |launch, argument| launch.arg(argument))
            .run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(error), "{ended:?}");
    }
}

#[test]
fn print_port_prints_the_bound_port() {
    let mut child = launch()
        .arg("--print-port")
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary is there");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("UTF-8");
    let port: u16 = line.trim_end().parse().expect("a port and nothing else");
    let answer = http::get(SocketAddr::from(([127, 0, 0, 1], port)), "/health");
    let ended = child.kill().and_then(|()| child.wait());
    assert_eq!(answer.status, 200);
    assert!(ended.is_ok());
}

#[test]
fn settings_command_lists_values_with_source() {
    let api_url = "https://user:secret@explorer.example";
    let launch = launch()
        .set("API_URL", api_url)
        .file(".env", "MAX_PROBES=7\nHOST=::\nPROT=1\n");
    let output = launch.command().arg("settings").output().expect("the binary is there");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let row = |name: &str| {
        let line = stdout.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.expect("each setting has a row")
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("API_URL"), "environment https://***@explorer.example");
    assert_eq!(row("MAX_PROBES"), ".env 7");
    assert_eq!(row("HOST"), "environment 127.0.0.1");
    assert_eq!(row("REFRESH_INTERVAL"), "default 30");
    assert_eq!(row("TRUSTED_PROXIES"), "default unset");
    assert_eq!(stdout.lines().count(), 1 + infernet_router::config::SETTINGS.len());
    assert_eq!(stderr, ".env: unknown setting \"PROT\"; did you mean PORT?\n");
}

#[test]
fn settings_command_exits_with_2_on_errors() {
    let launch = launch()
        .file(".env", "")
        .set("API_URL", "https://user:secret@a?b")
        .set("PORT", "http");
    let output = launch.command().arg("settings").output().expect("the binary is there");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("PORT=\"http\": expected a port, 0 to 65535\n"),
        "{stderr}"
    );
    assert!(
        stdout
            .lines()
            .any(|line| line.starts_with("PORT ") && line.ends_with(" http")),
        "{stdout}"
    );
    assert!(
        !stdout.contains("secret") && !stderr.contains("secret"),
        "{stdout}{stderr}"
    );
}

#[test]
fn invalid_setting_has_a_priority_under_systemd() {
    let stream = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM";
    let ended = launch().shell(stream).set("PORT", "http").set("MAX_PROBES", "0").run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 2);
    assert!(ended.stderr.lines().all(|line| line.starts_with("<3>")), "{ended:?}");
    assert!(ended.stderr.starts_with("<3>PORT=\"http\": expected"), "{ended:?}");
}
