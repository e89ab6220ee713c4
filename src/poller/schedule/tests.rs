use super::*;
use crate::util::arena::Arena;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const INTERVAL: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn schedule(max_probes: usize) -> (Schedule, Instant) {
    let now = Instant::now();
    (Schedule::new(INTERVAL, max_probes, now), now)
}

fn ids(count: usize) -> Vec<NodeId> {
    let mut slots = Arena::default();
    (0..count).map(|_| slots.insert(())).collect()
}

/// Sends all that is due at `now`; their probes are of `class`.
fn asks(schedule: &mut Schedule, class: Class, now: Instant) -> Vec<NodeId> {
    let mut asked = Vec::new();
    while let Turn::Ask(id) | Turn::New(id) | Turn::Recheck(id) = schedule.turn(now) {
        schedule.sent(class);
        asked.push(id);
    }
    asked
}

#[test]
fn rounds_begin_an_interval_apart_however_late_each_is_noticed() {
    let (mut schedule, start) = schedule(8);
    assert_eq!(schedule.turn(start), Turn::Wait(start + INTERVAL));
    assert_eq!(schedule.turn(start + INTERVAL), Turn::Round);
    schedule.begin_round(Vec::new(), Vec::new(), start + INTERVAL + SECOND);
    assert_eq!(
        schedule.turn(start + INTERVAL + SECOND),
        Turn::Wait(start + 2 * INTERVAL)
    );
}

#[test]
fn after_a_long_sleep_there_is_one_round_and_not_all_that_were_missed() {
    let (mut schedule, start) = schedule(8);
    let late = start + 10 * INTERVAL;
    assert_eq!(schedule.turn(late), Turn::Round);
    schedule.begin_round(Vec::new(), Vec::new(), late);
    assert_eq!(schedule.turn(late), Turn::Wait(late + INTERVAL));
}

#[test]
fn a_round_takes_a_tenth_of_the_interval_with_even_slots_and_up_before_down() {
    let (mut schedule, start) = schedule(64);
    let ids = ids(30);
    let begin = start + INTERVAL;
    schedule.begin_round(ids[..20].to_vec(), ids[20..].to_vec(), begin);
    let mut now = begin;
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(now, begin + 100 * MILLI * i as u32);
        assert_eq!(schedule.turn(now), Turn::Ask(*id));
        schedule.sent(Class::Up);
        if let Turn::Wait(until) = schedule.turn(now) {
            now = until;
        }
    }
    assert_eq!(now, begin + INTERVAL, "nobody is left");
}

#[test]
fn a_round_over_many_nodes_asks_2000_a_second() {
    let (mut schedule, start) = schedule(64);
    let ids = ids(10_000);
    let begin = start + INTERVAL;
    schedule.begin_round(ids.clone(), Vec::new(), begin);
    for second in 0..5 {
        let within = |milli| begin + SECOND * second + milli * MILLI / 2;
        let asked: usize = (0..2000)
            .map(|milli| {
                let asked = asks(&mut schedule, Class::Up, within(milli)).len();
                (0..asked).for_each(|_| schedule.ended(Class::Up));
                asked
            })
            .sum();
        assert_eq!(asked, 2000);
    }
}

#[test]
fn a_timer_that_fires_late_is_made_up_for_and_a_pool_that_was_full_is_not() {
    let (mut schedule, start) = schedule(1000);
    let begin = start + INTERVAL;
    // Arena of 1 ms.
    schedule.begin_round(ids(3000), Vec::new(), begin);
    assert_eq!(asks(&mut schedule, Class::Up, begin).len(), 1);
    assert_eq!(asks(&mut schedule, Class::Up, begin + 10 * MILLI).len(), 10);
    assert_eq!(asks(&mut schedule, Class::Up, begin + SECOND).len(), 21);
}

#[test]
fn new_nodes_are_asked_at_once_and_in_their_order() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(6);
    ids.iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    assert_eq!(asks(&mut schedule, Class::Other, now), ids);
}

#[test]
fn new_nodes_of_the_operator_do_not_wait_behind_those_of_the_explorer() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(5);
    ids[..3].iter().for_each(|id| schedule.add_new(*id, Source::Explorer));
    assert_eq!(schedule.turn(now), Turn::New(ids[0]));
    ids[3..].iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    assert_eq!(asks(&mut schedule, Class::Other, now), [3, 4, 1, 2].map(|at| ids[at]));
}

#[test]
fn nodes_that_hang_are_asked_again_when_all_new_ones_were_asked_once() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(4);
    schedule.recheck(ids[0], Class::Other, now);
    schedule.add_new(ids[1], Source::IpsFile);
    schedule.add_new(ids[2], Source::Explorer);
    schedule.add_new(ids[3], Source::Explorer);
    let asked = asks(&mut schedule, Class::Other, now + RECHECK_AFTER);
    assert_eq!(asked, [1, 2, 3, 0].map(|at| ids[at]));
}

#[test]
fn a_flood_of_new_nodes_and_the_round_over_those_that_are_down_take_turns() {
    let (mut schedule, start) = schedule(8);
    let ids = ids(8);
    let begin = start + INTERVAL;
    schedule.begin_round(Vec::new(), ids[..2].to_vec(), begin);
    ids[2..].iter().for_each(|id| schedule.add_new(*id, Source::Explorer));
    // Both slots of the round are due.
    let asked = asks(&mut schedule, Class::Other, begin + MAX_ROUND);
    assert_eq!(asked[..4], [2, 0, 3, 4].map(|at| ids[at]), "{asked:?} of {ids:?}");
}

#[test]
fn a_round_takes_no_longer_than_three_seconds_however_long_the_interval() {
    let now = schedule(1).1;
    let mut schedule = Schedule::new(Duration::from_secs(86_400), 8, now);
    schedule.begin_round(ids(3), Vec::new(), now);
    assert_eq!(schedule.spacing, SECOND);
}

#[test]
fn nodes_that_are_not_up_take_three_quarters_of_the_pool_and_those_that_are_the_rest() {
    for (max_probes, share) in [(1, 1), (2, 1), (4, 3), (128, 96)] {
        let (mut schedule, now) = schedule(max_probes);
        ids(200)
            .into_iter()
            .for_each(|id| schedule.add_new(id, Source::Explorer));
        assert_eq!(asks(&mut schedule, Class::Other, now).len(), share, "of {max_probes}");
        for _ in share..max_probes {
            assert!(schedule.has_room(Class::Up), "{max_probes}");
            schedule.sent(Class::Up);
        }
        assert!(!schedule.has_room(Class::Up), "{max_probes}");
        schedule.ended(Class::Other);
        assert!(schedule.has_room(Class::Up) && schedule.has_room(Class::Other));
    }
}

#[test]
fn a_recheck_falls_due_after_a_second() {
    let (mut schedule, now) = schedule(8);
    let id = ids(1)[0];
    schedule.recheck(id, Class::Up, now);
    assert_eq!(schedule.turn(now), Turn::Wait(now + RECHECK_AFTER));
    assert_eq!(
        schedule.turn(now + RECHECK_AFTER - MILLI),
        Turn::Wait(now + RECHECK_AFTER)
    );
    assert_eq!(schedule.turn(now + RECHECK_AFTER), Turn::Recheck(id));
}

#[test]
fn rechecks_of_hanging_nodes_keep_no_recheck_of_an_up_node_waiting() {
    let (mut schedule, now) = schedule(4);
    let ids = ids(2);
    (0..3).for_each(|_| schedule.sent(Class::Other));
    schedule.recheck(ids[0], Class::Other, now);
    schedule.recheck(ids[1], Class::Up, now + MILLI);
    assert_eq!(schedule.turn(now), Turn::Wait(now + MILLI + RECHECK_AFTER));
    assert_eq!(asks(&mut schedule, Class::Up, now + 2 * SECOND), [ids[1]]);
    schedule.ended(Class::Up);
    schedule.ended(Class::Other);
    assert_eq!(asks(&mut schedule, Class::Other, now + 2 * SECOND), [ids[0]]);
}

#[test]
fn when_the_last_place_is_free_a_node_that_is_up_gets_it() {
    let (mut schedule, start) = schedule(4);
    let ids = ids(3);
    let begin = start + INTERVAL;
    schedule.begin_round(vec![ids[0]], Vec::new(), begin);
    schedule.recheck(ids[1], Class::Other, start);
    schedule.add_new(ids[2], Source::IpsFile);
    assert_eq!(schedule.turn(begin), Turn::Ask(ids[0]));
    schedule.sent(Class::Up);
    assert_eq!(
        asks(&mut schedule, Class::Other, begin),
        [ids[2], ids[1]],
        "the new one first"
    );
}

#[test]
fn who_did_not_get_a_turn_in_a_whole_round_is_overdue() {
    let (mut schedule, start) = schedule(4);
    let ids = ids(12);
    let nobody = Overdue { up: 0, other: 0 };
    let round = |n: u32| start + INTERVAL * n;
    assert_eq!(
        schedule.begin_round(ids[..3].to_vec(), ids[3..8].to_vec(), round(1)),
        nobody
    );
    ids[8..].iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    (0..4).for_each(|_| schedule.sent(Class::Up));
    assert_eq!(schedule.turn(round(1)), Turn::Wait(round(2)), "the pool is full");
    // The four new ones came within this round, so they have waited for less than one.
    let overdue = schedule.begin_round(Vec::new(), Vec::new(), round(2));
    assert_eq!(overdue, Overdue { up: 3, other: 5 });
    schedule.ended(Class::Up);
    assert_eq!(asks(&mut schedule, Class::Other, round(2)), [ids[8]]);
    let overdue = schedule.begin_round(Vec::new(), Vec::new(), round(3));
    assert_eq!(overdue, Overdue { up: 0, other: 3 });
}

#[test]
fn demand_is_what_is_under_way_and_what_waits_and_one_to_spare() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(4);
    schedule.sent(Class::Up);
    schedule.sent(Class::Other);
    ids[..2].iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    schedule.recheck(ids[2], Class::Up, now);
    schedule.recheck(ids[3], Class::Other, now);
    assert_eq!(schedule.demand(now), 5);
    assert_eq!(schedule.demand(now + RECHECK_AFTER), 7);
}

proptest! {
    /// Each probe takes a few milliseconds; whatever is on the schedule, everybody gets exactly one turn.
    #[test]
    fn everybody_gets_a_turn_and_the_pool_is_never_overfilled(
        max_probes in 1..20_usize,
        (up, other, new, rechecks) in (0..30_usize, 0..30_usize, 0..30_usize, 0..30_usize),
        took in 1..20_u32,
    ) {
        let (mut schedule, start) = schedule(max_probes);
        let ids = ids(up + other + new + rechecks);
        let (is_up, rest) = ids.split_at(up);
        let (is_other, rest) = rest.split_at(other);
        let (is_new, is_recheck) = rest.split_at(new);
        let class_of = |id: &NodeId| if is_up.contains(id) { Class::Up } else { Class::Other };
        let mut now = start + INTERVAL;
        schedule.begin_round(is_up.to_vec(), is_other.to_vec(), now);
        is_new.iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
        is_recheck.iter().for_each(|id| schedule.recheck(*id, Class::Other, now));
        let mut under_way: VecDeque<(Instant, Class)> = VecDeque::new();
        let mut asked = Vec::new();
        loop {
            while let Some((_, class)) = under_way.front().copied().filter(|(end, _)| *end <= now) {
                under_way.pop_front();
                schedule.ended(class);
            }
            let wait = match schedule.turn(now) {
                Turn::Round => break,
                Turn::Wait(until) => until,
                Turn::Ask(id) | Turn::New(id) | Turn::Recheck(id) => {
                    schedule.sent(class_of(&id));
                    under_way.push_back((now + took * MILLI, class_of(&id)));
                    asked.push(id);
                    continue;
                }
            };
            prop_assert!(under_way.len() <= max_probes);
            prop_assert!(wait > now, "no busy loop");
            now = under_way.front().map_or(wait, |(end, _)| wait.min(*end));
        }
        prop_assert_eq!(schedule.demand(now), 1 + under_way.len());
        let key = |id: &NodeId| id.to_bits();
        asked.sort_by_key(key);
        let mut all = ids.clone();
        all.sort_by_key(key);
        prop_assert_eq!(asked, all);
    }
}
