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
fn example_has_every_setting_with_its_default() {
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("{}={}", setting.name, setting.default))
        .collect();
    assert_eq!(lines(), expected);
}

#[test]
fn each_setting_has_its_meaning_and_form() {
    let example = EXAMPLE.to_lowercase();
    for setting in SETTINGS {
        let comment = format!("# {} ({})\n# {}=", setting.meaning, setting.expected(), setting.name);
        assert!(example.contains(&comment.to_lowercase()), "{comment}");
    }
}

#[test]
fn example_is_valid_for_docker() {
    for line in lines() {
        assert!(!line.contains(['"', '\'', '#']), "{line}");
    }
}

#[test]
fn example_is_valid_as_dotenv() {
    let launch = launch().unset("PORT").unset("HOST").file(".env", lines().join("\n"));
    let output = run(&launch, &["check"]);
    assert_eq!(output.status.code(), Some(1), "no node, and no error: {output:?}");
    assert_eq!(text(&output.stderr), "");
}
