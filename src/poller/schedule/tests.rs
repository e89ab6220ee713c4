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

/// Sends all probes that are due at `now`, in `class`.
fn send_due(schedule: &mut Schedule, class: Class, now: Instant) -> Vec<NodeId> {
    let mut probed = Vec::new();
    while let Turn::Probe(id) | Turn::New(id) | Turn::Recheck(id) = schedule.turn(now) {
        schedule.sent(class);
        probed.push(id);
    }
    probed
}

/// Nodes of a class that were all probed at `probed` and wait for their turn.
fn waiting(schedule: &mut Schedule, count: usize, class: Class, probed: Instant) -> Vec<NodeId> {
    let ids = ids(count);
    ids.iter().for_each(|id| schedule.enqueue(*id, class, probed));
    ids
}

/// Runs from `from` to `until` with probes that finish immediately. Returns which node was probed when. `stays` returns
/// whether a node is still listed.
fn run(
    schedule: &mut Schedule,
    (from, until): (Instant, Instant),
    mut stays: impl FnMut(&mut Schedule, NodeId, Instant) -> bool,
) -> Vec<(NodeId, Instant)> {
    let (mut probed, mut now) = (Vec::new(), from);
    while now < until {
        match schedule.turn(now) {
            Turn::Probe(id) | Turn::New(id) => {
                probed.push((id, now));
                if stays(schedule, id, now) {
                    schedule.enqueue(id, Class::Up, now);
                }
            }
            Turn::Recheck(id) => probed.push((id, now)),
            Turn::Round => drop(schedule.begin_round(now)),
            Turn::Wait(next) => now = next,
        }
    }
    probed
}

/// The longest time between two turns of one node.
fn longest_gap(probed: &[(NodeId, Instant)]) -> Duration {
    let mut last = std::collections::HashMap::new();
    let gap = |(id, at): &(NodeId, Instant)| last.insert(*id, *at).map(|last| *at - last);
    probed.iter().filter_map(gap).max().expect("a node was probed twice")
}

/// The most turns within any second that begins with one.
fn most_in_a_second(probed: &[(NodeId, Instant)]) -> usize {
    let within = |from: usize| {
        probed[from..]
            .iter()
            .take_while(|(_, at)| *at < probed[from].1 + SECOND)
            .count()
    };
    (0..probed.len()).map(within).max().unwrap_or(0)
}

#[test]
fn late_round_does_not_delay_the_next() {
    let (mut schedule, start) = schedule(8);
    assert_eq!(schedule.turn(start), Turn::Wait(start + INTERVAL));
    assert_eq!(schedule.turn(start + INTERVAL), Turn::Round);
    schedule.begin_round(start + INTERVAL + SECOND);
    assert_eq!(
        schedule.turn(start + INTERVAL + SECOND),
        Turn::Wait(start + 2 * INTERVAL)
    );
}

#[test]
fn long_sleep_is_followed_by_one_round() {
    let (mut schedule, start) = schedule(8);
    let late = start + 10 * INTERVAL;
    assert_eq!(schedule.turn(late), Turn::Round);
    schedule.begin_round(late);
    assert_eq!(schedule.turn(late), Turn::Wait(late + INTERVAL));
}

#[test]
fn nodes_probed_together_are_then_spread_evenly() {
    let (mut schedule, start) = schedule(64);
    let nodes = waiting(&mut schedule, 30, Class::Up, start);
    let probed = run(&mut schedule, (start, start + 3 * INTERVAL + MILLI), |_, _, _| true);
    let wanted: Vec<_> = (0..90)
        .map(|at| (nodes[at % 30], start + SECOND * (at as u32 + 1)))
        .collect();
    assert_eq!(probed, wanted);
}

#[test]
fn ten_thousand_nodes_are_spread_over_each_second() {
    let (mut schedule, start) = schedule(64);
    ids(10_000).iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    let first = run(&mut schedule, (start, start + MILLI), |_, _, _| true);
    assert_eq!(first.len(), 10_000, "those of ips.txt at once");
    let probed = run(&mut schedule, (start + MILLI, start + 3 * INTERVAL), |_, _, _| true);
    assert!(probed.len() >= 29_990, "{}", probed.len());
    assert!(longest_gap(&probed) <= INTERVAL + MILLI);
    let share = 10_000 / 30;
    assert!(most_in_a_second(&probed) <= share + 2, "{}", most_in_a_second(&probed));
}

#[test]
fn too_many_nodes_are_overdue_at_maximum_rate() {
    let (mut schedule, start) = schedule(64);
    waiting(&mut schedule, 100_000, Class::Up, start);
    let probed = run(&mut schedule, (start, start + INTERVAL), |_, _, _| true);
    assert!(
        (1_900..=2_041).contains(&most_in_a_second(&probed)),
        "{}",
        most_in_a_second(&probed)
    );
    let overdue = schedule.begin_round(start + INTERVAL + INTERVAL / DELAY_SHARE + Duration::from_nanos(1));
    assert_eq!(
        overdue,
        Overdue {
            up: 100_000 - probed.len(),
            other: 0
        }
    );
    assert!((40_000..45_000).contains(&overdue.up), "{overdue:?}");
}

#[test]
fn available_nodes_leave_every_fourth_probe_to_others() {
    let (mut schedule, start) = schedule(64);
    let up = waiting(&mut schedule, 12, Class::Up, start);
    ids(16)[12..]
        .iter()
        .for_each(|id| schedule.add_new(*id, Source::Explorer));
    let now = start + INTERVAL;
    schedule.next_round = now + INTERVAL;
    let probed = send_due(&mut schedule, Class::Up, now);
    let is_up: Vec<bool> = probed.iter().map(|id| up.contains(id)).collect();
    assert_eq!(is_up[..8], [true, true, true, false, true, true, true, false]);
    assert_eq!(probed.len(), 16);
}

#[test]
fn late_timer_is_caught_up_full_pool_not() {
    let (mut schedule, start) = schedule(1000);
    waiting(&mut schedule, 3000, Class::Up, start);
    // A turn each 10 ms.
    assert_eq!(send_due(&mut schedule, Class::Up, start + 9 * MILLI).len(), 0);
    assert_eq!(send_due(&mut schedule, Class::Up, start + 10 * MILLI).len(), 1);
    assert_eq!(send_due(&mut schedule, Class::Up, start + 29 * MILLI).len(), 1);
    assert_eq!(send_due(&mut schedule, Class::Up, start + 40 * MILLI).len(), 2);
    assert_eq!(send_due(&mut schedule, Class::Up, start + SECOND).len(), 3);
}

#[test]
fn new_listed_nodes_are_probed_immediately_in_order() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(6);
    ids.iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    assert_eq!(send_due(&mut schedule, Class::Other, now), ids);
}

#[test]
fn new_explorer_nodes_keep_to_maximum_rate() {
    let (mut schedule, start) = schedule(8);
    ids(5_000).iter().for_each(|id| schedule.add_new(*id, Source::Explorer));
    let probed = run(&mut schedule, (start, start + 3 * SECOND), |_, _, _| true);
    assert!(most_in_a_second(&probed) <= 2_041);
    let seen: std::collections::HashSet<_> = probed.iter().map(|(id, _)| *id).collect();
    assert_eq!(seen.len(), 5_000);
}

#[test]
fn new_listed_nodes_precede_new_explorer_nodes() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(5);
    ids[..3].iter().for_each(|id| schedule.add_new(*id, Source::Explorer));
    assert_eq!(schedule.turn(now), Turn::New(ids[0]));
    ids[3..].iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    assert_eq!(
        send_due(&mut schedule, Class::Other, now + SECOND),
        [3, 4, 1, 2].map(|at| ids[at])
    );
}

#[test]
fn hanging_nodes_wait_for_all_new_nodes() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(4);
    schedule.recheck(ids[0], Class::Other, now);
    schedule.add_new(ids[1], Source::IpsFile);
    schedule.add_new(ids[2], Source::Explorer);
    schedule.add_new(ids[3], Source::Explorer);
    let probed = send_due(&mut schedule, Class::Other, now + RECHECK_AFTER);
    assert_eq!(probed, [1, 2, 3, 0].map(|at| ids[at]));
}

#[test]
fn new_nodes_and_down_nodes_alternate() {
    let (mut schedule, start) = schedule(16);
    let ids = ids(8);
    ids[..2]
        .iter()
        .for_each(|id| schedule.enqueue(*id, Class::Other, start));
    ids[2..].iter().for_each(|id| schedule.add_new(*id, Source::Explorer));
    let now = start + INTERVAL + SECOND;
    schedule.next_round = now + INTERVAL;
    let probed = send_due(&mut schedule, Class::Other, now);
    assert_eq!(probed[..5], [2, 0, 3, 1, 4].map(|at| ids[at]), "{probed:?} of {ids:?}");
}

#[test]
fn unavailable_nodes_take_three_quarters_of_the_pool() {
    for (max_probes, share) in [(1, 1), (2, 1), (4, 3), (128, 96)] {
        let (mut schedule, now) = schedule(max_probes);
        ids(200)
            .into_iter()
            .for_each(|id| schedule.add_new(id, Source::IpsFile));
        assert_eq!(
            send_due(&mut schedule, Class::Other, now).len(),
            share,
            "of {max_probes}"
        );
        for _ in share..max_probes {
            assert!(schedule.has_room(Class::Up), "{max_probes}");
            schedule.sent(Class::Up);
        }
        assert!(!schedule.has_room(Class::Up), "{max_probes}");
        schedule.finished(Class::Other);
        assert!(schedule.has_room(Class::Up) && schedule.has_room(Class::Other));
    }
}

#[test]
fn recheck_is_due_after_a_second() {
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
fn hanging_rechecks_delay_no_recheck_of_available_node() {
    let (mut schedule, now) = schedule(4);
    let ids = ids(2);
    (0..3).for_each(|_| schedule.sent(Class::Other));
    schedule.recheck(ids[0], Class::Other, now);
    schedule.recheck(ids[1], Class::Up, now + MILLI);
    assert_eq!(schedule.turn(now), Turn::Wait(now + MILLI + RECHECK_AFTER));
    assert_eq!(send_due(&mut schedule, Class::Up, now + 2 * SECOND), [ids[1]]);
    schedule.finished(Class::Up);
    schedule.finished(Class::Other);
    assert_eq!(send_due(&mut schedule, Class::Other, now + 2 * SECOND), [ids[0]]);
}

#[test]
fn available_node_gets_the_last_slot() {
    let (mut schedule, start) = schedule(4);
    let ids = ids(3);
    schedule.enqueue(ids[0], Class::Up, start);
    let now = start + INTERVAL;
    schedule.next_round = now + INTERVAL;
    schedule.recheck(ids[1], Class::Other, start);
    schedule.add_new(ids[2], Source::IpsFile);
    assert_eq!(schedule.turn(now), Turn::Probe(ids[0]));
    schedule.sent(Class::Up);
    assert_eq!(
        send_due(&mut schedule, Class::Other, now + SECOND),
        [ids[2], ids[1]],
        "the new one first"
    );
}

#[test]
fn node_without_turn_in_seventeen_sixteenths_is_overdue() {
    let (mut schedule, start) = schedule(4);
    waiting(&mut schedule, 3, Class::Up, start);
    let ids = ids(9);
    ids[..5]
        .iter()
        .for_each(|id| schedule.enqueue(*id, Class::Other, start));
    ids[5..].iter().for_each(|id| schedule.add_new(*id, Source::IpsFile));
    (0..4).for_each(|_| schedule.sent(Class::Up));
    assert_eq!(
        schedule.turn(start + SECOND),
        Turn::Wait(start + INTERVAL),
        "the pool is full"
    );
    let late = start + INTERVAL + INTERVAL / DELAY_SHARE;
    // The new nodes have not waited for a whole round.
    assert_eq!(schedule.begin_round(late), Overdue { up: 0, other: 0 });
    assert_eq!(schedule.begin_round(late + MILLI), Overdue { up: 3, other: 9 });
}

#[test]
fn demand_counts_in_flight_due_and_one_spare() {
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
    /// Nodes join and leave at random. No remaining node waits for more than an interval. The rate never exceeds 2,000
    /// probes per second, except for new listed nodes.
    #[test]
    fn nodes_that_come_and_go_delay_none(
        first in 1..60_usize,
        // Number of turns, then of nodes that join. With 0, the probed node leaves.
        changes in prop::collection::vec((0..20_usize, 0..30_usize), 0..40),
    ) {
        let (mut schedule, start) = schedule(64);
        let mut slots = Arena::default();
        for _ in 0..first {
            schedule.add_new(slots.insert(()), Source::IpsFile);
        }
        let mut changes = changes.into_iter();
        let mut change = changes.next();
        let end = start + 6 * INTERVAL;
        let mut last: std::collections::HashMap<NodeId, Instant> = std::collections::HashMap::new();
        let probed = run(&mut schedule, (start, end), |schedule, id, now| {
            last.insert(id, now);
            match &mut change {
                Some((0, joining)) => {
                    for _ in 0..*joining {
                        schedule.add_new(slots.insert(()), Source::IpsFile);
                    }
                    let leaves = *joining == 0;
                    change = changes.next();
                    if leaves {
                        last.remove(&id);
                    }
                    !leaves
                }
                Some((turns, _)) => {
                    *turns -= 1;
                    true
                }
                None => true,
            }
        });
        let slack = 40 * MILLI;
        prop_assert!(probed.len() < 2 || most_in_a_second(&probed) <= 2_041);
        let mut previous = std::collections::HashMap::new();
        for (id, at) in &probed {
            if let Some(previous) = previous.insert(*id, *at) {
                prop_assert!(*at - previous <= INTERVAL + slack, "{:?}", *at - previous);
            }
        }
        // Each remaining node was probed within the last interval.
        for at in last.values() {
            prop_assert!(end - *at <= INTERVAL + slack);
        }
    }

    /// Each probe takes a few milliseconds. Each node of any schedule gets exactly one turn.
    #[test]
    fn every_node_gets_a_turn_within_pool_size(
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
        let mut now = start;
        is_up.iter().for_each(|id| schedule.enqueue(*id, Class::Up, start));
        is_other.iter().for_each(|id| schedule.enqueue(*id, Class::Other, start));
        is_new.iter().enumerate().for_each(|(at, id)| {
            schedule.add_new(*id, if at % 2 == 0 { Source::IpsFile } else { Source::Explorer });
        });
        is_recheck.iter().for_each(|id| schedule.recheck(*id, Class::Other, now));
        // The next round begins after the end of the test.
        schedule.next_round = start + 3 * INTERVAL;
        let mut in_flight: VecDeque<(Instant, Class)> = VecDeque::new();
        let mut probed = Vec::new();
        loop {
            while let Some((_, class)) = in_flight.front().copied().filter(|(end, _)| *end <= now) {
                in_flight.pop_front();
                schedule.finished(class);
            }
            let wait = match schedule.turn(now) {
                Turn::Round => break,
                Turn::Wait(until) => until,
                Turn::Probe(id) | Turn::New(id) | Turn::Recheck(id) => {
                    schedule.sent(class_of(&id));
                    in_flight.push_back((now + took * MILLI, class_of(&id)));
                    probed.push(id);
                    continue;
                }
            };
            prop_assert!(in_flight.len() <= max_probes);
            prop_assert!(wait > now, "no busy loop");
            now = in_flight.front().map_or(wait, |(end, _)| wait.min(*end));
        }
        prop_assert_eq!(schedule.demand(now), 1 + in_flight.len());
        probed.sort_unstable();
        let mut all = ids.clone();
        all.sort_unstable();
        prop_assert_eq!(probed, all);
    }
}
