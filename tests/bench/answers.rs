//! Duration of a response in the registry alone, and waits of other threads for its lock.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use infernet_router::client::Client;
use infernet_router::node::{ContainerId, NodeAddr, Rank, Running};
use infernet_router::registry::{NodeId, Page, PromisePolicy, Purpose, Registry};

use crate::{Length, median};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const MANY: usize = 100_000;
/// Runs with a median, in turns over the sizes, and responses per run. Ten nodes hold at most 20,480 promises.
const RUNS: u32 = 15;
const SHORT_RUNS: u32 = 3;
const ANSWERS: u32 = 5_000;
/// Promises to one client for each node: more than the cap of 8 of a node of unknown speed.
const PROMISES_TO_ONE: usize = 12;
/// Duration of each kind of work while another thread requests the lock.
const LASTING: Duration = Duration::from_secs(2);
const SHORT_LASTING: Duration = Duration::from_millis(400);

/// A registry of nodes that all run "all". Every second node runs "even", the others "odd".
struct Nodes {
    registry: Registry,
    ids: Vec<NodeId>,
}

impl Nodes {
    fn new(count: usize) -> Self {
        let policy = PromisePolicy::On {
            weight: 1,
            max_speedup: None,
        };
        let now = Instant::now();
        let registry = Registry::new(policy, Duration::from_secs(30), now);
        let ids = (0..count).map(|node| registry.insert(addr(node), Rank::Listed(node as u32), now));
        let ids = ids.collect();
        let nodes = Self { registry, ids };
        (0..count).for_each(|node| nodes.report(node, &["all", ["even", "odd"][node % 2]]));
        nodes
    }

    fn report(&self, node: usize, runs: &[&str]) {
        let running: Vec<Running> = runs.iter().map(|id| running(id)).collect();
        self.report_running(node, &running);
    }

    /// Returns the duration of one response in nanoseconds, each to another client.
    fn time_answers(&self, containers: &[&str], run: u32) -> f64 {
        // The promises of the last run are removed, which matters with few nodes.
        (0..self.ids.len().min(SIZES[1])).for_each(|node| self.report(node, &["all", ["even", "odd"][node % 2]]));
        self.time(containers, |answer| answer + run * ANSWERS)
    }

    /// Returns the duration of one response in nanoseconds, all to one client.
    fn time_answers_to_one(&self) -> f64 {
        self.time(&["all"], |_| 0)
    }

    /// Makes promises to one client until its subnet is above its cap on the first nodes of the order.
    fn crowd(&self) {
        (0..PROMISES_TO_ONE * self.ids.len()).for_each(|_| self.answer(&["all"], 1, 0, 0));
    }

    fn time(&self, containers: &[&str], client: impl Fn(u32) -> u32) -> f64 {
        let begin = Instant::now();
        (0..ANSWERS).for_each(|answer| self.answer(containers, 3, 0, client(answer)));
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(ANSWERS)
    }

    fn report_running(&self, node: usize, running: &[Running]) {
        let id = self.ids[node];
        let now = Instant::now();
        self.registry.begin_probe(id, now);
        self.registry.up(id, running, node as u64 % 7, now);
    }

    fn answer(&self, containers: &[&str], n: u32, offset: u32, client: u32) {
        let client = Client::V4(client.wrapping_mul(0x9E37_79B9));
        let answer = self.registry.answer(
            containers.iter().copied(),
            Page { n, offset },
            client,
            Purpose::Route,
            Instant::now(),
        );
        black_box(answer.expect("few searches"));
    }
}

fn addr(node: usize) -> NodeAddr {
    let ip = Ipv4Addr::from_bits(0x0A00_0000 + node as u32);
    NodeAddr::parse(&format!("{ip}:4000")).expect("an address")
}

fn running(id: &str) -> Running {
    Running {
        id: ContainerId::parse(id).expect("an id"),
        description: None,
        image: None,
    }
}

/// The same response with few nodes and with many, in turns.
pub fn with_few_and_many_nodes(length: Length) {
    println!("\n## One response of the registry alone, n=3\n");
    println!(
        "With many nodes, each response reads nodes outside the caches. This is short compared with an HTTP request. \
         \"One client\" is above the cap of its subnet on each node.\n"
    );
    let versus = format!("vs. {} nodes", SIZES[0]);
    println!("| nodes | one container | {versus} | two containers | {versus} | one client | {versus} |");
    println!("|---|---|---|---|---|---|---|");
    let all = SIZES.map(Nodes::new);
    let median_of = |time: &dyn Fn(&Nodes, u32) -> f64| {
        let mut times = SIZES.map(|_| Vec::new());
        for run in 0..length.pick(RUNS, SHORT_RUNS) {
            for (nodes, times) in all.iter().zip(&mut times) {
                times.push(time(nodes, run));
            }
        }
        times.map(median)
    };
    let one = median_of(&|nodes, run| nodes.time_answers(&["all"], run));
    let two = median_of(&|nodes, run| nodes.time_answers(&["all", "even"], run));
    all.iter().for_each(Nodes::crowd);
    let to_one = median_of(&|nodes, _| nodes.time_answers_to_one());
    for (at, size) in SIZES.iter().enumerate() {
        let cells = [one, two, to_one].map(|times| format!("{:.0} ns | {:.2}", times[at], times[at] / times[0]));
        println!("| {size} | {} |", cells.join(" | "));
    }
}

/// Duration of a short call under the lock while another thread works.
pub fn and_those_that_wait(length: Length) {
    let lasting = length.pick(LASTING, SHORT_LASTING);
    println!("\n## A short call under the registry's lock, {MANY} nodes, while another thread works\n");
    println!("| work | duration of one | call: median | p99 |");
    println!("|---|---|---|---|");
    let nodes = Nodes::new(MANY);
    let ids: Vec<Running> = (0..256).map(|id| running(&format!("container-{id}"))).collect();
    let deep = MANY as u32 - 1_000;
    let works: [(&str, &(dyn Fn(u32) + Sync)); 8] = [
        ("nothing", &|_| thread::yield_now()),
        ("answers, n=3", &|turn| nodes.answer(&["all"], 3, 0, turn)),
        ("answers, n=1000000", &|turn| nodes.answer(&["all"], 1_000_000, 0, turn)),
        ("answers, n=1000, the last thousand", &|turn| {
            nodes.answer(&["all"], 1_000, deep, turn);
        }),
        ("answers, two containers never together", &|turn| {
            nodes.answer(&["even", "odd"], 3, 0, turn);
        }),
        ("a page of /status, n=1000", &|turn| {
            let first = turn as usize * 1_000 % MANY;
            black_box(nodes.registry.views(&nodes.ids[first..first + 1_000], Instant::now()));
        }),
        ("reports of 2 containers", &|turn| {
            let node = turn as usize % MANY;
            nodes.report(node, &["all", ["even", "odd"][node % 2]]);
        }),
        ("reports of 256 containers", &|turn| {
            nodes.report_running(turn as usize % 1_000, &ids);
        }),
    ];
    for (name, work) in works {
        let done = AtomicBool::new(false);
        let (turns, mut waits) = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let turns = (0..).take_while(|_| !done.load(Ordering::Relaxed));
                turns.inspect(|turn| work(*turn)).count()
            });
            let begin = Instant::now();
            let mut waits = Vec::new();
            while begin.elapsed() < lasting {
                let asked = Instant::now();
                black_box(nodes.registry.health(nodes.ids[0]));
                waits.push(asked.elapsed());
                thread::sleep(Duration::from_micros(20));
            }
            done.store(true, Ordering::Relaxed);
            (worker.join().expect("no panic"), waits)
        });
        waits.sort();
        let at = |part: f64| waits[(waits.len() as f64 * part) as usize].as_secs_f64() * 1e6;
        let one = lasting.as_secs_f64() * 1e6 / turns as f64;
        println!("| {name} | {one:.1} µs | {:.1} µs | {:.1} µs |", at(0.5), at(0.99));
    }
}
