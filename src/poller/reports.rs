//! Applies the result of a probe to the registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::Level;
use ::log::kv::Value;

use super::log::is_same_reason;
use super::mass_failure::MAX_DOUBT_INTERVALS;
use super::observe::observe;
use super::probe::{Outcome, Probe};
use super::schedule::RECHECK_AFTER;
use super::{LIMITED_INTERVALS, Poller, Report};
use crate::metrics::{Label, ProbeOutcome};
use crate::node::{NodeInfo, Source};
use crate::registry::{MAX_CONTAINERS, NodeId, NodeRecord, NodeState, PendingByType};

/// How long a node is rechecked each second after a local error. After an error of the local network stack another node
/// is probed after 1 s, and has 3 s to respond.
const LOCAL_ERROR_TIME: Duration = Duration::from_secs(5);

/// A finished probe of a listed node.
struct Finished {
    id: NodeId,
    took: Duration,
    now: Instant,
    before: NodeRecord,
    after: NodeRecord,
}

impl Finished {
    /// Records when the node was probed, and why the node is not up.
    fn note(&mut self, probe: &Probe, limited_after: Duration) {
        let record = &mut self.after;
        record.probed = Some((self.now, self.took));
        let health = observe(record.health, probe.outcome.kind());
        match &probe.outcome {
            Outcome::LocalError(_) => {}
            Outcome::Up(info) => {
                (record.limited_at, record.certificate_expires) = (None, probe.certificate_expires);
                record.pending = Some(PendingByType::of(&info.pending));
                record.is_redirecting |= probe.redirected_to.is_some();
                if self.is_back() {
                    self.after.last_failure = Arc::default();
                }
            }
            Outcome::Limited => {
                record.health = health;
                record.limited_at.get_or_insert(self.now + limited_after);
                record.last_failure = limited_reason(health).into();
            }
            Outcome::Failed(reason) => {
                // The failures of the list decide about a suspect.
                if record.health != NodeState::Suspect {
                    record.health = health;
                }
                record.limited_at = None;
                record.last_failure = reason.as_str().into();
            }
        }
    }

    /// Whether the failure differs in more than its numbers from the last one.
    fn is_new_reason(&self) -> bool {
        !is_same_reason(&self.before.last_failure, &self.after.last_failure)
    }

    /// Whether a success ends an outage, or the state `limited`.
    fn is_back(&self) -> bool {
        self.is_up_again() || self.before.state() == NodeState::Limited
    }

    fn is_up_again(&self) -> bool {
        !matches!(self.before.health, NodeState::Up | NodeState::Suspect)
    }
}

impl Poller {
    /// Applies a result if the node was listed without interruption since its probe began.
    pub(super) fn report(&mut self, report: Report, now: Instant) {
        let id = report.job.id;
        let mut probe = report.result.unwrap_or_else(Probe::panicked);
        let (sent, before) = (self.schedule.finish(id), self.registry.record(id));
        if let (Some(sent), Some(_)) = (sent, &before) {
            self.judge_local_error(id, sent, &mut probe, now);
        }
        let kind = probe.outcome.kind();
        self.metrics.probes[kind].add(1);
        self.metrics.observe_probe(report.took);
        let Some(before) = before else {
            return;
        };
        if kind != ProbeOutcome::Local {
            self.unanswered.remove(&id);
        }
        let was = before.health;
        let mut finished = Finished {
            id,
            took: report.took,
            now,
            after: before.clone(),
            before,
        };
        finished.note(&probe, self.config.refresh_interval * LIMITED_INTERVALS);
        self.registry
            .change(id, now, |record| record.clone_from(&finished.after));
        self.apply(&finished, probe);
        let local_error = self.local_errors.get(&id);
        let is_unclear = local_error.is_some_and(|first| now < *first + LOCAL_ERROR_TIME);
        let is_first = kind == ProbeOutcome::Failed && matches!(was, NodeState::New | NodeState::Up);
        self.schedule.enqueue(id, self.queue(id), is_unclear || is_first, now);
        if self.ready.is_some() && self.unanswered.is_empty() {
            self.follow_names(now);
        }
        self.tell_ready();
    }

    /// Distinguishes a lost uplink from a node that this machine cannot reach. An error of the local network stack is
    /// inconclusive if no node of that address family has responded since the first such error of this node. The node
    /// that responded last is then probed again. If none ever responded, the error is a failure.
    fn judge_local_error(&mut self, id: NodeId, sent: Instant, probe: &mut Probe, now: Instant) {
        let last_response = probe.family.map(|family| &mut self.last_response[family as usize]);
        let Outcome::LocalError(reason) = &mut probe.outcome else {
            self.local_errors.remove(&id);
            if let (Outcome::Up(_) | Outcome::Limited, Some(last)) = (&probe.outcome, last_response) {
                *last = (*last).max(Some((sent, id)));
            }
            return;
        };
        let first = *self.local_errors.entry(id).or_insert(now);
        match last_response {
            Some(Some((sent, witness))) if *sent <= first => self.schedule.recheck(*witness, now),
            Some(_) => probe.outcome = Outcome::Failed(std::mem::take(reason)),
            None => {}
        }
    }

    fn apply(&mut self, finished: &Finished, probe: Probe) {
        let latency_ms = finished.took.as_millis() as u64;
        ::log::debug!(
            node:% = finished.before.addr, outcome = probe.outcome.kind().label(), latency_ms;
            "probe finished: result received"
        );
        match probe.outcome {
            Outcome::Up(info) => self.up(finished, &info, probe.redirected_to),
            Outcome::Limited => self.limited(finished),
            Outcome::Failed(reason) => self.failed(finished, &reason),
            Outcome::LocalError(reason) => {
                if let Some(suppressed) = self.local_error_lines.admit(finished.now) {
                    ::log::error!(reason, suppressed; "probe error: the cause is on this machine, nodes keep their state");
                }
            }
        }
    }

    fn log_node(&mut self, level: Level, event: &str, probe: &Finished, keys: &[(&str, Value<'_>)]) {
        self.node_lines.log(level, event, &probe.before, keys, probe.now);
    }

    fn up(&mut self, probe: &Finished, info: &NodeInfo, redirected_to: Option<String>) {
        let (id, now, source) = (probe.id, probe.now, probe.before.rank.source());
        let pending = info.load(|job| self.config.weights.weight(job));
        let omitted = self.registry.up(id, &info.containers, pending, now);
        self.mass_failures[source as usize].responded(id);
        if omitted > 0 && !std::mem::replace(&mut self.warned_of_catalogue, true) {
            ::log::warn!(
                max_ids = MAX_CONTAINERS;
                "containers omitted: too many distinct container ids of Explorer nodes"
            );
        }
        if let Some(to) = redirected_to.filter(|_| !probe.before.is_redirecting) {
            let event = "node redirects: POST requests of clients will not follow; list the target instead";
            let reason = format!("redirect to \"{to}\"");
            self.log_node(Level::Warn, event, probe, &[("reason", reason.as_str().into())]);
        }
        if let (true, Some(resources)) = (probe.is_up_again(), &mut self.resources) {
            resources.queue.up(id, source, now);
        }
        if probe.is_back() {
            let keys = [
                ("containers", info.containers.len().into()),
                ("pending", pending.into()),
                ("latency_ms", (probe.took.as_millis() as u64).into()),
            ];
            self.log_node(Level::Info, "node up: probe succeeded", probe, &keys);
        }
    }

    /// A 429 is a response: a suspect or doubted node is up again. A node that was never up waits for a success.
    fn limited(&mut self, probe: &Finished) {
        self.mass_failures[probe.before.rank.source() as usize].responded(probe.id);
        if probe.after.state() == NodeState::Limited && probe.before.state() != NodeState::Limited {
            let event =
                "node limited: only 429 responses; other routers may share its limit, or REFRESH_INTERVAL is too short";
            let lasts = self.config.refresh_interval * LIMITED_INTERVALS;
            self.log_node(Level::Warn, event, probe, &[("lasts_s", lasts.as_secs_f64().into())]);
        } else if probe.is_new_reason() {
            let keys = [("reason", (&*probe.after.last_failure).into())];
            self.log_node(Level::Warn, "node rate-limits: probe returned 429", probe, &keys);
        }
    }

    fn failed(&mut self, probe: &Finished, reason: &str) {
        let (id, now) = (probe.id, probe.now);
        let failures = &mut self.mass_failures[probe.before.rank.source() as usize];
        let mut keys = vec![("reason", reason.into())];
        let mut event = probe.is_new_reason().then_some("node failing: the reason changed");
        match probe.before.health {
            NodeState::Up => {
                failures.failed_once();
                keys.push(("recheck_s", RECHECK_AFTER.as_secs().into()));
                event = probe.is_new_reason().then_some("node suspect: one probe failed");
            }
            NodeState::New => event = Some("node down: first probe failed"),
            NodeState::Suspect => {
                if let Some(mass) = failures.lose(id, &self.registry, now) {
                    return self.log_doubt(probe, mass, reason);
                }
                if self.registry.health(id) == Some(NodeState::Down) {
                    event = Some("node down: two probes in a row failed");
                }
            }
            NodeState::Doubted | NodeState::Down | NodeState::Limited => failures.failed_again(id),
        }
        if let Some(event) = event {
            self.log_node(Level::Warn, event, probe, &keys);
        }
    }

    fn log_doubt(&self, probe: &Finished, (failing, of): (usize, usize), reason: &str) {
        let limit = self.config.refresh_interval * MAX_DOUBT_INTERVALS;
        ::log::warn!(
            source = probe.before.rank.source().label(), failing, of, limit_s = limit.as_secs_f64(), last_reason = reason;
            "mass failure suspected: nodes stay available; check this machine's network first"
        );
    }

    /// Ends the suspected mass failures whose time is over.
    pub(super) fn end_doubts(&mut self, now: Instant) {
        for source in Source::ALL {
            // The registry changes before the log: a reader of the line finds what the line states.
            let Some((down, kept)) = self.mass_failures[*source as usize].end(&self.registry, now) else {
                continue;
            };
            let source = source.label();
            match down.len() + kept {
                0 => ::log::info!(source; "mass failure ended: all nodes respond again"),
                _ => {
                    ::log::warn!(source, down = down.len(), kept; "mass failure ended: nodes that failed again are down")
                }
            }
            for node in down.into_iter().filter_map(|id| self.registry.record(id)) {
                let event = "node down: no response since the mass failure";
                let keys = [("reason", (&*node.last_failure).into())];
                self.node_lines.log(Level::Warn, event, &node, &keys, now);
            }
        }
    }
}

fn limited_reason(health: NodeState) -> &'static str {
    match health.is_available() {
        true => "status 429 (too many requests)",
        false => "status 429 (too many requests): not available before a success",
    }
}
