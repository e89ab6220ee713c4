//! Doubted nodes rank below all nodes that respond.

use super::*;

#[test]
fn doubted_node_ranks_last_until_it_reports() {
    for policy in [ON, PromisePolicy::Off] {
        let fleet = Fleet::with(policy, &[0, 3, u64::MAX]);
        let order = || fleet.ask(client(1), page(0, 9), Purpose::Look);
        assert_eq!(order(), [0, 1, 2]);
        fleet.set_health(0, NodeState::Doubted);
        assert_eq!(order(), [1, 2, 0]);
        fleet.set_health(1, NodeState::Doubted);
        assert_eq!(order(), [2, 0, 1], "doubted ones among themselves as ever");
        fleet.up(0, 0);
        assert_eq!(order(), [0, 2, 1]);
    }
}

#[test]
fn promise_keeps_doubted_node_last() {
    let fleet = Fleet::new(&[0, 5]);
    fleet.set_health(0, NodeState::Doubted);
    fleet.set_health(1, NodeState::Doubted);
    assert_eq!(fleet.send(client(1)), 0);
    fleet.up(1, 5);
    assert_eq!(fleet.send(client(2)), 1);
    assert_eq!(fleet.ask(client(2), page(0, 9), Purpose::Look), [1, 0]);
    // The client's own view before the failure does not rank the node first.
    fleet.up(0, 0);
    assert_eq!(fleet.send(client(3)), 0);
    fleet.set_health(0, NodeState::Doubted);
    assert_eq!(fleet.ask(client(3), page(1, 9), Purpose::Route), [0]);
}

#[test]
fn node_put_back_ranks_last_with_its_containers() {
    let fleet = Fleet::new(&[0, 4]);
    let described = Running {
        description: Some("what it is for".into()),
        ..running("b")
    };
    fleet.begin_probe(0);
    let containers = [running("a"), described];
    fleet.registry.up(fleet.ids[0], &containers, 2, fleet.now);
    let before = (fleet.registry.totals().available, fleet.registry.containers());
    fleet.set_health(0, NodeState::Down);
    fleet.set_health(0, NodeState::Down);
    assert_eq!(fleet.registry.containers().len(), 1);
    fleet.set_health(0, NodeState::Doubted);
    assert_eq!((fleet.registry.totals().available, fleet.registry.containers()), before);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [1, 0]);
    fleet.up(0, 0);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [0, 1]);
    // A removed node remains removed.
    fleet.registry.remove(fleet.ids[0]);
    fleet.set_health(0, NodeState::Doubted);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [1]);
}

#[test]
fn node_down_for_longer_than_an_interval_forgets_its_containers() {
    let fleet = Fleet::new(&[0, 4]);
    fleet.set_health(0, NodeState::Down);
    let later = fleet.now + INTERVAL + Duration::from_millis(1);
    fleet.registry.set_health(fleet.ids[0], NodeState::Down, later);
    fleet.registry.set_health(fleet.ids[0], NodeState::Doubted, later);
    assert_eq!(fleet.ask(client(1), page(0, 9), Purpose::Look), [1]);
}
