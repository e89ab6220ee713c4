//! What a promise changes, for whom, and for how long.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn pages_behind_the_first_continue_its_order_whatever_it_promised(
        pending in prop::collection::vec(0..4_u64, 1..40),
        sizes in prop::collection::vec(1..15_u32, 1..8),
        others in prop::collection::vec(1..60_u32, 0..12),
    ) {
        let fleet = Fleet::new(&pending);
        others.into_iter().for_each(|other| { fleet.send(client(1 + other)); });
        let order = fleet.ask(client(2), page(0, 99), Purpose::Look);
        let mut seen = Vec::new();
        for size in sizes {
            seen.extend(fleet.ask(client(1), page(seen.len() as u32, size), Purpose::Route));
        }
        prop_assert_eq!(&seen[..], &order[..seen.len()]);
        // A look at a page behind the first sees the same, and the next first page what was promised.
        prop_assert_eq!(fleet.ask(client(1), page(1, 99), Purpose::Look), &order[1..]);
        let next = fleet.ask(client(2), page(0, 99), Purpose::Look);
        prop_assert_eq!(fleet.ask(client(1), page(0, 99), Purpose::Route), next);
    }

    #[test]
    fn a_promise_ends_with_the_first_report_of_a_probe_that_was_sent_after_it(
        steps in prop::collection::vec((0..4_u8, 0..9_u64), 0..200),
    ) {
        let fleet = Fleet::new(&[0]);
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
                    (before, under_way) = (0, None);
                    // What the probe could not know of counts beside what it reports; nobody did a job, since no time passes.
                    prop_assert_eq!(fleet.jobs(0), jobs + after);
                }
                _ if before + after < 32 => {
                    fleet.send(client(asking as u32));
                    after += 1;
                }
                _ => {}
            }
            prop_assert_eq!(fleet.promises(0), before + after);
        }
    }
}

#[test]
fn whoever_asks_again_gets_the_next_node_first() {
    let fleet = Fleet::new(&[0, 1, 3]);
    let sent: Vec<usize> = (0..5).map(|_| fleet.send(client(1))).collect();
    assert_eq!(sent[0], 0);
    let on = |node: usize| sent.iter().filter(|sent| **sent == node).count();
    assert_eq!((on(0), on(1), on(2)), (3, 2, 0), "{sent:?}");
}

#[test]
fn only_a_first_page_that_a_get_asks_for_and_that_names_a_node_is_a_promise() {
    let fleet = Fleet::new(&[0, 1]);
    fleet.ask(client(1), page(0, 3), Purpose::Look);
    fleet.ask(client(1), page(0, 0), Purpose::Route);
    fleet.ask(client(1), page(1, 1), Purpose::Route);
    fleet.ask(client(1), page(2, 1), Purpose::Route);
    let unknown = ["a", "b"].into_iter();
    let registry = &fleet.registry;
    assert!(
        registry
            .answer(unknown, page(0, 3), client(1), Purpose::Route, fleet.now)
            .is_empty()
    );
    assert_eq!((fleet.promises(0), fleet.promises(1)), (0, 0));
    assert_eq!(registry.totals().promises, 0);
    assert_eq!(fleet.ask(client(1), page(0, 3), Purpose::Route).len(), 2);
    assert_eq!((fleet.promises(0), fleet.promises(1)), (1, 0));
    assert_eq!(registry.totals().promises, 1);
}

#[test]
fn a_promise_weighs_what_the_policy_says_and_at_least_one() {
    for (weight, jobs) in [(5, 2), (0, 11), (1, 11)] {
        let fleet = Fleet::with(
            PromisePolicy::On {
                weight,
                max_speedup: None,
            },
            &[10],
        );
        assert_eq!(fleet.jobs(0), jobs - u64::from(weight < 5));
        fleet.send(client(1));
        assert_eq!(fleet.jobs(0), if weight < 5 { 11 } else { 3 });
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
    assert_eq!((fleet.promises(0), fleet.jobs(0)), (1, 8));
}

/// Node 0 has less to do than its rival, and stays so whatever one subnet does.
#[test]
fn ten_thousand_addresses_of_one_subnet_count_thirty_two_at_most_on_a_node() {
    let v6 = |number: u64| Client::V6(0x2001_0DB8_0001_0000 | number);
    let v4 = |number: u64| Client::V4(0x0909_0900 | number as u32 & 0xFF);
    for subnet in [v6 as fn(u64) -> Client, v4] {
        let fleet = Fleet::new(&[0, 33]);
        for number in 0..10_000 {
            assert_eq!(fleet.send(subnet(number)), 0);
        }
        assert_eq!((fleet.promises(0), fleet.jobs(0), fleet.jobs(1)), (32, 32, 33));
        assert_eq!(fleet.registry.totals().promises, 32);
        assert_eq!(fleet.send(client(1)), 0);
        // The next round gives it no more before a probe has reported.
        fleet.registry.begin_round();
        fleet.send(subnet(0));
        assert_eq!(fleet.promises(0), 33);
        fleet.up(0, 0);
        fleet.send(subnet(0));
        assert_eq!(fleet.promises(0), 1);
    }
}

#[test]
fn when_a_promise_is_no_longer_open_pages_go_by_what_was_counted() {
    let fleet = Fleet::new(&[0, 2]);
    assert_eq!(fleet.send(client(1)), 0);
    assert_eq!(fleet.ask(client(1), page(1, 1), Purpose::Route), [1]);
    fleet.up(0, 9);
    assert_eq!(fleet.ask(client(1), page(1, 1), Purpose::Route), [0]);
}

#[test]
fn a_first_page_whose_promise_did_not_count_is_continued_as_it_was() {
    let fleet = Fleet::new(&[0, 60]);
    let of_subnet = |number: u32| Client::V4(0x0909_0900 | number);
    (0..33).for_each(|number| assert_eq!(fleet.send(of_subnet(number)), 0));
    // The first promise of this client counted, its second one does not: node 0 stands where the second page had it.
    assert_eq!(fleet.send(of_subnet(0)), 0);
    fleet.up(1, 0);
    assert_eq!(fleet.ask(of_subnet(0), page(1, 1), Purpose::Route), [0]);
}
