//! The surveys: the responses of nodes for each model id, and the rounds that query more nodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::new_ids::NewIds;
use super::queries::{MAX_IN_RATE_WINDOW, Queries};
use super::{Query, Step};
use crate::client::Client;
use crate::metrics::SurveyOutcome;
use crate::node::{Entries, NodeAddr, Source};
use crate::registry::{ResourceFailure, ResourceReport};
use crate::response::MAX_DEFERRAL;

/// Ids kept. The new ids of eight minutes at the full budget; ids that are requested again and again stay longer.
pub(super) const MAX_IDS: usize = 256;
/// Entries, and ids that no client requests, are kept this long: the models of a node rarely change.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// A node that failed may respond soon.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(120);
/// Nodes queried while a client waits; a repeated request queries others. At the rate of all queries, 20 fit into the 2
/// s that a client waits: the rest is for clients that join late.
pub(super) const MAX_QUEUED: usize = 32;
/// After a round that left no node to query, no round begins for this long. Then there may be new nodes.
pub(super) const COMPLETE_FOR: Duration = Duration::from_secs(5);
/// Entries of all surveys together: 250 models on 100 nodes with two containers each.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The part of [`MAX_BYTES`] for Explorer nodes, which anyone can register.
pub(super) const MAX_EXPLORER_BYTES: usize = MAX_BYTES / 2;
/// Memory of a response and of an entry besides its text.
const OVERHEAD: usize = 96;

/// The response of a node.
#[derive(Debug)]
pub(super) struct Known {
    at: Instant,
    /// `None`: the node failed.
    entries: Option<Arc<Entries>>,
    source: Source,
}

/// The queries for one id while a client waits.
#[derive(Debug)]
struct Round {
    until: Instant,
    /// The nodes to query; `None` until the driver has planned the round.
    queue: Option<Vec<NodeAddr>>,
    /// Whether the queue had all nodes of which nothing was known.
    is_all: bool,
    queried: usize,
}

#[derive(Debug)]
pub(super) struct Survey {
    known: HashMap<NodeAddr, Known>,
    last_used: Instant,
    round: Option<Round>,
    /// Until then there is no node to query.
    complete_until: Instant,
}

/// All surveys.
#[derive(Debug, Default)]
pub(crate) struct Surveys {
    pub(super) by_id: BTreeMap<Arc<str>, Survey>,
    pub(super) new_ids: NewIds,
    pub(crate) queries: Queries,
}

impl Surveys {
    pub(super) fn is_kept(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Returns whether a round of this id is in progress.
    pub(crate) fn is_in_progress(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|survey| survey.round.is_some())
    }

    pub(super) fn request(&mut self, id: &str, client: Client, now: Instant) -> (Step, SurveyOutcome) {
        let mut outcome = SurveyOutcome::Kept;
        if !self.is_kept(id) {
            if let Err(wait) = self.new_ids.take(client, now) {
                return (Step::Refused(wait), SurveyOutcome::Refused);
            }
            outcome = SurveyOutcome::New;
            self.by_id
                .retain(|_, survey| now.saturating_duration_since(survey.last_used) < KEPT);
            if self.by_id.len() >= MAX_IDS {
                self.evict_oldest_but(id);
            }
        }
        let survey = self.by_id.entry(id.into()).or_insert_with(|| Survey {
            known: HashMap::new(),
            last_used: now,
            round: None,
            complete_until: now,
        });
        survey.last_used = now;
        survey.known.retain(|_, known| known.is_fresh(now));
        if survey.round.is_none() && now < survey.complete_until {
            return (Step::Ready, outcome);
        }
        let round = survey.round.get_or_insert(Round {
            until: now,
            queue: None,
            is_all: false,
            queried: 0,
        });
        round.until = now + MAX_DEFERRAL;
        (Step::Later, outcome)
    }

    /// Evicts the survey that was requested longest ago; returns false if there is no other one.
    fn evict_oldest_but(&mut self, id: &str) -> bool {
        let others = self.by_id.iter().filter(|(other, _)| ***other != *id);
        let oldest = others.min_by_key(|(_, survey)| survey.last_used);
        let oldest = oldest.map(|(id, _)| Arc::clone(id));
        oldest.is_some_and(|id| self.by_id.remove(&id).is_some())
    }

    /// Returns the nodes' entries for a model, in no order.
    pub(crate) fn answers(&self, id: &str, now: Instant) -> Vec<(NodeAddr, Arc<Entries>)> {
        let known = self.by_id.get(id).into_iter().flat_map(|survey| &survey.known);
        let fresh = known.filter(|(_, known)| known.is_fresh(now));
        fresh
            .filter_map(|(addr, known)| Some((addr.clone(), Arc::clone(known.entries.as_ref()?))))
            .collect()
    }

    /// Returns whether a round has no plan and a query may be sent now.
    pub(super) fn is_plan_due(&self, now: Instant) -> bool {
        let can_send = self.queries.next_at(now).is_none() && !self.queries.is_full();
        can_send && self.by_id.values().any(Survey::is_unplanned)
    }

    /// Plans as many new rounds as queries may be sent: those to the first of `nodes` of which nothing is known.
    pub(super) fn plan(&mut self, nodes: &[(u64, NodeAddr)], now: Instant) {
        let exhausted = self.queries.exhausted(now);
        let unplanned = self.by_id.iter_mut().filter(|(_, survey)| survey.is_unplanned());
        for (id, Survey { known, round, .. }) in unplanned.take(MAX_IN_RATE_WINDOW) {
            let is_sent = |addr: &NodeAddr| {
                let mut in_flight = self.queries.in_flight.iter();
                in_flight.any(|query| query.id == *id && query.addr == *addr)
            };
            let is_open = |addr: &&NodeAddr| !known.contains_key(addr) && !is_sent(addr);
            let open = || nodes.iter().map(|(_, addr)| addr).filter(is_open);
            let queue = open().filter(|addr| !exhausted.contains(addr)).take(MAX_QUEUED);
            let queue: Vec<NodeAddr> = queue.cloned().collect();
            if let Some(round) = round {
                round.is_all = open().take(MAX_QUEUED + 1).count() == queue.len();
                round.queue = Some(queue);
            }
        }
    }

    /// Returns the next query to a node that `is_free`, or the time of the next look if a client waits.
    pub(crate) fn next(&mut self, is_free: impl Fn(&NodeAddr) -> bool, now: Instant) -> Result<Query, Option<Instant>> {
        self.finish_rounds(now);
        let rounds = self.by_id.values().filter_map(|survey| survey.round.as_ref());
        let until = rounds.map(|round| round.until).min().ok_or(None)?;
        if let Some(next_at) = self.queries.next_at(now) {
            return Err(Some(next_at.min(until)));
        }
        if self.queries.is_full() {
            return Err(Some(until));
        }
        let ready = self.by_id.iter().filter_map(|(id, survey)| {
            let round = survey.round.as_ref()?;
            let is_busy = |addr: &NodeAddr| self.queries.in_flight.iter().any(|query| query.addr == *addr);
            let is_ready = |addr: &&NodeAddr| is_free(addr) && !is_busy(addr);
            let addr = round.queue.as_ref()?.iter().find(is_ready)?;
            Some((round.queried, id, addr))
        });
        // The id with the fewest queries ranks first, so that no id takes all of them.
        let Some((_, id, addr)) = ready.min_by_key(|(queried, id, _)| (*queried, *id)) else {
            let has_unplanned = self.by_id.values().any(Survey::is_unplanned);
            return Err(Some(if has_unplanned { now } else { until }));
        };
        let query = Query {
            id: Arc::clone(id),
            addr: addr.clone(),
        };
        self.queries.begin(query.clone(), now);
        if let Some(round) = self.by_id.get_mut(&query.id).and_then(|survey| survey.round.as_mut()) {
            round.queried += 1;
            round
                .queue
                .iter_mut()
                .for_each(|queue| queue.retain(|addr| *addr != query.addr));
        }
        Ok(query)
    }

    /// Finishes the rounds that are over or have no node left to query.
    fn finish_rounds(&mut self, now: Instant) {
        let exhausted = self.queries.exhausted(now);
        for (id, survey) in &mut self.by_id {
            let Some(round) = &mut survey.round else {
                continue;
            };
            if let Some(queue) = &mut round.queue {
                let before = queue.len();
                queue.retain(|addr| !exhausted.contains(addr));
                round.is_all &= queue.len() == before;
            }
            let is_queried = round.queue.as_ref().is_some_and(Vec::is_empty);
            let is_done = is_queried && self.queries.in_flight.iter().all(|query| query.id != *id);
            if is_done && round.is_all {
                survey.complete_until = now + COMPLETE_FOR;
            }
            if is_done || round.until <= now {
                survey.round = None;
            }
        }
    }

    /// Applies the outcome of a query.
    pub(crate) fn answered(&mut self, query: &Query, source: Source, outcome: ResourceReport, now: Instant) {
        self.queries.end(query);
        let entries = match outcome {
            Ok(reading) => Some(Arc::new(reading.entries)),
            Err(ResourceFailure::LocalError(_)) => return,
            Err(_) => None,
        };
        let mut known = Known {
            at: now,
            entries,
            source,
        };
        let Some(survey) = self.by_id.get_mut(&query.id) else {
            return;
        };
        // The new response replaces the former one, which needs no room.
        survey.known.remove(&query.addr);
        if !self.make_room(&known, &query.id) {
            known.entries = None;
        }
        if let Some(survey) = self.by_id.get_mut(&query.id) {
            survey.known.insert(query.addr.clone(), known);
        }
    }

    /// Evicts other surveys than that of `id` until a new response fits. Returns false if it cannot.
    fn make_room(&mut self, new: &Known, id: &str) -> bool {
        let is_explorer = |known: &Known| known.source == Source::Explorer;
        if is_explorer(new) && self.bytes(is_explorer) + new.bytes() > MAX_EXPLORER_BYTES {
            return false;
        }
        while self.bytes(|_| true) + new.bytes() > MAX_BYTES {
            if !self.evict_oldest_but(id) {
                return false;
            }
        }
        true
    }

    /// Counted when a response arrives, at most ten times per second: ten minutes of responses are 6,000.
    pub(super) fn bytes(&self, counts: impl Fn(&Known) -> bool) -> usize {
        let known = self.by_id.values().flat_map(|survey| survey.known.values());
        known.filter(|known| counts(known)).map(Known::bytes).sum()
    }
}

impl Survey {
    pub(super) fn is_unplanned(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.queue.is_none())
    }
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        let kept = match self.entries {
            Some(_) => KEPT,
            None => FAILURE_KEPT,
        };
        now.saturating_duration_since(self.at) < kept
    }

    fn bytes(&self) -> usize {
        let entries = self.entries.iter().flat_map(|entries| entries.iter());
        OVERHEAD + entries.map(|(_, text)| text.len() + OVERHEAD).sum::<usize>()
    }
}
