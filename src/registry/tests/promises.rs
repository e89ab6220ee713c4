//! What a promise changes, for whom, and for how long.

use proptest::prelude::*;

use super::*;
use crate::registry::promises::{FREE_ANSWERS, MAX_OWN, MAX_OWNERS};

proptest! {
    #[test]
    fn a_client_alone_sees_the_strict_order_in_its_first_twelve_answers_of_each_round(
        pending in prop::collection::vec(0..4_u64, 1..40),
        pages in prop::collection::vec((0..45_u32, 1..45_u32), 24),
    ) {
        let fleet = Fleet::new(&pending);
        let strict = fleet.ask(client(2), page(0, 99), Purpose::Look);
        prop_assert!(strict.is_sorted_by_key(|node| pending[*node]));
        for (at, (offset, n)) in pages.into_iter().enumerate() {
            if at == usize::from(FREE_ANSWERS) {
                fleet.registry.begin_round();
            }
            let expected: Vec<usize> = strict.iter().copied().skip(offset as usize).take(n as usize).collect();
            prop_assert_eq!(fleet.ask(client(1), page(offset, n), Purpose::Route), expected);
        }
    }

    #[test]
    fn twelve_pages_visit_each_node_exactly_once(
        pending in prop::collection::vec(0..4_u64, 1..60),
        others in prop::collection::vec(1..60_u32, 0..12),
    ) {
        let fleet = Fleet::new(&pending);
        let n = (pending.len() as u32).div_ceil(12);
        // What others were promised before stands for this client like pending jobs.
        others.into_iter().for_each(|other| { fleet.send(client(1 + other)); });
        let pages = (0..12).map(|at| fleet.ask(client(1), page(at * n, n), Purpose::Route));
        let mut seen: Vec<usize> = pages.flatten().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..pending.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_promise_ends_with_the_first_report_of_a_probe_that_was_sent_after_it(
        steps in prop::collection::vec((0..4_u8, 0..9_u64), 0..200),
    ) {
        let fleet = Fleet::new(&[0]);
        let mut pending = 0;
        // Promises made before the probe under way was sent, and since.
        let (mut before, mut after) = (0, 0);
        let mut under_way = None;
        for (asking, (what, jobs)) in steps.into_iter().enumerate() {
            match (what, under_way) {
                (1, None) => {
                    under_way = Some(fleet.begin_probe(0));
                    (before, after) = (before + after, 0);
                }
                // It fails: nothing is reported.
                (2, Some(_)) => under_way = None,
                (3, Some(probe)) => {
                    fleet.report(0, probe, jobs);
                    (pending, before, under_way) = (jobs, 0, None);
                }
                _ if before + after < 32 => {
                    fleet.send(client(asking as u32));
                    after += 1;
                }
                _ => {}
            }
            prop_assert_eq!(fleet.load(0), pending + before + after);
        }
    }
}

#[test]
fn whoever_sends_job_after_job_is_spread_from_the_thirteenth_answer_on() {
    let fleet = Fleet::new(&[0, 1, 2]);
    let sent: Vec<usize> = (0..15).map(|_| fleet.send(client(1))).collect();
    assert_eq!(sent[..12], [0; 12]);
    // Twelve on node 0; 1 and 2 are as busy as two of them after the next one.
    assert_eq!(sent[12], 1);
    assert_eq!((fleet.load(0), fleet.load(1) + fleet.load(2)), (12, 6));
}

#[test]
fn others_are_sent_elsewhere_by_a_promise() {
    let fleet = Fleet::new(&[0, 1, 9]);
    assert_eq!(fleet.send(client(1)), 0);
    let next: Vec<usize> = (2..4).map(|other| fleet.send(client(other))).collect();
    assert!(next.contains(&0) && next.contains(&1));
    assert_eq!(fleet.send(client(1)), 0);
}

#[test]
fn only_a_get_that_names_a_node_is_a_promise() {
    let fleet = Fleet::new(&[0, 1]);
    fleet.ask(client(1), page(0, 3), Purpose::Look);
    fleet.ask(client(1), page(0, 0), Purpose::Route);
    fleet.ask(client(1), page(2, 1), Purpose::Route);
    let unknown = fleet
        .registry
        .answer(["a", "b"].into_iter(), page(0, 3), client(1), Purpose::Route);
    assert!(unknown.is_empty());
    assert_eq!((fleet.load(0), fleet.load(1)), (0, 1));
    assert_eq!(fleet.registry.totals().promises, 0);
    assert_eq!(fleet.ask(client(1), page(1, 1), Purpose::Route), [1]);
    assert_eq!((fleet.load(0), fleet.load(1)), (0, 2));
}

#[test]
fn a_promise_weighs_what_the_policy_says_and_at_least_one() {
    for (policy, weight) in [
        (PromisePolicy::Weighing(5), 5),
        (PromisePolicy::Weighing(0), 1),
        (PromisePolicy::Off, 0),
    ] {
        let fleet = Fleet::new(&[3]);
        let fleet = Fleet {
            registry: Registry {
                policy,
                ..fleet.registry
            },
            ..fleet
        };
        fleet.send(client(1));
        assert_eq!(fleet.load(0), 3 + weight);
    }
}

#[test]
fn a_node_that_comes_back_still_has_what_it_was_promised_after_its_probe_was_sent() {
    let fleet = Fleet::new(&[0]);
    fleet.send(client(1));
    let probe = fleet.begin_probe(0);
    fleet.send(client(2));
    fleet.registry.down(fleet.ids[0]);
    assert!(fleet.ask(client(3), page(0, 3), Purpose::Route).is_empty());
    fleet.report(0, probe, 7);
    assert_eq!(fleet.load(0), 8);
}

/// Node 0 is less busy than its rival, and stays so whatever one subnet does.
#[test]
fn ten_thousand_addresses_of_one_subnet_count_thirty_two_at_most_on_a_node() {
    let v6 = |number: u64| Client::V6(0x2001_0DB8_0001_0000 | number);
    let v4 = |number: u64| Client::V4(0x0909_0900 | number as u32 & 0xFF);
    for subnet in [v6 as fn(u64) -> Client, v4] {
        let fleet = Fleet::new(&[0, 33]);
        for number in 0..10_000 {
            assert_eq!(fleet.send(subnet(number)), 0);
        }
        assert_eq!((fleet.load(0), fleet.load(1)), (32, 33));
        assert_eq!(fleet.registry.totals().promises, 32);
        assert_eq!(fleet.send(client(1)), 0);
        // The next round gives it no more before a probe has reported.
        fleet.registry.begin_round();
        fleet.send(subnet(0));
        assert!(fleet.load(0) <= 33);
        fleet.up(0, 0);
        fleet.send(subnet(0));
        assert_eq!(fleet.load(0), 1);
    }
}

#[test]
fn past_the_bound_on_owners_a_promise_counts_also_for_its_own_client() {
    let fleet = Fleet::new(&[0, 2 * MAX_OWNERS as u64]);
    let ask = |number: usize| fleet.send(client(number as u32));
    // 64 cells of 32: beyond these a promise does not count at all, so a probe makes room now and then.
    for number in 0..MAX_OWNERS {
        assert_eq!(ask(number), 0);
        if number.is_multiple_of(512) {
            fleet.up(0, 0);
        }
    }
    fleet.up(0, 0);
    fleet.up(1, 1);
    // The last one that is remembered, then one that is not.
    assert_eq!([ask(MAX_OWNERS - 1), ask(MAX_OWNERS - 1)], [0, 0]);
    fleet.up(0, 0);
    assert_eq!(ask(MAX_OWNERS), 0);
    fleet.up(1, 0);
    assert_eq!(ask(MAX_OWNERS), 1);
    // After a round there is room again.
    fleet.registry.begin_round();
    (0..2).for_each(|node| fleet.up(node, 9 * node as u64));
    assert_eq!([ask(MAX_OWNERS), ask(MAX_OWNERS)], [0, 0]);
}

#[test]
fn past_the_bound_for_one_client_its_promise_counts_also_for_itself() {
    let fleet = Fleet::new(&[0, 1]);
    let free = usize::from(FREE_ANSWERS);
    let ask = |times: usize, node: usize| (0..times).for_each(|_| assert_eq!(fleet.send(client(1)), node));
    ask(free, 0);
    fleet.registry.begin_round();
    ask(free, 0);
    // The order that others see has node 1 in front now: up to the bound and one beyond it.
    ask(MAX_OWN - 2 * free + 1, 1);
    fleet.registry.begin_round();
    let view = fleet.registry.lock().view(["a"].into_iter(), client(1), 1);
    let moved = view.expect("somebody runs it").moved;
    let seen: Vec<u64> = moved.iter().map(|moved| moved.seen.load).collect();
    assert_eq!(seen, [0, 2]);
}

#[test]
fn promises_that_ended_take_no_room_in_what_is_remembered() {
    let fleet = Fleet::new(&[0, 1]);
    for _ in 0..=MAX_OWN / usize::from(FREE_ANSWERS) {
        fleet.registry.begin_round();
        fleet.up(0, 0);
        (0..FREE_ANSWERS).for_each(|_| assert_eq!(fleet.send(client(1)), 0));
    }
}
