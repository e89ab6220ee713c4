//! The surveys: the responses of nodes for each model id, and the rounds that query more nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::new_ids::NewIds;
use super::queries::{MAX_IN_RATE_WINDOW, Queries};
use super::{Answer, Query, Step};
use crate::client::Client;
use crate::node::{Entries, NodeAddr, Source};
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

/// A round without a plan.
#[derive(Debug)]
pub(super) struct Unplanned {
    pub(super) id: Arc<str>,
    /// The nodes that have responded.
    known: HashSet<NodeAddr>,
    /// The nodes that must not be queried because of their own rate.
    exhausted: HashSet<NodeAddr>,
}

#[derive(Debug)]
pub(super) struct Survey {
    known: HashMap<NodeAddr, Known>,
    last_used: Instant,
    round: Option<Round>,
    /// Until then there is no node to query.
    complete_until: Option<Instant>,
}

/// All surveys.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    pub(super) by_id: HashMap<Arc<str>, Survey>,
    pub(super) new_ids: NewIds,
    pub(super) queries: Queries,
}

impl Surveys {
    pub(super) fn is_kept(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn is_in_progress(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|survey| survey.round.is_some())
    }

    pub(super) fn request(&mut self, id: &str, client: Client, now: Instant) -> Step {
        if !self.is_kept(id) {
            if let Err(wait) = self.new_ids.take(client, now) {
                return Step::Refused(wait);
            }
            self.insert(id, now);
        }
        let Some(survey) = self.by_id.get_mut(id) else {
            return Step::Ready;
        };
        survey.last_used = now;
        survey.known.retain(|_, known| known.is_fresh(now));
        let until = now + MAX_DEFERRAL;
        match &mut survey.round {
            Some(round) => round.until = until,
            None if survey.complete_until.is_some_and(|complete| now < complete) => return Step::Ready,
            None => {
                survey.round = Some(Round {
                    until,
                    queue: None,
                    is_all: false,
                    queried: 0,
                });
            }
        }
        Step::Later
    }

    fn insert(&mut self, id: &str, now: Instant) {
        self.by_id
            .retain(|_, survey| now.saturating_duration_since(survey.last_used) < KEPT);
        if self.by_id.len() >= MAX_IDS {
            self.evict_oldest_but(id);
        }
        let survey = Survey {
            known: HashMap::new(),
            last_used: now,
            round: None,
            complete_until: None,
        };
        self.by_id.insert(id.into(), survey);
    }

    /// Evicts the survey that was requested longest ago; returns false if there is no other one.
    fn evict_oldest_but(&mut self, id: &str) -> bool {
        let others = self.by_id.iter().filter(|(other, _)| ***other != *id);
        let oldest = others.min_by_key(|(_, survey)| survey.last_used);
        let oldest = oldest.map(|(id, _)| Arc::clone(id));
        oldest.is_some_and(|id| self.by_id.remove(&id).is_some())
    }

    pub(super) fn answers(&self, id: &str, now: Instant) -> Vec<(NodeAddr, Arc<Entries>)> {
        let known = self.by_id.get(id).into_iter().flat_map(|survey| &survey.known);
        let fresh = known.filter(|(_, known)| known.is_fresh(now));
        fresh
            .filter_map(|(addr, known)| Some((addr.clone(), Arc::clone(known.entries.as_ref()?))))
            .collect()
    }

    /// Returns rounds without a plan: only if a query may be sent now, and as many as may be sent, because each plan is
    /// a walk of all nodes.
    pub(super) fn unplanned(&self, now: Instant) -> Vec<Unplanned> {
        if self.queries.next_at(now).is_some() || self.queries.is_full() {
            return Vec::new();
        }
        let exhausted = self.queries.exhausted(now);
        let surveys = self.by_id.iter().filter(|(_, survey)| survey.is_unplanned());
        let rounds = surveys.take(MAX_IN_RATE_WINDOW).map(|(id, survey)| {
            let fresh = survey.known.iter().filter(|(_, known)| known.is_fresh(now));
            Unplanned {
                id: Arc::clone(id),
                known: fresh.map(|(addr, _)| addr.clone()).collect(),
                exhausted: exhausted.clone(),
            }
        });
        rounds.collect()
    }

    pub(super) fn plan(&mut self, id: &str, queue: Vec<NodeAddr>, is_all: bool) {
        let survey = self.by_id.get_mut(id);
        if let Some(round) = survey.and_then(|survey| survey.round.as_mut()) {
            (round.queue, round.is_all) = (Some(queue), is_all);
        }
    }

    pub(super) fn next(&mut self, is_free: impl Fn(&NodeAddr) -> bool, now: Instant) -> Result<Query, Option<Instant>> {
        self.finish_rounds(now);
        let rounds = self
            .by_id
            .iter()
            .filter_map(|(id, survey)| Some((id, survey.round.as_ref()?)));
        let mut rounds: Vec<(usize, &Arc<str>, &Round)> =
            rounds.map(|(id, round)| (round.queried, id, round)).collect();
        let until = rounds.iter().map(|(_, _, round)| round.until).min().ok_or(None)?;
        if let Some(next_at) = self.queries.next_at(now) {
            return Err(Some(next_at.min(until)));
        }
        if self.queries.is_full() {
            return Err(Some(until));
        }
        // The ids with the fewest queries rank first, so that no id takes all of them.
        rounds.sort_unstable_by_key(|(queried, id, _)| (*queried, *id));
        let is_ready = |addr: &&NodeAddr| is_free(addr) && !self.queries.is_busy(addr);
        let next = rounds.into_iter().find_map(|(_, id, round)| {
            let addr = round.queue.as_ref()?.iter().find(is_ready)?;
            Some(Query {
                id: Arc::clone(id),
                addr: addr.clone(),
            })
        });
        let Some(query) = next else {
            let has_unplanned = self.by_id.values().any(Survey::is_unplanned);
            return Err(Some(if has_unplanned { now } else { until }));
        };
        self.begin(&query, now);
        Ok(query)
    }

    fn begin(&mut self, query: &Query, now: Instant) {
        self.queries.begin(query.clone(), now);
        if let Some(round) = self.by_id.get_mut(&query.id).and_then(|survey| survey.round.as_mut()) {
            round.queried += 1;
            round.remove(&query.addr);
        }
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
            let is_done = is_queried && !self.queries.has_in_flight(id);
            if is_done {
                survey.complete_until = round.is_all.then(|| now + COMPLETE_FOR);
            }
            if is_done || round.until <= now {
                survey.round = None;
            }
        }
    }

    pub(super) fn answered(&mut self, query: &Query, source: Source, answer: Answer, now: Instant) {
        self.queries.end(query);
        let Some(survey) = self.by_id.get_mut(&query.id) else {
            return;
        };
        if let Some(round) = &mut survey.round {
            round.remove(&query.addr);
        }
        let entries = match answer {
            Answer::Local => return,
            Answer::Failed => None,
            Answer::Entries(entries) => Some(Arc::new(entries)),
        };
        survey.known.remove(&query.addr);
        let mut known = Known {
            at: now,
            entries,
            source,
        };
        if !self.make_room(&known, &query.id) {
            known.entries = None;
        }
        if let Some(survey) = self.by_id.get_mut(&query.id) {
            survey.known.insert(query.addr.clone(), known);
        }
    }

    /// Evicts other surveys until a response fits. Returns false if it cannot fit.
    fn make_room(&mut self, known: &Known, id: &str) -> bool {
        let is_explorer = |known: &Known| known.source == Source::Explorer;
        if is_explorer(known) && self.bytes(is_explorer) + known.bytes() > MAX_EXPLORER_BYTES {
            return false;
        }
        while self.bytes(|_| true) + known.bytes() > MAX_BYTES {
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
    fn is_unplanned(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.queue.is_none())
    }
}

impl Unplanned {
    /// Returns the nodes to query, those with the lowest order first, and whether these are all of which nothing is
    /// known.
    pub(super) fn select<'a>(&self, nodes: impl Iterator<Item = (u64, &'a NodeAddr)>) -> (Vec<NodeAddr>, bool) {
        let mut open: Vec<(u64, &NodeAddr)> = nodes.filter(|(_, addr)| !self.known.contains(addr)).collect();
        let count = open.len();
        open.retain(|(_, addr)| !self.exhausted.contains(addr));
        if open.len() > MAX_QUEUED {
            open.select_nth_unstable(MAX_QUEUED);
            open.truncate(MAX_QUEUED);
        }
        open.sort_unstable();
        let is_all = open.len() == count;
        (open.into_iter().map(|(_, addr)| addr.clone()).collect(), is_all)
    }
}

impl Round {
    fn remove(&mut self, addr: &NodeAddr) {
        if let Some(queue) = &mut self.queue {
            queue.retain(|other| other != addr);
        }
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
