//! What a promise changes, for which clients, and for how long.

use proptest::prelude::*;

use super::*;

/// The cap of a subnet on a node without a record.
const CAP: u64 = 8;

/// An address of one /24.
fn of_subnet(number: u32) -> Client {
    Client::V4(0x0909_0900 | number & 0xFF)
}

/// An address of one /48.
fn of_v6_subnet(number: u32) -> Client {
    Client::V6(0x2001_0DB8_0001_0000 | u64::from(number & 0xFFFF))
}

proptest! {
    #[test]
    fn later_pages_continue_the_first(
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
        // A HEAD of a later page sees the same, and the next first page sees the promises.
        prop_assert_eq!(fleet.ask(client(1), page(1, 99), Purpose::Look), &order[1..]);
        let next = fleet.ask(client(2), page(0, 99), Purpose::Look);
        prop_assert_eq!(fleet.ask(client(1), page(0, 99), Purpose::Route), next);
    }

    #[test]
    fn report_of_a_later_probe_ends_a_promise(
        steps in prop::collection::vec((0..4_u8, 0..9_u64), 0..200),
    ) {
        let fleet = Fleet::new(&[0]);
        // Promises made before the probe in progress was sent, and since.
        let (mut before, mut after) = (0, 0);
        let mut is_under_way = false;
        for (asking, (what, jobs)) in steps.into_iter().enumerate() {
            match (what, is_under_way) {
                (1, false) => {
                    fleet.begin_probe(0);
                    is_under_way = true;
                    (before, after) = (before + after, 0);
                }
                // It fails: nothing is reported.
                (2, true) => is_under_way = false,
                (3, true) => {
                    fleet.report(0, jobs);
                    (before, is_under_way) = (0, false);
                    // Later promises add to the reported jobs. No job is done, because no time passes.
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
fn repeated_request_gets_the_next_node_first() {
    let fleet = Fleet::new(&[0, 1, 3]);
    let sent: Vec<usize> = (0..5).map(|_| fleet.send(client(1))).collect();
    assert_eq!(sent[0], 0);
    let on = |node: usize| sent.iter().filter(|sent| **sent == node).count();
    assert_eq!((on(0), on(1), on(2)), (3, 2, 0), "{sent:?}");
}

#[test]
fn only_a_first_page_with_a_node_promises() {
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
            .is_some_and(|answer| answer.is_empty())
    );
    assert_eq!((fleet.promises(0), fleet.promises(1)), (0, 0));
    assert_eq!(registry.totals().promises, 0);
    assert_eq!(fleet.ask(client(1), page(0, 3), Purpose::Route).len(), 2);
    assert_eq!((fleet.promises(0), fleet.promises(1)), (1, 0));
    assert_eq!(registry.totals().promises, 1);
}

#[test]
fn promise_has_the_weight_of_the_policy() {
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
fn node_that_comes_back_keeps_later_promises() {
    let fleet = Fleet::new(&[0]);
    fleet.send(client(1));
    fleet.begin_probe(0);
    fleet.send(client(2));
    fleet.set_health(0, NodeState::Down);
    assert!(fleet.ask(client(3), page(0, 3), Purpose::Route).is_empty());
    fleet.report(0, 7);
    assert_eq!((fleet.promises(0), fleet.jobs(0)), (1, 8));
}

#[test]
fn subnet_above_its_cap_changes_nothing_for_others() {
    for subnet in [of_v6_subnet as fn(u32) -> Client, of_subnet] {
        let fleet = Fleet::new(&[0, 9, 30]);
        // The first two nodes get 17 and 8 promises, while the third one has more to do.
        (0..25).for_each(|number| assert!(fleet.send(subnet(number)) < 2));
        let order = fleet.ask(client(1), page(0, 9), Purpose::Look);
        let jobs = [fleet.jobs(0), fleet.jobs(1)];
        assert_eq!((&order[..], jobs), (&[0, 1, 2][..], [CAP, 9 + CAP]));
        (0..10).for_each(|number| assert!(fleet.send(subnet(number)) < 2));
        assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), order);
        (0..10_000).for_each(|number| assert!(fleet.send(subnet(number)) < 3));
        assert_eq!(fleet.ask(client(1), page(0, 2), Purpose::Look), order[..2]);
        assert_eq!([fleet.jobs(0), fleet.jobs(1), fleet.jobs(2)], [CAP, 9 + CAP, 30 + CAP]);
        assert_eq!(fleet.registry.totals().promises, 3 * CAP);
        fleet.up(0, 0);
        assert_eq!((fleet.promises(0), fleet.jobs(0)), (0, 0));
    }
}

#[test]
fn subnet_above_its_cap_is_spread_evenly() {
    let fleet = Fleet::new(&[0; 3]);
    let mut sent = [[0; 3]; 10];
    (0..1_000).for_each(|number| sent[number / 100][fleet.send(of_subnet(number as u32))] += 1);
    assert!(sent.as_flattened().iter().all(|of| (30..=37).contains(of)), "{sent:?}");
}

#[test]
fn report_ends_promises_above_the_cap() {
    let fleet = Fleet::new(&[0, 0]);
    fleet.send_all(100);
    fleet.begin_probe(0);
    fleet.send_all(20);
    fleet.report(0, 0);
    // Ten promises were made after the probe was sent: eight affect all clients, two only the subnet.
    assert_eq!((fleet.promises(0), fleet.jobs(0)), (CAP, CAP));
    fleet.up(1, 9);
    assert_eq!(fleet.ask(client(1), page(0, 2), Purpose::Look), [0, 1]);
    assert_eq!(fleet.ask(of_subnet(0), page(0, 2), Purpose::Look), [1, 0]);
    fleet.up(0, 0);
    assert_eq!(fleet.registry.lock().crowded(), 0);
    assert_eq!(fleet.ask(of_subnet(0), page(0, 2), Purpose::Look), [0, 1]);
}

#[test]
fn removed_node_ends_its_promises_above_the_cap() {
    let fleet = Fleet::new(&[0]);
    fleet.send_all(100);
    assert_eq!(fleet.registry.lock().crowded(), 1);
    fleet.registry.remove(fleet.ids[0]);
    assert_eq!(fleet.registry.lock().crowded(), 0);
}

#[test]
fn doubted_node_ranks_last_for_subnet_above_cap() {
    let fleet = Fleet::new(&[0, 0]);
    fleet.set_health(1, NodeState::Doubted);
    (0..1_000).for_each(|number| assert_eq!(fleet.send(of_subnet(number)), 0));
}

#[test]
fn after_a_report_pages_follow_the_shared_order() {
    let fleet = Fleet::new(&[0, 2]);
    assert_eq!(fleet.send(client(1)), 0);
    assert_eq!(fleet.ask(client(1), page(1, 1), Purpose::Route), [1]);
    fleet.up(0, 9);
    assert_eq!(fleet.ask(client(1), page(1, 1), Purpose::Route), [0]);
}

#[test]
fn above_the_cap_later_pages_continue_the_first() {
    let fleet = Fleet::new(&[0, 1, 2, 3, 4]);
    fleet.send_all(200);
    for number in 0..20 {
        let order = fleet.ask(of_subnet(number), page(0, 9), Purpose::Look);
        let mut seen = fleet.ask(of_subnet(number), page(0, 2), Purpose::Route);
        seen.extend(fleet.ask(of_subnet(number), page(2, 2), Purpose::Route));
        seen.extend(fleet.ask(of_subnet(number), page(4, 2), Purpose::Route));
        assert_eq!(seen, order);
    }
}
