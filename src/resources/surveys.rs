//! Which nodes support a model: one survey for all who ask for the same id. Pure: no socket, no thread, no clock.
//!
//! Each question loads the containers, and can make a service send a request elsewhere, so the worst that attackers can make of this
//! is ten small requests a second, six a minute for a node.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetching::Failure;
use super::nodes::Nodes;
use crate::client::Client;
use crate::node::{Entries, NodeAddr, Reading, Source};
use crate::response::MAX_DEFERRAL;

/// Ids kept. More than the new ones of ten minutes, so that those that are asked for again and again stay.
const MAX_IDS: usize = 256;
/// Answers of nodes, and ids that nobody asked for, are kept this long: models don't come and go.
const KEPT: Duration = Duration::from_secs(600);
/// A node that did not answer may do so soon.
const FAILURE_KEPT: Duration = Duration::from_secs(120);
/// New ids in a minute, each of which can cost a request to every node.
const MAX_NEW_IDS: usize = 10;
/// New ids in a minute for a client, so that it takes five to use them up.
const MAX_NEW_IDS_OF_CLIENT: usize = 2;
const NEW_IDS_WINDOW: Duration = Duration::from_secs(60);
/// Nodes asked while somebody waits; asking again asks others.
const MAX_ASKED: usize = 32;
/// Questions in `RATE_WINDOW`, to all nodes together: ten a second.
const MAX_ASKS: usize = 10;
/// A tenth more than a second, so that it holds at the nodes as well, whatever the network does to the time between.
const RATE_WINDOW: Duration = Duration::from_millis(1_100);
/// Questions under way at once: ten a second that take 3 s each would be 30, and half of them may hang for that.
pub(super) const MAX_UNDER_WAY: usize = 16;
/// After a survey of which nothing is left to ask, nobody waits for this long; then there may be new nodes.
const COMPLETE_FOR: Duration = Duration::from_secs(5);
/// All answers together. Those of 250 models on 100 nodes with two containers each.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Of this, what nodes may take that only the Explorer names.
const MAX_EXPLORER_BYTES: usize = MAX_BYTES / 2;
/// What keeping an answer, and an entry in it, takes besides its text.
const OVERHEAD: usize = 96;

/// How one who asks is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What is known is all that there is for now.
    Ready,
    /// More may come within 2 s of the first time that this was asked.
    Later,
    /// A new id, of which there were too many; one more may come after this time.
    Refused(Duration),
}

/// What a node said of a model, and when.
#[derive(Debug)]
struct Answer {
    at: Instant,
    /// None: it did not answer.
    entries: Option<Entries>,
    bytes: usize,
    source: Source,
}

/// While somebody waits.
#[derive(Debug)]
struct Round {
    until: Instant,
    /// Whether it was looked whom to ask.
    has_begun: bool,
    queue: Vec<NodeAddr>,
    /// Whether the queue had all nodes of which nothing was known.
    is_all: bool,
    asked: usize,
}

#[derive(Debug)]
struct Survey {
    answers: HashMap<NodeAddr, Answer>,
    last_used: Instant,
    round: Option<Round>,
    under_way: usize,
    /// Until then there is nothing to ask.
    complete_until: Option<Instant>,
}

/// A question to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: Arc<str>,
    pub(super) addr: NodeAddr,
}

/// All surveys.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    by_id: HashMap<Arc<str>, Survey>,
    new_ids: VecDeque<(Instant, Client)>,
    /// The last questions, the oldest first.
    asks: VecDeque<Instant>,
    under_way: usize,
    /// Whether a round has begun since this was last asked.
    has_new_round: bool,
    bytes: usize,
    explorer_bytes: usize,
}

impl Surveys {
    /// One asks for this id.
    pub(super) fn ask(&mut self, id: &str, client: Client, now: Instant) -> Step {
        if !self.by_id.contains_key(id) {
            if let Err(wait) = self.admit(client, now) {
                return Step::Refused(wait);
            }
            self.insert(id, now);
        }
        self.drop_old_answers(id, now);
        let Some(survey) = self.by_id.get_mut(id) else {
            return Step::Ready;
        };
        survey.last_used = now;
        if survey.round.is_none() && survey.complete_until.is_none_or(|until| until <= now) {
            self.has_new_round = true;
            survey.round = Some(Round {
                until: now + MAX_DEFERRAL,
                has_begun: false,
                queue: Vec::new(),
                is_all: false,
                asked: 0,
            });
        }
        match &mut survey.round {
            Some(round) => {
                round.until = now + MAX_DEFERRAL;
                Step::Later
            }
            None => Step::Ready,
        }
    }

    /// Whether one more new id may be asked for, or how long that will take.
    fn admit(&mut self, client: Client, now: Instant) -> Result<(), Duration> {
        let left = |at: Instant| NEW_IDS_WINDOW.saturating_sub(now.saturating_duration_since(at));
        while self.new_ids.front().is_some_and(|(at, _)| left(*at).is_zero()) {
            self.new_ids.pop_front();
        }
        let first_of = |mut ids: Vec<Instant>, most: usize| match ids.len() >= most {
            true => left(ids.swap_remove(ids.len() - most)),
            false => Duration::ZERO,
        };
        let of_client = self.new_ids.iter().filter(|(_, other)| *other == client);
        let wait = first_of(of_client.map(|(at, _)| *at).collect(), MAX_NEW_IDS_OF_CLIENT)
            .max(first_of(self.new_ids.iter().map(|(at, _)| *at).collect(), MAX_NEW_IDS));
        if wait.is_zero() {
            self.new_ids.push_back((now, client));
            return Ok(());
        }
        Err(wait)
    }

    fn insert(&mut self, id: &str, now: Instant) {
        let is_old = |survey: &Survey| now.saturating_duration_since(survey.last_used) >= KEPT;
        let old: Vec<Arc<str>> = self
            .by_id
            .iter()
            .filter(|(_, survey)| is_old(survey))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        old.iter().for_each(|id| self.forget(id));
        if self.by_id.len() >= MAX_IDS {
            self.forget_oldest(None);
        }
        let survey = Survey {
            answers: HashMap::new(),
            last_used: now,
            round: None,
            under_way: 0,
            complete_until: None,
        };
        self.by_id.insert(id.into(), survey);
    }

    fn forget_oldest(&mut self, but: Option<&str>) -> bool {
        let others = self.by_id.iter().filter(|(id, _)| Some(&***id) != but);
        let oldest = others.min_by_key(|(_, survey)| survey.last_used);
        match oldest.map(|(id, _)| Arc::clone(id)) {
            Some(id) => {
                self.forget(&id);
                true
            }
            None => false,
        }
    }

    fn forget(&mut self, id: &str) {
        let survey = self.by_id.remove(id);
        for answer in survey.into_iter().flat_map(|survey| survey.answers.into_values()) {
            self.count_out(&answer);
        }
    }

    fn drop_old_answers(&mut self, id: &str, now: Instant) {
        let answers = self.by_id.get_mut(id).map(|survey| &mut survey.answers);
        let old = answers.map(|answers| answers.extract_if(|_, answer| !answer.is_fresh(now)).collect());
        let old: Vec<(NodeAddr, Answer)> = old.unwrap_or_default();
        old.iter().for_each(|(_, answer)| self.count_out(answer));
    }

    fn count_out(&mut self, answer: &Answer) {
        self.bytes -= answer.bytes;
        if answer.source == Source::Explorer {
            self.explorer_bytes -= answer.bytes;
        }
    }

    /// What nodes said of a model.
    pub(super) fn answers(&self, id: &str, now: Instant) -> impl Iterator<Item = (&NodeAddr, &Entries)> {
        let answers = self.by_id.get(id).into_iter().flat_map(|survey| &survey.answers);
        answers.filter_map(move |(addr, answer)| {
            let entries = answer.entries.as_ref().filter(|_| answer.is_fresh(now))?;
            Some((addr, entries))
        })
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether there is a round whose nodes are still to be looked for.
    pub(super) fn take_new_round(&mut self) -> bool {
        std::mem::take(&mut self.has_new_round)
    }

    /// Whether there is a round of this id to wait for.
    pub(super) fn is_waited_for(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|survey| survey.round.is_some())
    }

    /// The next question, which counts as under way until `answered`; or when to look again, where anybody waits.
    pub(super) fn next(&mut self, nodes: &mut Nodes, now: Instant) -> Result<Question, Option<Instant>> {
        self.tend_rounds(nodes, now);
        let rounds = self
            .by_id
            .iter()
            .filter_map(|(id, survey)| Some((id, survey.round.as_ref()?)));
        // Those for whom least was asked come first, so that no id takes all the requests.
        let mut rounds: Vec<(usize, &Arc<str>, &Round)> = rounds.map(|(id, round)| (round.asked, id, round)).collect();
        let Some(until) = rounds.iter().map(|(_, _, round)| round.until).min() else {
            return Err(None);
        };
        let rate = self.asks.front().filter(|_| self.asks.len() == MAX_ASKS);
        if let Some(free) = rate.map(|first| *first + RATE_WINDOW).filter(|free| *free > now) {
            return Err(Some(free.min(until)));
        }
        if self.under_way >= MAX_UNDER_WAY {
            return Err(Some(until));
        }
        rounds.sort_unstable_by_key(|(asked, id, _)| (*asked, *id));
        let next = rounds.into_iter().find_map(|(_, id, round)| {
            let addr = round.queue.iter().find(|addr| nodes.is_free(addr, now))?;
            Some((Arc::clone(id), addr.clone()))
        });
        let Some((id, addr)) = next else {
            return Err(Some(until));
        };
        self.sent(&id, &addr, now);
        nodes.ask_support(&addr, now);
        Ok(Question { id, addr })
    }

    fn sent(&mut self, id: &str, addr: &NodeAddr, now: Instant) {
        self.under_way += 1;
        self.asks.push_back(now);
        if self.asks.len() > MAX_ASKS {
            self.asks.pop_front();
        }
        if let Some(survey) = self.by_id.get_mut(id) {
            survey.under_way += 1;
            if let Some(round) = &mut survey.round {
                round.asked += 1;
                round.queue.retain(|other| other != addr);
            }
        }
    }

    /// Ends rounds whose time is over or that have nothing more to ask, and looks whom those ask that have just begun.
    fn tend_rounds(&mut self, nodes: &Nodes, now: Instant) {
        for survey in self.by_id.values_mut() {
            let Some(round) = &mut survey.round else {
                continue;
            };
            if !round.has_begun {
                round.has_begun = true;
                let answers = &survey.answers;
                let is_open = |addr: &NodeAddr| answers.get(addr).is_none_or(|answer| !answer.is_fresh(now));
                (round.queue, round.is_all) = nodes.soonest(MAX_ASKED, round.until, is_open);
            }
            let before = round.queue.len();
            round.queue.retain(|addr| nodes.is_open(addr, round.until));
            round.is_all &= round.queue.len() == before;
            let is_done = round.queue.is_empty() && survey.under_way == 0;
            if is_done && round.is_all {
                survey.complete_until = Some(now + COMPLETE_FOR);
            }
            if is_done || round.until <= now {
                survey.round = None;
            }
        }
    }

    /// Takes over what came of a question. What went wrong on this machine counts for nothing.
    pub(super) fn answered(
        &mut self,
        id: &str,
        addr: &NodeAddr,
        source: Source,
        answer: Result<Reading, Failure>,
        now: Instant,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(survey) = self.by_id.get_mut(id) else {
            return;
        };
        survey.under_way = survey.under_way.saturating_sub(1);
        if let Some(round) = &mut survey.round {
            round.queue.retain(|other| other != addr);
        }
        let entries = match answer {
            Ok(reading) => Some(reading.entries),
            Err(Failure::Local(_)) => return,
            Err(_) => None,
        };
        let old = survey.answers.remove(addr);
        old.iter().for_each(|answer| self.count_out(answer));
        let mut answer = Answer {
            at: now,
            bytes: entries.as_ref().map_or(0, bytes_of),
            entries,
            source,
        };
        if !self.drop_oldest_for(&answer, id) {
            (answer.entries, answer.bytes) = (None, 0);
        }
        self.bytes += answer.bytes;
        if source == Source::Explorer {
            self.explorer_bytes += answer.bytes;
        }
        if let Some(survey) = self.by_id.get_mut(id) {
            survey.answers.insert(addr.clone(), answer);
        }
    }

    /// Makes room for an answer: surveys that nobody asked for in the longest time are forgotten.
    fn drop_oldest_for(&mut self, answer: &Answer, id: &str) -> bool {
        if answer.source == Source::Explorer && self.explorer_bytes + answer.bytes > MAX_EXPLORER_BYTES {
            return false;
        }
        while self.bytes + answer.bytes > MAX_BYTES {
            if !self.forget_oldest(Some(id)) {
                return false;
            }
        }
        true
    }
}

fn bytes_of(entries: &Entries) -> usize {
    let texts: usize = entries.iter().map(|(_, text)| text.len() + OVERHEAD).sum();
    texts + OVERHEAD
}

impl Answer {
    fn is_fresh(&self, now: Instant) -> bool {
        let kept = match self.entries {
            Some(_) => KEPT,
            None => FAILURE_KEPT,
        };
        now.saturating_duration_since(self.at) < kept
    }
}

#[cfg(test)]
mod tests;
