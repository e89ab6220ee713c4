//! Nodes that stand behind the others, since their failure is doubted.

use super::*;

#[test]
fn a_doubted_node_comes_behind_all_others_until_it_reports() {
    for policy in [ON, PromisePolicy::Off] {
        let fleet = Fleet::with(policy, &[0, 3, u64::MAX]);
        let order = || fleet.ask(client(1), page(0, 9), Purpose::Look);
        assert_eq!(order(), [0, 1, 2]);
        fleet.registry.doubt(fleet.ids[0]);
        assert_eq!(order(), [1, 2, 0]);
        fleet.registry.doubt(fleet.ids[1]);
        assert_eq!(order(), [2, 0, 1], "doubted ones among themselves as ever");
        fleet.up(0, 0);
        assert_eq!(order(), [0, 2, 1]);
    }
}

#[test]
fn a_promise_leaves_a_doubted_node_behind() {
    let fleet = Fleet::new(&[0, 5]);
    fleet.registry.doubt(fleet.ids[0]);
    fleet.registry.doubt(fleet.ids[1]);
    assert_eq!(fleet.send(client(1)), 0);
    fleet.up(1, 5);
    assert_eq!(fleet.send(client(2)), 1);
    assert_eq!(fleet.ask(client(2), page(0, 9), Purpose::Look), [1, 0]);
    // What a client saw before the doubt is no way in front of it.
    fleet.up(0, 0);
    assert_eq!(fleet.send(client(3)), 0);
    fleet.registry.doubt(fleet.ids[0]);
    assert_eq!(fleet.ask(client(3), page(1, 9), Purpose::Route), [0]);
}

#[test]
fn what_was_down_is_put_back_as_it_was_but_behind() {
    let fleet = Fleet::new(&[0, 4]);
    let described = Running {
        description: Some("what it is for".into()),
        ..running("b")
    };
    let probe = fleet.begin_probe(0);
    let containers = [running("a"), described];
    fleet.registry.up(fleet.ids[0], probe, &containers, 2, fleet.now);
    let before = (fleet.registry.totals(), fleet.registry.containers());
    let withdrawn = fleet.registry.down(fleet.ids[0]).expect("it was available");
    assert!(fleet.registry.down(fleet.ids[0]).is_none());
    assert_eq!(fleet.registry.containers().len(), 1);
    fleet.registry.put_back(fleet.ids[0], &withdrawn);
    assert_eq!((fleet.registry.totals(), fleet.registry.containers()), before);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [1, 0]);
    // One that is back already stays where it is, and one that left stays away.
    fleet.up(0, 0);
    fleet.registry.put_back(fleet.ids[0], &withdrawn);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [0, 1]);
    fleet.registry.remove(fleet.ids[0]);
    fleet.registry.put_back(fleet.ids[0], &withdrawn);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [1]);
}
