//! Pending jobs of one node by type, with few and short names, because an untrusted node chooses them.

use std::borrow::Cow;

/// Types kept for one node. Further types are summed up as `other`. Real nodes have two types.
const MAX_TYPES: usize = 4;
/// Longest name of a type in bytes; a type with a longer name is counted as `other`. Real names have eight bytes.
const MAX_TYPE_BYTES: usize = 32;
/// The name for types that are not kept.
const OTHER: &str = "other";
/// The types of real nodes: their names take no memory of each node.
const COMMON: [&str; 2] = ["offchain", "onchain"];

type JobType = Cow<'static, str>;

/// Pending jobs of one node by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingByType {
    types: Box<[(JobType, u64)]>,
}

impl PendingByType {
    /// Keeps the first types of a report and sums up the others.
    pub fn of(reported: &[(String, u64)]) -> Self {
        let is_kept = |name: &str| name.len() <= MAX_TYPE_BYTES && name != OTHER;
        let (mut kept, mut other) = (Vec::<(JobType, u64)>::new(), 0u64);
        for (name, jobs) in reported {
            match is_kept(name) && kept.len() < MAX_TYPES {
                true => kept.push((job_type(name), *jobs)),
                false => other = other.saturating_add(*jobs),
            }
        }
        if other > 0 {
            kept.push((OTHER.into(), other));
        }
        Self { types: kept.into() }
    }

    /// Each type with its number of jobs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.types.iter().map(|(name, jobs)| (&**name, *jobs))
    }

    /// The sum over all types.
    pub fn total(&self) -> u64 {
        self.iter().fold(0, |sum, (_, jobs)| sum.saturating_add(jobs))
    }
}

fn job_type(name: &str) -> JobType {
    let common = COMMON.into_iter().find(|common| *common == name);
    common.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(reported: &[(&str, u64)]) -> PendingByType {
        let reported: Vec<_> = reported
            .iter()
            .map(|(name, jobs)| ((*name).to_owned(), *jobs))
            .collect();
        PendingByType::of(&reported)
    }

    #[test]
    fn four_types_are_kept_and_others_summed() {
        let kept = keep(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", u64::MAX)]);
        let expected = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("other", u64::MAX)];
        assert_eq!(kept.iter().collect::<Vec<_>>(), expected);
        assert_eq!(kept.total(), u64::MAX);
    }

    #[test]
    fn overlong_name_counts_as_other() {
        let (fits, too_long) = ("x".repeat(MAX_TYPE_BYTES), "x".repeat(MAX_TYPE_BYTES + 1));
        let kept = keep(&[(&too_long, 1), (&fits, 2), ("other", 3)]);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [(&*fits, 2), ("other", 4)]);
    }
}
