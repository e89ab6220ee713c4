//! `/metrics` in the text format of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
//!
//! Label values come from lists in the code: no address of a client or of a node, so their number is bounded.

use std::fmt::{Display, Write};

use super::labels::{Endpoint, Label};
use super::process::Process;
use super::{By, Counter, Cumulated, Metrics};
use crate::registry::Totals;
use crate::util::logger;

/// Type of the text, with the version of its format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that one page is made from.
struct Scrape<'a> {
    metrics: &'a Metrics,
    totals: Totals,
    /// Clients that each limiter remembers; none when the limit is off.
    limiter_clients: &'a [(Endpoint, usize)],
    process: Process,
}

/// One metric. Without a sample it is left out.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Scrape<'_>, &mut Samples<'_>),
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&Scrape<'_>, &mut Samples<'_>)) -> Family {
    let kind = Kind::Counter;
    Family {
        name,
        kind,
        help,
        samples,
    }
}

const fn gauge(name: &'static str, help: &'static str, samples: fn(&Scrape<'_>, &mut Samples<'_>)) -> Family {
    let kind = Kind::Gauge;
    Family {
        name,
        kind,
        help,
        samples,
    }
}

const fn histogram(name: &'static str, help: &'static str, samples: fn(&Scrape<'_>, &mut Samples<'_>)) -> Family {
    let kind = Kind::Histogram;
    Family {
        name,
        kind,
        help,
        samples,
    }
}

const FAMILIES: &[Family] = &[
    gauge(
        "infernet_router_nodes",
        "Listed nodes by the list that names them and by state; each is counted once.",
        |of, to| to.by_two(["source", "state"], &of.metrics.nodes, |_| true),
    ),
    gauge(
        "infernet_router_pending_jobs",
        "Jobs that the available nodes reported as pending, all together.",
        |of, to| to.one(of.metrics.pending_jobs.get()),
    ),
    counter(
        "infernet_router_probes_total",
        "Probes by how they ended; \"ours\" went wrong on our side.",
        |of, to| to.by("outcome", &of.metrics.probes),
    ),
    histogram(
        "infernet_router_probe_duration_seconds",
        "How long probes took.",
        |of, to| to.histogram(&of.metrics.probe_time.read()),
    ),
    gauge(
        "infernet_router_probe_pool_too_small",
        "1 while the pool can't ask all nodes in an interval.",
        |of, to| to.one(of.metrics.pool_too_small.get()),
    ),
    gauge(
        "infernet_router_conflicting_containers",
        "Container ids that available nodes run with different images.",
        |of, to| to.one(of.metrics.conflicting_containers.get()),
    ),
    counter(
        "infernet_router_file_reads_total",
        "Changes of the list file, by whether it could be read.",
        |of, to| to.by("outcome", &of.metrics.file_reads),
    ),
    counter(
        "infernet_router_explorer_requests_total",
        "Requests to the Node Explorer by outcome.",
        |of, to| to.by("outcome", &of.metrics.explorer_requests),
    ),
    gauge(
        "infernet_router_explorer_last_success_timestamp_seconds",
        "When the Explorer last gave its list, in seconds since 1970.",
        |of, to| to.maybe(Some(of.metrics.explorer_success.get()).filter(|last| *last > 0)),
    ),
    counter(
        "infernet_router_requests_total",
        "Requests that were answered, by endpoint and status.",
        |of, to| to.by_two(["endpoint", "status"], &of.metrics.requests, |count| count.get() > 0),
    ),
    histogram(
        "infernet_router_request_duration_seconds",
        "From a complete head to its answer.",
        |of, to| to.histogram(&of.metrics.request_time.read()),
    ),
    counter(
        "infernet_router_empty_answers_total",
        "Answers of /api/v1/ips with status 200 and no address.",
        |of, to| to.one(of.metrics.empty_answers.get()),
    ),
    counter(
        "infernet_router_connections_total",
        "Client connections that were accepted.",
        |of, to| to.one(of.metrics.connections.get()),
    ),
    gauge(
        "infernet_router_open_connections",
        "Client connections that are open.",
        |of, to| to.one(of.metrics.connections_open.get()),
    ),
    counter(
        "infernet_router_refused_total",
        "Connections and requests that the gate refused.",
        |of, to| to.by("reason", &of.metrics.refused),
    ),
    counter(
        "infernet_router_resources_requests_total",
        "Requests to nodes for their resources, by how they ended; \"ours\" went wrong on our side.",
        |of, to| to.by("outcome", &of.metrics.resources_requests),
    ),
    counter(
        "infernet_router_resource_surveys_total",
        "Requests that name a model, by whether its id was new or kept; one new id too many is refused.",
        |of, to| to.by("outcome", &of.metrics.surveys),
    ),
    counter(
        "infernet_router_limiter_decisions_total",
        "Requests that took a token, and those that found none.",
        |of, to| {
            for (endpoint, _) in of.limiter_clients {
                for (verdict, count) in of.metrics.limiter[*endpoint].iter() {
                    let labels = [("endpoint", endpoint.label()), ("decision", verdict.label())];
                    to.labelled(&labels, count.get());
                }
            }
        },
    ),
    gauge(
        "infernet_router_limiter_clients",
        "Clients with a bucket of their own.",
        |of, to| {
            for (endpoint, clients) in of.limiter_clients {
                to.labelled(&[("endpoint", endpoint.label())], clients);
            }
        },
    ),
    counter(
        "infernet_router_promises_total",
        "Addresses handed out that counted as a pending job.",
        |of, to| to.one(of.totals.promises),
    ),
    counter(
        "infernet_router_log_lines_dropped_total",
        "Lines of the log that nobody read in time.",
        |_, to| to.one(logger::dropped_lines()),
    ),
    gauge(
        "infernet_router_build_info",
        "Always 1; the label tells the version.",
        |_, to| to.labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1),
    ),
    gauge("process_resident_memory_bytes", "Resident memory.", |of, to| {
        to.maybe(of.process.resident_bytes)
    }),
    gauge("process_threads", "Threads.", |of, to| to.maybe(of.process.threads)),
    gauge("process_open_fds", "Open descriptors.", |of, to| {
        to.maybe(of.process.open_descriptors)
    }),
    gauge("process_max_fds", "Most descriptors that may be open.", |of, to| {
        to.maybe(of.process.max_descriptors)
    }),
    counter(
        "process_cpu_seconds_total",
        "Processor time, user and system.",
        |of, to| to.maybe(of.process.cpu_seconds),
    ),
    gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        |of, to| to.maybe(of.process.start_seconds),
    ),
];

impl Metrics {
    /// All that is counted. `limiter_clients` are those that each limiter remembers; none when the limit is off.
    pub(crate) fn to_text(&self, totals: Totals, limiter_clients: Option<&[(Endpoint, usize)]>) -> String {
        let scrape = Scrape {
            metrics: self,
            totals,
            limiter_clients: limiter_clients.unwrap_or_default(),
            process: Process::read(),
        };
        let mut text = String::new();
        for family in FAMILIES {
            let begin = text.len();
            let Family { name, kind, help, .. } = family;
            // Writing to a String can't fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
            let head = text.len();
            let mut samples = Samples { name, text: &mut text };
            (family.samples)(&scrape, &mut samples);
            if text.len() == head {
                text.truncate(begin);
            }
        }
        text
    }
}

/// The samples of one metric as they are written. Writing to a String can't fail.
struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    fn one(&mut self, value: impl Display) {
        let _ = writeln!(self.text, "{} {value}", self.name);
    }

    /// A sample where there is a value.
    fn maybe(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.one(value);
        }
    }

    fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let _ = writeln!(self.text, "{}{{{}}} {value}", self.name, labels.join(","));
    }

    /// A sample for each value of one label.
    fn by<L: Label>(&mut self, name: &str, counts: &By<L>) {
        for (value, count) in counts.iter() {
            self.labelled(&[(name, value.label())], count.get());
        }
    }

    /// A sample for each pair of two labels that `is_shown`.
    fn by_two<L: Label, M: Label>(
        &mut self,
        [first, second]: [&str; 2],
        counts: &By<L, By<M>>,
        is_shown: fn(&Counter) -> bool,
    ) {
        for (one, by_other) in counts.iter() {
            for (other, count) in by_other.iter().filter(|(_, count)| is_shown(count)) {
                self.labelled(&[(first, one.label()), (second, other.label())], count.get());
            }
        }
    }

    fn histogram(&mut self, observed: &Cumulated) {
        let name = self.name;
        for (bound, count) in &observed.up_to {
            let _ = writeln!(self.text, "{name}_bucket{{le=\"{}\"}} {count}", seconds(*bound));
        }
        let Cumulated { count, sum_micros, .. } = observed;
        let sum = seconds(*sum_micros);
        let _ = writeln!(
            self.text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_histogram_cumulates_and_its_bounds_are_inclusive() {
        let metrics = Metrics::default();
        for micros in [50, 51, 100, 2_000_000] {
            metrics.request_time.observe(Duration::from_micros(micros));
        }
        let text = metrics.to_text(Totals::default(), None);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("request_duration"))
            .skip(2)
            .collect();
        assert_eq!(
            lines[0],
            "infernet_router_request_duration_seconds_bucket{le=\"0.00005\"} 1"
        );
        assert_eq!(
            lines[1],
            "infernet_router_request_duration_seconds_bucket{le=\"0.0001\"} 3"
        );
        assert_eq!(lines[7], "infernet_router_request_duration_seconds_bucket{le=\"1\"} 3");
        assert_eq!(
            lines[8..],
            [
                "infernet_router_request_duration_seconds_bucket{le=\"+Inf\"} 4",
                "infernet_router_request_duration_seconds_sum 2.000201",
                "infernet_router_request_duration_seconds_count 4",
            ]
        );
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let text = Metrics::default().to_text(Totals::default(), None);
        assert!(!text.contains("limiter") && !text.contains("explorer_last_success"));
        let text = Metrics::default().to_text(
            Totals::default(),
            Some(&[(Endpoint::Ips, 1), (Endpoint::Containers, 2)]),
        );
        assert!(text.contains("infernet_router_limiter_clients{endpoint=\"/api/v1/containers\"} 2\n"));
    }
}
