//! What the README and `.env.example` say of the settings is what the code does.

use std::collections::BTreeSet;
use std::ffi::OsString;

use infernet_router::config::{Config, SETTINGS, Setting};

const README: &str = include_str!("../../README.md");
const ENV_EXAMPLE: &str = include_str!("../../.env.example");
const MAKEFILE: &str = include_str!("../../Makefile");

/// The row of a setting in the README.
fn row(Setting { name, default, meaning }: &Setting) -> String {
    let default = if default.is_empty() { "unset" } else { default };
    format!("| `{name}` | {default} | {meaning} |")
}

/// Names and values of `.env.example`, where each line is a comment.
fn examples() -> Vec<(&'static str, &'static str)> {
    ENV_EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.trim_start().split_once('='))
        .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        .collect()
}

#[test]
fn the_readme_has_a_row_for_each_setting_and_no_other() {
    let (_, section) = README.split_once("\n## Settings\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another one behind it");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows, SETTINGS.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn the_example_of_an_env_file_has_each_setting_once_with_its_default() {
    let names: Vec<&str> = examples().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
    let has_default = |name: &str| SETTINGS.iter().any(|known| known.name == name && !known.default.is_empty());
    let defaults = Config::from_lookup(|_| None).expect("the defaults are valid");
    let given = Config::from_lookup(|asked| {
        let example = examples().into_iter().find(|(name, _)| *name == asked && has_default(name));
        example.map(|(_, value)| OsString::from(value))
    });
    assert_eq!(format!("{:?}", given.expect("valid")), format!("{defaults:?}"));
    let all = Config::from_lookup(|asked| {
        let example = examples().into_iter().find(|(name, _)| *name == asked);
        example.map(|(_, value)| OsString::from(value))
    });
    all.expect("the examples of what is unset are valid too");
}

#[test]
fn what_the_readme_tells_to_make_can_be_made() {
    let told = README.split("make ").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        &rest[..end.unwrap_or(rest.len())]
    });
    let told: BTreeSet<&str> = told
        .filter(|target| README.contains(&format!("`make {target}`")) || README.contains(&format!("$ make {target}")))
        .collect();
    assert!(told.len() >= 6, "{told:?}");
    for target in told {
        assert!(MAKEFILE.contains(&format!("\n{target}:")), "no target {target:?}");
    }
}
