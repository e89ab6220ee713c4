//! What a bucket grants, and how a full table evicts.

use std::net::IpAddr;

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

const A: Client = Client::V4(0x0102_0304);
const MICROSECOND: Duration = Duration::from_micros(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Decision {
    fn retry_after(&self) -> Option<Duration> {
        (!self.is_granted).then_some(self.next_in)
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after().map(seconds_rounded_up)
    }

    fn reset_seconds(&self) -> u64 {
        seconds_rounded_up(self.full_in)
    }
}

fn per_minute(limit: u32) -> NonZeroU32 {
    NonZeroU32::new(limit).expect("limits in tests are positive")
}

fn limiter(limit: u32) -> (Limiter, Instant) {
    let start = an_instant();
    (Limiter::new(per_minute(limit), start), start)
}

fn small_table(limit: u32, max_clients: usize) -> (Limiter, Instant) {
    let start = an_instant();
    let limiter = Limiter::new(per_minute(limit), start);
    (Limiter { max_clients, ..limiter }, start)
}

/// Any instant; the standard library has no other way to get one.
#[allow(clippy::disallowed_methods)]
fn an_instant() -> Instant {
    Instant::now()
}

fn v6(text: &str) -> Client {
    Client::from(IpAddr::from(text.parse::<std::net::Ipv6Addr>().expect("an address")))
}

fn exhaust(limiter: &mut Limiter, client: Client, now: Instant) -> u32 {
    (0..=1_000_000)
        .find(|_| !limiter.try_take(client, now).is_granted)
        .expect("the limits of these tests are below a million")
}

#[test]
fn client_is_ipv4_address_or_ipv6_64() {
    let mapped: IpAddr = "::ffff:1.2.3.4".parse().expect("an address");
    assert_eq!(Client::from(IpAddr::from([1, 2, 3, 4])), A);
    assert_eq!(Client::from(mapped), A);
    assert_eq!(v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
    assert_eq!(v6("2001:db8:1:2::"), Client::V6(0x2001_0db8_0001_0002));
    assert_ne!(Client::V4(0), Client::V6(0));
}

#[test]
fn burst_is_granted_exactly() {
    for limit in [1, 7, 10, 1000] {
        let (mut limiter, start) = limiter(limit);
        for left in (0..limit).rev() {
            let decision = limiter.try_take(A, start);
            assert!(decision.is_granted);
            assert_eq!((decision.limit, decision.remaining), (limit, left));
        }
        let decision = limiter.try_take(A, start);
        assert_eq!((decision.is_granted, decision.remaining), (false, 0));
        assert_eq!((decision.full_in, decision.reset_seconds()), (MINUTE, 60));
    }
}

#[test]
fn largest_burst_is_a_billion() {
    let (mut limiter, start) = limiter(1_000_000_000);
    let first = limiter.try_take(A, start);
    assert_eq!((first.remaining, first.full_in), (999_999_999, MICROSECOND));
    // All tokens except one are spent, as after 999,999,999 requests within a microsecond.
    let own = limiter.full_at[&A];
    limiter.by_fullness.remove(&(own, A));
    limiter.full_at.insert(A, 999_999_999 * TOKEN);
    limiter.by_fullness.insert((999_999_999 * TOKEN, A));
    assert_eq!(limiter.try_take(A, start).remaining, 0);
    let refused = limiter.try_take(A, start);
    assert_eq!(refused.retry_after(), Some(MICROSECOND));
    assert_eq!((refused.retry_after_seconds(), refused.full_in), (Some(1), MINUTE));
    // 60 ns make a token: 16 and two thirds of them are back after a microsecond.
    assert_eq!(limiter.try_take(A, start + MICROSECOND).remaining, 15);
    assert_eq!(exhaust(&mut limiter, A, start + MICROSECOND), 15);
    assert_eq!(exhaust(&mut limiter, A, start + 3 * MICROSECOND), 34);
}

#[test]
fn token_returns_exactly_at_the_wait() {
    for (limit, wait_micros) in [(1, 60_000_000), (7, 8_571_429), (10, 6_000_000), (999_999, 61)] {
        let (mut limiter, start) = limiter(limit);
        assert_eq!(exhaust(&mut limiter, A, start), limit);
        let wait = limiter.try_take(A, start).retry_after().expect("refused");
        assert_eq!(wait, Duration::from_micros(wait_micros), "{limit}");
        let early = limiter.try_take(A, start + wait - MICROSECOND);
        assert_eq!(early.retry_after(), Some(MICROSECOND));
        assert_eq!(early.retry_after_seconds(), Some(1));
        assert!(limiter.try_take(A, start + wait).is_granted);
        assert!(!limiter.try_take(A, start + wait).is_granted);
    }
}

#[test]
fn seven_per_minute_hold_in_the_long_run() {
    let (mut limiter, start) = limiter(7);
    exhaust(&mut limiter, A, start);
    let (mut now, mut granted) = (start, 0);
    for _ in 0..7000 {
        now += limiter.try_take(A, now).retry_after().unwrap_or_default();
        granted += u32::from(limiter.try_take(A, now).is_granted);
    }
    let minutes = u32::try_from((now - start).as_secs() / 60).expect("about 1000");
    assert!(
        (7 * minutes..=7 * minutes + 7).contains(&granted),
        "{granted} in {minutes}"
    );
}

#[test]
fn bucket_is_full_when_announced_never_above_burst() {
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
fn clock_going_back_grants_nothing() {
    let start = an_instant();
    let mut limiter = Limiter::new(per_minute(1), start + MINUTE);
    assert!(limiter.try_take(A, start).is_granted);
    assert_eq!(limiter.try_take(A, start).retry_after(), Some(MINUTE));
    assert!(limiter.try_take(A, start + 2 * MINUTE).is_granted);
    let refused = limiter.try_take(A, start);
    assert_eq!((refused.retry_after(), refused.full_in), (Some(MINUTE), MINUTE));
    // The latest instant applies to other clients too.
    assert!(limiter.try_take(Client::V4(9), start).is_granted);
    assert!(
        !limiter
            .try_take(Client::V4(9), start + 3 * MINUTE - MICROSECOND)
            .is_granted
    );
}

#[test]
fn decades_do_not_overflow() {
    let (mut limiter, start) = limiter(1_000_000_000);
    let century = 100 * 365 * 24 * 60 * MINUTE;
    assert!(limiter.try_take(A, start + century).is_granted);
    assert_eq!(limiter.try_take(A, start + century).remaining, 999_999_998);
    let last = Duration::MAX.as_micros() * 1_000_000_000;
    assert!(last + limiter.max_debt() + TOKEN < Units::MAX);
    assert_eq!(limiter.decision(Units::MAX, false).remaining, 0);
}

#[test]
fn full_buckets_are_evicted_by_other_requests() {
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
fn table_is_filled_to_its_bound() {
    let (mut limiter, start) = limiter(2);
    for address in 0..65_536 {
        assert!(limiter.try_take(Client::V4(address), start).is_granted);
    }
    assert_eq!(limiter.len(), 65_536);
    assert!(limiter.try_take(A, start).is_granted);
    assert_eq!(limiter.len(), 65_536);
    // Of equally full buckets, that of the lowest address was evicted; A has one now.
    assert_eq!(limiter.try_take(A, start).remaining, 0);
    assert!(!limiter.try_take(A, start).is_granted);
    assert_eq!(limiter.try_take(Client::V4(1), start).remaining, 0);
}

#[test]
fn fullest_bucket_is_evicted() {
    let (mut limiter, start) = small_table(3, 3);
    for address in [1, 1, 1, 2, 3, 3] {
        limiter.try_take(Client::V4(address), start);
    }
    assert_eq!(limiter.try_take(A, start).remaining, 2);
    let known: Vec<_> = limiter.full_at.keys().copied().collect();
    assert_eq!(known, [Client::V4(1), Client::V4(3), A]);
}

#[test]
fn bucket_is_evicted_once_it_has_a_token() {
    let (mut limiter, start) = small_table(2, 1);
    exhaust(&mut limiter, A, start);
    limiter.try_take(Client::V6(1), start + MINUTE / 2 - MICROSECOND);
    assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&A]);
    limiter.try_take(Client::V4(1), start + MINUTE / 2);
    assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&Client::V4(1)]);
}

#[test]
fn new_clients_share_bucket_when_all_are_empty() {
    let (mut limiter, start) = small_table(2, 3);
    let over = [1, 2, 3].map(Client::V4);
    for client in over {
        exhaust(&mut limiter, client, start);
    }
    let ten = |host: u32| Client::V4(0x0a00_0000 + host);
    assert_eq!(limiter.try_take(ten(1), start).remaining, 1);
    assert_eq!(limiter.try_take(ten(0xff_ffff), start).remaining, 0);
    assert!(!limiter.try_take(ten(2), start).is_granted);
    // Another /8 has another bucket, and so have the /64s of a /32.
    assert!(limiter.try_take(Client::V4(0x0b00_0000), start).is_granted);
    assert_eq!(limiter.try_take(v6("2001:db8::1"), start).remaining, 1);
    assert_eq!(limiter.try_take(v6("2001:db8:ffff::1"), start).remaining, 0);
    assert!(!limiter.try_take(v6("2001:db8:0:1::1"), start).is_granted);
    assert_eq!(limiter.len(), 3);
    for client in over {
        assert!(!limiter.try_take(client, start).is_granted);
    }
}

#[test]
fn free_slot_does_not_reset_group_above_limit() {
    let (mut limiter, start) = small_table(2, 1);
    exhaust(&mut limiter, Client::V4(1), start);
    let (one, other) = (Client::V4(0x0a00_0001), Client::V4(0x0a00_0002));
    assert_eq!(exhaust(&mut limiter, one, start + MICROSECOND), 2);
    let wait = limiter.try_take(one, start + MICROSECOND).retry_after();
    assert_eq!(wait, Some(MINUTE / 2));
    // The only bucket has a token again and could be evicted. The group gets its token one microsecond later.
    let room = start + MINUTE / 2;
    assert!(!limiter.try_take(other, room).is_granted);
    assert_eq!(limiter.try_take(one, room).retry_after(), Some(MICROSECOND));
    assert_eq!(limiter.try_take(one, room + MICROSECOND).remaining, 0);
    assert_eq!(limiter.full_at.keys().collect::<Vec<_>>(), [&one]);
}

#[test]
fn flood_leaves_the_table_at_its_bound() {
    let (mut limiter, start) = small_table(1, 64);
    for step in 0..10_000_u32 {
        let client = Client::V6(u64::from(step) << 32);
        limiter.try_take(client, start + step * Duration::from_millis(10));
        assert!(limiter.len() <= 64);
        assert_eq!(limiter.len(), limiter.by_fullness.len());
    }
}

/// A bucket without a bound of memory: a debt and its instant.
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
        self.debts.insert(client, (debt, self.latest));
        Decision {
            is_granted: missing == 0,
            limit: self.limit as u32,
            remaining: ((full - debt) / 60_000_000) as u32,
            full_in: Duration::from_micros(debt.div_ceil(self.limit) as u64),
            next_in: Duration::from_micros((debt + 60_000_000).saturating_sub(full).div_ceil(self.limit) as u64),
        }
    }
}

fn limits() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(7), 1..40_u32, Just(999_999_999), Just(1_000_000_000)]
}

/// Steps in time at the boundaries: none, a microsecond, about a token, more than a minute, and backwards.
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
    // A counterexample is printed. Without this, proptest also writes a file beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_match_naive_model(limit in limits(), walk in walk()) {
        let (mut limiter, start) = limiter(limit);
        let (mut model, mut micros) = (Model::new(limit), 0_u64);
        for (client, step) in walk {
            micros = micros.saturating_add_signed(step);
            let decision = limiter.try_take(client, start + Duration::from_micros(micros));
            prop_assert_eq!(decision, model.try_take(client, micros));
        }
    }

    #[test]
    fn no_window_exceeds_burst_and_refill(limit in 1..20_u32, walk in walk()) {
        let (mut limiter, start) = limiter(limit);
        let mut grants: HashMap<Client, Vec<u64>> = HashMap::new();
        let mut micros = 0_u64;
        for (client, step) in walk {
            micros += step.unsigned_abs() / 8;
            if limiter.try_take(client, start + Duration::from_micros(micros)).is_granted {
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
    fn refused_client_remains_refused_until_wait_ends(
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
            let until = decision.retry_after().map(|wait| micros + wait.as_micros() as u64);
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

#[test]
fn standing_takes_no_token() {
    let (mut limiter, start) = limiter(10);
    assert_eq!(limiter.standing(A, start).remaining, 10);
    let taken = limiter.try_take(A, start);
    assert_eq!(limiter.standing(A, start), taken);
    assert_eq!(limiter.standing(A, start).remaining, 9);
    assert_eq!(limiter.standing(A, start + MINUTE / 10).remaining, 10);
    exhaust(&mut limiter, A, start + MINUTE);
    let standing = limiter.standing(A, start + MINUTE);
    assert_eq!((standing.remaining, standing.is_granted), (0, true));
}
