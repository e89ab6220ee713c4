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
    id: NodeId,
    /// The registry's number of the probe.
    number: u32,
    took: Duration,
    now: Instant,
    node: Subject,
    is_draining: bool,
    was_limited: bool,
    is_limited: bool,
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
        if let Some(finished) = self.note(&report.job, &probe, (health, flip), report.took, now) {
            self.apply(&finished, probe);
        }
        let local_error = self.local_errors.get(&id);
        let is_unclear = local_error.is_some_and(|first| now < *first + LOCAL_ERROR_TIME);
        let is_first = kind == ProbeOutcome::Failed && matches!(flip, Some(Flip::Suspect | Flip::Down));
        self.schedule.enqueue(id, self.class(id), is_unclear || is_first, now);
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

    /// Records the time of a probe, since when the node has returned only 429, and the reason of a failure.
    fn note(
        &self,
        job: &ProbeJob,
        probe: &Probe,
        (health, flip): (Health, Option<Flip>),
        took: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let limited_after = self.settings.interval * LIMITED_INTERVALS;
        self.registry.note(job.id, now, |record| {
            let was_limited = record.state() == NodeState::Limited;
            record.probed = Some((now, took));
            let reason = match &probe.outcome {
                Outcome::Failed(reason) => Some(reason.as_str()),
                Outcome::Limited => Some(limited_reason(health)),
                Outcome::Up(_) | Outcome::LocalError(_) => None,
            };
            match &probe.outcome {
                Outcome::Limited => record.limited_at = record.limited_at.or(Some(now + limited_after)),
                Outcome::Up(_) | Outcome::Failed(_) => record.limited_at = None,
                Outcome::LocalError(_) => {}
            }
            if matches!(probe.outcome, Outcome::Up(_)) {
                record.certificate_expires = probe.certificate_expires;
            }
            Finished {
                id: job.id,
                number: job.number,
                took,
                now,
                node: Subject::of(record),
                is_draining: record.attributes.is_draining,
                was_limited,
                is_limited: record.limited_at.is_some_and(|limited_at| now >= limited_at),
                is_new_reason: reason.is_some_and(|reason| {
                    let before = std::mem::replace(&mut record.last_failure, reason.into());
                    !is_same_reason(&before, reason)
                }),
                health,
                flip,
            }
        })
    }

    fn apply(&mut self, finished: &Finished, probe: Probe) {
        ::log::debug!(
            node:% = finished.node.addr, outcome:% = probe.outcome, latency_ms = finished.took.as_millis() as u64;
            "probe finished: result received"
        );
        match probe.outcome {
            Outcome::Up(info) => self.up(finished, &info, probe.redirected_to),
            Outcome::Limited => self.limited(finished),
            Outcome::Failed(reason) => self.failed(finished, &reason),
            Outcome::LocalError(reason) => self.local_error(&reason, finished.now),
        }
    }

    fn log_node(&mut self, level: Level, event: &str, probe: &Finished, keys: Keys<'_>) {
        self.node_lines.log(level, event, &probe.node, keys, probe.now);
    }

    fn failures_of(&mut self, probe: &Finished) -> &mut MassFailure {
        &mut self.mass_failures[probe.node.rank.source() as usize]
    }

    fn up(&mut self, probe: &Finished, info: &NodeInfo, redirected_to: Option<String>) {
        let Finished { id, now, .. } = *probe;
        let pending = info.load(|job| self.settings.weights.weight(job));
        let omitted = self.registry.up(id, probe.number, &info.containers, pending, now);
        let by_type = PendingByType::of(&info.pending);
        self.registry.note(id, now, |record| record.pending = Some(by_type));
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
        if probe.was_limited || probe.flip == Some(Flip::Up) {
            self.registry
                .note(id, now, |record| record.last_failure = Box::default());
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
        self.registry.set_health(probe.id, probe.health, probe.now);
        self.failures_of(probe).responded(probe.id);
        if probe.is_limited && !probe.was_limited {
            let keys = Keys {
                lasts_s: Some((self.settings.interval * LIMITED_INTERVALS).as_secs_f64()),
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
        let mut keys = Keys::of(reason);
        let (event, is_logged) = match probe.flip {
            Some(Flip::Suspect) => {
                self.registry.set_health(probe.id, Health::Suspect, probe.now);
                self.failures_of(probe).failed_once();
                keys.recheck_s = Some(RECHECK_AFTER.as_secs());
                ("node suspect: one probe failed", probe.is_new_reason)
            }
            Some(Flip::Down) => {
                self.registry.set_health(probe.id, Health::Down, probe.now);
                ("node down: first probe failed", true)
            }
            Some(Flip::Lost) => match self.lose(probe, reason) {
                Judgement::Down => ("node down: two probes in a row failed", true),
                Judgement::Doubted => (REASON_CHANGED, probe.is_new_reason),
                Judgement::DoubtBegins { .. } => return,
            },
            Some(Flip::Up) | None => {
                self.failures_of(probe).failed_again(probe.id);
                (REASON_CHANGED, probe.is_new_reason)
            }
        };
        if is_logged {
            self.log_node(Level::Warn, event, probe, keys);
        }
    }

    /// Takes down a node that has failed twice, unless a mass failure is suspected. A draining node counts in none.
    fn lose(&mut self, probe: &Finished, reason: &str) -> Judgement {
        let source = probe.node.rank.source();
        if probe.is_draining {
            self.registry.set_health(probe.id, Health::Down, probe.now);
            return Judgement::Down;
        }
        let judgement = self.mass_failures[source as usize].lose(probe.id, &self.registry, probe.now);
        if let Judgement::DoubtBegins { failing, of } = judgement {
            ::log::warn!(
                source = source.label(), failing, of,
                limit_s = (self.settings.interval * MAX_DOUBT_INTERVALS).as_secs_f64(), last_reason:% = reason;
                "mass failure suspected: nodes stay available; check this machine's network first"
            );
        }
        judgement
    }

    /// Ends the suspected mass failures whose time is over.
    pub(super) fn end_doubts(&mut self, now: Instant) {
        for source in Source::ALL {
            // The registry changes before the log: a reader of the line finds what the line states.
            let Some(ended) = self.mass_failures[*source as usize].end(&self.registry, now) else {
                continue;
            };
            let (source, down, kept) = (source.label(), ended.down.len(), ended.kept);
            match down + kept {
                0 => ::log::info!(source; "mass failure ended: all nodes respond again"),
                _ => ::log::warn!(source, down, kept; "mass failure ended: nodes that failed again are down"),
            }
            for id in ended.down {
                let node = |record: &mut NodeRecord| (Subject::of(record), record.last_failure.clone());
                if let Some((node, reason)) = self.registry.note(id, now, node) {
                    let event = "node down: no response since the mass failure";
                    self.node_lines.log(Level::Warn, event, &node, Keys::of(&reason), now);
                }
            }
        }
    }
}

const REASON_CHANGED: &str = "node failing: the reason changed";

fn limited_reason(health: Health) -> &'static str {
    match health.is_available() {
        true => "status 429 (too many requests)",
        false => "status 429 (too many requests): not available before a success",
    }
}
