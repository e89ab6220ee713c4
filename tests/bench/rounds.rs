//! Cost and fairness of probing a large fleet, delay until a change is visible, and memory growth.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::fleet::{Behaviour, Fleet};
use crate::support::process::{Launch, Router, until};
use crate::{Length, median};

const INTERVAL: Duration = Duration::from_secs(30);
const CONTAINER: &str = "hello-world";

fn wait(lasting: Duration) {
    let end = Instant::now() + lasting;
    until(lasting * 2, || Instant::now() >= end);
}

fn launch(fleet: &Fleet, interval: Duration) -> Router {
    let router = Launch::beside_this_program()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", interval.as_secs_f64());
    router.start()
}

/// Returns all available addresses, page by page.
fn available(router: &Router) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let page = router
            .get(&format!(
                "/api/v1/ips?container={CONTAINER}&n=1000&offset={}",
                all.len()
            ))
            .strings();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn hang(fleet: &Fleet, percent: usize) {
    fleet.set_each(|node| match node % 100 < percent {
        true => Behaviour::Hang,
        false => Behaviour::up((node % 7) as u64, &[CONTAINER]),
    });
}

/// Nodes, percent of them that hang, interval.
const FLEETS: [(usize, usize, Duration); 5] = [
    (3, 0, INTERVAL),
    (10_000, 0, INTERVAL),
    (10_000, 5, INTERVAL),
    (10_000, 30, INTERVAL),
    (100_000, 0, Duration::from_secs(60)),
];

const SHORT_FLEETS: [(usize, usize, Duration); 2] =
    [(3, 0, Duration::from_secs(5)), (10_000, 5, Duration::from_secs(12))];

/// Number of measured rounds for a median.
const ROUNDS: u32 = 3;
const SHORT_ROUNDS: u32 = 1;

/// Rounds of [`many_with_changing_lists`].
const CREEP_ROUNDS: usize = 200;
const SHORT_CREEP_ROUNDS: usize = 40;

/// Processor time and memory of rounds, and the number of probes per node in each round.
pub fn over_a_fleet(length: Length) {
    let rounds_each = length.pick(ROUNDS, SHORT_ROUNDS);
    println!("\n## Rounds, MAX_PROBES at its default\n");
    println!(
        "| nodes | hanging | interval | available | processor time of a round | resident, at most | live nodes probed 0/1/2/more times in an interval | probes in the busiest second vs. even share | warnings |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for &(nodes, percent, interval) in length.pick(&FLEETS[..], &SHORT_FLEETS) {
        let fleet = Fleet::start(nodes);
        hang(&fleet, percent);
        let router = launch(&fleet, interval);
        router.addr();
        // The first interval detects hanging nodes. The second interval is typical.
        wait(interval * 2 + interval / 2);
        let rounds: Vec<Round> = (0..rounds_each)
            .map(|_| Round::measure(&fleet, &router, percent, interval))
            .collect();
        let asked: Vec<String> = (0..4)
            .map(|times| rounds.iter().map(|round| round.asked[times]).sum::<usize>().to_string())
            .collect();
        println!(
            "| {nodes} | {percent} % | {} s | {} | {:.2} s | {:.1} MiB | {} in {rounds_each} intervals | {} | {} |",
            interval.as_secs(),
            available(&router).len(),
            median(rounds.iter().map(|round| round.cpu).collect()).as_secs_f64(),
            router.peak_rss_kib() as f64 / 1024.0,
            asked.join(" / "),
            busiest(&rounds, interval),
            router.count_lines("too small"),
        );
    }
}

/// Returns the number of probes in the busiest second of all rounds, and its ratio to an even share. Few nodes have no
/// even share of a second.
fn busiest(rounds: &[Round], interval: Duration) -> String {
    let most = rounds.iter().map(|round| round.most_in_a_second).max().unwrap_or(0);
    let all: u64 = rounds.iter().map(|round| round.probes).sum();
    let share = all as f64 / (rounds.len() as f64 * interval.as_secs_f64());
    format!("{most}, {:.2}", most as f64 / share)
}

struct Round {
    cpu: Duration,
    probes: u64,
    most_in_a_second: u64,
    /// Number of live nodes with no probe, one, two, and more probes.
    asked: [usize; 4],
}

impl Round {
    fn measure(fleet: &Fleet, router: &Router, percent: usize, interval: Duration) -> Self {
        let (before, cpu) = (fleet.asked_each(), router.cpu_time());
        let each_second: Vec<u64> = (0..interval.as_secs())
            .map(|_| {
                let asked = fleet.asked_total();
                wait(Duration::from_secs(1));
                fleet.asked_total() - asked
            })
            .collect();
        let (after, cpu) = (fleet.asked_each(), router.cpu_time() - cpu);
        let mut asked = [0; 4];
        for node in (0..fleet.len()).filter(|node| node % 100 >= percent) {
            asked[(after[node] - before[node]).min(3) as usize] += 1;
        }
        Self {
            cpu,
            probes: each_second.iter().sum(),
            most_in_a_second: each_second.into_iter().max().unwrap_or(0),
            asked,
        }
    }
}

/// Delay until a failed or recovered node is visible in responses: 10,000 nodes, 5 % hanging.
pub fn of_nodes_that_die_and_return(_: Length) {
    println!("\n## Nodes that fail and recover: 10,000 nodes, 5 % hanging, interval 30 s, bound 39 s\n");
    println!("| | nodes | visible after: median | 95 % | longest |");
    println!("|---|---|---|---|---|");
    let fleet = Fleet::start(10_000);
    hang(&fleet, 5);
    let router = launch(&fleet, INTERVAL);
    router.until("the live nodes are available", || available(&router).len() == 9_500);
    wait(INTERVAL * 2);
    let chosen: Vec<usize> = (0..10_000).filter(|node| node % 100 == 50).collect();
    let change = |dies: bool, behaviour: &dyn Fn(usize) -> Behaviour| {
        let mut pending: HashMap<String, Instant> = HashMap::new();
        let mut delays = Vec::new();
        let mut left = chosen.iter();
        let end = Instant::now() + Duration::from_secs(120);
        while (left.len() > 0 || !pending.is_empty()) && Instant::now() < end {
            // One hundred nodes change within an interval, a few at a time.
            for node in left.by_ref().take(2) {
                fleet.set(*node, behaviour(*node));
                pending.insert(fleet.addr(*node).to_string(), Instant::now());
            }
            wait(Duration::from_millis(500));
            let there: std::collections::HashSet<String> = available(&router).into_iter().collect();
            pending.retain(|addr, since| {
                let shows = there.contains(addr) != dies;
                if shows {
                    delays.push(since.elapsed().as_secs_f64());
                }
                !shows
            });
        }
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| {
            delays
                .get(((delays.len() as f64 * part) as usize).min(delays.len() - 1))
                .copied()
                .unwrap_or(f64::NAN)
        };
        let name = if dies { "die (hang)" } else { "return" };
        println!(
            "| {name} | {} of {} | {:.1} s | {:.1} s | {:.1} s |",
            delays.len(),
            chosen.len(),
            at(0.5),
            at(0.95),
            at(1.0)
        );
    };
    change(true, &|_| Behaviour::Hang);
    change(false, &|node| Behaviour::up((node % 7) as u64, &[CONTAINER]));
    println!("\nwarnings of a too small pool: {}", router.count_lines("too small"));
}

/// Time from the start of the process to the first response, and to all nodes.
pub fn from_the_start(length: Length) {
    println!("\n## Time from the start of the process, 10,000 healthy nodes\n");
    println!("| run | first response | nodes up by then | all nodes up |");
    println!("|---|---|---|---|");
    let fleet = Fleet::start(10_000);
    hang(&fleet, 0);
    for run in 1..=length.pick(3, 1) {
        let begin = Instant::now();
        let router = launch(&fleet, INTERVAL);
        assert_eq!(
            router
                .get(&format!("/api/v1/ips?container={CONTAINER}"))
                .strings()
                .len(),
            3
        );
        let first = begin.elapsed().as_secs_f64();
        let known = available(&router).len();
        router.until("all nodes are available", || available(&router).len() == 10_000);
        println!(
            "| {run} | {first:.2} s | {known} | {:.2} s |",
            begin.elapsed().as_secs_f64()
        );
    }
}

/// Rounds at half a second with flapping nodes and a list that changes each second.
pub fn many_with_changing_lists(length: Length) {
    let rounds = length.pick(CREEP_ROUNDS, SHORT_CREEP_ROUNDS);
    println!("\n## Memory over {rounds} rounds, interval 0.5 s, flapping nodes, a list that changes each second\n");
    println!("| round | resident |");
    println!("|---|---|");
    let fleet = Fleet::start(1_000);
    hang(&fleet, 0);
    let router = launch(&fleet, Duration::from_millis(500));
    router.addr();
    let mut at_20 = 0;
    for round in 1..=rounds {
        fleet.set_each(|node| match (node + round) % 10 {
            0 => Behaviour::Reset,
            1 => Behaviour::Status(500),
            _ => Behaviour::up((node % 7) as u64, &[CONTAINER, ["a", "b", "c"][(node + round) % 3]]),
        });
        // Two rounds per second. The router loads a list that is unchanged for one second.
        if round % 4 == 0 {
            router.write_ips(fleet.list_of(round % 50..1_000 - round % 70));
        }
        available(&router);
        wait(Duration::from_millis(500));
        if round == 20 {
            at_20 = router.rss_kib();
        }
        if round % 20 == 0 {
            println!("| {round} | {:.1} MiB |", router.rss_kib() as f64 / 1024.0);
        }
    }
    println!(
        "\nround {rounds} vs. round 20: {:.2} times",
        router.rss_kib() as f64 / at_20 as f64
    );
}
