//! When which node is polled for its resources.

use super::*;
use thunderdome::Arena;

const INTERVAL: Duration = Duration::from_secs(600);

/// A queue of listed nodes that have come up, and their ids.
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn queue(nodes: usize) -> (PollQueue, Vec<NodeId>, Instant) {
    let now = Instant::now();
    let mut queue = PollQueue::new(INTERVAL, now);
    let mut ids = Arena::default();
    let ids: Vec<NodeId> = (0..nodes).map(|_| ids.insert(())).collect();
    ids.iter().for_each(|id| queue.up(*id, Source::IpsFile, now));
    (queue, ids, now)
}

/// Polls the node that must be due now.
#[track_caller]
fn poll(queue: &mut PollQueue, id: NodeId, now: Instant, is_missing: bool) {
    assert_eq!(queue.turn(now), Ok(id));
    queue.begin(id, now);
    queue.end(id, is_missing, false, now);
}

#[test]
fn polls_are_spaced_and_repeated_each_interval() {
    let (mut queue, _, start) = queue(120);
    let (mut now, mut polled) = (start, Vec::new());
    while polled.len() < 240 {
        match queue.turn(now) {
            Ok(id) => {
                polled.push((id, now));
                queue.begin(id, now);
                queue.end(id, false, false, now);
            }
            Err(until) => now = until,
        }
    }
    let (first, second) = polled.split_at(120);
    let is_spaced = |polls: &[(NodeId, Instant)]| polls[49].1 - polls[0].1 >= POLL_SPACING * 49;
    assert!(first.windows(50).all(is_spaced));
    assert_eq!(first[119].1, start + POLL_SPACING * 119);
    for (early, late) in first.iter().zip(second) {
        assert_eq!((early.0, early.1 + INTERVAL), (late.0, late.1));
    }
}

#[test]
fn missing_container_is_polled_again_twice() {
    let (mut queue, ids, start) = queue(1);
    poll(&mut queue, ids[0], start, true);
    assert_eq!(queue.turn(start), Err(start + Duration::from_secs(30)));
    poll(&mut queue, ids[0], start + Duration::from_secs(30), true);
    assert_eq!(
        queue.turn(start + Duration::from_secs(30)),
        Err(start + Duration::from_secs(120))
    );
    let third = start + Duration::from_secs(120);
    poll(&mut queue, ids[0], third, true);
    assert_eq!(queue.turn(third), Err(third + INTERVAL));
    // The polls of later intervals are not repeated, before the node comes up again.
    poll(&mut queue, ids[0], third + INTERVAL, true);
    assert_eq!(queue.turn(third + INTERVAL), Err(third + 2 * INTERVAL));
    queue.up(ids[0], Source::IpsFile, third + 2 * INTERVAL);
    poll(&mut queue, ids[0], third + 2 * INTERVAL, true);
    assert_eq!(
        queue.turn(third + 2 * INTERVAL),
        Err(third + 2 * INTERVAL + Duration::from_secs(30))
    );
}

#[test]
fn complete_response_ends_the_retries() {
    let (mut queue, ids, start) = queue(1);
    poll(&mut queue, ids[0], start, true);
    let second = start + Duration::from_secs(30);
    poll(&mut queue, ids[0], second, false);
    poll(&mut queue, ids[0], second + INTERVAL, true);
    assert_eq!(queue.turn(second + INTERVAL), Err(second + 2 * INTERVAL));
}

#[test]
fn not_found_is_polled_again_after_an_hour() {
    let (mut queue, ids, start) = queue(1);
    queue.begin(ids[0], start);
    queue.end(ids[0], true, true, start);
    assert_eq!(queue.turn(start + INTERVAL), Err(start + NOT_FOUND_INTERVAL));
}

#[test]
fn at_the_limit_no_poll_begins() {
    let (mut queue, ids, mut now) = queue(20);
    for _ in 0..MAX_POLLS {
        let id = queue.turn(now).expect("a turn");
        queue.begin(id, now);
        now += POLL_SPACING;
    }
    assert_eq!(queue.turn(now), Err(now + INTERVAL));
    assert!(!queue.is_free(ids[0]));
    queue.end(ids[0], false, false, now);
    assert!(queue.is_free(ids[0]) && queue.turn(now).is_ok());
}

#[test]
fn node_with_query_in_flight_is_polled_later() {
    let (mut queue, ids, now) = queue(2);
    queue.in_flight.insert(ids[0]);
    assert_eq!(queue.turn(now), Ok(ids[1]));
    queue.in_flight.remove(&ids[0]);
    assert_eq!(queue.turn(now), Ok(ids[0]));
}

#[test]
fn listed_nodes_are_polled_before_explorer_nodes() {
    let (mut queue, ids, start) = queue(3);
    ids[..2].iter().for_each(|id| queue.up(*id, Source::Explorer, start));
    let now = start + POLL_SPACING;
    queue.up(ids[2], Source::IpsFile, now);
    assert_eq!(queue.turn(now), Ok(ids[2]));
}

#[test]
fn flapping_node_is_polled_once_per_minute() {
    let (mut queue, ids, start) = queue(1);
    poll(&mut queue, ids[0], start, false);
    let later = start + Duration::from_secs(5);
    queue.up(ids[0], Source::IpsFile, later);
    assert_eq!(queue.turn(later), Err(start + MIN_INTERVAL));
    queue.remove(ids[0]);
    assert!(queue.waiting.get(ids[0]).is_none() && queue.nodes.is_empty());
}
