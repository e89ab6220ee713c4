use crossbeam_channel::TryRecvError;

use super::probe::{Outcome, ProbeJob};
use super::*;
use crate::client::Client;
use crate::net::Family;
use crate::node::{NodeInfo, Rank, Source, parse_list};
use crate::registry::{Page, PromisePolicy, Purpose};

const INTERVAL: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// A poller whose pool has no threads: the test supplies each result.
struct Rig {
    poller: Poller,
    registry: Arc<Registry>,
    is_ready: Receiver<()>,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig(expects_explorer: bool) -> Rig {
    let url = expects_explorer.then(|| "http://127.0.0.1:1".into());
    let config = Config::from_lookup(|name| url.clone().filter(|_| name == "API_URL"));
    let config = Config {
        max_probes: 8,
        ..config.expect("valid")
    };
    let now = Instant::now();
    let registry = Arc::new(Registry::new(PromisePolicy::Off, INTERVAL, now));
    let (ready, is_ready) = bounded(0);
    // No thread takes the jobs.
    let (pool, _reports) = ProbePool::new("probe", 4096, |_| Probe::panicked(), now);
    let outputs = Outputs {
        registry: Arc::clone(&registry),
        metrics: Arc::default(),
        fetcher: Fetcher::new(INTERVAL),
        models: None,
    };
    let poller = Poller::new(config, outputs, pool, ready, now);
    Rig {
        poller,
        registry,
        is_ready,
        now,
    }
}

fn listed(list: &str) -> Update {
    Update::Listed(Arc::new(parse_list(list.as_bytes()).expect("a list")))
}

fn explorer(list: &str) -> Update {
    let nodes = parse_list(list.as_bytes()).expect("a list").nodes;
    let nodes = nodes.into_iter().map(|node| node.addr).collect();
    Update::Explorer(Arc::new(ExplorerList {
        nodes,
        ..ExplorerList::default()
    }))
}

fn is_up() -> Outcome {
    let info = NodeInfo::parse(br#"{"containers":[{"id":"a"}],"pending":{}}"#);
    Outcome::Up(info.expect("a node's answer"))
}

fn failed() -> Outcome {
    Outcome::Failed("connection refused".to_owned())
}

impl Rig {
    /// A poller with listed nodes only.
    fn listed(list: &str) -> Self {
        let mut rig = rig(false);
        rig.update(listed(list));
        rig
    }

    fn update(&mut self, update: Update) {
        self.poller.update(update, self.now);
    }

    fn id(&self, addr: &str) -> NodeId {
        self.poller.by_addr[&NodeAddr::parse(addr).expect("an address")]
    }

    /// Does what is due. Returns when more is.
    fn next(&mut self) -> Instant {
        std::iter::repeat_with(|| self.poller.step(self.now))
            .flatten()
            .next()
            .expect("nothing is due")
    }

    /// Sends a probe, whether the node is due or not.
    fn send(&mut self, id: NodeId) {
        let queue = self.poller.queue(id);
        self.poller.schedule.begin(id, queue, self.now);
        self.poller.send(id, self.now);
    }

    /// Sends what is due. Returns the nodes with a probe in flight.
    fn send_due(&mut self) -> Vec<String> {
        self.next();
        let ids = self.poller.by_addr.values();
        let in_flight = ids.filter(|id| self.poller.schedule.in_flight.contains_key(id));
        let mut in_flight: Vec<_> = in_flight.map(|id| self.addr(*id)).collect();
        in_flight.sort_unstable();
        in_flight
    }

    fn addr(&self, id: NodeId) -> String {
        self.registry.record(id).expect("the node is listed").addr.to_string()
    }

    fn rank(&self, id: NodeId) -> Rank {
        self.registry.record(id).expect("the node is listed").rank
    }

    fn report(&mut self, id: NodeId, outcome: Outcome) {
        self.finish(id, Probe::of(outcome));
    }

    fn finish(&mut self, id: NodeId, probe: Probe) {
        let job = ProbeJob {
            id,
            addr: NodeAddr::parse("h:1").expect("an address"),
            source: Source::IpsFile,
        };
        let report = Done {
            job,
            result: Some(probe),
            took: SECOND,
        };
        self.poller.report(report, self.now);
    }

    /// Probes a node with this outcome.
    fn probe(&mut self, addr: &str, outcome: Outcome) -> NodeState {
        let id = self.id(addr);
        self.send(id);
        self.report(id, outcome);
        self.registry.health(id).expect("the node is listed")
    }

    /// Probes a node with this outcome over an address family.
    fn probe_over(&mut self, family: Family, addr: &str, outcome: Outcome) -> NodeState {
        let id = self.id(addr);
        self.send(id);
        self.finish_over(family, id, outcome);
        self.registry.health(id).expect("the node is listed")
    }

    fn finish_over(&mut self, family: Family, id: NodeId, outcome: Outcome) {
        let family = Some(family);
        self.finish(
            id,
            Probe {
                family,
                ..Probe::of(outcome)
            },
        );
    }

    fn available(&self) -> Vec<String> {
        let client = Client::V4(1);
        let page = Page { n: 9, offset: 0 };
        let found = self
            .registry
            .answer(["a"].into_iter(), page, client, Purpose::Look, self.now);
        let found = found.expect("one container");
        let mut found: Vec<_> = found.iter().map(|addr| addr.as_listed().to_owned()).collect();
        found.sort_unstable();
        found
    }

    fn is_ready(&self) -> bool {
        self.is_ready.try_recv() == Err(TryRecvError::Disconnected)
    }
}

#[test]
fn one_success_up_two_failures_down() {
    let mut rig = Rig::listed("h:1");
    assert_eq!(rig.available(), [""; 0]);
    assert_eq!(rig.probe("h:1", is_up()), NodeState::Up);
    assert_eq!(rig.available(), ["h:1"]);
    assert_eq!(rig.probe("h:1", failed()), NodeState::Suspect);
    assert_eq!(rig.probe("h:1", is_up()), NodeState::Up);
    assert_eq!(rig.probe("h:1", failed()), NodeState::Suspect);
    assert_eq!(rig.available(), ["h:1"]);
    assert_eq!(rig.probe("h:1", failed()), NodeState::Down);
    assert_eq!(rig.available(), [""; 0]);
    assert_eq!(rig.probe("h:1", failed()), NodeState::Down);
    assert_eq!(rig.probe("h:1", is_up()), NodeState::Up);
    assert_eq!(rig.available(), ["h:1"]);
}

#[test]
fn failed_node_is_rechecked_once_after_a_second() {
    for before in [None, Some(is_up())] {
        let mut rig = Rig::listed("h:1");
        if let Some(outcome) = before {
            rig.send_due();
            rig.report(rig.id("h:1"), outcome);
        }
        rig.probe("h:1", failed());
        assert_eq!(rig.send_due(), [""; 0]);
        rig.now += SECOND;
        assert_eq!(rig.send_due(), ["h:1"]);
        rig.report(rig.id("h:1"), failed());
        assert_eq!(rig.registry.health(rig.id("h:1")), Some(NodeState::Down));
        assert_eq!(rig.next(), rig.now - SECOND + INTERVAL, "no more than once");
    }
}

#[test]
fn recovered_node_is_not_rechecked() {
    let mut rig = Rig::listed("h:1");
    rig.probe("h:1", failed());
    rig.probe("h:1", is_up());
    rig.now += SECOND;
    assert_eq!(rig.send_due(), [""; 0]);
}

#[test]
fn status_429_and_local_error_are_no_verdict() {
    let lack = || Outcome::LocalError("no descriptor".to_owned());
    for (no_verdict, suspect_becomes) in [(|| Outcome::Limited) as fn() -> Outcome, lack]
        .into_iter()
        .zip([NodeState::Up, NodeState::Suspect])
    {
        let mut rig = Rig::listed("h:1");
        rig.probe("h:1", is_up());
        assert_eq!(rig.probe("h:1", no_verdict()), NodeState::Up);
        rig.probe("h:1", failed());
        assert_eq!(rig.probe("h:1", no_verdict()), suspect_becomes);
        assert_eq!(rig.available(), ["h:1"]);
        rig.probe("h:1", is_up());
        rig.probe("h:1", failed());
        assert_eq!(rig.probe("h:1", failed()), NodeState::Down);
        assert_eq!(rig.probe("h:1", no_verdict()), NodeState::Down);
        assert_eq!(rig.available(), [""; 0]);
    }
}

#[test]
fn status_429_ends_doubt_for_its_node() {
    let addrs = ["h:1", "h:2", "h:3", "h:4"];
    let mut rig = Rig::listed(&addrs.join("\n"));
    for outcome in [is_up, failed, failed] {
        for addr in addrs {
            rig.probe(addr, outcome());
        }
    }
    assert_eq!(rig.available(), addrs, "a mass failure");
    assert_eq!(rig.probe("h:3", Outcome::Limited), NodeState::Up);
    let first = rig.registry.answer(
        ["a"].into_iter(),
        Page { n: 1, offset: 0 },
        Client::V4(1),
        Purpose::Look,
        rig.now,
    );
    let first = first.expect("one container");
    assert_eq!(first[0].as_listed(), "h:3", "before doubted nodes");
    for addr in ["h:1", "h:2", "h:4"] {
        rig.probe(addr, failed());
    }
    rig.now += 3 * INTERVAL;
    rig.poller.end_doubts(rig.now);
    assert_eq!(rig.available(), ["h:3"]);
}

#[test]
fn result_counts_only_if_listed_without_interruption() {
    let mut rig = Rig::listed("h:1\nh:2");
    rig.send_due();
    let old = rig.id("h:1");
    rig.update(listed("h:2"));
    rig.update(listed("h:1\nh:2"));
    assert_ne!(rig.id("h:1"), old);
    rig.report(old, is_up());
    assert_eq!(rig.available(), [""; 0]);
    assert_eq!(rig.poller.schedule.in_flight.len(), 1);
    assert_eq!(rig.probe("h:1", is_up()), NodeState::Up);
    rig.update(listed(""));
    assert_eq!(rig.available(), [""; 0]);
}

#[test]
fn node_that_stays_listed_keeps_its_state() {
    let mut rig = rig(true);
    rig.update(listed("1.1.1.1:1\n2.2.2.2:2"));
    let id = rig.id("1.1.1.1:1");
    rig.probe("1.1.1.1:1", is_up());
    for update in [
        listed("http://1.1.1.1:1"),
        explorer("1.1.1.1:1\n3.3.3.3:3"),
        Update::ExplorerFailed,
    ] {
        rig.update(update);
        assert_eq!(rig.id("1.1.1.1:1"), id);
        assert_eq!(rig.available(), ["http://1.1.1.1:1"], "as ips.txt has it");
        assert_eq!(rig.rank(id), Rank::Listed(0));
    }
    rig.update(listed(""));
    assert_eq!(rig.available(), ["1.1.1.1:1"], "as the Explorer has it");
    assert!(matches!(rig.rank(id), Rank::Explorer(_)));
    rig.update(explorer("3.3.3.3:3"));
    assert_eq!(rig.available(), [""; 0]);
    assert_eq!(rig.poller.by_addr.len(), 1);
}

#[test]
fn ready_when_each_first_node_has_a_result() {
    let mut rig = rig(true);
    rig.update(listed("1.1.1.1:1\n2.2.2.2:2\n3.3.3.3:3"));
    rig.probe("1.1.1.1:1", is_up());
    rig.probe("2.2.2.2:2", Outcome::Limited);
    rig.probe("3.3.3.3:3", failed());
    assert!(!rig.is_ready(), "the Explorer has not answered");
    rig.update(explorer("1.1.1.1:1\n4.4.4.4:4\n5.5.5.5:5"));
    rig.probe("4.4.4.4:4", Outcome::LocalError("no descriptor".to_owned()));
    rig.probe("4.4.4.4:4", is_up());
    rig.probe("4.4.4.4:4", failed());
    assert!(!rig.is_ready(), "one has not answered");
    rig.update(explorer("4.4.4.4:4"));
    assert!(rig.is_ready(), "it is not listed any more");
}

#[test]
fn empty_list_or_failed_explorer_delays_no_start() {
    assert!(Rig::listed("").is_ready());
    let mut rig = rig(true);
    rig.update(listed(""));
    assert!(!rig.is_ready());
    rig.update(Update::ExplorerFailed);
    assert!(rig.is_ready());
}

#[test]
fn new_listed_nodes_are_probed_first_in_order() {
    let mut rig = rig(true);
    rig.update(explorer("9.9.9.9:9\n1.1.1.1:1"));
    rig.update(listed("8.8.8.8:8\n7.7.7.7:7"));
    // Explorer nodes are limited to 2,000 probes per second.
    rig.now += SECOND;
    let order: Vec<_> = std::iter::from_fn(|| match rig.poller.schedule.turn(rig.now) {
        Turn::Probe(id) => Some(rig.addr(id)),
        _ => None,
    })
    .collect();
    assert_eq!(order, ["8.8.8.8:8", "7.7.7.7:7", "1.1.1.1:1", "9.9.9.9:9"]);
}

#[test]
fn new_nodes_that_leave_take_no_turn() {
    let mut rig = rig(true);
    for other in 0..100 {
        rig.update(explorer(&format!("1.1.1.{other}:1\n9.9.9.9:9")));
        let listed = if other % 2 == 0 { "9.9.9.9:9" } else { "" };
        rig.update(self::listed(listed));
    }
    rig.now += SECOND;
    let mut probed: Vec<_> = std::iter::from_fn(|| match rig.poller.schedule.turn(rig.now) {
        Turn::Probe(id) => Some(rig.registry.record(id).map(|record| record.addr.to_string())),
        _ => None,
    })
    .collect();
    let known = |addr: &str| Some(addr.to_owned());
    probed.sort_unstable();
    assert_eq!(probed, [known("1.1.1.99:1"), known("9.9.9.9:9")]);
    rig.probe("1.1.1.99:1", failed());
    rig.update(explorer(""));
    rig.now += SECOND;
    assert_eq!(rig.send_due(), [""; 0], "no recheck of one that left");
}

#[test]
fn node_has_one_probe_in_flight() {
    let mut rig = Rig::listed("h:1\nh:2");
    assert_eq!(rig.send_due(), ["h:1", "h:2"]);
    rig.report(rig.id("h:2"), is_up());
    let hanging = rig.id("h:1");
    let begun = rig.poller.schedule.in_flight.get(&hanging).copied();
    rig.now += INTERVAL;
    assert_eq!(rig.send_due(), ["h:1", "h:2"], "a round");
    assert_eq!(rig.poller.schedule.in_flight.get(&hanging).copied(), begun);
}

#[test]
fn next_turn_is_an_interval_after_any_result() {
    for outcome in [is_up, failed, || Outcome::Limited] {
        let mut rig = Rig::listed("h:1");
        rig.send_due();
        rig.report(rig.id("h:1"), outcome());
        let first = rig.now;
        rig.now += SECOND;
        // A failed node is probed once more.
        if rig.send_due() == ["h:1"] {
            rig.report(rig.id("h:1"), outcome());
        }
        rig.now = first + INTERVAL - Duration::from_millis(1);
        assert_eq!(rig.send_due(), [""; 0]);
        rig.now = first + INTERVAL;
        assert_eq!(rig.send_due(), ["h:1"]);
        rig.report(rig.id("h:1"), is_up());
        rig.update(listed(""));
        rig.now += INTERVAL * 3;
        rig.poller.begin_round(rig.now);
        assert!(matches!(rig.poller.schedule.turn(rig.now), Turn::Wait(_)));
    }
}

#[test]
fn doubted_node_with_only_local_errors_stays_available() {
    let addrs = ["h:1", "h:2", "h:3", "h:4"];
    let mut rig = Rig::listed(&addrs.join("\n"));
    for outcome in [is_up, failed] {
        addrs.iter().for_each(|addr| {
            rig.probe(addr, outcome());
        });
    }
    rig.probe("h:1", failed());
    rig.probe("h:2", failed());
    assert_eq!(rig.probe("h:2", failed()), NodeState::Doubted, "failed again");
    rig.probe("h:1", Outcome::LocalError("network unreachable".to_owned()));
    rig.now += 3 * INTERVAL;
    rig.poller.end_doubts(rig.now);
    assert_eq!(rig.available(), ["h:1", "h:3", "h:4"]);
}

#[test]
fn node_that_returns_429_leaves_the_suspects() {
    let addrs = ["h:1", "h:2", "h:3", "h:4"];
    let mut rig = Rig::listed(&addrs.join("\n"));
    for addr in addrs {
        rig.probe(addr, is_up());
        rig.probe(addr, failed());
        rig.probe(addr, Outcome::Limited);
    }
    rig.probe("h:1", failed());
    assert_eq!(
        rig.probe("h:1", failed()),
        NodeState::Down,
        "no mass failure is suspected"
    );
}

#[test]
fn explorer_node_at_later_resolved_name_is_listed_node() {
    let mut rig = rig(true);
    rig.update(listed("one.test:5000"));
    rig.update(explorer("127.0.1.1:5000"));
    rig.probe("127.0.1.1:5000", is_up());
    let addr = [127, 0, 1, 1].into();
    rig.poller.fetcher.resolver().learn("one.test", vec![addr]);
    rig.probe("one.test:5000", is_up());
    assert_eq!(rig.available(), ["one.test:5000"]);
    let other = [127, 0, 1, 2].into();
    rig.poller.fetcher.resolver().learn("one.test", vec![other]);
    rig.now += INTERVAL;
    rig.next();
    assert_eq!(
        rig.poller.by_addr.len(),
        2,
        "another machine has the Explorer's address now"
    );
}

#[test]
fn explorer_failures_do_not_affect_listed_nodes() {
    let of_file: Vec<String> = (1..=8).map(|node| format!("9.9.9.{node}:1")).collect();
    let of_one_address: Vec<String> = (1..=20).map(|port| format!("1.1.1.1:{port}")).collect();
    let mut rig = rig(true);
    rig.update(explorer(&of_one_address.join("\n")));
    rig.update(listed(&of_file.join("\n")));
    for addr in of_file.iter().chain(&of_one_address) {
        assert_eq!(rig.probe(addr, is_up()), NodeState::Up);
    }
    for addr in of_one_address.iter().chain(&of_one_address) {
        rig.probe(addr, failed());
    }
    assert_eq!(rig.available(), of_file, "20 ports of one address are no mass failure");
    for addr in of_file.iter().chain(&of_file) {
        rig.probe(addr, failed());
    }
    assert_eq!(rig.available(), of_file, "the listed nodes are doubted");
}

#[test]
fn node_that_changes_lists_while_doubted_is_suspect() {
    let addrs = ["1.1.1.1:1", "2.2.2.2:2", "3.3.3.3:3", "4.4.4.4:4"];
    let mut rig = Rig::listed(&addrs.join("\n"));
    for outcome in [is_up, failed, failed] {
        addrs.iter().for_each(|addr| {
            rig.probe(addr, outcome());
        });
    }
    rig.update(explorer(addrs[0]));
    rig.update(listed(&addrs[1..].join("\n")));
    assert_eq!(rig.registry.health(rig.id(addrs[0])), Some(NodeState::Suspect));
    assert_eq!(
        rig.probe(addrs[0], failed()),
        NodeState::Down,
        "its new list has one node"
    );
}

fn no_route() -> Outcome {
    Outcome::LocalError("no route".to_owned())
}

#[test]
fn network_error_is_inconclusive_until_a_node_responds() {
    let mut rig = Rig::listed("h:1\nh:2\nh:3");
    let unreachable = rig.probe_over(Family::V4, "h:1", no_route());
    assert_eq!(unreachable, NodeState::Down, "no node of the family was available");
    for addr in ["h:1", "h:2"] {
        rig.probe_over(Family::V4, addr, is_up());
    }
    for _ in 0..9 {
        rig.now += INTERVAL / 2;
        assert_eq!(rig.probe_over(Family::V4, "h:1", no_route()), NodeState::Up);
    }
    let other_family = rig.probe_over(Family::V6, "h:3", no_route());
    assert_eq!(other_family, NodeState::Down);
    rig.probe_over(Family::V4, "h:2", is_up());
    assert_eq!(rig.probe_over(Family::V4, "h:1", no_route()), NodeState::Suspect);
    rig.probe_over(Family::V4, "h:1", is_up());
    assert_eq!(
        rig.probe_over(Family::V4, "h:1", no_route()),
        NodeState::Up,
        "the first error"
    );
}

#[test]
fn response_to_probe_before_network_error_proves_nothing() {
    let mut rig = Rig::listed("h:1\nh:2");
    rig.probe_over(Family::V4, "h:1", is_up());
    let slow = rig.id("h:2");
    rig.send(slow);
    rig.now += SECOND;
    rig.probe_over(Family::V4, "h:1", no_route());
    rig.finish_over(Family::V4, slow, is_up());
    assert_eq!(rig.probe_over(Family::V4, "h:1", no_route()), NodeState::Up);
}

#[test]
fn lost_route_takes_no_node_down_and_lone_unreachable_node_does() {
    for (reachable, down_after) in [(&[][..], None), (&["h:2", "h:3"], Some(3))] {
        let mut rig = Rig::listed("h:1\nh:2\nh:3");
        for addr in ["h:1", "h:2", "h:3"] {
            rig.probe_over(Family::V4, addr, is_up());
        }
        let (mut refused, mut down): (Option<u32>, Option<u32>) = (None, None);
        for second in 1..300 {
            for addr in rig.send_due() {
                let outcome = match reachable.contains(&&*addr) {
                    true => is_up(),
                    false => no_route(),
                };
                if !reachable.contains(&&*addr) {
                    refused.get_or_insert(second);
                }
                rig.finish_over(Family::V4, rig.id(&addr), outcome);
            }
            if rig.available().len() < 3 {
                down.get_or_insert(second);
            }
            rig.now += SECOND;
        }
        let took = down.zip(refused).map(|(down, refused)| down - refused);
        assert_eq!(took, down_after);
    }
}

#[test]
fn rechecked_witness_that_fails_is_a_suspect_with_recheck() {
    let mut rig = Rig::listed("h:1\nh:2");
    for addr in ["h:1", "h:2"] {
        rig.probe_over(Family::V4, addr, is_up());
        rig.now += SECOND;
    }
    rig.probe_over(Family::V4, "h:1", no_route());
    for expected in [NodeState::Suspect, NodeState::Down] {
        rig.now += SECOND;
        assert_eq!(rig.send_due(), ["h:1", "h:2"]);
        rig.finish_over(Family::V4, rig.id("h:1"), no_route());
        rig.report(rig.id("h:2"), failed());
        assert_eq!(rig.registry.health(rig.id("h:2")), Some(expected));
    }
}

#[test]
fn draining_node_counts_in_no_mass_failure() {
    let addrs: Vec<String> = (1..=8).map(|node| format!("9.9.9.{node}:1")).collect();
    let mut rig = Rig::listed(&addrs.join("\n"));
    addrs.iter().for_each(|addr| {
        rig.probe(addr, is_up());
    });
    let drain = |addr: &String| format!("{addr} drain");
    let list: Vec<String> = addrs[..6].iter().map(drain).chain(addrs[6..].to_vec()).collect();
    rig.update(listed(&list.join("\n")));
    assert_eq!(rig.available(), addrs[6..]);
    for addr in &addrs[..6] {
        rig.probe(addr, failed());
        assert_eq!(rig.probe(addr, failed()), NodeState::Down, "{addr}");
    }
    rig.update(listed(&addrs.join("\n")));
    assert_eq!(rig.available(), addrs[6..], "they are down");
}

#[test]
fn doubted_node_that_drains_is_a_suspect() {
    let addrs = ["1.1.1.1:1", "2.2.2.2:2", "3.3.3.3:3", "4.4.4.4:4"];
    let mut rig = Rig::listed(&addrs.join("\n"));
    for outcome in [is_up, failed, failed] {
        addrs.iter().for_each(|addr| {
            rig.probe(addr, outcome());
        });
    }
    assert_eq!(rig.registry.health(rig.id(addrs[0])), Some(NodeState::Doubted));
    rig.update(listed(&format!("{} drain\n{}", addrs[0], addrs[1..].join("\n"))));
    assert_eq!(rig.registry.health(rig.id(addrs[0])), Some(NodeState::Suspect));
    assert_eq!(rig.probe(addrs[0], failed()), NodeState::Down);
}
