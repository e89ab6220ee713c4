//! What the README says of the settings is what the code does, and what it tells to make can be made.

use std::collections::BTreeSet;

use infernet_router::config::{SETTINGS, Setting};

const README: &str = include_str!("../../README.md");
const SETTINGS_DOCUMENT: &str = include_str!("../../.packaging/docs/settings.md");
const MAKEFILE: &str = include_str!("../../Makefile");
const UNIT: &str = include_str!("../../.packaging/infernet-router.service");
const COMPOSE: &str = include_str!("../../docker-compose.yaml");

/// The row of a setting in the documents.
fn row(setting: &Setting) -> String {
    let default = if setting.default.is_empty() {
        "unset"
    } else {
        setting.default
    };
    let (name, meaning, example) = (setting.name, setting.meaning, setting.example);
    format!(
        "| `{name}` | {default} | {} | {meaning} | `{example}` |",
        setting.expected()
    )
}

/// The rows of settings in a document.
fn rows_in(document: &str) -> Vec<&str> {
    let name = |line: &str| {
        line.strip_prefix("| `")?
            .split_once('`')
            .map(|(name, _)| name.to_owned())
    };
    let is_setting = |line: &&str| name(line).is_some_and(|name| SETTINGS.iter().any(|known| known.name == name));
    document.lines().filter(is_setting).collect()
}

#[test]
fn settings_document_has_a_row_for_each_setting() {
    let table: Vec<String> = SETTINGS.iter().map(row).collect();
    assert_eq!(rows_in(SETTINGS_DOCUMENT), table, "\n{}\n", table.join("\n"));
}

#[test]
fn readme_rows_are_rows_of_the_table() {
    let table: Vec<String> = SETTINGS.iter().map(row).collect();
    let rows = rows_in(README);
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        assert!(table.iter().any(|known| known == row), "{row}");
    }
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
