use std::collections::{HashSet, VecDeque};

use super::*;
use proptest::prelude::*;
use thunderdome::Arena;

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

/// Sends all probes that are due at `now`.
fn send_due(schedule: &mut Schedule, now: Instant) -> Vec<NodeId> {
    let mut probed = Vec::new();
    while let Turn::Probe(id) = schedule.turn(now) {
        probed.push(id);
    }
    probed
}

/// Nodes that wait in a queue.
fn wait(schedule: &mut Schedule, ids: &[NodeId], queue: Queue, due: Instant) {
    ids.iter().for_each(|id| schedule.waiting.set(*id, queue as usize, due));
}

/// Fills slots of the pool with probes of other nodes.
fn occupy(schedule: &mut Schedule, count: usize, queue: Queue, now: Instant) -> Vec<NodeId> {
    let ids = ids(1000)[1000 - count..].to_vec();
    ids.iter().for_each(|id| schedule.begin(*id, queue, now));
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
            Turn::Probe(id) => {
                probed.push((id, now));
                schedule.finish(id);
                if stays(schedule, id, now) {
                    schedule.enqueue(id, Queue::Up, false, now);
                }
            }
            Turn::Round => drop(schedule.begin_round(now)),
            Turn::Wait(next) => now = next,
        }
    }
    probed
}

/// The longest time between two turns of one node.
fn longest_gap(probed: &[(NodeId, Instant)]) -> Duration {
    let mut last = HashMap::new();
    let gap = |(id, at): &(NodeId, Instant)| last.insert(*id, *at).map(|last| *at - last);
    probed.iter().filter_map(gap).max().expect("a node was probed twice")
}

/// The most turns within any time of this length that begins with one.
fn most_within(probed: &[(NodeId, Instant)], time: Duration) -> usize {
    let within = |from: usize| {
        let end = probed[from].1 + time;
        probed[from..].iter().take_while(|(_, at)| *at < end).count()
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
    for count in [1, 2, 3, 10, 30, 100, 999] {
        let (mut schedule, start) = schedule(64);
        let nodes = ids(count);
        wait(&mut schedule, &nodes, Queue::NewListed, start);
        run(&mut schedule, (start, start + MILLI), |_, _, _| true);
        let probed = run(&mut schedule, (start + MILLI, start + 4 * INTERVAL), |_, _, _| true);
        assert!(probed.len() >= 3 * count && longest_gap(&probed) <= INTERVAL + 2 * MILLI);
        let gaps = probed.windows(2).map(|pair| pair[1].1 - pair[0].1);
        let longest = gaps.max().unwrap_or_default();
        assert!(longest <= INTERVAL * 2 / count as u32, "{count}: {longest:?}");
    }
}

#[test]
fn ten_thousand_nodes_are_spread_over_each_second() {
    let (mut schedule, start) = schedule(64);
    ids(10_000)
        .iter()
        .for_each(|id| schedule.add_new(*id, Source::IpsFile, start));
    let first = run(&mut schedule, (start, start + MILLI), |_, _, _| true);
    assert_eq!(first.len(), 10_000, "those of ips.txt immediately");
    let probed = run(&mut schedule, (start + MILLI, start + 3 * INTERVAL), |_, _, _| true);
    assert!(probed.len() >= 29_990, "{}", probed.len());
    assert!(longest_gap(&probed) <= INTERVAL + 2 * MILLI);
    let most = most_within(&probed, SECOND);
    assert!(most <= 10_000 / 30 + 5, "{most}");
}

#[test]
fn too_many_nodes_are_overdue_at_maximum_rate() {
    let (mut schedule, start) = schedule(64);
    wait(&mut schedule, &ids(100_000), Queue::Up, start);
    let probed = run(&mut schedule, (start, start + INTERVAL), |_, _, _| true);
    let most = most_within(&probed, SECOND);
    assert!((1_900..=2_041).contains(&most), "{most}");
    let overdue = schedule.begin_round(start + INTERVAL);
    assert!(overdue.0 >= 40_000, "{overdue:?}");
}

#[test]
fn oldest_due_node_is_first_in_each_class() {
    let (mut schedule, start) = schedule(64);
    let ids = ids(4);
    for (queue, at, id) in [
        (Queue::Up, 4, 0),
        (Queue::Other, 2, 1),
        (Queue::Up, 3, 2),
        (Queue::Other, 1, 3),
    ] {
        wait(&mut schedule, &ids[id..=id], queue, start + at * SECOND);
    }
    let probed = send_due(&mut schedule, start + 5 * SECOND);
    assert_eq!(probed, [2, 0, 3, 1].map(|at| ids[at]));
}

#[test]
fn available_nodes_leave_every_fourth_probe_to_others() {
    let (mut schedule, now) = schedule(64);
    let ids = ids(16);
    wait(&mut schedule, &ids[..12], Queue::Up, now);
    wait(&mut schedule, &ids[12..], Queue::NewExplorer, now);
    let probed = send_due(&mut schedule, now + SECOND);
    let is_up: Vec<bool> = probed.iter().map(|id| ids[..12].contains(id)).collect();
    assert_eq!(is_up[..8], [true, true, true, false, true, true, true, false]);
    assert_eq!(probed.len(), 16);
}

#[test]
fn late_timer_is_caught_up_full_pool_not() {
    let (mut schedule, start) = schedule(1000);
    wait(&mut schedule, &ids(1000), Queue::Up, start);
    for (millis, sent) in [(0, 1), (10, 20), (20, 20), (1000, 41)] {
        assert_eq!(send_due(&mut schedule, start + millis * MILLI).len(), sent, "{millis}");
    }
}

#[test]
fn new_explorer_nodes_keep_to_maximum_rate() {
    let (mut schedule, start) = schedule(8);
    ids(5_000)
        .iter()
        .for_each(|id| schedule.add_new(*id, Source::Explorer, start));
    let probed = run(&mut schedule, (start, start + 3 * SECOND), |_, _, _| true);
    assert!(most_within(&probed, SECOND) <= 2_041);
    let seen: HashSet<_> = probed.iter().map(|(id, _)| *id).collect();
    assert_eq!(seen.len(), 5_000);
}

#[test]
fn new_listed_nodes_precede_new_explorer_nodes() {
    let (mut schedule, now) = schedule(8);
    let ids = ids(5);
    ids[..3]
        .iter()
        .for_each(|id| schedule.add_new(*id, Source::Explorer, now));
    assert_eq!(schedule.turn(now), Turn::Probe(ids[0]));
    ids[3..]
        .iter()
        .for_each(|id| schedule.add_new(*id, Source::IpsFile, now));
    schedule.relist(ids[2], Source::IpsFile);
    let probed = send_due(&mut schedule, now + SECOND);
    assert_eq!(probed, [2, 3, 4, 1].map(|at| ids[at]));
}

#[test]
fn new_nodes_and_down_nodes_alternate() {
    let (mut schedule, start) = schedule(16);
    let ids = ids(8);
    wait(&mut schedule, &ids[..2], Queue::Other, start);
    wait(&mut schedule, &ids[2..], Queue::NewExplorer, start);
    let probed = send_due(&mut schedule, start + SECOND);
    assert_eq!(probed[..5], [2, 0, 3, 1, 4].map(|at| ids[at]), "{probed:?} of {ids:?}");
}

#[test]
fn unavailable_nodes_take_three_quarters_of_the_pool() {
    for (max_probes, share) in [(1, 1), (2, 1), (4, 3), (128, 96)] {
        let (mut schedule, now) = schedule(max_probes);
        wait(&mut schedule, &ids(200), Queue::NewListed, now);
        let others = send_due(&mut schedule, now);
        assert_eq!(others.len(), share, "of {max_probes}");
        assert_eq!(schedule.has_room(Queue::Up), share < max_probes);
        occupy(&mut schedule, max_probes - share, Queue::Up, now);
        assert!(!schedule.has_room(Queue::Up), "{max_probes}");
        schedule.finish(others[0]);
        assert!(schedule.has_room(Queue::Up) && schedule.has_room(Queue::Other));
    }
}

#[test]
fn recheck_is_due_after_a_second() {
    let (mut schedule, now) = schedule(8);
    let id = ids(1)[0];
    schedule.enqueue(id, Queue::Up, true, now);
    for early in [Duration::ZERO, RECHECK_AFTER - MILLI] {
        assert_eq!(schedule.turn(now + early), Turn::Wait(now + RECHECK_AFTER));
    }
    assert_eq!(schedule.turn(now + RECHECK_AFTER), Turn::Probe(id));
    schedule.finish(id);
    schedule.enqueue(id, Queue::Up, false, now + RECHECK_AFTER);
    assert_eq!(schedule.turn(now + RECHECK_AFTER), Turn::Wait(now + INTERVAL));
}

#[test]
fn recheck_is_due_after_a_second_even_if_the_turn_is_earlier() {
    let (mut schedule, start) = schedule(8);
    let (id, now) = (ids(1)[0], start + INTERVAL - SECOND / 10);
    schedule.enqueue(id, Queue::Other, true, now);
    assert_eq!(schedule.waiting.get(id).map(|(_, due)| due), Some(now + RECHECK_AFTER));
}

#[test]
fn hanging_rechecks_delay_no_recheck_of_available_node() {
    let (mut schedule, now) = schedule(4);
    let ids = ids(2);
    let hanging = occupy(&mut schedule, 3, Queue::Other, now);
    wait(&mut schedule, &ids[..1], Queue::Other, now);
    wait(&mut schedule, &ids[1..], Queue::Up, now + MILLI);
    assert_eq!(schedule.turn(now), Turn::Wait(now + MILLI));
    assert_eq!(send_due(&mut schedule, now + SECOND), [ids[1]]);
    schedule.finish(ids[1]);
    schedule.finish(hanging[0]);
    assert_eq!(send_due(&mut schedule, now + SECOND), [ids[0]]);
}

#[test]
fn available_node_gets_the_last_slot() {
    let (mut schedule, now) = schedule(4);
    let ids = ids(2);
    occupy(&mut schedule, 3, Queue::Up, now);
    wait(&mut schedule, &ids[..1], Queue::NewListed, now);
    wait(&mut schedule, &ids[1..], Queue::Up, now);
    assert_eq!(send_due(&mut schedule, now), [ids[1]]);
}

#[test]
fn node_without_turn_in_a_sixteenth_is_overdue() {
    let (mut schedule, start) = schedule(4);
    let ids = ids(12);
    let delay = INTERVAL / DELAY_SHARE;
    occupy(&mut schedule, 4, Queue::Up, start);
    wait(&mut schedule, &ids[..3], Queue::Up, start);
    wait(&mut schedule, &ids[3..8], Queue::Other, start);
    wait(&mut schedule, &ids[8..], Queue::NewListed, start);
    let is_full = schedule.turn(start + SECOND);
    assert_eq!(is_full, Turn::Wait(start + INTERVAL));
    assert_eq!(schedule.begin_round(start + delay), (0, 0));
    let later = schedule.begin_round(start + delay + MILLI);
    assert_eq!(later, (3, 9));
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
            schedule.add_new(slots.insert(()), Source::IpsFile, start);
        }
        let mut changes = changes.into_iter();
        let mut change = changes.next();
        let end = start + 6 * INTERVAL;
        let mut last: HashMap<NodeId, Instant> = HashMap::new();
        let probed = run(&mut schedule, (start, end), |schedule, id, now| {
            last.insert(id, now);
            match &mut change {
                Some((0, joining)) => {
                    for _ in 0..*joining {
                        schedule.add_new(slots.insert(()), Source::IpsFile, now);
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
        prop_assert!(probed.len() < 2 || most_within(&probed, SECOND) <= 2_041);
        let mut previous = HashMap::new();
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
        queues in prop::collection::vec(0..4_usize, 0..90),
        took in 1..20_u32,
    ) {
        let (mut schedule, start) = schedule(max_probes);
        let ids = ids(queues.len());
        ids.iter().zip(&queues).for_each(|(id, queue)| schedule.waiting.set(*id, *queue, start));
        let (mut now, mut in_flight, mut probed) = (start, VecDeque::new(), Vec::new());
        loop {
            while let Some((_, id)) = in_flight.front().copied().filter(|(end, _)| *end <= now) {
                in_flight.pop_front();
                schedule.finish(id);
            }
            let wait = match schedule.turn(now) {
                Turn::Round => break,
                Turn::Wait(until) => until,
                Turn::Probe(id) => {
                    in_flight.push_back((now + took * MILLI, id));
                    probed.push(id);
                    continue;
                }
            };
            prop_assert!(in_flight.len() <= max_probes);
            prop_assert!(wait > now, "no busy loop");
            now = in_flight.front().map_or(wait, |(end, _)| wait.min(*end));
        }
        prop_assert_eq!(schedule.in_flight.len(), in_flight.len());
        probed.sort_unstable();
        let mut all = ids.clone();
        all.sort_unstable();
        prop_assert_eq!(probed, all);
    }
}
