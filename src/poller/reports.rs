//! What the probes found becomes how the nodes are.

use std::time::Instant;

use log::Level;

use super::tracked::{Cause, Health, log_node};
use super::{LIMITED_INTERVALS, Poller};
use crate::metrics::ProbeOutcome;
use crate::node::NodeInfo;
use crate::probe::{Outcome, Report};
use crate::registry::{MAX_CONTAINERS, MAX_TEXT_BYTES, NodeId};

impl Poller {
    /// Takes over what a probe found, if the node was listed all the while.
    pub(super) fn report(&mut self, report: Report, now: Instant) {
        self.count_probe(&report);
        if let Some(class) = self.orphans.remove(&report.id) {
            return self.schedule.ended(class);
        }
        let Some(node) = self.nodes.get_mut(&report.id) else {
            return;
        };
        let cause = match node.under_way.take() {
            Some((class, cause)) => {
                self.schedule.ended(class);
                cause
            }
            None => Cause::Turn,
        };
        log::debug!(
            "probe of {:?}: {} in {:?}",
            node.addr.as_listed(),
            brief(&report.outcome),
            report.took
        );
        if node.health == Health::New && !matches!(report.outcome, Outcome::LocalError(_)) {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        let was = node.health;
        let is_failure = matches!(report.outcome, Outcome::Failed(_) | Outcome::LocalError(_));
        if let (Outcome::Up(_), Some(to)) = (&report.outcome, &report.redirected_to) {
            node.warn_of_redirect(to, &mut self.node_lines, now);
        }
        let mut answered = None;
        match report.outcome {
            Outcome::Up(info) => {
                self.up(report.id, report.probe, &info, now);
                answered = Some(info);
            }
            Outcome::Limited => self.limited(report.id, now),
            Outcome::Failed(reason) => self.failed(report.id, reason, now),
            Outcome::LocalError(reason) => self.local_error(&reason, now),
        }
        self.recount(report.id);
        self.publish(report.id, report.took, answered.as_ref(), now);
        self.await_turn(report.id);
        if is_failure && cause == Cause::Turn && was != Health::Down {
            self.recheck(report.id, now);
        }
        self.tell_ready();
    }

    /// A node that has been asked waits for its next turn.
    fn await_turn(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id)
            && let Some(asked) = node.asked
        {
            self.schedule.enqueue(id, node.class(), asked);
        }
    }

    fn count_probe(&self, report: &Report) {
        let outcome = match report.outcome {
            Outcome::Up(_) => ProbeOutcome::Up,
            Outcome::Limited => ProbeOutcome::Limited,
            Outcome::Failed(_) => ProbeOutcome::Failed,
            Outcome::LocalError(_) => ProbeOutcome::Local,
        };
        self.metrics.probes[outcome].add(1);
        self.metrics.probe_time.observe(report.took);
    }

    fn up(&mut self, id: NodeId, probe: u32, info: &NodeInfo, now: Instant) {
        let pending = info.load(|job| self.settings.weights.weight(job));
        let crowded_out = self.registry.up(id, probe, &info.containers, pending, now);
        if crowded_out > 0 && !self.warned_of_catalogue {
            self.warned_of_catalogue = true;
            log::warn!(
                "more than {MAX_CONTAINERS} distinct container ids, or more than {MAX_TEXT_BYTES} bytes of ids and \
                 descriptions: those that only the Explorer's nodes run are left out"
            );
        }
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.pending = info.load(|_| 1);
        let was_limited = node.answered_otherwise();
        if was_limited || matches!(node.health, Health::New | Health::Down) {
            node.reason.clear();
            let (addr, running) = (node.addr.as_listed(), info.containers.len());
            let line = format_args!("node {addr:?} is up: {running} containers, {pending} pending");
            log_node(&mut self.node_lines, Level::Info, line, now);
        }
        node.health = Health::Up;
    }

    /// A 429 says nothing of how the node is; one that was never up has to wait for a better answer.
    fn limited(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.answered_429(self.settings.interval * LIMITED_INTERVALS, &mut self.node_lines, now);
            if node.health == Health::New {
                node.health = Health::Down;
            }
        }
    }

    fn failed(&mut self, id: NodeId, reason: String, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.answered_otherwise();
        match node.health {
            Health::Up => {
                node.health = Health::Suspect;
                node.explain(reason, &mut self.node_lines, now);
            }
            Health::Suspect => {
                // Before the word of it, which may have to wait for whoever reads the log.
                self.registry.down(id);
                node.give_up(reason, &mut self.node_lines, now);
            }
            Health::New => node.give_up(reason, &mut self.node_lines, now),
            Health::Down => node.explain(reason, &mut self.node_lines, now),
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Up(info) => format!("up, {} containers", info.containers.len()),
        Outcome::Limited => "answered 429".to_owned(),
        Outcome::Failed(reason) | Outcome::LocalError(reason) => reason.clone(),
    }
}
