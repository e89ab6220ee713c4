//! Decides whether a client may send a request now: one token bucket per client, in a bounded table.
//! Pure: `now` is an argument. Who the client is and what the response contains is decided elsewhere.
//!
//! A refused client remains refused until its wait is over, however many other clients there are. A bucket that still
//! has a token may be evicted when the table is full.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::client::Client;

/// Clients in the table. More than a fleet has, and a full table takes less than 8 MB.
const MAX_CLIENTS: usize = 65_536;

/// Buckets that new IPv4 clients share once the table is full: one per /8.
const V4_GROUPS: usize = 256;
/// Buckets that new IPv6 clients share, by a hash of their /32: some registries assign /32s to anyone, so one bucket
/// for each would not be bounded.
const V6_GROUPS: usize = 512;

/// Full buckets evicted with each request: more than the one bucket that a request adds, so that the table shrinks
/// after a flood, and few, so that no request takes long.
const EVICTED_AT_ONCE: usize = 2;

/// Units of one token. A bucket of N tokens per minute regains N units per microsecond, so whole numbers lose nothing,
/// whatever N is.
const TOKEN: Units = 60_000_000;

/// Debts and instants: an instant is the units that flowed since the start. 2^128 of them last for more years than
/// `Duration` can express, at any N.
type Units = u128;

/// The outcome of a request for a token, and the state of the bucket after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decision {
    pub(crate) is_granted: bool,
    /// Tokens of a full bucket, which is also the number that flows back in a minute.
    pub(crate) limit: u32,
    /// Whole tokens in the bucket.
    pub(crate) remaining: u32,
    /// The time until the bucket is full.
    pub(crate) full_in: Duration,
    /// The time until there is a token for the next request, to the microsecond; never zero after a refusal.
    pub(crate) next_in: Duration,
}

/// The buckets of one endpoint. Every operation takes logarithmic time.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Tokens of a full bucket, which is also the number that flows back in a minute.
    limit: NonZeroU32,
    start: Instant,
    /// The latest instant seen. An earlier clock reading, which another thread has overtaken, is treated as this one.
    latest: Units,
    max_clients: usize,
    /// The instant at which each client's bucket is full. A client that is absent has a full bucket.
    full_at: BTreeMap<Client, Units>,
    /// The same pairs, the fullest bucket first. All refill at one rate, so time changes no order.
    by_fullness: BTreeSet<(Units, Client)>,
    /// The buckets that new clients share while the table is full: those of the /8s, then those of the /32s.
    groups: Box<[Units]>,
    /// A key of this process, so that no client can choose a /32 that shares a given bucket.
    group_key: RandomState,
}

impl Limiter {
    /// Grants a burst of this many requests, and as many per minute after that.
    pub(crate) fn new(requests_per_minute: NonZeroU32, start: Instant) -> Self {
        Self {
            limit: requests_per_minute,
            start,
            latest: 0,
            max_clients: MAX_CLIENTS,
            full_at: BTreeMap::new(),
            by_fullness: BTreeSet::new(),
            groups: vec![0; V4_GROUPS + V6_GROUPS].into(),
            group_key: RandomState::new(),
        }
    }

    /// Returns the state of a client's bucket without taking a token.
    pub(crate) fn standing(&mut self, client: Client, now: Instant) -> Decision {
        self.advance(now);
        let full_at = self.full_at_of(client);
        self.decision(full_at.saturating_sub(self.latest), true)
    }

    /// Takes a token of this client, if there is one.
    pub(crate) fn try_take(&mut self, client: Client, now: Instant) -> Decision {
        self.advance(now);
        for _ in 0..EVICTED_AT_ONCE {
            // An unknown client has a full bucket, so evicting a full bucket grants no extra token.
            self.evict(0);
        }
        let debt = self.full_at_of(client).saturating_sub(self.latest);
        if debt > self.max_debt() {
            return self.decision(debt, false);
        }
        let full_at = self.latest + debt + TOKEN;
        let own = self.full_at.get(&client).map(|own| (*own, client));
        // A bucket without a token is never evicted: its client is above the limit and would be forgiven.
        if own.is_some_and(|own| self.by_fullness.remove(&own))
            || self.full_at.len() < self.max_clients
            || self.evict(self.max_debt())
        {
            self.full_at.insert(client, full_at);
            self.by_fullness.insert((full_at, client));
        } else {
            self.groups[self.group_of(client)] = full_at;
        }
        self.decision(debt + TOKEN, true)
    }

    /// Returns how many clients have a bucket.
    pub(crate) fn len(&self) -> usize {
        self.full_at.len()
    }

    fn advance(&mut self, now: Instant) {
        let micros = now.saturating_duration_since(self.start).as_micros();
        self.latest = self.latest.max(micros.saturating_mul(self.limit.get().into()));
    }

    /// A new client owes what its group owes: a group above the limit would otherwise be forgiven as soon as the table
    /// has room.
    fn full_at_of(&self, client: Client) -> Units {
        let own = self.full_at.get(&client).copied();
        own.unwrap_or_else(|| self.groups[self.group_of(client)])
    }

    fn group_of(&self, client: Client) -> usize {
        match client {
            Client::V4(address) => (address >> 24) as usize,
            Client::V6(prefix) => V4_GROUPS + self.group_key.hash_one(prefix >> 32) as usize % V6_GROUPS,
        }
    }

    /// Evicts the fullest bucket if it lacks at most this much. Returns whether it did.
    fn evict(&mut self, max_debt: Units) -> bool {
        let fullest = self.by_fullness.first().copied();
        let evicted = fullest.filter(|(full_at, _)| full_at.saturating_sub(self.latest) <= max_debt);
        if let Some((full_at, client)) = evicted {
            self.by_fullness.remove(&(full_at, client));
            self.full_at.remove(&client);
        }
        evicted.is_some()
    }

    /// The largest debt of a bucket that has a token.
    fn max_debt(&self) -> Units {
        Units::from(self.limit.get() - 1) * TOKEN
    }

    fn decision(&self, debt: Units, is_granted: bool) -> Decision {
        let spent = u32::try_from(debt.div_ceil(TOKEN)).unwrap_or(u32::MAX);
        Decision {
            is_granted,
            limit: self.limit.get(),
            remaining: self.limit.get().saturating_sub(spent),
            full_in: self.time(debt),
            next_in: self.time(debt.saturating_sub(self.max_debt())),
        }
    }

    /// The time in which this many units flow back, rounded up.
    fn time(&self, units: Units) -> Duration {
        let micros = units.div_ceil(self.limit.get().into());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// Whole seconds as headers have them, never too short.
pub(crate) fn seconds_rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
