//! Applies the result of a probe to the registry.

use std::time::{Duration, Instant};

use ::log::Level;

use super::health::{Flip, Verdict, observe};
use super::log::{Keys, Subject, is_same_reason};
use super::mass_failure::{Judgement, MAX_DOUBT_INTERVALS};
use super::probe::{Outcome, Probe, ProbeJob};
use super::schedule::RECHECK_AFTER;
use super::{Cause, LIMITED_INTERVALS, Poller, Report};
use crate::metrics::{Label, ProbeOutcome};
use crate::node::{NodeInfo, Source};
use crate::registry::{Health, MAX_CONTAINERS, MAX_TEXT_BYTES, NodeId, NodeState, PendingByType};

/// How long a node is rechecked each second after an error of the local network stack: another node is then probed
/// after 1 s, and has 3 s to respond.
const REFUSED_TIME: Duration = Duration::from_secs(5);

/// A finished probe of a listed node.
struct Finished {
    id: NodeId,
    /// The registry's number of the probe.
    number: u32,
    node: Subject,
    is_draining: bool,
    was_limited: bool,
    is_limited: bool,
    took: Duration,
    flip: Option<Flip>,
    now: Instant,
}

impl Poller {
    /// Applies a result if the node was listed without interruption since its probe began.
    pub(super) fn report(&mut self, report: Report, now: Instant) {
        let ProbeJob { id, number, .. } = report.job;
        let mut probe = report.result.unwrap_or_else(Probe::panicked);
        self.judge_local_error(id, &mut probe, now);
        let Probe {
            outcome,
            redirected_to,
            certificate_expires,
            ..
        } = probe;
        self.count_probe(&outcome, report.took);
        if let Some(class) = self.orphans.remove(&id) {
            return self.schedule.finished(class);
        }
        let (Some(probing), Some(was)) = (self.nodes.get_mut(&id), self.registry.health(id)) else {
            return;
        };
        let cause = probing.in_flight.take().map(|(class, cause)| {
            self.schedule.finished(class);
            cause
        });
        let verdict = outcome.verdict();
        if was == Health::New && verdict != Verdict::LocalError {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        let (health, flip) = observe(was, verdict);
        let Some(finished) = self.finish(id, number, verdict, flip, report.took, now) else {
            return;
        };
        self.log_probe(&finished, &outcome, redirected_to);
        match outcome {
            Outcome::Up(info) => {
                self.up(&finished, &info);
                self.registry
                    .note(id, now, |record| record.certificate_expires = certificate_expires);
            }
            Outcome::Limited => self.limited(&finished, health),
            Outcome::Failed(reason) => self.failed(&finished, &reason),
            Outcome::LocalError(reason) => self.local_error(&reason, now),
        }
        self.await_turn(id);
        let is_failure = matches!(verdict, Verdict::Failure | Verdict::LocalError);
        if is_failure && was != Health::Down && self.needs_recheck(id, cause, flip, now) {
            self.recheck(id, now);
        }
        self.tell_ready();
    }

    /// Distinguishes a lost uplink from a node that this machine cannot reach. An error of the local network stack is
    /// inconclusive if no node of that address family has responded since the first such error of this node. The node
    /// that responded last is then probed again. If none ever responded, the error is a failure.
    fn judge_local_error(&mut self, id: NodeId, probe: &mut Probe, now: Instant) {
        let Some(probing) = self.nodes.get_mut(&id) else {
            return;
        };
        let last_response = probe.family.map(|family| &mut self.last_response[family as usize]);
        match (&mut probe.outcome, last_response) {
            (Outcome::LocalError(reason), Some(last_response)) => {
                let refused_at = *probing.refused_at.get_or_insert(now);
                match *last_response {
                    Some((sent, witness)) if sent <= refused_at => self.recheck(witness, now),
                    _ => probe.outcome = Outcome::Failed(std::mem::take(reason)),
                }
            }
            (Outcome::LocalError(_), None) => {}
            (Outcome::Up(_) | Outcome::Limited, Some(last_response)) => {
                probing.refused_at = None;
                *last_response = probing.last_sent.map(|sent| (sent, id)).max(*last_response);
            }
            _ => probing.refused_at = None,
        }
    }

    /// Whether a failed node is probed again in a second. A recheck is not repeated, unless it is the first failure, or
    /// the node waits for the response of another one.
    fn needs_recheck(&self, id: NodeId, cause: Option<Cause>, flip: Option<Flip>, now: Instant) -> bool {
        let refused_at = self.nodes.get(&id).and_then(|probing| probing.refused_at);
        let waits = refused_at.is_some_and(|refused_at| now < refused_at + REFUSED_TIME);
        cause != Some(Cause::Recheck) || flip == Some(Flip::Suspect) || waits
    }

    /// Records the time of a probe, and since when the node has returned only 429.
    fn finish(
        &self,
        id: NodeId,
        number: u32,
        verdict: Verdict,
        flip: Option<Flip>,
        took: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let limited_after = self.settings.interval * LIMITED_INTERVALS;
        self.registry.note(id, now, |record| {
            let was_limited = record.state() == NodeState::Limited;
            record.probed = Some((now, took));
            match verdict {
                Verdict::Success | Verdict::Failure => record.limited_at = None,
                Verdict::Limited => record.limited_at = record.limited_at.or(Some(now + limited_after)),
                Verdict::LocalError => {}
            }
            Finished {
                id,
                number,
                node: Subject::of(record),
                is_draining: record.attributes.is_draining,
                was_limited,
                is_limited: record.limited_at.is_some_and(|limited_at| now >= limited_at),
                took,
                flip,
                now,
            }
        })
    }

    /// Queues a node for its next turn.
    fn await_turn(&mut self, id: NodeId) {
        if let Some(last_sent) = self.nodes.get(&id).and_then(|probing| probing.last_sent) {
            self.schedule.enqueue(id, self.class(id), last_sent);
        }
    }

    fn count_probe(&self, outcome: &Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Up(_) => ProbeOutcome::Up,
            Outcome::Limited => ProbeOutcome::Limited,
            Outcome::Failed(_) => ProbeOutcome::Failed,
            Outcome::LocalError(_) => ProbeOutcome::Local,
        };
        self.metrics.probes[outcome].add(1);
        self.metrics.observe_probe(took);
    }

    fn log_probe(&mut self, probe: &Finished, outcome: &Outcome, redirected_to: Option<String>) {
        ::log::debug!(
            node:% = probe.node.addr, outcome:% = outcome, latency_ms = probe.took.as_millis() as u64;
            "probe finished: result received"
        );
        if let (Outcome::Up(_), Some(to), Some(probing)) = (outcome, redirected_to, self.nodes.get_mut(&probe.id))
            && !std::mem::replace(&mut probing.warned_of_redirect, true)
        {
            let event = "node redirects: POST requests of clients will not follow; list the target instead";
            let reason = format!("redirect to \"{to}\"");
            self.log_node(Level::Warn, event, probe, Some(&reason));
        }
    }

    fn log_node(&mut self, level: Level, event: &str, probe: &Finished, reason: Option<&str>) {
        let keys = Keys {
            reason,
            ..Keys::default()
        };
        self.node_lines.log(level, event, &probe.node, keys, probe.now);
    }

    fn up(&mut self, probe: &Finished, info: &NodeInfo) {
        let pending = info.load(|job| self.settings.weights.weight(job));
        let omitted = self
            .registry
            .up(probe.id, probe.number, &info.containers, pending, probe.now);
        let by_type = PendingByType::of(&info.pending);
        self.registry
            .note(probe.id, probe.now, |record| record.pending = Some(by_type));
        if let Some(failures) = self.failures_of(probe) {
            failures.responded(probe.id, probe.node.rank);
        }
        if omitted > 0 && !std::mem::replace(&mut self.warned_of_catalogue, true) {
            ::log::warn!(
                max_ids = MAX_CONTAINERS, max_bytes = MAX_TEXT_BYTES;
                "containers omitted: too many distinct container ids or descriptions of Explorer nodes"
            );
        }
        if probe.flip == Some(Flip::Up)
            && let Some(resources) = &mut self.resources
        {
            resources.up(probe.id, probe.node.rank.source(), probe.now);
        }
        if probe.was_limited || probe.flip == Some(Flip::Up) {
            self.registry
                .note(probe.id, probe.now, |record| record.last_failure = Box::default());
            let keys = Keys {
                containers: Some(info.containers.len()),
                pending: Some(pending),
                latency_ms: Some(probe.took.as_millis() as u64),
                ..Keys::default()
            };
            let event = "node up: probe succeeded";
            self.node_lines.log(Level::Info, event, &probe.node, keys, probe.now);
        }
    }

    /// A 429 is a response: a suspect or doubted node is up again. A node that was never up waits for a success.
    fn limited(&mut self, probe: &Finished, health: Health) {
        self.registry.set_health(probe.id, health, probe.now);
        match (self.failures_of(probe), health.is_available()) {
            (Some(failures), true) => failures.responded(probe.id, probe.node.rank),
            (Some(failures), false) => failures.responded_down(probe.id),
            (None, _) => {}
        }
        let reason = match health.is_available() {
            true => "status 429 (too many requests)",
            false => "status 429 (too many requests): not available before a success",
        };
        let is_new = self.explain(probe, reason);
        if probe.is_limited && !probe.was_limited {
            let keys = Keys {
                lasts_s: Some((self.settings.interval * LIMITED_INTERVALS).as_secs_f64()),
                ..Keys::default()
            };
            let event =
                "node limited: only 429 responses; other routers may share its limit, or REFRESH_INTERVAL is too short";
            self.node_lines.log(Level::Warn, event, &probe.node, keys, probe.now);
        } else if is_new {
            self.log_node(Level::Warn, "node rate-limits: probe returned 429", probe, Some(reason));
        }
    }

    fn failed(&mut self, probe: &Finished, reason: &str) {
        match probe.flip {
            Some(Flip::Suspect) => {
                self.registry.set_health(probe.id, Health::Suspect, probe.now);
                if let Some(failures) = self.failures_of(probe) {
                    failures.failed_once(probe.id);
                }
                if self.explain(probe, reason) {
                    let keys = Keys {
                        reason: Some(reason),
                        recheck_s: Some(RECHECK_AFTER.as_secs()),
                        ..Keys::default()
                    };
                    let event = "node suspect: one probe failed";
                    self.node_lines.log(Level::Warn, event, &probe.node, keys, probe.now);
                }
            }
            Some(Flip::Lost) => self.lose(probe, reason),
            Some(Flip::Down) => {
                self.registry.set_health(probe.id, Health::Down, probe.now);
                self.explain(probe, reason);
                self.log_node(Level::Warn, "node down: first probe failed", probe, Some(reason));
            }
            Some(Flip::Up) | None => {
                if let Some(failures) = self.failures_of(probe) {
                    failures.failed_again(probe.id);
                }
                self.explain_and_log(probe, reason);
            }
        }
    }

    /// Stores the reason of a failure. Returns whether it differs in more than its numbers from the last one.
    fn explain(&self, probe: &Finished, reason: &str) -> bool {
        let explained = self.registry.note(probe.id, probe.now, |record| {
            let before = std::mem::replace(&mut record.last_failure, reason.into());
            !is_same_reason(&before, reason)
        });
        explained.unwrap_or_default()
    }

    fn explain_and_log(&mut self, probe: &Finished, reason: &str) {
        if self.explain(probe, reason) {
            self.log_node(Level::Warn, "node failing: the reason changed", probe, Some(reason));
        }
    }

    /// Takes a node down that has failed twice, unless a mass failure is suspected.
    fn lose(&mut self, probe: &Finished, reason: &str) {
        let failures = self.failures_of(probe);
        match failures.map_or(Judgement::Lost, |failures| failures.judge(probe.id, probe.now)) {
            Judgement::Lost => {
                let withdrawn = self.registry.set_health(probe.id, Health::Down, probe.now);
                if let (Some(withdrawn), Some(failures)) = (withdrawn, self.failures_of(probe)) {
                    failures.lost(probe.id, withdrawn, probe.now);
                }
                self.explain(probe, reason);
                self.log_node(
                    Level::Warn,
                    "node down: two probes in a row failed",
                    probe,
                    Some(reason),
                );
            }
            Judgement::Doubted => {
                self.registry.set_health(probe.id, Health::Doubted, probe.now);
                self.explain_and_log(probe, reason);
            }
            Judgement::DoubtBegins { lost, failing, of } => {
                for (id, withdrawn) in lost {
                    self.registry.put_back(id, &withdrawn, probe.now);
                }
                self.registry.set_health(probe.id, Health::Doubted, probe.now);
                self.explain(probe, reason);
                ::log::warn!(
                    source = probe.node.rank.source().label(), failing, of,
                    limit_s = (self.settings.interval * MAX_DOUBT_INTERVALS).as_secs_f64(), last_reason:% = reason;
                    "mass failure suspected: nodes stay available; check this machine's network first"
                );
            }
        }
    }

    /// The mass failure in which the node counts. A draining node counts in none.
    fn failures_of(&mut self, probe: &Finished) -> Option<&mut super::mass_failure::MassFailure> {
        let source = probe.node.rank.source();
        (!probe.is_draining).then(|| self.mass_failures.of(source))
    }

    /// Ends the suspected mass failures whose time is over. A node that has failed since goes down. A node with only
    /// local errors since stays available.
    pub(super) fn end_doubts(&mut self, now: Instant) {
        for source in Source::ALL {
            if let Some(missing) = self.mass_failures.of(*source).end(now) {
                self.end_doubt(*source, missing, now);
            }
        }
    }

    fn end_doubt(&mut self, source: Source, missing: Vec<(NodeId, bool)>, now: Instant) {
        let is_doubted = |(id, _): &(NodeId, bool)| self.registry.health(*id) == Some(Health::Doubted);
        let missing: Vec<_> = missing.into_iter().filter(is_doubted).collect();
        let mut down = Vec::new();
        // The registry changes before the log: a reader of the line finds what the line states.
        for (id, has_failed) in &missing {
            let health = match has_failed {
                true => Health::Down,
                false => Health::Suspect,
            };
            self.registry.set_health(*id, health, now);
            if *has_failed {
                down.extend(
                    self.registry
                        .note(*id, now, |record| (Subject::of(record), record.last_failure.clone())),
                );
            }
        }
        let source = source.label();
        match (missing.len(), down.len()) {
            (0, _) => ::log::info!(source; "mass failure ended: all nodes respond again"),
            (all, down) => {
                ::log::warn!(source, down, kept = all - down; "mass failure ended: nodes that failed again are down");
            }
        }
        for (node, reason) in down {
            let keys = Keys {
                reason: Some(&reason),
                ..Keys::default()
            };
            let event = "node down: no response since the mass failure";
            self.node_lines.log(Level::Warn, event, &node, keys, now);
        }
    }
}
