//! `.env.example`: every setting with its default.

use infernet_router::config::SETTINGS;

use super::{launch, run, text};

const EXAMPLE: &str = include_str!("../../../.env.example");

/// The commented out settings.
fn lines() -> Vec<&'static str> {
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix("# "));
    let is_setting = |line: &&str| {
        let name = line.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    lines.filter(is_setting).collect()
}

#[test]
fn it_has_every_setting_in_order_with_its_default() {
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("{}={}", setting.name, setting.default))
        .collect();
    assert_eq!(lines(), expected);
}

#[test]
fn nothing_in_it_breaks_where_docker_reads_it() {
    for line in lines() {
        assert!(!line.contains(['"', '\'', '#']), "{line}");
    }
}

#[test]
fn all_of_it_taken_as_it_is_is_understood() {
    let launch = launch().unset("PORT").unset("HOST").file(".env", lines().join("\n"));
    let output = run(&launch, &["check"]);
    assert_eq!(output.status.code(), Some(1), "no node, and no mistake: {output:?}");
    assert_eq!(text(&output.stderr), "");
}
