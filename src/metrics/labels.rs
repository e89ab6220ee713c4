//! The labels of metrics: what is counted apart.

use crate::node::Source;

/// A set of labels known when the program is built, so that the number of series is bounded.
pub(crate) trait Label: Copy + Sized + 'static {
    /// All of them, in the order in which they are shown.
    const ALL: &'static [Self];

    /// Its position in `ALL`.
    fn index(self) -> usize;

    /// As `/metrics` shows it.
    fn label(self) -> &'static str;
}

/// Makes an enum whose variants know their labels: one list, so that no two can differ.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)+
                }
            }
        }
    };
}

labels! {
    /// What the poller makes of a node. Each has one of these.
    StateLabel {
        /// Available, and answers.
        Up = "up",
        /// Not available: its probes fail, or none has ended yet.
        Down = "down",
        /// It answers nothing but 429: it stays what it was, available or not.
        Limited = "limited",
        /// Available, though its probes fail: so do those of too many others.
        Doubted = "doubted",
    }
}

impl Label for Source {
    const ALL: &'static [Self] = &[Source::IpsFile, Source::Explorer];

    fn index(self) -> usize {
        self as usize
    }

    fn label(self) -> &'static str {
        match self {
            Source::IpsFile => "ips_file",
            Source::Explorer => "explorer",
        }
    }
}

labels! {
    /// Where a request goes. The label is the path.
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
}

labels! {
    /// The statuses that a worker answers with.
    Status {
        S200 = "200",
        S204 = "204",
        S400 = "400",
        S404 = "404",
        S405 = "405",
        S429 = "429",
        S500 = "500",
        S503 = "503",
    }
}

impl Status {
    /// The status of this code; none for one that no worker answers with.
    pub(crate) fn of_code(code: u16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.label().parse() == Ok(code))
    }
}

labels! {
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
}

labels! {
    /// How a probe ended.
    ProbeOutcome {
        Up = "up",
        Limited = "limited",
        Failed = "failed",
        /// It went wrong on this machine.
        Local = "ours",
    }
}

labels! {
    /// How something ended that either works or doesn't.
    Success {
        Ok = "ok",
        Failed = "failed",
    }
}

labels! {
    /// What the limiter decided.
    Verdict {
        Granted = "granted",
        Refused = "refused",
    }
}

labels! {
    /// How a request for a node's resources ended.
    ResourcesOutcome {
        Ok = "ok",
        /// The node is older than 1.4.0.
        NotFound = "not_found",
        Failed = "failed",
        /// It went wrong on this machine.
        Local = "ours",
    }
}

labels! {
    /// What became of a request that names a model.
    SurveyOutcome {
        /// Its id was not known.
        New = "new",
        Kept = "kept",
        /// One new id too many.
        Refused = "refused",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_has_a_label_of_its_own_and_stands_where_its_index_says() {
        let labels: BTreeSet<_> = Refused::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Refused::ALL.len());
        assert!(Refused::ALL.iter().enumerate().all(|(at, reason)| reason.index() == at));
        assert_eq!(Refused::Share.label(), "client_share");
        assert_eq!((Status::of_code(429), Status::of_code(418)), (Some(Status::S429), None));
    }
}
