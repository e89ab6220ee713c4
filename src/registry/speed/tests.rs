//! The arithmetic of the rule.

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000_000;

/// Applies a count of a listed node that the last probe brought.
fn count(work: &mut Work, fleet: &FleetSpeed, pending: f64, (promised, after): (u64, u64), now: Time) {
    work.learn(Count { pending, promised }, fleet.bounds(true, None), fleet);
    work.resume(after, now);
}

fn fleet_of(typical: f64, fast: f64) -> FleetSpeed {
    FleetSpeed {
        typical,
        fast,
        prior: PRIOR_JOBS,
    }
}

fn records(speeds: &[f64]) -> Vec<Record> {
    let record = |speed: &f64| Record {
        done: *speed,
        busy: 1.0,
        miss: 0.0,
    };
    speeds.iter().map(record).collect()
}

#[track_caller]
fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
}

#[test]
fn before_any_record_a_job_takes_an_interval() {
    let fleet = FleetSpeed::new(INTERVAL);
    let mut work = Work::new(&fleet);
    let now = Time(SECOND);
    work.probe_sent(now);
    count(&mut work, &fleet, 3.0, (0, 0), now);
    assert_eq!(work.finish(), Time(91 * SECOND));
    assert_eq!(work.next_done(), Time(121 * SECOND));
    assert_eq!(work.record(), None);
}

#[test]
fn promise_moves_the_finish_by_one_job() {
    let fleet = fleet_of(0.5, 0.5);
    let mut work = Work::new(&fleet);
    work.promise(Time(10 * SECOND));
    assert_eq!(work.finish(), Time(12 * SECOND));
    work.promise(Time(11 * SECOND));
    assert_eq!(work.finish(), Time(14 * SECOND));
    work.promise(Time(20 * SECOND));
    assert_eq!(work.next_done(), Time(24 * SECOND));
}

/// The rule by hand: 4 jobs at the last count, 6 promised before the probe, 3 pending now, 1 promised since.
#[test]
fn count_is_learned_as_the_rule_defines() {
    let fleet = FleetSpeed {
        prior: 10.0,
        ..fleet_of(0.5, 2.0)
    };
    let mut work = Work::new(&fleet);
    work.probe_sent(Time(0));
    count(&mut work, &fleet, 4.0, (0, 0), Time(0));
    assert_close(work.speed(), 0.5);
    (0..6).for_each(|_| work.promise(Time(0)));
    // 10 jobs at 0.5 a second: until 20 s, so 4 s of work are left at 16 s.
    work.probe_sent(Time(16 * SECOND));
    assert_close(work.expected, 2.0);
    work.promise(Time(16 * SECOND));
    count(&mut work, &fleet, 3.0, (6, 1), Time(17 * SECOND));
    // It did 7 jobs in the 16 s that it was assumed busy.
    assert_close(work.record.done, 7.0);
    assert_close(work.record.busy, 16.0);
    assert_close(work.record.miss, 1.0);
    assert_close(work.speed(), (7.0 + 10.0) / (16.0 + 10.0 / 0.5));
    assert_eq!(work.finish(), Time(17 * SECOND).after(4.0 / work.speed()));
    // Ten minutes later all of it weighs 1/e.
    work.probe_sent(Time(616 * SECOND));
    count(&mut work, &fleet, 0.0, (0, 0), Time(616 * SECOND));
    assert_close(work.record.done, 7.0 / 1_f64.exp() + 3.0);
}

#[test]
fn one_count_moves_record_by_eight_typical_nodes() {
    for pending in [0.0, 1e19] {
        let fleet = fleet_of(1.0, 1.0);
        let mut work = Work::new(&fleet);
        work.probe_sent(Time(0));
        count(&mut work, &fleet, 1_000.0, (0, 0), Time(0));
        work.probe_sent(Time(10 * SECOND));
        count(&mut work, &fleet, pending, (0, 0), Time(10 * SECOND));
        assert_close(work.record.done, if pending == 0.0 { 80.0 } else { 0.0 });
        assert_close(work.record.miss, 100.0);
    }
}

fn typical_and_fast(listed: &[f64], explorer: &[f64]) -> Option<(f64, f64)> {
    let fleet = FleetSpeed::of(records(listed), records(explorer))?;
    Some((fleet.typical, fleet.fast))
}

#[test]
fn typical_is_the_median_and_fast_the_quartile() {
    assert_eq!(typical_and_fast(&[], &[]), None);
    let of = |speeds: &[f64]| typical_and_fast(speeds, &[]).expect("a record");
    assert_eq!(of(&[3.0]), (3.0, 3.0));
    assert_eq!(of(&[1.0, 3.0]), (2.0, 2.0));
    assert_eq!(of(&[900.0, 1.0, 2.0]), (2.0, 2.0));
    assert_eq!(of(&[1.0, 2.0, 3.0, 900.0]), (2.5, 3.0));
    let ten: Vec<f64> = (0..10).map(|node| if node % 2 == 0 { 4.0 } else { 1.0 }).collect();
    assert_eq!(of(&ten), (2.5, 4.0));
    assert_eq!(of(&[f64::INFINITY; 3]), (MAX_SPEED, MAX_SPEED));
    assert_eq!(of(&[0.0; 3]), (MIN_SPEED, MIN_SPEED));
}

#[test]
fn four_listed_records_alone_determine_the_typical_speed() {
    let explorer = [900.0; 50];
    assert_eq!(typical_and_fast(&[1.0, 2.0, 3.0], &explorer), Some((900.0, 900.0)));
    assert_eq!(typical_and_fast(&[1.0, 2.0, 3.0, 4.0], &explorer), Some((2.5, 3.0)));
}

#[test]
fn speedup_bounds_a_speed() {
    for (max_speedup, is_listed, fastest) in [
        (None, true, 3.0),
        (None, false, 3.0),
        (Some(8.0), true, 16.0),
        (Some(8.0), false, 3.0),
        (Some(1.0), true, 2.0),
        (Some(1.0), false, 2.0),
    ] {
        assert_eq!(fleet_of(2.0, 3.0).bounds(is_listed, max_speedup), (0.25, fastest));
    }
}

/// The rule by hand: k = 40 (n M + 1) / (n J + 1).
#[test]
fn noise_comes_from_medians() {
    let record = |done, miss| Record { done, busy: 60.0, miss };
    let honest = vec![record(60.0, 30.0); 5];
    let prior = |records| FleetSpeed::of(records, Vec::new()).expect("a record").prior;
    assert_close(prior(honest.clone()), 40.0 * 151.0 / 301.0);
    // Two of seven nodes miss by 10 jobs at each count and are never assumed to do more than one.
    let lying = [vec![record(1.0, 3_000.0); 2], honest].concat();
    assert_close(prior(lying), 40.0 * 211.0 / 421.0);
    assert_close(prior(vec![record(6_000.0, 0.0); 5]), 1.0);
}

#[test]
fn cap_is_half_interval_of_work_within_bounds() {
    for (speed, cap) in [(0.1, 8), (0.6, 9), (2.0, 30), (4.2, 63), (100.0, 64)] {
        assert_eq!(Work::new(&fleet_of(speed, speed)).cap(INTERVAL), cap);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The clock moves forward or back.
    Clock(i64),
    Promise,
    Sent,
    Count(u64, u64, u64, bool),
    Round,
}

/// Any number, most often one at the edges.
fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..9_u64, any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let nanos = prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), 0..(1_i64 << 40), any::<i64>()];
    prop_oneof![
        nanos.prop_map(Step::Clock),
        Just(Step::Promise),
        Just(Step::Sent),
        (any_count(), 0..2_049_u64, 0..2_049_u64, any::<bool>())
            .prop_map(|(pending, before, after, is_listed)| Step::Count(pending, before, after, is_listed)),
        Just(Step::Round),
    ]
}

proptest! {
    #[test]
    fn speeds_stay_bounded_and_promises_never_lower_keys(
        steps in prop::collection::vec(step(), 0..300),
        interval_ms in 100..86_400_000_u64,
        max_speedup in prop::option::of(1.0..=64.0),
    ) {
        let mut fleet = FleetSpeed::new(Duration::from_millis(interval_ms));
        let mut work = Work::new(&fleet);
        let mut now = Time(0);
        for step in steps {
            let key = work.next_done();
            match step {
                Step::Clock(nanos) => now = Time(now.0.saturating_add_signed(nanos)),
                Step::Promise => {
                    work.promise(now);
                    prop_assert!(work.next_done() > key || key == Time(u64::MAX));
                }
                Step::Sent => work.probe_sent(now),
                Step::Count(pending, before, after, is_listed) => {
                    let count = Count { pending: pending as f64, promised: before };
                    let (slowest, fastest) = fleet.bounds(is_listed, max_speedup);
                    work.learn(count, (slowest, fastest), &fleet);
                    work.resume(after, now);
                    prop_assert!(slowest <= work.speed && work.speed <= fastest, "{work:?} {fleet:?}");
                    prop_assert!(work.finish >= now);
                }
                Step::Round => {
                    fleet = FleetSpeed::of(work.record().into_iter().collect(), Vec::new()).unwrap_or(fleet);
                }
            }
            let Record { done, busy, miss } = work.record;
            for value in [work.speed, done, busy, miss, work.expected, fleet.typical, fleet.fast, fleet.prior] {
                prop_assert!(value.is_finite() && value >= 0.0, "{work:?} {fleet:?}");
            }
            prop_assert!((MIN_SPEED..=MAX_SPEED).contains(&fleet.typical));
        }
    }
}
