//! Decides whether a client may ask now: a token bucket for each client, in a bounded table.
//! Pure: `now` is an argument. Who the client is and what an answer looks like is decided elsewhere.
//!
//! Whoever was refused stays refused until its wait is over, whatever others do and however many
//! they are. A bucket that still has a token may be forgotten when the table is full.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

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

/// Who a request is from, for the limit, the share of connections and the promises: an IPv4
/// address or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Client {
    /// The address.
    V4(u32),
    /// The first 64 bits of the address; the others are for a customer to choose.
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V4(address) => Client::V4(address.to_bits()),
            IpAddr::V6(address) => Client::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What became of a request for a token, and what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Tokens of a full bucket, which is also what flows back in a minute.
    pub limit: u32,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// The time until the bucket is full.
    pub full_in: Duration,
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

    /// Takes a token of this client, if there is one.
    pub fn try_take(&mut self, client: Client, now: Instant) -> Decision {
        let micros = now.saturating_duration_since(self.start).as_micros();
        self.latest = self.latest.max(self.quota.units(micros));
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
            (true, None) if self.make_room() => self.remember(client, full_at),
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
    fn make_room(&mut self) -> bool {
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
        let debt = full_at - now;
        let spent = u32::try_from(debt.div_ceil(TOKEN)).unwrap_or(u32::MAX);
        let decision = Decision {
            limit: self.limit,
            remaining: self.limit.saturating_sub(spent),
            full_in: self.time(debt),
            retry_after,
        };
        (decision, full_at)
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

fn seconds_rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;

    const A: Client = Client::V4(0x0102_0304);
    const MICROSECOND: Duration = Duration::from_micros(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn per_minute(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).expect("limits in tests are positive")
    }

    fn limiter(limit: u32) -> (Limiter, Instant) {
        let start = an_instant();
        (Limiter::new(per_minute(limit), start), start)
    }

    fn small_table(limit: u32, max_clients: usize) -> (Limiter, Instant) {
        let start = an_instant();
        let limit = per_minute(limit);
        (Limiter::with_max_clients(limit, start, max_clients), start)
    }

    /// Any will do, and there is no other way to get one.
    #[allow(clippy::disallowed_methods)]
    fn an_instant() -> Instant {
        Instant::now()
    }

    fn v6(text: &str) -> Client {
        Client::from(IpAddr::from(text.parse::<std::net::Ipv6Addr>().expect("an address")))
    }

    fn exhaust(limiter: &mut Limiter, client: Client, now: Instant) -> u32 {
        (0..=1_000_000)
            .find(|_| !limiter.try_take(client, now).is_granted())
            .expect("the limits of these tests are below a million")
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let mapped: IpAddr = "::ffff:1.2.3.4".parse().expect("an address");
        assert_eq!(Client::from(IpAddr::from([1, 2, 3, 4])), A);
        assert_eq!(Client::from(mapped), A);
        assert_eq!(v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
        assert_eq!(v6("2001:db8:1:2::"), Client::V6(0x2001_0db8_0001_0002));
        assert_ne!(Client::V4(0), Client::V6(0));
    }

    #[test]
    fn a_burst_is_granted_and_not_one_more() {
        for limit in [1, 7, 10, 1000] {
            let (mut limiter, start) = limiter(limit);
            for left in (0..limit).rev() {
                let decision = limiter.try_take(A, start);
                assert!(decision.is_granted());
                assert_eq!((decision.limit, decision.remaining), (limit, left));
            }
            let decision = limiter.try_take(A, start);
            assert_eq!((decision.is_granted(), decision.remaining), (false, 0));
            assert_eq!((decision.full_in, decision.reset_seconds()), (MINUTE, 60));
        }
    }

    #[test]
    fn the_largest_burst_is_a_billion() {
        let (mut limiter, start) = limiter(1_000_000_000);
        let first = limiter.try_take(A, start);
        assert_eq!((first.remaining, first.full_in), (999_999_999, MICROSECOND));
        // All but one token are gone, as after 999,999,999 requests within a microsecond.
        let own = limiter.full_at[&A];
        limiter.by_fullness.remove(&(own, A));
        limiter.remember(A, 999_999_999 * TOKEN);
        assert_eq!(limiter.try_take(A, start).remaining, 0);
        let refused = limiter.try_take(A, start);
        assert_eq!(refused.retry_after, Some(MICROSECOND));
        assert_eq!((refused.retry_after_seconds(), refused.full_in), (Some(1), MINUTE));
        // 60 ns make a token: 16 and two thirds of them are back after a microsecond.
        assert_eq!(limiter.try_take(A, start + MICROSECOND).remaining, 15);
        assert_eq!(exhaust(&mut limiter, A, start + MICROSECOND), 15);
        assert_eq!(exhaust(&mut limiter, A, start + 3 * MICROSECOND), 34);
    }

    #[test]
    fn a_token_is_back_exactly_at_the_wait_and_not_a_microsecond_before() {
        for (limit, wait_micros) in [(1, 60_000_000), (7, 8_571_429), (10, 6_000_000), (999_999, 61)] {
            let (mut limiter, start) = limiter(limit);
            assert_eq!(exhaust(&mut limiter, A, start), limit);
            let wait = limiter.try_take(A, start).retry_after.expect("refused");
            assert_eq!(wait, Duration::from_micros(wait_micros), "{limit}");
            let early = limiter.try_take(A, start + wait - MICROSECOND);
            assert_eq!(early.retry_after, Some(MICROSECOND));
            assert_eq!(early.retry_after_seconds(), Some(1));
            assert!(limiter.try_take(A, start + wait).is_granted());
            assert!(!limiter.try_take(A, start + wait).is_granted());
        }
    }

    #[test]
    fn seven_a_minute_are_seven_a_minute_in_the_long_run() {
        let (mut limiter, start) = limiter(7);
        exhaust(&mut limiter, A, start);
        let (mut now, mut granted) = (start, 0);
        for _ in 0..7000 {
            now += limiter.try_take(A, now).retry_after.unwrap_or_default();
            granted += u32::from(limiter.try_take(A, now).is_granted());
        }
        let minutes = u32::try_from((now - start).as_secs() / 60).expect("about 1000");
        assert!(
            (7 * minutes..=7 * minutes + 7).contains(&granted),
            "{granted} in {minutes}"
        );
    }

    #[test]
    fn a_bucket_is_full_when_it_said_and_never_above_the_burst() {
        let (mut limiter, start) = limiter(10);
        exhaust(&mut limiter, A, start);
        let full_in = limiter.try_take(A, start).full_in;
        let almost = limiter.try_take(A, start + full_in - MICROSECOND);
        assert_eq!(almost.remaining, 8);
        assert_eq!(almost.full_in, Duration::from_micros(6_000_001));
        assert_eq!(almost.reset_seconds(), 7);
        assert_eq!(exhaust(&mut limiter, A, start + 1000 * MINUTE), 10);
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (micros, seconds) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(seconds_rounded_up(Duration::from_micros(micros)), seconds);
        }
    }

    #[test]
    fn clients_do_not_share_a_bucket() {
        let (mut limiter, start) = limiter(2);
        assert_eq!(exhaust(&mut limiter, A, start), 2);
        assert_eq!(exhaust(&mut limiter, Client::V4(0x0102_0305), start), 2);
        assert_eq!(exhaust(&mut limiter, v6("2001:db8::1"), start), 2);
    }

    #[test]
    fn time_that_goes_back_grants_nothing() {
        let start = an_instant();
        let mut limiter = Limiter::new(per_minute(1), start + MINUTE);
        assert!(limiter.try_take(A, start).is_granted());
        assert_eq!(limiter.try_take(A, start).retry_after, Some(MINUTE));
        assert!(limiter.try_take(A, start + 2 * MINUTE).is_granted());
        let refused = limiter.try_take(A, start);
        assert_eq!((refused.retry_after, refused.full_in), (Some(MINUTE), MINUTE));
        // Others live at the latest instant as well.
        assert!(limiter.try_take(Client::V4(9), start).is_granted());
        assert!(
            !limiter
                .try_take(Client::V4(9), start + 3 * MINUTE - MICROSECOND)
                .is_granted()
        );
    }

    #[test]
    fn decades_do_not_overflow() {
        let (mut limiter, start) = limiter(1_000_000_000);
        let century = 100 * 365 * 24 * 60 * MINUTE;
        assert!(limiter.try_take(A, start + century).is_granted());
        assert_eq!(limiter.try_take(A, start + century).remaining, 999_999_998);
        let quota = Quota::new(per_minute(1_000_000_000));
        let (decision, _) = quota.take(Units::MAX, quota.units(Duration::MAX.as_micros()));
        assert!(!decision.is_granted());
        assert!(quota.take(0, Units::MAX).0.is_granted());
    }

    #[test]
    fn full_buckets_are_forgotten_without_being_asked_for() {
        let (mut limiter, start) = limiter(1);
        for address in 0..1000 {
            limiter.try_take(Client::V4(address), start);
        }
        assert_eq!(limiter.len(), 1000);
        for _ in 0..999 {
            limiter.try_take(A, start + MINUTE);
        }
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn the_table_is_filled_to_its_bound_and_not_one_past() {
        let (mut limiter, start) = limiter(2);
        for address in 0..65_536 {
            assert!(limiter.try_take(Client::V4(address), start).is_granted());
        }
        assert_eq!(limiter.len(), 65_536);
        assert!(limiter.try_take(A, start).is_granted());
        assert_eq!(limiter.len(), 65_536);
        // Of equally full buckets the lowest address went; A has one now.
        assert_eq!(limiter.try_take(A, start).remaining, 0);
        assert!(!limiter.try_take(A, start).is_granted());
        assert_eq!(limiter.try_take(Client::V4(1), start).remaining, 0);
    }

    #[test]
    fn the_fullest_bucket_makes_room() {
        let (mut limiter, start) = small_table(3, 3);
        for address in [1, 1, 1, 2, 3, 3] {
            limiter.try_take(Client::V4(address), start);
        }
        assert_eq!(limiter.try_take(A, start).remaining, 2);
        let known: Vec<_> = limiter.full_at.keys().copied().collect();
        assert_eq!(known, [Client::V4(1), Client::V4(3), A]);
    }

    #[test]
    fn a_bucket_makes_room_as_soon_as_it_has_a_token_and_not_before() {
        let (mut limiter, start) = small_table(2, 1);
        exhaust(&mut limiter, A, start);
        limiter.try_take(Client::V6(1), start + MINUTE / 2 - MICROSECOND);
        assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&A]);
        limiter.try_take(Client::V4(1), start + MINUTE / 2);
        assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&Client::V4(1)]);
    }

    #[test]
    fn when_all_are_over_the_limit_newcomers_share_a_bucket_and_nobody_is_forgiven() {
        let (mut limiter, start) = small_table(2, 3);
        let over = [1, 2, 3].map(Client::V4);
        for client in over {
            exhaust(&mut limiter, client, start);
        }
        let ten = |host: u32| Client::V4(0x0a00_0000 + host);
        assert_eq!(limiter.try_take(ten(1), start).remaining, 1);
        assert_eq!(limiter.try_take(ten(0xff_ffff), start).remaining, 0);
        assert!(!limiter.try_take(ten(2), start).is_granted());
        // Another /8 has another bucket, and so have the /64s of a /32.
        assert!(limiter.try_take(Client::V4(0x0b00_0000), start).is_granted());
        assert_eq!(limiter.try_take(v6("2001:db8::1"), start).remaining, 1);
        assert_eq!(limiter.try_take(v6("2001:db8:ffff::1"), start).remaining, 0);
        assert!(!limiter.try_take(v6("2001:db8:0:1::1"), start).is_granted());
        assert_eq!(limiter.len(), 3);
        for client in over {
            assert!(!limiter.try_take(client, start).is_granted());
        }
    }

    #[test]
    fn room_does_not_forgive_a_group_that_is_over_the_limit() {
        let (mut limiter, start) = small_table(2, 1);
        exhaust(&mut limiter, Client::V4(1), start);
        let (one, other) = (Client::V4(0x0a00_0001), Client::V4(0x0a00_0002));
        assert_eq!(exhaust(&mut limiter, one, start + MICROSECOND), 2);
        let wait = limiter.try_take(one, start + MICROSECOND).retry_after;
        assert_eq!(wait, Some(MINUTE / 2));
        // The only bucket has a token again and would make room; the group's comes back just after.
        let room = start + MINUTE / 2;
        assert!(!limiter.try_take(other, room).is_granted());
        assert_eq!(limiter.try_take(one, room).retry_after, Some(MICROSECOND));
        assert_eq!(limiter.try_take(one, room + MICROSECOND).remaining, 0);
        assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&one]);
    }

    #[test]
    fn a_flood_leaves_the_table_at_its_bound() {
        let (mut limiter, start) = small_table(1, 64);
        for step in 0..10_000_u32 {
            let client = Client::V6(u64::from(step) << 32);
            limiter.try_take(client, start + step * Duration::from_millis(10));
            assert!(limiter.len() <= 64);
            assert_eq!(limiter.len(), limiter.by_fullness.len());
        }
    }

    /// The bucket as one would write it without a thought for memory: a debt, and when it was so.
    struct Model {
        limit: u128,
        latest: u128,
        debts: HashMap<Client, (u128, u128)>,
    }

    impl Model {
        fn new(limit: u32) -> Model {
            let (limit, debts) = (limit.into(), HashMap::new());
            Model {
                limit,
                latest: 0,
                debts,
            }
        }

        fn try_take(&mut self, client: Client, micros: u64) -> Decision {
            self.latest = self.latest.max(micros.into());
            let (before, since) = self.debts.get(&client).copied().unwrap_or_default();
            let back = (self.latest - since) * self.limit;
            let mut debt = before.saturating_sub(back);
            let full = self.limit * 60_000_000;
            let missing = (debt + 60_000_000).saturating_sub(full);
            if missing == 0 {
                debt += 60_000_000;
            }
            let wait = missing.div_ceil(self.limit) as u64;
            self.debts.insert(client, (debt, self.latest));
            Decision {
                limit: self.limit as u32,
                remaining: ((full - debt) / 60_000_000) as u32,
                full_in: Duration::from_micros(debt.div_ceil(self.limit) as u64),
                retry_after: (wait > 0).then(|| Duration::from_micros(wait)),
            }
        }
    }

    fn limits() -> impl Strategy<Value = u32> {
        prop_oneof![Just(1), Just(7), 1..40_u32, Just(999_999_999), Just(1_000_000_000)]
    }

    /// Steps in time that meet the borders: none, a microsecond, about a token, more than a minute; and back.
    fn steps() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => Just(0_i64),
            2 => 0..3_i64,
            2 => 0..10_000_000_i64,
            1 => 59_999_999..=60_000_001_i64,
            1 => -5_000_000..0_i64,
        ]
    }

    fn clients() -> impl Strategy<Value = Client> {
        prop_oneof![
            (0..6_u32).prop_map(|n| Client::V4((n % 2) << 24 | n)),
            (0..6_u64).prop_map(|n| Client::V6((n % 2) << 32 | n)),
        ]
    }

    fn walk() -> impl Strategy<Value = Vec<(Client, i64)>> {
        prop::collection::vec((clients(), steps()), 1..300)
    }

    proptest! {
        // A counterexample is printed; without this a file would be left beside the sources too.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn decides_as_the_naive_model_for_any_interleaving(limit in limits(), walk in walk()) {
            let (mut limiter, start) = limiter(limit);
            let (mut model, mut micros) = (Model::new(limit), 0_u64);
            for (client, step) in walk {
                micros = micros.saturating_add_signed(step);
                let decision = limiter.try_take(client, start + Duration::from_micros(micros));
                prop_assert_eq!(decision, model.try_take(client, micros));
            }
        }

        #[test]
        fn no_window_has_more_than_the_burst_and_what_flows_back(limit in 1..20_u32, walk in walk()) {
            let (mut limiter, start) = limiter(limit);
            let mut grants: HashMap<Client, Vec<u64>> = HashMap::new();
            let mut micros = 0_u64;
            for (client, step) in walk {
                micros += step.unsigned_abs() / 8;
                if limiter.try_take(client, start + Duration::from_micros(micros)).is_granted() {
                    grants.entry(client).or_default().push(micros);
                }
            }
            for granted in grants.values() {
                for (from, first) in granted.iter().enumerate() {
                    for (to, last) in granted.iter().enumerate().skip(from) {
                        let back = u64::from(limit) * (last - first) / 60_000_000;
                        prop_assert!((to - from + 1) as u64 <= u64::from(limit) + back);
                    }
                }
            }
        }

        #[test]
        fn whoever_was_refused_stays_refused_until_the_wait_is_over(
            limit in 1..4_u32,
            max_clients in 0..5_usize,
            walk in walk(),
        ) {
            let (mut limiter, start) = small_table(limit, max_clients);
            let mut refused: HashMap<Client, u64> = HashMap::new();
            let mut micros = 0_u64;
            for (client, step) in walk {
                micros += step.unsigned_abs();
                let decision = limiter.try_take(client, start + Duration::from_micros(micros));
                let until = decision.retry_after.map(|wait| micros + wait.as_micros() as u64);
                match (refused.entry(client), until) {
                    (Entry::Occupied(before), None) => prop_assert!(before.remove() <= micros),
                    (entry, Some(until)) => {
                        entry.insert_entry(until);
                    }
                    (Entry::Vacant(_), None) => {}
                }
                prop_assert!(limiter.len() <= max_clients);
                prop_assert_eq!(limiter.len(), limiter.by_fullness.len());
            }
        }
    }
}
