//! Applies the result of a probe to the registry.

use std::time::{Duration, Instant};

use ::log::Level;

use super::health::{Flip, observe};
use super::log::{Keys, Subject, is_same_reason};
use super::mass_failure::{Judgement, MAX_DOUBT_INTERVALS, MassFailure};
use super::probe::{Outcome, Probe, ProbeJob};
use super::schedule::RECHECK_AFTER;
use super::{LIMITED_INTERVALS, Poller, Report};
use crate::metrics::{Label, ProbeOutcome};
use crate::node::{NodeInfo, Source};
use crate::registry::{Health, MAX_CONTAINERS, MAX_TEXT_BYTES, NodeId, NodeRecord, NodeState, PendingByType};

/// How long a node is rechecked each second after a local error. After an error of the local network stack another node
/// is probed after 1 s, and has 3 s to respond.
const LOCAL_ERROR_TIME: Duration = Duration::from_secs(5);

/// A finished probe of a listed node.
struct Finished {
    job: ProbeJob,
    took: Duration,
    now: Instant,
    node: Subject,
    /// The node is shown as `limited` from now on, or no longer.
    is_limit_changed: bool,
    /// The failure differs in more than its numbers from the last one.
    is_new_reason: bool,
    health: Health,
    flip: Option<Flip>,
}

impl Poller {
    /// Applies a result if the node was listed without interruption since its probe began.
    pub(super) fn report(&mut self, report: Report, now: Instant) {
        let id = report.job.id;
        let mut probe = report.result.unwrap_or_else(Probe::panicked);
        let sent = self.schedule.finish(id);
        let was = self.registry.health(id);
        if let (Some(sent), true) = (sent, was.is_some()) {
            self.judge_local_error(id, sent, &mut probe, now);
        }
        let kind = probe.outcome.kind();
        self.metrics.probes[kind].add(1);
        self.metrics.observe_probe(report.took);
        let Some(was) = was else {
            return;
        };
        if kind != ProbeOutcome::Local {
            self.unanswered.remove(&id);
        }
        let (health, flip) = observe(was, kind);
        let limited_after = self.config.refresh_interval * LIMITED_INTERVALS;
        let finished = self.registry.note(id, now, |record| {
            let (node, was_limited) = (Subject::of(record), record.state() == NodeState::Limited);
            let is_new_reason = note(record, &probe, health, now + limited_after);
            record.probed = Some((now, report.took));
            Finished {
                job: report.job,
                took: report.took,
                now,
                node,
                is_limit_changed: was_limited != record.limited_at.is_some_and(|limited_at| now >= limited_at),
                is_new_reason,
                health,
                flip,
            }
        });
        if let Some(finished) = finished {
            self.apply(&finished, probe);
        }
        let local_error = self.local_errors.get(&id);
        let is_unclear = local_error.is_some_and(|first| now < *first + LOCAL_ERROR_TIME);
        let is_first = kind == ProbeOutcome::Failed && matches!(flip, Some(Flip::Suspect | Flip::Down));
        self.schedule.enqueue(id, self.queue(id), is_unclear || is_first, now);
        self.tell_ready();
    }

    /// Distinguishes a lost uplink from a node that this machine cannot reach. An error of the local network stack is
    /// inconclusive if no node of that address family has responded since the first such error of this node. The node
    /// that responded last is then probed again. If none ever responded, the error is a failure.
    fn judge_local_error(&mut self, id: NodeId, sent: Instant, probe: &mut Probe, now: Instant) {
        let last_response = probe.family.map(|family| &mut self.last_response[family as usize]);
        match (&mut probe.outcome, last_response) {
            (Outcome::LocalError(reason), last_response) => {
                let first = *self.local_errors.entry(id).or_insert(now);
                match last_response {
                    Some(Some((sent, witness))) if *sent <= first => self.schedule.recheck(*witness, now),
                    Some(_) => probe.outcome = Outcome::Failed(std::mem::take(reason)),
                    None => {}
                }
            }
            (outcome, last_response) => {
                self.local_errors.remove(&id);
                if let (Outcome::Up(_) | Outcome::Limited, Some(last)) = (outcome, last_response) {
                    *last = (*last).max(Some((sent, id)));
                }
            }
        }
    }

    fn apply(&mut self, finished: &Finished, probe: Probe) {
        ::log::debug!(
            node:% = finished.node.addr, outcome:% = probe.outcome, latency_ms = finished.took.as_millis() as u64;
            "probe finished: result received"
        );
        // Only a success makes a node available, and a mass failure may keep one available that failed twice.
        if finished.flip != Some(Flip::Lost) && !matches!(probe.outcome, Outcome::Up(_)) {
            self.registry.set_health(finished.job.id, finished.health, finished.now);
        }
        match probe.outcome {
            Outcome::Up(info) => self.up(finished, &info, probe.redirected_to),
            Outcome::Limited => self.limited(finished),
            Outcome::Failed(reason) => self.failed(finished, &reason),
            Outcome::LocalError(reason) => self.local_error(&reason, finished.now),
        }
    }

    fn local_error(&mut self, reason: &str, now: Instant) {
        if let Some(suppressed) = self.local_error_lines.admit(now) {
            ::log::error!(reason, suppressed; "probe error: the cause is on this machine, nodes keep their state");
        }
    }

    fn log_node(&mut self, level: Level, event: &str, probe: &Finished, keys: Keys<'_>) {
        self.node_lines.log(level, event, &probe.node, keys, probe.now);
    }

    fn failures_of(&mut self, probe: &Finished) -> &mut MassFailure {
        &mut self.mass_failures[probe.node.rank.source() as usize]
    }

    fn up(&mut self, probe: &Finished, info: &NodeInfo, redirected_to: Option<String>) {
        let (id, now) = (probe.job.id, probe.now);
        let pending = info.load(|job| self.config.weights.weight(job));
        let omitted = self.registry.up(id, probe.job.number, &info.containers, pending, now);
        let is_back = probe.is_limit_changed || probe.flip == Some(Flip::Up);
        self.registry.note(id, now, |record| {
            record.pending = Some(PendingByType::of(&info.pending));
            if is_back {
                record.last_failure = Box::default();
            }
        });
        self.failures_of(probe).responded(id);
        if omitted > 0 && !std::mem::replace(&mut self.warned_of_catalogue, true) {
            ::log::warn!(
                max_ids = MAX_CONTAINERS, max_bytes = MAX_TEXT_BYTES;
                "containers omitted: too many distinct container ids or descriptions of Explorer nodes"
            );
        }
        if let Some(to) = redirected_to.filter(|_| self.redirecting.insert(id)) {
            let event = "node redirects: POST requests of clients will not follow; list the target instead";
            self.log_node(Level::Warn, event, probe, Keys::of(&format!("redirect to \"{to}\"")));
        }
        if probe.flip == Some(Flip::Up)
            && let Some(resources) = &mut self.resources
        {
            resources.up(id, probe.node.rank.source(), now);
        }
        if is_back {
            let keys = Keys {
                containers: Some(info.containers.len()),
                pending: Some(pending),
                latency_ms: Some(probe.took.as_millis() as u64),
                ..Keys::default()
            };
            self.log_node(Level::Info, "node up: probe succeeded", probe, keys);
        }
    }

    /// A 429 is a response: a suspect or doubted node is up again. A node that was never up waits for a success.
    fn limited(&mut self, probe: &Finished) {
        self.failures_of(probe).responded(probe.job.id);
        if probe.is_limit_changed {
            let keys = Keys {
                lasts_s: Some((self.config.refresh_interval * LIMITED_INTERVALS).as_secs_f64()),
                ..Keys::default()
            };
            let event =
                "node limited: only 429 responses; other routers may share its limit, or REFRESH_INTERVAL is too short";
            self.log_node(Level::Warn, event, probe, keys);
        } else if probe.is_new_reason {
            let keys = Keys::of(limited_reason(probe.health));
            self.log_node(Level::Warn, "node rate-limits: probe returned 429", probe, keys);
        }
    }

    fn failed(&mut self, probe: &Finished, reason: &str) {
        let failures = &mut self.mass_failures[probe.node.rank.source() as usize];
        let mut keys = Keys::of(reason);
        let event = match probe.flip {
            Some(Flip::Suspect) => {
                failures.failed_once();
                keys.recheck_s = Some(RECHECK_AFTER.as_secs());
                probe.is_new_reason.then_some("node suspect: one probe failed")
            }
            Some(Flip::Down) => Some("node down: first probe failed"),
            Some(Flip::Lost) => match failures.lose(probe.job.id, &self.registry, probe.now) {
                Judgement::Down => Some("node down: two probes in a row failed"),
                Judgement::Doubted => probe.is_new_reason.then_some(REASON_CHANGED),
                Judgement::DoubtBegins { failing, of } => return self.log_doubt(probe, failing, of, reason),
            },
            Some(Flip::Up) | None => {
                failures.failed_again(probe.job.id);
                probe.is_new_reason.then_some(REASON_CHANGED)
            }
        };
        if let Some(event) = event {
            self.log_node(Level::Warn, event, probe, keys);
        }
    }

    fn log_doubt(&self, probe: &Finished, failing: usize, of: usize, reason: &str) {
        let (source, limit) = (
            probe.node.rank.source(),
            self.config.refresh_interval * MAX_DOUBT_INTERVALS,
        );
        ::log::warn!(
            source = source.label(), failing, of, limit_s = limit.as_secs_f64(), last_reason = reason;
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
            for id in down {
                let node = |record: &mut NodeRecord| (Subject::of(record), record.last_failure.clone());
                if let Some((node, reason)) = self.registry.note(id, now, node) {
                    let event = "node down: no response since the mass failure";
                    self.node_lines.log(Level::Warn, event, &node, Keys::of(&reason), now);
                }
            }
        }
    }
}

/// Records the result of a probe. Returns whether the reason of a failure differs in more than its numbers from the
/// last one.
fn note(record: &mut NodeRecord, probe: &Probe, health: Health, limited_at: Instant) -> bool {
    let reason = match &probe.outcome {
        Outcome::LocalError(_) => return false,
        Outcome::Up(_) => {
            (record.limited_at, record.certificate_expires) = (None, probe.certificate_expires);
            return false;
        }
        Outcome::Limited => {
            record.limited_at.get_or_insert(limited_at);
            limited_reason(health)
        }
        Outcome::Failed(reason) => {
            record.limited_at = None;
            reason
        }
    };
    let before = std::mem::replace(&mut record.last_failure, reason.into());
    !is_same_reason(&before, reason)
}

const REASON_CHANGED: &str = "node failing: the reason changed";

fn limited_reason(health: Health) -> &'static str {
    match health.is_available() {
        true => "status 429 (too many requests)",
        false => "status 429 (too many requests): not available before a success",
    }
}
