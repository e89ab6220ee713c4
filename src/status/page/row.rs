//! What the page shows of one node beside its fields.

use super::numbers::{grouped, span};
use super::text;
use crate::status::CERTIFICATE_DAYS;
use crate::status::report::NodeRow;

impl NodeRow {
    /// The problem of the certificate.
    pub(super) fn expiry(&self) -> Option<String> {
        match self.certificate_days? {
            CERTIFICATE_DAYS.. => None,
            days @ 0.. => Some(format!("certificate expires in {days} days")),
            _ => Some("certificate has expired".to_owned()),
        }
    }

    /// The sum of the pending jobs, empty if it is unknown.
    pub(super) fn jobs(&self) -> String {
        let sum = |jobs: u64, more: &u64| jobs.saturating_add(*more);
        let jobs = self.pending.iter().map(|jobs| jobs.values().fold(0, sum));
        jobs.map(grouped).collect()
    }

    /// The time until the expected completion of the jobs.
    pub(super) fn finish_in(&self) -> Option<String> {
        self.finish.map(|seconds| span(seconds as u64))
    }

    /// The first container ids as HTML, and the number of the others.
    pub(super) fn ids(&self, max: usize) -> String {
        let ids = self.containers.iter().take(max).map(|id| text::short(id).0);
        let ids = ids.collect::<Vec<_>>().join(", ");
        match self.containers.len().saturating_sub(max) + self.containers_left_out {
            0 => ids,
            more => format!("{ids} and {} more", grouped(more)),
        }
    }
}
