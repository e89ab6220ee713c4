//! The arithmetic of the rule.

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000_000;

fn count(pending: f64, before: u64, after: u64) -> Count {
    Count {
        pending,
        before,
        after,
        is_listed: true,
    }
}

fn fleet_of(typical: f64, fast: f64) -> FleetSpeed {
    let mut fleet = FleetSpeed::new(INTERVAL, None);
    fleet.set((typical, fast));
    fleet
}

fn records(listed: &[f64], named: &[f64]) -> Vec<Record> {
    let record = |is_listed| {
        move |speed: &f64| Record {
            is_listed,
            speed: *speed,
        }
    };
    let named = named.iter().map(record(false));
    listed.iter().map(record(true)).chain(named).collect()
}

#[track_caller]
fn assert_close(got: f64, wanted: f64) {
    assert!((got - wanted).abs() < 1e-6, "{got}, not {wanted}");
}

#[test]
fn before_anything_is_learned_a_job_lasts_an_interval() {
    let mut fleet = FleetSpeed::new(INTERVAL, None);
    let mut work = Work::new(&fleet);
    let now = Time(SECOND);
    work.probe_sent(now);
    work.count(count(3.0, 0, 0), &mut fleet, now);
    assert_eq!(work.finish(), Time(91 * SECOND));
    assert_eq!(work.next_done(), Time(121 * SECOND));
    assert_eq!(work.record(true), None);
}

#[test]
fn a_promise_moves_the_finish_by_one_job_from_now_or_from_the_finish() {
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
fn a_count_is_learned_from_as_the_rule_says() {
    let mut fleet = fleet_of(0.5, 2.0);
    let mut work = Work::new(&fleet);
    work.probe_sent(Time(0));
    work.count(count(4.0, 0, 0), &mut fleet, Time(0));
    assert_close(work.speed(), 0.5);
    (0..6).for_each(|_| work.promise(Time(0)));
    // 10 jobs at 0.5 a second: until 20 s, so 4 s of work are left at 16 s.
    work.probe_sent(Time(16 * SECOND));
    assert_close(work.expected, 2.0);
    work.promise(Time(16 * SECOND));
    work.count(count(3.0, 6, 1), &mut fleet, Time(17 * SECOND));
    // It did 7 jobs in the 16 s that it was believed to be busy.
    assert_close(work.done, 7.0);
    assert_close(work.busy, 16.0);
    assert_close(fleet.squared_miss, 1.0);
    let prior = 40.0 * 2.0 / 8.0;
    assert_close(work.speed(), (7.0 + prior) / (16.0 + prior / 0.5));
    assert_eq!(work.finish(), Time(17 * SECOND).after(4.0 / work.speed()));
    // Ten minutes later all of it counts for 1/e.
    work.probe_sent(Time(616 * SECOND));
    work.count(count(0.0, 0, 0), &mut fleet, Time(616 * SECOND));
    assert_close(work.done, 7.0 / 1_f64.exp() + 3.0);
}

#[test]
fn one_count_moves_a_record_by_eight_typical_nodes_at_most() {
    for pending in [0.0, 1e19] {
        let mut fleet = fleet_of(1.0, 1.0);
        let mut work = Work::new(&fleet);
        work.probe_sent(Time(0));
        work.count(count(1_000.0, 0, 0), &mut fleet, Time(0));
        work.probe_sent(Time(10 * SECOND));
        work.count(count(pending, 0, 0), &mut fleet, Time(10 * SECOND));
        assert_close(work.done, if pending == 0.0 { 80.0 } else { 0.0 });
        assert_close(fleet.squared_miss, 100.0);
    }
}

#[test]
fn the_typical_node_is_the_median_and_the_fast_one_is_set_by_no_node_alone() {
    assert_eq!(typical_and_fast(Vec::new()), None);
    let of = |speeds: &[f64]| typical_and_fast(records(speeds, &[])).expect("a record");
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
fn four_nodes_of_ips_txt_with_a_record_say_alone_what_is_typical() {
    let strangers = [900.0; 50];
    let of = |listed: &[f64]| typical_and_fast(records(listed, &strangers));
    assert_eq!(of(&[1.0, 2.0, 3.0]), Some((900.0, 900.0)));
    assert_eq!(of(&[1.0, 2.0, 3.0, 4.0]), Some((2.5, 3.0)));
}

#[test]
fn a_node_counts_as_no_faster_than_its_bound() {
    for (max_speedup, is_listed, fastest) in [
        (None, true, 3.0),
        (None, false, 3.0),
        (Some(8.0), true, 16.0),
        (Some(8.0), false, 3.0),
        (Some(1.0), true, 2.0),
        (Some(1.0), false, 2.0),
    ] {
        let mut fleet = FleetSpeed::new(INTERVAL, max_speedup);
        fleet.set((2.0, 3.0));
        assert_eq!(fleet.bounds(is_listed), (0.25, fastest));
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The clock goes on, or back.
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
    fn whatever_is_counted_and_whatever_the_clock_does_speeds_stay_in_bounds_and_promises_never_move_a_key_back(
        steps in prop::collection::vec(step(), 0..300),
        interval_ms in 100..86_400_000_u64,
        max_speedup in prop::option::of(1.0..=64.0),
    ) {
        let mut fleet = FleetSpeed::new(Duration::from_millis(interval_ms), max_speedup);
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
                    let count = Count { pending: pending as f64, before, after, is_listed };
                    work.count(count, &mut fleet, now);
                    let (slowest, fastest) = fleet.bounds(is_listed);
                    prop_assert!(slowest <= work.speed && work.speed <= fastest, "{work:?} {fleet:?}");
                    prop_assert!(work.finish >= now);
                }
                Step::Round => {
                    if let Some(speeds) = typical_and_fast(work.record(true).into_iter().collect()) {
                        fleet.set(speeds);
                    }
                }
            }
            for value in [work.speed, work.done, work.busy, work.expected, fleet.typical, fleet.fast, fleet.squared_miss, fleet.jobs] {
                prop_assert!(value.is_finite() && value >= 0.0, "{work:?} {fleet:?}");
            }
            prop_assert!((MIN_SPEED..=MAX_SPEED).contains(&fleet.typical));
            prop_assert!(fleet.prior_jobs().is_finite());
        }
    }
}
