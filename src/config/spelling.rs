//! Names in `.env` that look like a setting and are none.

use super::SETTINGS;

/// Most letters that may be wrong in a name for it to look like another one.
const MAX_DISTANCE: usize = 2;

/// A warning for each name that is not a setting but looks like one.
pub(super) fn misspelled<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<&String> = names.collect();
    names.sort_unstable();
    names.into_iter().filter_map(|name| warning(name)).collect()
}

fn warning(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let closest = SETTINGS
        .iter()
        .map(|setting| (distance(&upper, setting.name), setting.name))
        .min()?;
    let (distance, meant) = closest;
    // A short name is within two letters of many words.
    let is_close = distance <= MAX_DISTANCE.min(meant.len() / 3);
    (is_close && name != meant).then(|| format!(".env: {name:?} is no setting; {meant} is"))
}

/// How many letters have to be added, left out, replaced or swapped with their neighbour to make `b` of `a`
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_wrong_letter_or_two_is_told_and_others_are_not() {
        let told = |name: &str| warning(name).is_some();
        for name in [
            "PROT",
            "port",
            "POR",
            "REFRESH_INTERVALL",
            "API_URI",
            "MAX_CONECTION",
            "CORS_ORIGIN",
        ] {
            assert!(told(name), "{name}");
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
            assert!(!told(name), "{name}");
        }
        assert_eq!(
            warning("PROT"),
            Some(".env: \"PROT\" is no setting; PORT is".to_owned())
        );
    }
}
