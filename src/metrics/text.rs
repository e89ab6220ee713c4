//! `/metrics` in the text format of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
//!
//! Label values come from lists in the code: no address of a client or of a node, so their number is bounded.

use std::fmt::{Display, Write};

use super::labels::{Endpoint, Label};
use super::process::Process;
use super::{By, Cumulated, Metrics, unix_seconds};
use crate::registry::Totals;
use crate::util::logger;

/// Type of the text, with the version of its format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// All that is counted. `limiter_clients` are those that each limiter remembers; none when the limit is off.
    pub(crate) fn to_text(&self, totals: Totals, limiter_clients: Option<&[(Endpoint, usize)]>) -> String {
        let mut page = Page::default();
        self.nodes(&mut page, totals);
        self.lists(&mut page);
        self.requests(&mut page);
        self.limits(&mut page, limiter_clients);
        page.family(
            "infernet_router_promises_total",
            "counter",
            "Addresses handed out that counted as a pending job.",
        );
        page.sample("", totals.promises);
        page.family(
            "infernet_router_build_info",
            "gauge",
            "Always 1; the label tells the version.",
        );
        page.sample(concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
        page.family(
            "infernet_router_log_lines_dropped_total",
            "counter",
            "Lines of the log that nobody read in time.",
        );
        page.sample("", logger::dropped_lines());
        process(&mut page, Process::read());
        page.text
    }

    fn nodes(&self, page: &mut Page, totals: Totals) {
        page.family(
            "infernet_router_nodes",
            "gauge",
            "Listed nodes by the list that names them and by state.",
        );
        for (source, up, all) in [
            ("ips_file", totals.listed_up, totals.listed),
            ("explorer", totals.explorer_up, totals.explorer),
        ] {
            page.sample(&format!("{{source=\"{source}\",state=\"up\"}}"), up);
            page.sample(&format!("{{source=\"{source}\",state=\"down\"}}"), all - up);
        }
        page.family(
            "infernet_router_probes_total",
            "counter",
            "Probes by how they ended; \"ours\" went wrong on our side.",
        );
        page.samples("outcome", &self.probes);
        page.histogram(
            "infernet_router_probe_duration_seconds",
            "How long probes took.",
            &self.probe_time.read(),
        );
        page.family(
            "infernet_router_probe_pool_too_small",
            "gauge",
            "1 while the pool can't ask all nodes in an interval.",
        );
        page.sample("", self.pool_too_small.get());
    }

    fn lists(&self, page: &mut Page) {
        page.family(
            "infernet_router_file_reads_total",
            "counter",
            "Changes of the list file, by whether it could be read.",
        );
        page.samples("outcome", &self.file_reads);
        page.family(
            "infernet_router_explorer_requests_total",
            "counter",
            "Requests to the Node Explorer by outcome.",
        );
        page.samples("outcome", &self.explorer_requests);
        let last = self.explorer_success.get();
        if last > 0 {
            page.family(
                "infernet_router_explorer_age_seconds",
                "gauge",
                "Time since the Explorer last gave its list.",
            );
            page.sample("", unix_seconds().saturating_sub(last));
        }
    }

    fn requests(&self, page: &mut Page) {
        page.family(
            "infernet_router_requests_total",
            "counter",
            "Requests that were answered, by endpoint and status.",
        );
        for (endpoint, by_status) in self.requests.iter() {
            for (status, count) in by_status.iter().filter(|(_, count)| count.get() > 0) {
                let (endpoint, status) = (endpoint.label(), status.label());
                page.sample(&format!("{{endpoint=\"{endpoint}\",status=\"{status}\"}}"), count.get());
            }
        }
        let help = "From a complete head to its answer.";
        page.histogram(
            "infernet_router_request_duration_seconds",
            help,
            &self.request_time.read(),
        );
        page.family(
            "infernet_router_connections_total",
            "counter",
            "Client connections that were accepted.",
        );
        page.sample("", self.connections.get());
        page.family(
            "infernet_router_connections",
            "gauge",
            "Client connections that are open.",
        );
        page.sample("", self.connections_open.get());
        page.family(
            "infernet_router_refused_total",
            "counter",
            "Connections and requests that the gate refused.",
        );
        page.samples("reason", &self.refused);
    }

    fn limits(&self, page: &mut Page, clients: Option<&[(Endpoint, usize)]>) {
        let Some(clients) = clients else {
            return;
        };
        page.family(
            "infernet_router_limiter_decisions_total",
            "counter",
            "Requests that took a token, and those that found none.",
        );
        for (endpoint, _) in clients {
            for (verdict, count) in self.limiter[*endpoint].iter() {
                let labels = format!("{{endpoint=\"{}\",decision=\"{}\"}}", endpoint.label(), verdict.label());
                page.sample(&labels, count.get());
            }
        }
        page.family(
            "infernet_router_limiter_clients",
            "gauge",
            "Clients with a bucket of their own.",
        );
        for (endpoint, clients) in clients {
            page.sample(&label("endpoint", endpoint.label()), clients);
        }
    }
}

fn process(page: &mut Page, process: Process) {
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            let kind = if str::ends_with(name, "_total") {
                "counter"
            } else {
                "gauge"
            };
            page.family(name, kind, help);
            page.sample("", value);
        }
    };
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        whole(process.resident_bytes),
    );
    gauge("process_threads", "Threads.", whole(process.threads));
    gauge("process_open_fds", "Open descriptors.", whole(process.open_descriptors));
    gauge(
        "process_max_fds",
        "Most descriptors that may be open.",
        whole(process.max_descriptors),
    );
    gauge(
        "process_cpu_seconds_total",
        "Processor time, user and system.",
        process.cpu_seconds,
    );
    gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        process.start_seconds,
    );
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

/// The text as it grows. Writing to a String can't fail.
#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    /// Begins a metric; the samples that follow are its.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}{labels} {value}", self.family);
    }

    /// A sample for each value of one label.
    fn samples<L: Label>(&mut self, name: &str, counts: &By<L>) {
        for (value, count) in counts.iter() {
            self.sample(&label(name, value.label()), count.get());
        }
    }

    fn histogram(&mut self, name: &'static str, help: &str, observed: &Cumulated) {
        self.family(name, "histogram", help);
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
        assert!(!text.contains("limiter") && !text.contains("explorer_age"));
        let text = Metrics::default().to_text(
            Totals::default(),
            Some(&[(Endpoint::Ips, 1), (Endpoint::Containers, 2)]),
        );
        assert!(text.contains("infernet_router_limiter_clients{endpoint=\"/api/v1/containers\"} 2\n"));
    }
}
