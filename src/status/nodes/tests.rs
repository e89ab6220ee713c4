use super::*;
use crate::util::arena::Arena;

fn addr(text: &str) -> NodeAddr {
    NodeAddr::parse(text).expect("an address")
}

fn probed(state: NodeState, at: u64) -> Probed<'static> {
    Probed {
        state,
        at,
        took: Duration::from_millis(5),
        pending: None,
        reason: if state.is_trouble() { "refused" } else { "" },
    }
}

/// Nodes of these addresses, and their keys.
fn listed<const N: usize>(addrs: [&str; N]) -> (Nodes, [NodeId; N]) {
    let (mut nodes, mut keys) = (Nodes::default(), Arena::default());
    let ids = addrs.map(|text| {
        let id = keys.insert(());
        nodes.listed(id, addr(text), Source::IpsFile, 1);
        id
    });
    (nodes, ids)
}

fn status_of(nodes: &Nodes, id: NodeId) -> &NodeStatus {
    nodes.by_place[id.index() as usize].as_ref().expect("it is listed")
}

fn shown(nodes: &Nodes) -> Vec<String> {
    let (mut shown, mut last) = (Vec::new(), None);
    loop {
        last = nodes.walk(last.as_ref(), 2, |node| {
            shown.push(format!("{} {}", node.addr, node.state.name()));
            true
        });
        if last.is_none() {
            return shown;
        }
    }
}

#[test]
fn those_in_trouble_come_first_and_each_group_is_by_address() {
    let (mut nodes, [a, b, c, d, _]) = listed(["2.2.2.2:1", "1.1.1.1:1", "4.4.4.4:1", "3.3.3.3:1", "0.0.0.1:1"]);
    nodes.probed(a, probed(NodeState::Up, 2));
    nodes.probed(b, probed(NodeState::Up, 2));
    nodes.probed(c, probed(NodeState::Suspect, 2));
    nodes.probed(d, probed(NodeState::Down, 2));
    let wanted = [
        "3.3.3.3:1 down",
        "4.4.4.4:1 suspect",
        "0.0.0.1:1 new",
        "1.1.1.1:1 up",
        "2.2.2.2:1 up",
    ];
    assert_eq!(shown(&nodes), wanted);
    nodes.removed(d);
    nodes.removed(d);
    nodes.probed(d, probed(NodeState::Up, 3));
    nodes.listed(c, addr("5.5.5.5:1"), Source::Explorer, 3);
    assert_eq!(shown(&nodes)[..2], ["5.5.5.5:1 suspect", "0.0.0.1:1 new"]);
    let counts = NodeState::ALL.map(|state| nodes.count(state));
    assert_eq!(counts, [0, 0, 1, 0, 1, 2]);
}

#[test]
fn a_state_is_since_it_began_and_pending_jobs_stay_until_the_node_is_down() {
    let (mut nodes, [id]) = listed(["1.1.1.1:1"]);
    let jobs = [("offchain".to_owned(), 3), ("onchain".to_owned(), 0)];
    let told = Probed {
        pending: Some(&jobs),
        ..probed(NodeState::Up, 10)
    };
    nodes.probed(id, told);
    nodes.probed(id, probed(NodeState::Up, 20));
    let now = |nodes: &Nodes| NodeStatus::clone(status_of(nodes, id));
    let pending = |nodes: &Nodes| now(nodes).pending.map(|pending| pending.0.to_vec());
    assert_eq!(
        (now(&nodes).since, now(&nodes).probed.map(|(at, _)| at)),
        (10, Some(20))
    );
    assert_eq!(
        pending(&nodes),
        Some(vec![("offchain".into(), 3), ("onchain".into(), 0)])
    );
    nodes.probed(id, probed(NodeState::Suspect, 30));
    assert_eq!(
        (now(&nodes).since, pending(&nodes).is_some(), &*now(&nodes).reason),
        (30, true, "refused")
    );
    nodes.probed(id, probed(NodeState::Down, 50));
    assert_eq!((now(&nodes).since, pending(&nodes)), (50, None));
}

#[test]
fn types_that_only_hostile_nodes_have_are_counted_together() {
    let (mut nodes, [id]) = listed(["1.1.1.1:1"]);
    let kept = |nodes: &mut Nodes, jobs: &[(String, u64)]| {
        nodes.probed(
            id,
            Probed {
                pending: Some(jobs),
                ..probed(NodeState::Up, 1)
            },
        );
        status_of(nodes, id)
            .pending
            .as_ref()
            .map(|pending| pending.0.to_vec())
            .expect("it told")
    };
    let long = "x".repeat(MAX_TYPE_BYTES + 1);
    let mut jobs: Vec<(String, u64)> = (0..MAX_TYPES).map(|at| (at.to_string(), 1)).collect();
    assert_eq!(kept(&mut nodes, &jobs).len(), MAX_TYPES);
    jobs.extend([("one more".to_owned(), u64::MAX), (long, 1)]);
    let now = kept(&mut nodes, &jobs);
    assert_eq!(
        (now.len(), now[MAX_TYPES].clone()),
        (MAX_TYPES + 1, (OTHER.into(), u64::MAX))
    );
    for at in 0..2 * MAX_TYPE_NAMES {
        kept(&mut nodes, &[(at.to_string(), 1)]);
    }
    assert_eq!(nodes.type_names.len(), MAX_TYPE_NAMES);
    assert_eq!(kept(&mut nodes, &[("new".to_owned(), 7)]), [(OTHER.into(), 7)]);
}

#[test]
fn a_walk_ends_where_it_is_told_to() {
    let (nodes, _) = listed(["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"]);
    let mut seen = 0;
    let last = nodes.walk(None, 9, |_| {
        seen += 1;
        seen < 2
    });
    assert_eq!((seen, last.is_none()), (2, true));
}
