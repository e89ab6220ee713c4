//! What the README says of the settings is what the code does, and what it tells to make can be made.

use std::collections::BTreeSet;

use infernet_router::config::{SETTINGS, Setting};

const README: &str = include_str!("../../README.md");
const MAKEFILE: &str = include_str!("../../Makefile");
const UNIT: &str = include_str!("../../.packaging/infernet-router.service");
const COMPOSE: &str = include_str!("../../docker-compose.yaml");

/// The row of a setting in the README.
fn row(Setting { name, default, meaning }: &Setting) -> String {
    let default = if default.is_empty() { "unset" } else { default };
    format!("| `{name}` | {default} | {meaning} |")
}

#[test]
fn the_readme_has_a_row_for_each_setting_and_no_other() {
    let (_, section) = README.split_once("\n## Settings\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another one behind it");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows, SETTINGS.iter().map(row).collect::<Vec<_>>());
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

#[test]
fn the_unit_in_the_readme_is_the_one_that_is_installed() {
    assert!(README.contains(&format!("```ini\n{UNIT}```\n")));
}

#[test]
fn compose_hands_on_every_setting_that_means_something_in_a_container() {
    let handed_on = COMPOSE.lines().filter_map(|line| line.strip_prefix("      "));
    let names = handed_on.filter_map(|line| Some(line.split_once(':')?.0));
    let names: Vec<&str> = names
        .filter(|name| SETTINGS.iter().any(|setting| setting.name == *name))
        .collect();
    // The address is the container's own, and files have to be mounted.
    let all = SETTINGS.iter().map(|setting| setting.name);
    let expected: Vec<&str> = all
        .filter(|name| !["HOST", "IPS_FILE", "SSL_CERT_FILE"].contains(name))
        .collect();
    assert_eq!(names, expected);
}
