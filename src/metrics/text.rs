//! `/metrics` in the Prometheus text format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
//!
//! All label values come from enums in the code. None is the address of a client or a node, so the number of series is
//! bounded.

use std::fmt::{Display, Write};

use super::labels::{Endpoint, Label};
use super::{BOUNDS, By, Counter, Histogram, Metrics, PROBE_BOUNDS, REQUEST_BOUNDS, STATUSES, process};
use crate::node::Source;
use crate::registry::{NodeState, Totals};
use crate::util::logger;

/// Media type of the text, with the version of its format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Type, name and help of each metric.
const FAMILIES: &str = include_str!("families.txt");

impl Metrics {
    /// Returns all metrics. `limiter_clients` is the number of clients that each limiter tracks, empty if the limit is
    /// disabled.
    pub(crate) fn to_text(&self, totals: &Totals, limiter_clients: &[(Endpoint, usize)]) -> String {
        let mut text = Text::default();
        put_totals(&mut text, totals);
        self.put_poller_and_lists(&mut text);
        self.put_requests(&mut text);
        self.put_limiters(&mut text, limiter_clients);
        put_process(&mut text);
        text.0
    }

    fn put_poller_and_lists(&self, to: &mut Text) {
        to.by("infernet_router_probes_total", "outcome", &self.probes);
        let took = &self.probe_time;
        to.histogram("infernet_router_probe_duration_seconds", &PROBE_BOUNDS, took);
        to.one("infernet_router_probe_pool_too_small", self.pool_too_small.get());
        let resources = &self.resources_requests;
        to.by("infernet_router_resources_requests_total", "outcome", resources);
        to.by("infernet_router_file_reads_total", "outcome", &self.file_reads);
        to.one("infernet_router_ips_file_ok", self.ips_file_ok.get());
        let explorer = &self.explorer_requests;
        to.by("infernet_router_explorer_requests_total", "outcome", explorer);
        if explorer.iter().any(|(_, count)| count.get() > 0) {
            to.one("infernet_router_explorer_ok", self.explorer_ok.get());
        }
        let last = self.explorer_success.get();
        if last > 0 {
            to.one("infernet_router_explorer_last_success_timestamp_seconds", last);
        }
    }

    fn put_requests(&self, to: &mut Text) {
        for (endpoint, by_status) in self.requests.iter() {
            for (status, count) in STATUSES.iter().zip(by_status).filter(|(_, count)| count.get() > 0) {
                let labels = [("endpoint", endpoint.label()), ("status", &status.to_string())];
                to.sample("infernet_router_requests_total", &labels, count.get());
            }
        }
        let took = &self.request_time;
        to.histogram("infernet_router_request_duration_seconds", &REQUEST_BOUNDS, took);
        to.one("infernet_router_empty_answers_total", self.empty_answers.get());
        to.one("infernet_router_connections_total", self.connections.get());
        to.one("infernet_router_open_connections", self.connections_open.get());
        to.by("infernet_router_refused_total", "reason", &self.refused);
        to.by("infernet_router_resource_surveys_total", "outcome", &self.surveys);
    }

    fn put_limiters(&self, to: &mut Text, clients: &[(Endpoint, usize)]) {
        for (endpoint, _) in clients {
            for (verdict, count) in self.limiter[*endpoint].iter() {
                let labels = [("endpoint", endpoint.label()), ("decision", verdict.label())];
                to.sample("infernet_router_limiter_decisions_total", &labels, count.get());
            }
        }
        for (endpoint, count) in clients {
            let labels = [("endpoint", endpoint.label())];
            to.sample("infernet_router_limiter_clients", &labels, count);
        }
    }
}

/// States by their label; a suspect node is counted as `up`, a new one as `down`.
const STATES: [(&str, &[NodeState]); 4] = [
    ("up", &[NodeState::Up, NodeState::Suspect]),
    ("down", &[NodeState::Down, NodeState::New]),
    ("limited", &[NodeState::Limited]),
    ("doubted", &[NodeState::Doubted]),
];

fn put_totals(to: &mut Text, totals: &Totals) {
    for source in Source::ALL {
        let mut put = |state: &str, count: usize| {
            let labels = [("source", source.label()), ("state", state)];
            to.sample("infernet_router_nodes", &labels, count);
        };
        let nodes = totals.nodes[*source as usize];
        for (label, states) in STATES {
            put(label, states.iter().map(|state| nodes[*state as usize][0]).sum());
        }
        put("draining", nodes.iter().map(|[_, draining]| draining).sum());
    }
    to.one("infernet_router_pending_jobs", totals.pending);
    to.one("infernet_router_conflicting_containers", totals.conflicting_containers);
    to.one("infernet_router_promises_total", totals.promises);
}

fn put_process(to: &mut Text) {
    to.one("infernet_router_log_lines_dropped_total", logger::dropped_lines());
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    to.sample("infernet_router_build_info", &version, 1);
    for (name, value) in process::read().into_iter().flatten() {
        to.one(name, value);
    }
}

/// The samples so far.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn one(&mut self, name: &str, value: impl Display) {
        self.sample(name, &[], value);
    }

    /// Writes a sample, and the type and the help of the metric before its first sample.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.header(name);
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\""));
        let labels = labels.collect::<Vec<_>>().join(",");
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name}{open}{labels}{close} {value}");
    }

    fn header(&mut self, name: &str) {
        let mut families = FAMILIES.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
        if let Some([kind, _, help]) = families.find(|family| family.get(1) == Some(&name)).as_deref()
            && !self.0.contains(&format!("# TYPE {name} "))
        {
            let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
    }

    /// Writes a sample for each value of one label.
    fn by<L: Label>(&mut self, name: &str, label: &str, counts: &By<L, Counter>) {
        for (value, count) in counts.iter() {
            self.sample(name, &[(label, value.label())], count.get());
        }
    }

    fn histogram(&mut self, name: &str, bounds: &[u64; BOUNDS], observed: &Histogram) {
        self.header(name);
        let bounds = bounds.iter().map(|bound| seconds(*bound).to_string());
        let mut count = 0;
        for (bound, bucket) in bounds.chain(["+Inf".to_owned()]).zip(&observed.buckets) {
            count += bucket.get();
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.one(&format!("{name}_sum"), seconds(observed.sum_micros.get()));
        self.one(&format!("{name}_count"), count);
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Success;
    use std::time::Duration;

    #[test]
    fn histogram_is_cumulative_with_inclusive_bounds() {
        let metrics = Metrics::default();
        for micros in [50, 51, 100, 2_000_000] {
            metrics.observe_request(Duration::from_micros(micros));
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

    #[test]
    fn each_family_has_a_header_and_samples() {
        let metrics = Metrics::default();
        metrics.explorer_success.set(1);
        metrics.explorer_requests[Success::Ok].add(1);
        metrics.count_request(Endpoint::Ips, 200);
        let text = metrics.to_text(&Totals::default(), &[(Endpoint::Ips, 1)]);
        for line in FAMILIES.lines() {
            let name = line.split(' ').nth(1).expect("a name");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .fold(name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
            assert!(FAMILIES.contains(&format!(" {family} ")), "{name}");
        }
    }
}
