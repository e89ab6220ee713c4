use std::collections::BTreeMap;

use super::*;
use crate::node::{ContainerId, Rank};
use crate::registry::Available;

fn addr(number: u32) -> NodeAddr {
    NodeAddr::parse(&format!("192.0.2.1:{number}")).expect("an address")
}

fn client(number: u32) -> Client {
    Client::V4(number)
}

fn said(text: &str) -> Result<Reading, Failure> {
    Ok(Reading {
        entries: vec![(ContainerId::parse("a").expect("an id"), text.into())],
        left_out: None,
    })
}

fn failed() -> Result<Reading, Failure> {
    Err(Failure::Failed("timed out".to_owned()))
}

/// Surveys of so many nodes that have resources.
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn surveys(count: u32) -> (Surveys, Nodes, Instant) {
    let now = Instant::now();
    let mut nodes = Nodes::new(Duration::from_secs(86_400), now);
    let available = |number| Available {
        addr: addr(number),
        rank: Rank::Listed(number),
        order: u64::from(number),
        runs: vec![ContainerId::parse("a").expect("an id")],
    };
    nodes.sync((1..=count).map(available).collect(), now);
    (1..=count).for_each(|number| nodes.polled(&addr(number), said("{}"), now));
    (Surveys::default(), nodes, now)
}

/// Sends what may be sent now, each answered at once.
fn send(
    surveys: &mut Surveys,
    nodes: &mut Nodes,
    now: Instant,
    answer: &Result<Reading, Failure>,
) -> Vec<(String, NodeAddr)> {
    let mut sent = Vec::new();
    while let Ok(Question { id, addr }) = surveys.next(nodes, now) {
        nodes.support_ended(&addr);
        surveys.answered(&id, &addr, Source::IpsFile, answer.clone(), now);
        sent.push((id.to_string(), addr));
    }
    sent
}

fn known(surveys: &Surveys, id: &str, now: Instant) -> usize {
    surveys.answers(id, now).count()
}

#[test]
fn a_survey_asks_each_node_once_and_is_then_ready_for_all() {
    let (mut surveys, mut nodes, now) = surveys(3);
    assert_eq!(surveys.ask("m", client(1), now), Step::Later);
    assert_eq!(surveys.ask("m", client(2), now), Step::Later);
    assert!(surveys.is_waited_for("m"));
    let sent = send(&mut surveys, &mut nodes, now, &said("{}"));
    assert_eq!(sent, [1, 2, 3].map(|number| ("m".to_owned(), addr(number))));
    assert!(!surveys.is_waited_for("m"));
    assert_eq!(surveys.ask("m", client(1), now), Step::Ready);
    assert_eq!(known(&surveys, "m", now), 3);
    // New nodes may have come.
    let later = now + COMPLETE_FOR;
    assert_eq!(surveys.ask("m", client(1), later), Step::Later);
    assert_eq!(send(&mut surveys, &mut nodes, later, &said("{}")), []);
    assert_eq!(surveys.ask("m", client(1), later), Step::Ready);
    let old = now + KEPT;
    assert_eq!(known(&surveys, "m", old), 0);
    assert_eq!(surveys.ask("m", client(1), old), Step::Later);
    assert_eq!(send(&mut surveys, &mut nodes, old, &said("{}")).len(), 3);
}

#[test]
fn a_failure_is_forgotten_after_two_minutes_and_one_of_this_machine_at_once() {
    let (mut surveys, mut nodes, now) = surveys(1);
    surveys.ask("m", client(1), now);
    assert_eq!(send(&mut surveys, &mut nodes, now, &failed()).len(), 1);
    assert_eq!(known(&surveys, "m", now), 0);
    let soon = now + FAILURE_KEPT - Duration::from_secs(1);
    surveys.ask("m", client(1), soon);
    assert_eq!(send(&mut surveys, &mut nodes, soon, &failed()), []);
    let later = now + FAILURE_KEPT + COMPLETE_FOR;
    surveys.ask("m", client(1), later);
    let local = Err(Failure::Local("no descriptor".to_owned()));
    let Ok(question) = surveys.next(&mut nodes, later) else {
        panic!("it may be asked again");
    };
    nodes.support_ended(&question.addr);
    surveys.answered("m", &question.addr, Source::IpsFile, local, later);
    let again = later + MAX_DEFERRAL + COMPLETE_FOR;
    surveys.next(&mut nodes, later).expect_err("it was asked");
    surveys.ask("m", client(1), again);
    assert_eq!(send(&mut surveys, &mut nodes, again, &said("{}")).len(), 1);
}

#[test]
fn a_round_asks_32_nodes_and_ends_after_two_seconds() {
    let (mut surveys, mut nodes, start) = surveys(50);
    surveys.ask("m", client(1), start);
    let mut now = start;
    let mut sent = Vec::new();
    while surveys.is_waited_for("m") {
        sent.extend(send(&mut surveys, &mut nodes, now, &said("{}")));
        now += Duration::from_millis(100);
    }
    assert_eq!(
        (sent.len(), now),
        (20, start + MAX_DEFERRAL + Duration::from_millis(100))
    );
    // Who asks while a round is on waits as long for the rest of it.
    let (mut surveys, mut nodes, now) = self::surveys(50);
    let late = now + MAX_DEFERRAL - Duration::from_millis(100);
    surveys.ask("m", client(1), now);
    assert_eq!(send(&mut surveys, &mut nodes, now, &said("{}")).len(), MAX_ASKS);
    surveys.ask("m", client(2), late);
    let later = now + MAX_DEFERRAL + Duration::from_secs(1);
    assert_eq!(send(&mut surveys, &mut nodes, later, &said("{}")).len(), MAX_ASKS);
    assert!(surveys.is_waited_for("m"));
    // With time enough.
    let (mut surveys, mut nodes, now) = self::surveys(50);
    surveys.ask("m", client(1), now);
    let mut sent = 0;
    while surveys.is_waited_for("m") {
        surveys.asks.clear();
        sent += send(&mut surveys, &mut nodes, now, &said("{}")).len();
    }
    assert_eq!(sent, MAX_ASKED);
    assert_eq!(surveys.ask("m", client(1), now), Step::Later, "18 are left");
}

#[test]
fn there_are_never_more_than_ten_questions_in_a_second_and_ids_take_turns() {
    let (mut surveys, mut nodes, start) = surveys(100);
    let mut sent: Vec<(String, NodeAddr, Instant)> = Vec::new();
    for step in 0..600_u32 {
        let now = start + Duration::from_millis(100) * step;
        for number in 0..200 {
            let _ = surveys.ask(&number.to_string(), client(number), now);
        }
        let new = send(&mut surveys, &mut nodes, now, &said("{}"));
        sent.extend(new.into_iter().map(|(id, addr)| (id, addr, now)));
    }
    assert!(sent.len() >= 500, "{}", sent.len());
    assert!(
        sent.windows(11)
            .all(|asks| asks[10].2 - asks[0].2 > Duration::from_secs(1))
    );
    for number in 1..=100 {
        let of_node: Vec<Instant> = sent
            .iter()
            .filter(|ask| ask.1 == addr(number))
            .map(|ask| ask.2)
            .collect();
        assert!(
            of_node
                .windows(7)
                .all(|asks| asks[6] - asks[0] > Duration::from_secs(60))
        );
    }
    let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
    sent.iter().for_each(|(id, ..)| *by_id.entry(id).or_default() += 1);
    assert_eq!(by_id.len(), MAX_NEW_IDS);
    assert!(by_id.values().all(|count| (40..=70).contains(count)), "{by_id:?}");
}

#[test]
fn new_ids_are_ten_a_minute_and_two_for_a_client_and_known_ones_always_answer() {
    let (mut surveys, _, start) = surveys(0);
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(surveys.ask("a", client(1), at(0)), Step::Later);
    assert_eq!(surveys.ask("b", client(1), at(10)), Step::Later);
    assert_eq!(
        surveys.ask("c", client(1), at(20)),
        Step::Refused(Duration::from_secs(40))
    );
    for number in 2..10 {
        assert_eq!(surveys.ask(&number.to_string(), client(number), at(30)), Step::Later);
    }
    assert_eq!(
        surveys.ask("c", client(10), at(30)),
        Step::Refused(Duration::from_secs(30))
    );
    assert_eq!(surveys.ask("a", client(10), at(30)), Step::Later);
    assert_eq!(surveys.ask("c", client(10), at(60)), Step::Later);
    assert_eq!(
        surveys.ask("d", client(10), at(60)),
        Step::Refused(Duration::from_secs(10))
    );
    assert_eq!(surveys.new_ids.len(), MAX_NEW_IDS);
}

#[test]
fn ids_are_kept_while_they_are_asked_for_and_256_at_most() {
    let (mut surveys, _, start) = surveys(0);
    let mut now = start;
    let ask = |surveys: &mut Surveys, id: &str, now| {
        surveys.new_ids.clear();
        surveys.ask(id, client(1), now)
    };
    for number in 0..=MAX_IDS {
        now += Duration::from_secs(1);
        ask(&mut surveys, &number.to_string(), now);
        ask(&mut surveys, "0", now);
    }
    assert_eq!(surveys.by_id.len(), MAX_IDS);
    assert!(surveys.is_known("0") && !surveys.is_known("1"));
    ask(&mut surveys, "new", now + KEPT);
    assert_eq!(surveys.by_id.len(), 1);
}

#[test]
fn answers_have_so_much_room_and_those_of_strangers_half_of_it() {
    let (mut surveys, mut nodes, now) = surveys(1);
    let large = said(&"x".repeat(64 * 1024));
    for number in 0..200 {
        surveys.new_ids.clear();
        surveys.ask(&number.to_string(), client(1), now + Duration::from_millis(number));
        surveys.answered(&number.to_string(), &addr(1), Source::Explorer, large.clone(), now);
    }
    assert!(surveys.bytes <= MAX_EXPLORER_BYTES);
    assert_eq!((known(&surveys, "0", now), known(&surveys, "199", now)), (1, 0));
    for number in 0..200 {
        surveys.answered(&number.to_string(), &addr(2), Source::IpsFile, large.clone(), now);
    }
    assert!(surveys.bytes <= MAX_BYTES && surveys.explorer_bytes <= surveys.bytes);
    assert_eq!(known(&surveys, "199", now), 1, "it was asked for last");
    assert!(!surveys.is_known("0"));
    surveys.by_id.clear();
    surveys.next(&mut nodes, now).expect_err("nobody waits");
}
