//! Pending jobs by type, with the names of the types stored once for all nodes.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Types kept for one node. Further types are summed up as `other`. Real nodes have two types.
const MAX_TYPES: usize = 4;
/// Longest name of a type in bytes; a type with a longer name is counted as `other`. Real names have eight bytes.
const MAX_TYPE_BYTES: usize = 32;
/// Distinct names for all nodes together: 100,000 nodes need no more memory for names than one node.
const MAX_TYPE_NAMES: usize = 256;
/// The name for types that are not kept.
const OTHER: &str = "other";

/// Pending jobs of one node by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingByType(Box<[(Arc<str>, u64)]>);

impl PendingByType {
    /// Each type with its number of jobs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, jobs)| (&**name, *jobs))
    }

    /// The sum over all types.
    pub fn total(&self) -> u64 {
        self.iter().fold(0, |sum, (_, jobs)| sum.saturating_add(jobs))
    }
}

impl Serialize for PendingByType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// The names of types that nodes report.
#[derive(Debug, Default)]
pub(super) struct TypeNames(HashSet<Arc<str>>);

impl TypeNames {
    /// Keeps the first types of a report and sums up the others.
    pub(super) fn keep(&mut self, pending: &[(String, u64)]) -> PendingByType {
        let mut kept: Vec<(Arc<str>, u64)> = Vec::with_capacity(pending.len().min(MAX_TYPES));
        let (mut names, mut other) = (0, 0u64);
        for (name, jobs) in pending {
            let is_candidate = names < MAX_TYPES && name.len() <= MAX_TYPE_BYTES && name != OTHER;
            names += usize::from(is_candidate);
            match is_candidate.then(|| self.intern(name)).flatten() {
                Some(name) => kept.push((name, *jobs)),
                None => other = other.saturating_add(*jobs),
            }
        }
        if other > 0 {
            kept.push((OTHER.into(), other));
        }
        PendingByType(kept.into())
    }

    /// The stored name, or `None` if too many other names are in use.
    fn intern(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.0.get(name) {
            return Some(Arc::clone(known));
        }
        if self.0.len() >= MAX_TYPE_NAMES {
            // Names that only this set refers to are no longer reported.
            self.0.retain(|name| Arc::strong_count(name) > 1);
        }
        (self.0.len() < MAX_TYPE_NAMES).then(|| {
            let kept: Arc<str> = name.into();
            self.0.insert(Arc::clone(&kept));
            kept
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(names: &mut TypeNames, pending: &[(&str, u64)]) -> PendingByType {
        let pending: Vec<_> = pending.iter().map(|(name, jobs)| ((*name).to_owned(), *jobs)).collect();
        names.keep(&pending)
    }

    #[test]
    fn four_types_are_kept_and_others_summed() {
        let mut names = TypeNames::default();
        let kept = keep(
            &mut names,
            &[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", u64::MAX)],
        );
        let expected = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("other", u64::MAX)];
        assert_eq!(kept.iter().collect::<Vec<_>>(), expected);
        assert_eq!(kept.total(), u64::MAX);
        assert_eq!(names.0.len(), 4, "the filter to four types precedes the store");
    }

    #[test]
    fn overlong_name_counts_as_other() {
        let mut names = TypeNames::default();
        let (fits, too_long) = ("x".repeat(MAX_TYPE_BYTES), "x".repeat(MAX_TYPE_BYTES + 1));
        let kept = keep(&mut names, &[(&too_long, 1), (&fits, 2), ("other", 3)]);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [(&*fits, 2), ("other", 4)]);
    }

    #[test]
    fn names_no_longer_reported_are_freed() {
        let mut names = TypeNames::default();
        let held: Vec<_> = (0..MAX_TYPE_NAMES)
            .map(|at| keep(&mut names, &[(&at.to_string(), 1)]))
            .collect();
        let full = keep(&mut names, &[("real", 7)]);
        assert_eq!(full.iter().collect::<Vec<_>>(), [("other", 7)]);
        drop(held);
        let kept = keep(&mut names, &[("real", 7)]);
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("real", 7)]);
        assert_eq!(names.0.len(), 1);
    }
}
