//! Decides whether a client may ask now: a token bucket for each client, in a bounded table.
//! Pure: `now` is an argument. Who the client is and what an answer looks like is decided elsewhere.
//!
//! A client that was refused stays refused until its wait is over, whatever others do and however
//! many they are. A bucket that still has a token may be forgotten when the table is full.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::client::Client;

/// Clients remembered. More than a fleet has, and a full table stays below 8 MB.
pub const MAX_CLIENTS: usize = 65_536;

/// Buckets that IPv6 newcomers share once the table is full, by a hash of their /32: some registries
/// hand out /32s to anybody, so an array for all of them would not be bounded.
const V6_GROUPS: usize = 512;

/// Full buckets forgotten with each request: more than the one it may add, so that the table
/// shrinks again after a flood, and few, so that no request pays for many.
const FORGOTTEN_AT_ONCE: usize = 2;

/// Units of one token. A bucket of N tokens a minute regains N units each microsecond, so that
/// whole numbers lose nothing, whatever N is.
const TOKEN: Units = 60_000_000;

/// Debts and instants alike: an instant is the units that flowed since the start. 2^128 of them last
/// for more years than `Duration` knows, at any N.
type Units = u128;

/// What became of a request for a token, and what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Tokens of a full bucket, which is also what flows back in a minute.
    pub limit: u32,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// The time until the bucket is full.
    pub full_in: Duration,
    /// The time until there is a token for another request; zero where there is one.
    pub next_in: Duration,
    /// `None`: granted. Else the time until there is a token, to the microsecond and never zero.
    pub retry_after: Option<Duration>,
}

impl Decision {
    /// Whether the token was there.
    pub fn is_granted(&self) -> bool {
        self.retry_after.is_none()
    }

    /// `Retry-After` of a refused request: whole seconds, rounded up, so at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(seconds_rounded_up)
    }

    /// `RateLimit-Reset`: whole seconds until the bucket is full, rounded up.
    pub fn reset_seconds(&self) -> u64 {
        seconds_rounded_up(self.full_in)
    }
}

/// The buckets of one endpoint. Every operation takes logarithmic time.
#[derive(Debug)]
pub struct Limiter {
    quota: Quota,
    start: Instant,
    /// The latest instant seen: a clock reading that was overtaken by another thread's counts as that.
    latest: Units,
    max_clients: usize,
    /// When each client's bucket is full again. A client that is not here has a full one.
    full_at: BTreeMap<Client, Units>,
    /// The same pairs, the fullest bucket first. All refill at one rate, so time changes no order.
    by_fullness: BTreeSet<(Units, Client)>,
    groups: Groups,
}

impl Limiter {
    /// A limiter that grants so many requests at once and so many a minute after that.
    pub fn new(requests_per_minute: NonZeroU32, start: Instant) -> Limiter {
        Limiter::with_max_clients(requests_per_minute, start, MAX_CLIENTS)
    }

    /// The same with another bound of the table, for tests.
    pub fn with_max_clients(requests_per_minute: NonZeroU32, start: Instant, max_clients: usize) -> Limiter {
        Limiter {
            quota: Quota::new(requests_per_minute),
            start,
            latest: 0,
            max_clients,
            full_at: BTreeMap::new(),
            by_fullness: BTreeSet::new(),
            groups: Groups::new(),
        }
    }

    /// How a client stands that has taken its token before.
    pub fn standing(&mut self, client: Client, now: Instant) -> Decision {
        self.advance(now);
        let own = self.full_at.get(&client).copied();
        let full_at = own.unwrap_or_else(|| *self.groups.full_at(client));
        self.quota.decision(full_at.max(self.latest) - self.latest, None)
    }

    fn advance(&mut self, now: Instant) {
        let micros = now.saturating_duration_since(self.start).as_micros();
        self.latest = self.latest.max(self.quota.units(micros));
    }

    /// Takes a token of this client, if there is one.
    pub fn try_take(&mut self, client: Client, now: Instant) -> Decision {
        self.advance(now);
        self.forget_full();
        let own = self.full_at.get(&client).copied();
        // A newcomer owes what its group owes, or a group that is over the limit would be forgiven
        // as soon as there is room for a bucket of one's own.
        let full_at = own.unwrap_or_else(|| *self.groups.full_at(client));
        let (decision, full_at) = self.quota.take(full_at, self.latest);
        match (decision.is_granted(), own) {
            (false, _) => {}
            (true, Some(own)) => {
                self.by_fullness.remove(&(own, client));
                self.remember(client, full_at);
            }
            (true, None) if self.forget_for_newcomer() => self.remember(client, full_at),
            (true, None) => *self.groups.full_at(client) = full_at,
        }
        decision
    }

    /// Clients that have a bucket of their own.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether no client has a bucket of its own.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }

    fn remember(&mut self, client: Client, full_at: Units) {
        self.full_at.insert(client, full_at);
        self.by_fullness.insert((full_at, client));
    }

    /// A full bucket is the most that an unknown client has: forgetting it grants nobody more.
    fn forget_full(&mut self) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.by_fullness.first() {
                Some((full_at, _)) if *full_at <= self.latest => self.forget_fullest(),
                _ => return,
            }
        }
    }

    /// Whether there is room for one more, if need be in the place of the fullest bucket. One
    /// without a token is never given up: its client is over the limit and would be forgiven.
    fn forget_for_newcomer(&mut self) -> bool {
        if self.full_at.len() < self.max_clients {
            return true;
        }
        match self.by_fullness.first() {
            Some((full_at, _)) if self.quota.has_token(*full_at, self.latest) => {
                self.forget_fullest();
                true
            }
            _ => false,
        }
    }

    fn forget_fullest(&mut self) {
        if let Some((_, client)) = self.by_fullness.pop_first() {
            self.full_at.remove(&client);
        }
    }
}

/// The arithmetic of a bucket, which is but the instant at which it is full.
#[derive(Clone, Copy, Debug)]
struct Quota {
    limit: u32,
}

impl Quota {
    fn new(limit: NonZeroU32) -> Quota {
        let limit = limit.get();
        Quota { limit }
    }

    fn units(self, micros: u128) -> Units {
        micros.saturating_mul(self.limit.into())
    }

    /// The most a bucket can owe and still have a token.
    fn max_debt(self) -> Units {
        Units::from(self.limit - 1) * TOKEN
    }

    fn has_token(self, full_at: Units, now: Units) -> bool {
        full_at.saturating_sub(now) <= self.max_debt()
    }

    /// The decision, and when the bucket is full after it.
    fn take(self, full_at: Units, now: Units) -> (Decision, Units) {
        let full_at = full_at.max(now);
        let missing = (full_at - now).saturating_sub(self.max_debt());
        let (retry_after, full_at) = match missing {
            0 => (None, full_at.saturating_add(TOKEN)),
            _ => (Some(self.time(missing)), full_at),
        };
        (self.decision(full_at - now, retry_after), full_at)
    }

    /// What a client is told that owes so much.
    fn decision(self, debt: Units, retry_after: Option<Duration>) -> Decision {
        let spent = u32::try_from(debt.div_ceil(TOKEN)).unwrap_or(u32::MAX);
        Decision {
            limit: self.limit,
            remaining: self.limit.saturating_sub(spent),
            full_in: self.time(debt),
            next_in: self.time(debt.saturating_sub(self.max_debt())),
            retry_after,
        }
    }

    /// The time in which so many units flow back, rounded up.
    fn time(self, units: Units) -> Duration {
        let micros = units.div_ceil(self.limit.into());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// The buckets that newcomers share while the table has no room for them.
struct Groups {
    v4: [Units; 256],
    v6: [Units; V6_GROUPS],
    /// A key of this process, so that nobody can choose a /32 that shares another one's bucket.
    keyed: RandomState,
}

impl Groups {
    fn new() -> Groups {
        Groups {
            v4: [0; 256],
            v6: [0; V6_GROUPS],
            keyed: RandomState::new(),
        }
    }

    /// When the bucket of this client's /8 or /32 is full.
    fn full_at(&mut self, client: Client) -> &mut Units {
        match client {
            Client::V4(address) => &mut self.v4[(address >> 24) as usize],
            Client::V6(prefix) => {
                let hash = self.keyed.hash_one(prefix >> 32);
                &mut self.v6[hash as usize % V6_GROUPS]
            }
        }
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// As headers have it, never too short.
pub(crate) fn seconds_rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
