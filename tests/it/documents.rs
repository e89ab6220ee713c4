//! The documents and example files match the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use infernet_router::config::{SETTINGS, Setting};

const README: &str = include_str!("../../README.md");
const SETTINGS_DOCUMENT: &str = include_str!("../../.packaging/docs/settings.md");
const METRICS_DOCUMENT: &str = include_str!("../../.packaging/docs/metrics.md");
/// Type, name and help of each metric: the program serves these.
const METRIC_FAMILIES: &str = include_str!("../../src/metrics/families.txt");
const MAKEFILE: &str = include_str!("../../Makefile");
const COMPOSE: &str = include_str!("../../docker-compose.yaml");
const KUBERNETES: &str = include_str!("../../.packaging/examples/kubernetes.yaml");
const ALERTS: &str = include_str!("../../.packaging/examples/alerts.yml");
const DASHBOARD: &str = include_str!("../../.packaging/examples/dashboard.json");
/// The README is for people who read it in five minutes.
const MAX_README_LINES: usize = 300;

/// The documents, with their folders.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join(".packaging/docs")).expect("a folder");
    let documents = entries.map(|entry| entry.expect("an entry").path());
    let markdown = documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    markdown
        .chain([root.join("README.md"), root.join("CHANGELOG.md")])
        .collect()
}

/// Returns the names of the router's metrics in a text.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("infernet_router_"));
    names.collect()
}

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
fn readme_has_at_most_three_hundred_lines() {
    assert!(README.lines().count() <= MAX_README_LINES);
}

#[test]
fn documented_make_targets_exist() {
    let mut targets = BTreeSet::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for (at, _) in text.match_indices("make ") {
            let is_command =
                text[..at].ends_with(['`', '$']) || text[..at].ends_with("$ ") || text[..at].ends_with("sudo ");
            let target = text[at + 5..]
                .split(|c: char| !c.is_ascii_lowercase() && c != '-')
                .next();
            targets.extend(
                target
                    .filter(|target| is_command && !target.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    assert!(targets.len() >= 6, "{targets:?}");
    for target in targets {
        assert!(MAKEFILE.contains(&format!("\n{target}:")), "no target {target:?}");
    }
}

#[test]
fn relative_links_lead_to_files() {
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        let folder = path.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(folder.join(file).exists(), "{}: {link}", path.display());
            }
        }
    }
}

#[test]
fn metrics_document_has_every_metric() {
    let served = metric_names(METRIC_FAMILIES);
    assert!(served.len() >= 20, "{served:?}");
    assert_eq!(metric_names(METRICS_DOCUMENT), served);
}

#[test]
fn alerts_and_dashboard_use_documented_metrics() {
    serde_json::from_str::<serde_json::Value>(DASHBOARD).expect("JSON");
    let documented = metric_names(METRICS_DOCUMENT);
    for name in metric_names(ALERTS).into_iter().chain(metric_names(DASHBOARD)) {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(documented.contains(name), "{name}");
    }
}

#[test]
fn kubernetes_manifest_uses_known_settings() {
    let names = KUBERNETES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- {name: ")?.split(',').next());
    let settings: Vec<&str> = names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        .collect();
    assert!(
        settings.contains(&"HOST") && settings.contains(&"METRICS_FROM"),
        "{settings:?}"
    );
    for name in settings {
        assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name}");
    }
}

#[test]
fn compose_passes_every_setting_of_a_container() {
    let lines = COMPOSE.lines().filter_map(|line| line.strip_prefix("      "));
    let names = lines.filter_map(|line| Some(line.split_once(':')?.0));
    let passed: BTreeSet<&str> = names
        .filter(|name| SETTINGS.iter().any(|setting| setting.name == *name))
        .collect();
    // The address is the container's own, and the certificates would have to be mounted.
    let all = SETTINGS.iter().map(|setting| setting.name);
    let expected: BTreeSet<&str> = all.filter(|name| !["HOST", "SSL_CERT_FILE"].contains(name)).collect();
    assert_eq!(passed, expected);
}
