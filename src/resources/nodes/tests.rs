use super::*;

const INTERVAL: Duration = Duration::from_secs(600);

fn id(text: &str) -> ContainerId {
    ContainerId::parse(text).expect("an id")
}

/// Node `number`, listed as that.
fn listed(number: u32) -> Available {
    Available {
        addr: addr(number),
        rank: Rank::Listed(number),
        order: 0,
        runs: vec![id("a"), id("b")],
    }
}

fn addr(number: u32) -> NodeAddr {
    NodeAddr::parse(&format!("192.0.2.1:{number}")).expect("an address")
}

fn reading(ids: &[&str], bytes: usize) -> Result<Reading, Failure> {
    let text: Arc<str> = format!("{{\"x\":\"{}\"}}", "y".repeat(bytes)).into();
    Ok(Reading {
        entries: ids.iter().map(|name| (id(name), Arc::clone(&text))).collect(),
        left_out: None,
    })
}

fn failure() -> Result<Reading, Failure> {
    Err(Failure::Failed("timed out".to_owned()))
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn nodes(count: u32) -> (Nodes, Instant) {
    let now = Instant::now();
    let mut nodes = Nodes::new(INTERVAL, now);
    nodes.sync((1..=count).map(listed).collect(), now);
    (nodes, now)
}

/// Containers known of a node.
fn known(nodes: &Nodes, number: u32) -> Vec<&str> {
    let node = &nodes.by_addr[&addr(number)];
    node.entries.iter().map(|entry| entry.id.as_str()).collect()
}

fn state(nodes: &Nodes, number: u32) -> String {
    nodes.state(&addr(number)).expect("it is available")
}

/// Polls node 1, whose turn has to be now.
#[track_caller]
fn poll(nodes: &mut Nodes, answer: Result<Reading, Failure>, now: Instant) {
    assert_eq!(nodes.turn(now), Turn::Poll(addr(1)));
    nodes.polled(&addr(1), answer, now);
}

#[test]
fn new_nodes_are_asked_at_once_fifty_a_second_and_then_each_interval() {
    let (mut nodes, start) = nodes(120);
    let (mut now, mut asked) = (start, Vec::new());
    while asked.len() < 240 {
        match nodes.turn(now) {
            Turn::Poll(addr) => {
                asked.push((addr.clone(), now));
                nodes.polled(&addr, reading(&["a"], 1), now);
            }
            Turn::Wait(until) => now = until,
        }
    }
    let (first, second) = asked.split_at(120);
    assert!(
        first
            .windows(50)
            .all(|asks| asks[49].1 - asks[0].1 >= POLL_SPACING * 49)
    );
    assert_eq!(first[119].1, start + POLL_SPACING * 119);
    for (early, late) in first.iter().zip(second) {
        assert_eq!((&early.0, early.1 + INTERVAL), (&late.0, late.1));
    }
}

#[test]
fn no_more_than_sixteen_are_asked_at_once_and_a_node_one_thing_at_a_time() {
    let (mut nodes, start) = nodes(20);
    let mut now = start;
    for _ in 0..MAX_POLLS {
        assert!(matches!(nodes.turn(now), Turn::Poll(_)));
        now += POLL_SPACING;
    }
    assert_eq!(nodes.turn(now), Turn::Wait(now + INTERVAL));
    assert!(!nodes.is_free(&addr(1)), "it is being polled");
    nodes.polled(&addr(1), failure(), now);
    assert!(nodes.is_free(&addr(1)));
    // The next one in turn is asked about a model just now.
    let busy = nodes.due[0].first().expect("four are left").1.clone();
    nodes.begin_query(&busy);
    let Turn::Poll(other) = nodes.turn(now) else {
        panic!("one has ended");
    };
    assert_ne!(other, busy);
    assert_eq!(nodes.by_addr[&busy].due, now + BUSY_DELAY);
}

#[test]
fn nodes_of_ips_txt_wait_for_none_that_the_explorer_names() {
    let (mut nodes, start) = nodes(0);
    let named = |number: u32| Available {
        rank: Rank::Explorer(([192, 0, 2, 1], number as u16).into()),
        ..listed(number)
    };
    nodes.sync((1..=4).map(named).collect(), start);
    assert_eq!(nodes.turn(start), Turn::Poll(addr(1)));
    // One is new, one is listed as well now, and both are due later than the others.
    let now = start + POLL_SPACING;
    nodes.sync(vec![named(1), named(2), listed(3), named(4), listed(5)], now);
    let asked: Vec<Turn> = (0..4).map(|more| nodes.turn(now + POLL_SPACING * more)).collect();
    assert_eq!(asked, [3, 5, 2, 4].map(|number| Turn::Poll(addr(number))));
    assert!(nodes.due.iter().all(BTreeSet::is_empty));
}

#[test]
fn an_entry_stays_through_three_misses() {
    let (mut nodes, mut now) = nodes(1);
    poll(&mut nodes, reading(&["a", "b"], 1), now);
    for answer in [reading(&["b"], 1), failure(), reading(&["b"], 1)] {
        now += INTERVAL;
        poll(&mut nodes, answer, now);
        assert_eq!(known(&nodes, 1), ["a", "b"]);
    }
    now += INTERVAL;
    poll(&mut nodes, Err(Failure::Local("no descriptor".to_owned())), now);
    assert_eq!(known(&nodes, 1), ["a", "b"], "says nothing of the node");
    now += INTERVAL;
    poll(&mut nodes, reading(&["b"], 1), now);
    assert_eq!(known(&nodes, 1), ["b"]);
    now += INTERVAL;
    poll(&mut nodes, reading(&["a"], 1), now);
    assert_eq!(known(&nodes, 1), ["a", "b"]);
}

#[test]
fn a_node_without_resources_is_asked_again_after_an_hour() {
    let (mut nodes, now) = nodes(1);
    poll(&mut nodes, Err(Failure::NotFound), now);
    assert_eq!(nodes.turn(now + INTERVAL), Turn::Wait(now + NOT_FOUND_INTERVAL));
    assert!(state(&nodes, 1).contains("answered 404"));
    poll(&mut nodes, reading(&["a"], 1), now + NOT_FOUND_INTERVAL);
    assert_eq!(state(&nodes, 1), "1 of 2 containers");
}

#[test]
fn a_node_that_goes_and_comes_back_loses_what_it_said_and_is_asked_once_a_minute() {
    let (mut nodes, now) = nodes(1);
    poll(&mut nodes, reading(&["a"], 1), now);
    assert!(nodes.changed_view().is_some());
    let later = now + Duration::from_secs(5);
    nodes.sync(Vec::new(), later);
    assert_eq!((nodes.len(), nodes.bytes, nodes.state(&addr(1))), (1, 0, None));
    assert!(nodes.changed_view().is_some());
    nodes.sync(vec![listed(1)], later);
    assert_eq!(nodes.turn(later), Turn::Wait(now + MIN_INTERVAL));
    nodes.sync(Vec::new(), later);
    nodes.sync(Vec::new(), now + MIN_INTERVAL);
    assert_eq!(
        (
            nodes.len(),
            nodes.due.iter().map(BTreeSet::len).sum::<usize>(),
            nodes.holders.len()
        ),
        (0, 0, 0)
    );
}

#[test]
fn what_a_node_runs_no_more_goes_at_once_and_a_new_place_in_the_list_counts() {
    let (mut nodes, now) = nodes(2);
    poll(&mut nodes, reading(&["a", "b"], 1), now);
    let moved = Available {
        rank: Rank::Listed(9),
        runs: vec![id("b")],
        ..listed(1)
    };
    nodes.sync(vec![moved, listed(2)], now);
    assert_eq!(known(&nodes, 1), ["b"]);
    assert_eq!(nodes.holders.first().map(|(rank, _)| *rank), Some(Rank::Listed(9)));
}

#[test]
fn when_there_is_no_room_nodes_that_come_first_keep_theirs() {
    let (mut nodes, now) = nodes(3);
    let size = Entry {
        id: id("a"),
        text: reading(&["a"], 1000).expect("one").entries[0].1.clone(),
        misses: 0,
    };
    nodes.max_bytes = 2 * size.bytes();
    for number in [3, 2, 1] {
        nodes.polled(&addr(number), reading(&["a"], 1000), now);
    }
    assert_eq!([1, 2, 3].map(|number| known(&nodes, number).len()), [1, 1, 0]);
    assert_eq!((nodes.bytes, nodes.has_shed()), (nodes.max_bytes, true));
    assert!(state(&nodes, 3).contains("no room"));
    nodes.polled(&addr(3), reading(&["a"], 1000), now);
    nodes.polled(&addr(2), reading(&["a", "b"], 1000), now);
    assert_eq!([1, 2, 3].map(|number| known(&nodes, number).len()), [1, 0, 0]);
    nodes.polled(&addr(3), reading(&["a"], 1000), now);
    assert_eq!(known(&nodes, 3), ["a"]);
}
