//! Updates the states of nodes from what the probes found.

use std::time::{Duration, Instant};

use log::Level;

use super::doubt::{MAX_DOUBT_INTERVALS, Verdict};
use super::tracked::{Cause, Health};
use super::{LIMITED_INTERVALS, Poller, Report};
use crate::metrics::ProbeOutcome;
use crate::node::NodeInfo;
use crate::probe::{Outcome, Probe, ProbeJob};
use crate::registry::{MAX_CONTAINERS, MAX_TEXT_BYTES, NodeId};

impl Poller {
    /// Takes over what a probe found, if the node was listed all the while.
    pub(super) fn report(&mut self, report: Report, now: Instant) {
        let ProbeJob { id, probe, .. } = report.job;
        let Probe {
            outcome, redirected_to, ..
        } = report.result.unwrap_or_else(Probe::panicked);
        self.count_probe(&outcome, report.took);
        if let Some(class) = self.orphans.remove(&id) {
            return self.schedule.ended(class);
        }
        let Some(node) = self.nodes.get_mut(&id) else {
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
            brief(&outcome),
            report.took
        );
        if node.health == Health::New && !matches!(outcome, Outcome::LocalError(_)) {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        let was = node.health;
        let is_failure = matches!(outcome, Outcome::Failed(_) | Outcome::LocalError(_));
        if let (Outcome::Up(_), Some(to)) = (&outcome, &redirected_to) {
            node.warn_of_redirect(to, &mut self.node_lines, now);
        }
        let mut answered = None;
        match outcome {
            Outcome::Up(info) => {
                self.up(id, probe, &info, now);
                answered = Some(info);
            }
            Outcome::Limited => self.limited(id, now),
            Outcome::Failed(reason) => self.failed(id, reason, now),
            Outcome::LocalError(reason) => self.local_error(&reason, now),
        }
        self.recount(id);
        self.publish(id, report.took, answered.as_ref(), now);
        self.await_turn(id);
        if is_failure && cause == Cause::Turn && was != Health::Down {
            self.recheck(id, now);
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

    fn count_probe(&self, outcome: &Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Up(_) => ProbeOutcome::Up,
            Outcome::Limited => ProbeOutcome::Limited,
            Outcome::Failed(_) => ProbeOutcome::Failed,
            Outcome::LocalError(_) => ProbeOutcome::Local,
        };
        self.metrics.probes[outcome].add(1);
        self.metrics.probe_time.observe(took);
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
        if was_limited || !matches!(node.health, Health::Up | Health::Suspect) {
            node.reason.clear();
            let (addr, running) = (node.addr.as_listed(), info.containers.len());
            let line = format_args!("node {addr:?} is up: {running} containers, {pending} pending");
            node.log(&mut self.node_lines, Level::Info, line, now);
        }
        node.health = Health::Up;
        self.mass_failure.answered(id);
    }

    /// A 429 says nothing of how the node is; one that was never up has to wait for a better answer. But it is an answer, so
    /// what is doubted is what it was before.
    fn limited(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.answered_429(self.settings.interval * LIMITED_INTERVALS, &mut self.node_lines, now);
            match node.health {
                Health::New => node.health = Health::Down,
                Health::Doubted => {
                    node.health = Health::Up;
                    self.registry.end_doubt(id);
                    self.mass_failure.answered(id);
                }
                Health::Up | Health::Suspect | Health::Down => {}
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
                self.mass_failure.failed_once(id);
            }
            Health::Suspect => self.lose(id, reason, now),
            Health::New => node.give_up(reason, &mut self.node_lines, now),
            Health::Doubted | Health::Down => node.explain(reason, &mut self.node_lines, now),
        }
    }

    /// A node that was available has failed twice: it is lost, unless too many others are.
    fn lose(&mut self, id: NodeId, reason: String, now: Instant) {
        match self.mass_failure.judge(id, self.available, now) {
            Verdict::Lost => {
                let withdrawn = self.registry.down(id);
                if let Some(withdrawn) = withdrawn {
                    self.mass_failure.lost(id, withdrawn, now);
                }
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.give_up(reason, &mut self.node_lines, now);
                }
            }
            Verdict::Doubted => self.doubt(id, &reason, now),
            Verdict::DoubtBegins { lost, failing } => {
                log::warn!(
                    "{failing} of {} nodes failed within an interval: that is doubted. They stay for {} s at most, behind \
                     all that answer. Look at this machine's network first; the last one: {reason}",
                    self.available + lost.len(),
                    (self.settings.interval * MAX_DOUBT_INTERVALS).as_secs_f64()
                );
                self.board.doubt_begins();
                for (id, withdrawn) in lost {
                    self.registry.put_back(id, &withdrawn);
                    self.set_doubted(id, now);
                }
                self.doubt(id, &reason, now);
            }
        }
    }

    fn doubt(&mut self, id: NodeId, reason: &str, now: Instant) {
        self.registry.doubt(id);
        self.set_doubted(id, now);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.explain(reason.to_owned(), &mut self.node_lines, now);
        }
    }

    fn set_doubted(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.health = Health::Doubted;
            self.recount(id);
            self.publish_state(id, now);
        }
    }

    /// Ends the doubt when its time is over: what has not answered is lost.
    pub(super) fn end_doubt(&mut self, now: Instant) {
        let Some(missing) = self.mass_failure.end(now) else {
            return;
        };
        self.board.doubt_ends();
        let is_doubted = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.health == Health::Doubted);
        let lost: Vec<NodeId> = missing.into_iter().filter(is_doubted).collect();
        match lost.len() {
            0 => log::info!("the nodes that failed together have all answered again"),
            lost => log::warn!("{lost} nodes of those that failed together have not answered since: they are down"),
        }
        for id in lost {
            let _ = self.registry.down(id);
            if let Some(node) = self.nodes.get_mut(&id) {
                let reason = std::mem::take(&mut node.reason);
                node.give_up(reason, &mut self.node_lines, now);
            }
            self.recount(id);
            self.publish_state(id, now);
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
