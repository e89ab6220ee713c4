//! The label values of metrics.

use crate::node::Source;

/// A set of label values fixed at build time, so that the number of series is bounded.
pub(crate) trait Label: Copy + PartialEq + 'static {
    /// All values, in the order in which `/metrics` lists them.
    const ALL: &'static [Self];
    /// The label of each value in `ALL`.
    const LABELS: &'static [&'static str];

    /// Returns the position in `ALL`.
    fn index(self) -> usize {
        let position = Self::ALL.iter().position(|value| *value == self);
        position.unwrap_or_default()
    }

    /// Returns the value as `/metrics` shows it.
    fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

impl Label for Source {
    const ALL: &'static [Self] = &[Source::IpsFile, Source::Explorer];
    const LABELS: &'static [&'static str] = &["ips_file", "explorer"];
}

/// Defines enums and the labels of their variants in one list.
macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant,)+];
            const LABELS: &'static [&'static str] = &[$($label,)+];
        }
    )+};
}

labels! {
    /// The endpoint of a request. The label is the path.
    Endpoint {
        Ips = "/api/v1/ips",
        Containers = "/api/v1/containers",
        Resources = "/api/v1/resources",
        Root = "/",
        Health = "/health",
        Metrics = "/metrics",
        Status = "/status",
        StatusJson = "/status.json",
        OpenApi = "/openapi.json",
        Other = "other",
    }

    /// Why a connection or a request was not served.
    Refused {
        Share = "client_share",
        Full = "all_places_taken",
        MadeRoom = "made_room",
        Malformed = "malformed",
        Late = "head_late",
        Body = "body",
        TooLong = "head_too_long",
        Version = "http_version",
        Busy = "workers_busy",
        Lost = "answer_lost",
        SlowReader = "slow_reader",
        Accept = "accept_failed",
    }

    /// The outcome of a probe.
    ProbeOutcome {
        Up = "up",
        Limited = "limited",
        Failed = "failed",
        /// A local error.
        Local = "ours",
    }

    /// The outcome of an operation that succeeds or fails.
    Success {
        Ok = "ok",
        Failed = "failed",
    }

    /// The decision of a limiter.
    Verdict {
        Granted = "granted",
        Refused = "refused",
    }

    /// The outcome of a request for the resources of a node.
    ResourcesOutcome {
        Ok = "ok",
        /// The node is older than 1.4.0.
        NotFound = "not_found",
        Failed = "failed",
        /// A local error.
        Local = "ours",
    }

    /// The outcome of a request with a `model_id`.
    SurveyOutcome {
        /// The id is new.
        New = "new",
        Kept = "kept",
        /// The client has used up its budget of new ids.
        Refused = "refused",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct_and_match_their_index() {
        let labels: BTreeSet<_> = Refused::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Refused::ALL.len());
        assert!(Refused::ALL.iter().enumerate().all(|(at, reason)| reason.index() == at));
        assert_eq!(Refused::Share.label(), "client_share");
    }
}
