//! What each available node said of its containers, and whom to ask when. Pure: no socket, no thread, no clock.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetching::Failure;
use super::view::{Shown, View};
use crate::node::{ContainerId, Entries, NodeAddr, Rank, Reading};
use crate::registry::Available;

/// Time between two polls: 50 a second and a tenth less, so that it holds at the nodes as well, whatever the network does
/// to the time between. 10,000 nodes that come up together are asked within 220 s; a small uplink has something else to do.
const POLL_SPACING: Duration = Duration::from_millis(22);
/// Polls under way at once. Nodes answer within 40 ms, so this is for 16 that hang.
pub(super) const MAX_POLLS: usize = 16;
/// A node older than 1.4.0 is asked again after this.
const NOT_FOUND_INTERVAL: Duration = Duration::from_secs(3600);
/// Least time between two polls of a node, also of one that goes and comes back.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// A node that is asked something else when its poll is due is polled after this.
const BUSY_DELAY: Duration = Duration::from_secs(1);
/// Polls in a row in which a container may be missing while its last entry stays: that they flake is normal.
const MAX_MISSES: u8 = 3;
/// All entries together. When they are full, nodes that come first in the order keep theirs.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What keeping an entry takes besides its text.
const ENTRY_OVERHEAD: usize = 128;

/// What is known of one container.
#[derive(Debug)]
struct Entry {
    id: ContainerId,
    text: Arc<str>,
    misses: u8,
}

#[derive(Debug)]
struct Node {
    rank: Rank,
    order: u64,
    runs: Arc<[ContainerId]>,
    /// Sorted.
    entries: Vec<Entry>,
    /// What they count in `Nodes::bytes`.
    held: usize,
    /// Why the last poll brought nothing, or not all; empty before the first and after one that was whole.
    trouble: String,
    is_available: bool,
    /// One question at a time.
    is_busy: bool,
    last_poll: Option<Instant>,
    due: Instant,
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Poll(NodeAddr),
    /// Nothing before this instant, unless something ends.
    Wait(Instant),
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    interval: Duration,
    max_bytes: usize,
    by_addr: HashMap<NodeAddr, Node>,
    /// Who is to be polled when: nodes of ips.txt, and those that anybody can register.
    due: [BTreeSet<(Instant, NodeAddr)>; 2],
    /// Nodes with entries.
    holders: BTreeSet<(Rank, NodeAddr)>,
    bytes: usize,
    next_slot: Instant,
    polls: usize,
    has_changed: bool,
    has_shed: bool,
}

impl Nodes {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            max_bytes: MAX_BYTES,
            by_addr: HashMap::new(),
            due: Default::default(),
            holders: BTreeSet::new(),
            bytes: 0,
            next_slot: now,
            polls: 0,
            has_changed: false,
            has_shed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_addr.len()
    }

    /// Takes over which nodes are available. New ones are due at once; those that are gone lose what they said.
    pub(super) fn sync(&mut self, available: Vec<Available>, now: Instant) {
        self.by_addr.values_mut().for_each(|node| node.is_available = false);
        for node in available {
            self.keep(node, now);
        }
        let gone: Vec<NodeAddr> = self
            .by_addr
            .iter()
            .filter(|(_, node)| !node.is_available)
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in gone {
            self.hold(&addr, Vec::new());
            if let Some(node) = self.by_addr.get(&addr) {
                self.due[node.rank.source() as usize].remove(&(node.due, addr.clone()));
                let is_recent = node.last_poll.is_some_and(|at| now.duration_since(at) < MIN_INTERVAL);
                if !node.is_busy && !is_recent {
                    self.by_addr.remove(&addr);
                }
            }
        }
    }

    fn keep(&mut self, new: Available, now: Instant) {
        let Some(node) = self.by_addr.get_mut(&new.addr) else {
            self.due[new.rank.source() as usize].insert((now, new.addr.clone()));
            let node = Node {
                rank: new.rank,
                order: new.order,
                runs: new.runs.into(),
                entries: Vec::new(),
                held: 0,
                trouble: String::new(),
                is_available: true,
                is_busy: false,
                last_poll: None,
                due: now,
            };
            self.by_addr.insert(new.addr, node);
            return;
        };
        node.is_available = true;
        node.order = new.order;
        if *node.runs != *new.runs {
            node.runs = new.runs.as_slice().into();
            self.has_changed = true;
            let (runs, entries) = (Arc::clone(&node.runs), std::mem::take(&mut node.entries));
            let entries = entries
                .into_iter()
                .filter(|entry| runs.binary_search(&entry.id).is_ok());
            let entries = entries.collect();
            self.hold(&new.addr, entries);
        }
        self.rename(&new);
        if let Some(node) = self.by_addr.get_mut(&new.addr)
            && !node.is_busy
            && let due = &mut self.due[node.rank.source() as usize]
            && !due.contains(&(node.due, new.addr.clone()))
        {
            // It is back.
            node.due = node.last_poll.map_or(now, |last| now.max(last + MIN_INTERVAL));
            due.insert((node.due, new.addr));
        }
    }

    /// A node keeps what it said when its place in the list or its spelling changes.
    fn rename(&mut self, new: &Available) {
        let Some((addr, node)) = self.by_addr.get_key_value(&new.addr) else {
            return;
        };
        let is_same_text = addr.as_listed() == new.addr.as_listed();
        if node.rank == new.rank && is_same_text {
            return;
        }
        self.has_changed = true;
        if let Some(mut node) = self.by_addr.remove(&new.addr) {
            if self.holders.remove(&(node.rank, new.addr.clone())) {
                self.holders.insert((new.rank, new.addr.clone()));
            }
            if self.due[node.rank.source() as usize].remove(&(node.due, new.addr.clone())) {
                self.due[new.rank.source() as usize].insert((node.due, new.addr.clone()));
            }
            node.rank = new.rank;
            self.by_addr.insert(new.addr.clone(), node);
        }
    }

    /// The next poll; the one returned counts as under way until `polled`. Of those that are due, nodes of ips.txt come
    /// first: many that hang would else keep them waiting.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        loop {
            let firsts = self.due.iter().filter_map(BTreeSet::first);
            let Some((due, addr)) = firsts.min_by_key(|(due, _)| now.max(*due)).cloned() else {
                return Turn::Wait(now + self.interval);
            };
            let begin = due.max(self.next_slot);
            if begin > now {
                return Turn::Wait(begin);
            }
            if self.polls >= MAX_POLLS {
                return Turn::Wait(now + self.interval);
            }
            for of_source in &mut self.due {
                of_source.remove(&(due, addr.clone()));
            }
            let Some(node) = self.by_addr.get_mut(&addr) else {
                continue;
            };
            if node.is_busy {
                node.due = now + BUSY_DELAY;
                self.due[node.rank.source() as usize].insert((node.due, addr));
                continue;
            }
            node.is_busy = true;
            node.last_poll = Some(now);
            self.polls += 1;
            self.next_slot = now + POLL_SPACING;
            return Turn::Poll(addr);
        }
    }

    /// The nodes with resources, to query about a model, each with its order.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (u64, &NodeAddr)> {
        let holders = self.holders.iter();
        holders.filter_map(|(_, addr)| Some((self.by_addr.get(addr)?.order, addr)))
    }

    /// Whether a node is available and not being asked anything.
    pub(super) fn is_free(&self, addr: &NodeAddr) -> bool {
        let node = self.by_addr.get(addr);
        node.is_some_and(|node| node.is_available && !node.is_busy)
    }

    /// Notes that a node is asked about a model.
    pub(super) fn begin_query(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.by_addr.get_mut(addr) {
            node.is_busy = true;
        }
    }

    /// Notes that this is over.
    pub(super) fn end_query(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.by_addr.get_mut(addr) {
            node.is_busy = false;
        }
    }

    /// What to ask a node with: its source and the containers that it runs.
    pub(super) fn facts(&self, addr: &NodeAddr) -> Option<(Rank, Arc<[ContainerId]>)> {
        let node = self.by_addr.get(addr)?;
        Some((node.rank, Arc::clone(&node.runs)))
    }

    /// Takes over how a poll ended.
    pub(super) fn polled(&mut self, addr: &NodeAddr, answer: Result<Reading, Failure>, now: Instant) {
        self.polls = self.polls.saturating_sub(1);
        let interval = self.interval;
        let Some(node) = self.by_addr.get_mut(addr) else {
            return;
        };
        node.is_busy = false;
        let wait = match answer {
            Err(Failure::NotFound) => interval.max(NOT_FOUND_INTERVAL),
            _ => interval,
        };
        if !node.is_available {
            return;
        }
        node.due = now + wait;
        self.due[node.rank.source() as usize].insert((node.due, addr.clone()));
        let known = std::mem::take(&mut node.entries);
        let entries = match answer {
            Ok(reading) => {
                node.trouble = reading
                    .left_out
                    .map(|reason| format!("left out {reason}"))
                    .unwrap_or_default();
                settle(known, reading.entries, &node.runs)
            }
            Err(Failure::NotFound) => {
                "answered 404: infernet-node has them from 1.4.0 on".clone_into(&mut node.trouble);
                Vec::new()
            }
            Err(Failure::Failed(reason)) => {
                node.trouble = reason;
                settle(known, Entries::new(), &node.runs)
            }
            Err(Failure::Local(reason)) => {
                node.trouble = format!("not asked, for a lack on this machine: {reason}");
                known
            }
        };
        self.hold(addr, entries);
    }

    /// Replaces a node's entries. When all together would be too many, nodes that come later in the order lose theirs;
    /// where there are none, this one does.
    fn hold(&mut self, addr: &NodeAddr, entries: Vec<Entry>) {
        let Some(node) = self.by_addr.get_mut(addr) else {
            return;
        };
        let holder = (node.rank, addr.clone());
        let held = entries.iter().map(Entry::bytes).sum();
        self.has_changed |= held > 0 || node.held > 0;
        self.bytes -= std::mem::replace(&mut node.held, 0);
        node.entries = entries;
        self.holders.remove(&holder);
        while self.bytes + held > self.max_bytes {
            match self.holders.last().filter(|last| **last > holder).cloned() {
                Some(last) => {
                    self.holders.remove(&last);
                    self.shed(&last.1);
                }
                None => return self.shed(addr),
            }
        }
        if held > 0 {
            self.bytes += held;
            self.holders.insert(holder);
            if let Some(node) = self.by_addr.get_mut(addr) {
                node.held = held;
            }
        }
    }

    /// A node's entries are dropped for want of room.
    fn shed(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.by_addr.get_mut(addr) {
            node.entries = Vec::new();
            self.bytes -= std::mem::replace(&mut node.held, 0);
            node.trouble = format!(
                "no room: all nodes' resources are more than {} MiB",
                self.max_bytes >> 20
            );
            self.has_changed = true;
            self.has_shed = true;
        }
    }

    /// Whether entries were ever dropped for want of room.
    pub(super) fn has_shed(&self) -> bool {
        self.has_shed
    }

    /// What there is to show, where it has changed since this was last asked.
    pub(super) fn changed_view(&mut self) -> Option<View> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let shown = self.holders.iter().filter_map(|(_, addr)| {
            let node = self.by_addr.get(addr)?;
            let entries = node
                .entries
                .iter()
                .map(|entry| (entry.id.clone(), Arc::clone(&entry.text)));
            Some(Shown {
                addr: addr.clone(),
                runs: Arc::clone(&node.runs),
                entries: entries.collect(),
            })
        });
        Some(View::new(shown.collect()))
    }

    /// How an available node stands, in words; foreign text in them is escaped and cut.
    pub(super) fn state(&self, addr: &NodeAddr) -> Option<String> {
        let node = self.by_addr.get(addr).filter(|node| node.is_available)?;
        Some(node.state())
    }
}

impl Node {
    fn state(&self) -> String {
        let count = match (self.entries.len(), self.last_poll) {
            (0, None) => "not asked yet".to_owned(),
            (known, _) => format!("{known} of {} containers", self.runs.len()),
        };
        match self.trouble.is_empty() {
            true => count,
            false => format!("{count}: {}", self.trouble),
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

/// New entries and those of before that are missing now, as long as they may.
fn settle(known: Vec<Entry>, new: Entries, runs: &[ContainerId]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = new
        .into_iter()
        .filter(|(id, _)| runs.binary_search(id).is_ok())
        .map(|(id, text)| Entry { id, text, misses: 0 })
        .collect();
    let missed = |entry: &Entry| entries.binary_search_by(|new| new.id.cmp(&entry.id)).is_err();
    let kept = known.into_iter().filter(missed).map(|entry| Entry {
        misses: entry.misses + 1,
        ..entry
    });
    let kept: Vec<Entry> = kept.filter(|entry| entry.misses <= MAX_MISSES).collect();
    entries.extend(kept);
    entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    entries
}
