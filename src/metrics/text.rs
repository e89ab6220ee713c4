//! `/metrics` in the Prometheus text format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
//!
//! All label values come from enums in the code. None is the address of a client or a node, so the number of series is
//! bounded.

use std::fmt::{Display, Write};

use super::labels::{Endpoint, Label};
use super::process::Process;
use super::{By, Counter, Histogram, Metrics};
use crate::node::Source;
use crate::registry::{NodeState, Totals};
use crate::util::logger;

/// Media type of the text, with the version of its format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// Returns all metrics. `limiter_clients` is the number of clients that each limiter tracks, empty if the limit is
    /// disabled.
    pub(crate) fn to_text(&self, totals: &Totals, limiter_clients: &[(Endpoint, usize)]) -> String {
        let mut text = Text::default();
        put_totals(&mut text, totals);
        self.put_probes(&mut text);
        self.put_lists(&mut text);
        self.put_requests(&mut text, totals.promises);
        self.put_limiters(&mut text, limiter_clients);
        put_process(&mut text);
        text.0
    }

    fn put_probes(&self, to: &mut Text) {
        to.counter(
            "infernet_router_probes_total",
            "Probes by outcome; \"ours\" is a local error.",
        )
        .by("outcome", &self.probes);
        to.histogram(
            "infernet_router_probe_duration_seconds",
            "Duration of a probe.",
            &self.probe_time,
        );
        to.gauge(
            "infernet_router_probe_pool_too_small",
            "1 while the pool cannot probe all nodes within one interval.",
        )
        .one(self.pool_too_small.get());
        to.counter(
            "infernet_router_resources_requests_total",
            "Requests to nodes for their resources, by outcome; \"ours\" is a local error.",
        )
        .by("outcome", &self.resources_requests);
    }

    fn put_lists(&self, to: &mut Text) {
        to.counter(
            "infernet_router_file_reads_total",
            "Reads of a changed IPS_FILE by outcome.",
        )
        .by("outcome", &self.file_reads);
        to.gauge(
            "infernet_router_ips_file_ok",
            "1 if the last read of IPS_FILE was accepted.",
        )
        .one(self.ips_file_ok.get());
        to.counter(
            "infernet_router_explorer_requests_total",
            "Requests to the Node Explorer by outcome.",
        )
        .by("outcome", &self.explorer_requests);
        let is_polled = self.explorer_requests.iter().any(|(_, count)| count.get() > 0);
        to.gauge(
            "infernet_router_explorer_ok",
            "1 if the last list of the Node Explorer was accepted; absent without API_URL.",
        )
        .maybe(Some(self.explorer_ok.get()).filter(|_| is_polled));
        to.gauge(
            "infernet_router_explorer_last_success_timestamp_seconds",
            "Unix time of the last list that the Explorer returned.",
        )
        .maybe(Some(self.explorer_success.get()).filter(|last| *last > 0));
    }

    fn put_requests(&self, to: &mut Text, promises: u64) {
        to.counter(
            "infernet_router_requests_total",
            "Requests by endpoint and response status.",
        )
        .by_two(["endpoint", "status"], &self.requests, |count| count > 0);
        to.histogram(
            "infernet_router_request_duration_seconds",
            "Time from a complete request head to its response.",
            &self.request_time,
        );
        to.counter(
            "infernet_router_empty_answers_total",
            "First pages of /api/v1/ips without an available node.",
        )
        .one(self.empty_answers.get());
        to.counter("infernet_router_promises_total", "Responses that made a promise.")
            .one(promises);
        to.counter("infernet_router_connections_total", "Accepted client connections.")
            .one(self.connections.get());
        to.gauge("infernet_router_open_connections", "Open client connections.")
            .one(self.connections_open.get());
        to.counter(
            "infernet_router_refused_total",
            "Connections and requests that the gate refused.",
        )
        .by("reason", &self.refused);
        to.counter(
            "infernet_router_resource_surveys_total",
            "Requests with a model_id by whether the id was new, known or refused.",
        )
        .by("outcome", &self.surveys);
    }

    fn put_limiters(&self, to: &mut Text, clients: &[(Endpoint, usize)]) {
        let mut decisions = to.counter(
            "infernet_router_limiter_decisions_total",
            "Rate limit decisions by endpoint.",
        );
        for (endpoint, _) in clients {
            for (verdict, count) in self.limiter[*endpoint].iter() {
                let labels = [("endpoint", endpoint.label()), ("decision", verdict.label())];
                decisions.sample(&labels, count.get());
            }
        }
        let mut tracked = to.gauge(
            "infernet_router_limiter_clients",
            "Clients with a separate token bucket.",
        );
        for (endpoint, count) in clients {
            tracked.sample(&[("endpoint", endpoint.label())], count);
        }
    }
}

/// States by their label; a suspect node counts as `up`, a new one as `down`.
const STATES: [(&str, &[NodeState]); 4] = [
    ("up", &[NodeState::Up, NodeState::Suspect]),
    ("down", &[NodeState::Down, NodeState::New]),
    ("limited", &[NodeState::Limited]),
    ("doubted", &[NodeState::Doubted]),
];

fn put_totals(to: &mut Text, totals: &Totals) {
    let mut nodes = to.gauge(
        "infernet_router_nodes",
        "Listed nodes by list and state. Each node counts once.",
    );
    for source in Source::ALL {
        for (label, states) in STATES {
            let count: usize = states.iter().map(|state| totals.nodes(*source, *state)).sum();
            nodes.sample(&[("source", source.label()), ("state", label)], count);
        }
    }
    to.gauge(
        "infernet_router_pending_jobs",
        "Sum of the pending jobs that available nodes report.",
    )
    .one(totals.pending);
    to.gauge(
        "infernet_router_conflicting_containers",
        "Container ids that available nodes run with different images.",
    )
    .one(totals.conflicting_containers);
}

fn put_process(to: &mut Text) {
    to.counter(
        "infernet_router_log_lines_dropped_total",
        "Log lines dropped because the log reader was too slow.",
    )
    .one(logger::dropped_lines());
    to.gauge("infernet_router_build_info", "Always 1. The label is the version.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let process = Process::read();
    to.gauge("process_resident_memory_bytes", "Resident memory.")
        .maybe(process.resident_bytes);
    to.gauge("process_threads", "Threads.").maybe(process.threads);
    to.gauge("process_open_fds", "Open file descriptors.")
        .maybe(process.open_descriptors);
    to.gauge("process_max_fds", "Limit of open file descriptors.")
        .maybe(process.max_descriptors);
    to.counter("process_cpu_seconds_total", "Processor time, user and system.")
        .maybe(process.cpu_seconds);
    to.gauge("process_start_time_seconds", "Unix time of the start of the process.")
        .maybe(process.start_seconds);
}

#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family("counter", name, help)
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family("gauge", name, help)
    }

    fn family(&mut self, kind: &'static str, name: &'static str, help: &'static str) -> Family<'_> {
        let header = Some((kind, help));
        Family {
            name,
            header,
            text: &mut self.0,
        }
    }

    fn histogram<const N: usize>(&mut self, name: &'static str, help: &'static str, observed: &Histogram<N>) {
        let mut family = self.family("histogram", name, help);
        let mut count = 0;
        for (bound, bucket) in observed.bounds.iter().zip(&observed.buckets) {
            count += bucket.get();
            family.line(format_args!("_bucket{{le=\"{}\"}}", seconds(*bound)), count);
        }
        count += observed.rest.get();
        family.line("_bucket{le=\"+Inf\"}", count);
        family.line("_sum", seconds(observed.sum_micros.get()));
        family.line("_count", count);
    }
}

/// One metric. Without a sample it writes nothing.
struct Family<'a> {
    name: &'static str,
    /// Type and help, until the first sample is written.
    header: Option<(&'static str, &'static str)>,
    text: &'a mut String,
}

impl Family<'_> {
    fn line(&mut self, suffix: impl Display, value: impl Display) {
        let name = self.name;
        // Writing to a String cannot fail.
        if let Some((kind, help)) = self.header.take() {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = writeln!(self.text, "{name}{suffix} {value}");
    }

    fn one(&mut self, value: impl Display) {
        self.line("", value);
    }

    /// Writes a sample if there is a value.
    fn maybe(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.one(value);
        }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\""));
        self.line(format_args!("{{{}}}", labels.collect::<Vec<_>>().join(",")), value);
    }

    /// Writes a sample for each value of one label.
    fn by<L: Label>(&mut self, name: &str, counts: &By<L>) {
        for (value, count) in counts.iter() {
            self.sample(&[(name, value.label())], count.get());
        }
    }

    /// Writes a sample for each pair of two labels whose count `is_shown`.
    fn by_two<L: Label, M: Label>(
        &mut self,
        [first, second]: [&str; 2],
        counts: &By<L, By<M, Counter>>,
        is_shown: fn(u64) -> bool,
    ) {
        for (one, by_other) in counts.iter() {
            for (other, count) in by_other.iter().filter(|(_, count)| is_shown(count.get())) {
                self.sample(&[(first, one.label()), (second, other.label())], count.get());
            }
        }
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
    fn histogram_is_cumulative_with_inclusive_bounds() {
        let metrics = Metrics::default();
        for micros in [50, 51, 100, 2_000_000] {
            metrics.request_time.observe(Duration::from_micros(micros));
        }
        let text = metrics.to_text(&Totals::default(), &[]);
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
    fn metric_without_sample_is_omitted() {
        let text = Metrics::default().to_text(&Totals::default(), &[]);
        assert!(!text.contains("limiter") && !text.contains("explorer_last_success"));
        let text = Metrics::default().to_text(&Totals::default(), &[(Endpoint::Ips, 1), (Endpoint::Containers, 2)]);
        assert!(text.contains("infernet_router_limiter_clients{endpoint=\"/api/v1/containers\"} 2\n"));
    }
}
