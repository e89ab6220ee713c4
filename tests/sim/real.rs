//! The built router with ten nodes that queue jobs in real time: half of them four times faster, 70 % load. Jobs of
//! 0.2 s with an interval of 3 s have the ratio of jobs of 2 s with the default interval of 30 s.
#![allow(clippy::disallowed_methods, reason = "runs in real time")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::scenario::{Scenario, Speeds};
use crate::support::fleet::{Behaviour, Fleet};
use crate::support::http;
use crate::support::process::until;
use crate::support::{Launch, Router};

const JOB: Duration = Duration::from_millis(200);
const INTERVAL: Duration = Duration::from_secs(3);
/// Time for the router to learn (about 400 jobs per node; it trusts its record after 40), and time of the measurement.
const WARM_UP: Duration = Duration::from_secs(120);
const MEASURED: Duration = Duration::from_secs(120);
const CONTAINER: &str = "hello-world";
/// Clients, and the maximum mean response in job times.
const RUNS: [(usize, f64); 2] = [(10_000, 2.0), (3, 2.2)];

/// Jobs of one node: their completion times, in the order of the queue.
struct Node {
    speed: f64,
    ends: VecDeque<Instant>,
    /// Number of jobs that the node reports.
    told: usize,
}

/// Prints the results of all runs. The exit code is 1 if one exceeds its maximum.
pub fn run() -> ExitCode {
    println!(
        "Ten nodes that queue, half of them 4 times faster, load 0.7, jobs of 0.2 s, interval 3 s, in real time:\n"
    );
    println!("| clients | jobs | mean response in job times | at most |\n|---|---|---|---|");
    let results = thread::scope(|scope| {
        let runs = RUNS.map(|(clients, _)| scope.spawn(move || mean_response(clients)));
        runs.map(|run| run.join().expect("a run ends"))
    });
    let mut is_good = true;
    for ((clients, most), (jobs, mean)) in RUNS.into_iter().zip(results) {
        println!("| {clients} | {jobs} | {mean:.2} | {most} |");
        is_good &= mean <= most;
    }
    ExitCode::from(u8::from(!is_good))
}

/// Returns the number of jobs, and the mean response in job times.
fn mean_response(clients: usize) -> (usize, f64) {
    let scenario = Scenario {
        job: JOB,
        speeds: Speeds::Half(4.0),
        ..Scenario::new(10, 0.7)
    };
    let fleet = Fleet::start(scenario.nodes);
    let speeds = scenario.speeds().into_iter();
    let node = |speed| Node {
        speed,
        ends: VecDeque::new(),
        told: 0,
    };
    let mut nodes: Vec<Node> = speeds.map(node).collect();
    let router = Launch::beside_this_program()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", INTERVAL.as_secs_f64())
        .start();
    router.until("all nodes are available", || answer(&router, client(0), 99).len() == 10);
    let mut random = Random::new(clients as u64, 3);
    let begin = Instant::now();
    let (mut next, mut responses) = (begin, Vec::new());
    while next < begin + WARM_UP + MEASURED {
        until(MEASURED, || {
            tell(&fleet, &mut nodes);
            Instant::now() >= next
        });
        let first = answer(&router, client(random.below(clients)), 1);
        let chosen = (0..nodes.len()).find(|node| first.first() == Some(&fleet.addr(*node).to_string()));
        let node = &mut nodes[chosen.expect("one of these nodes")];
        let now = Instant::now();
        let from = node.ends.back().map_or(now, |last| now.max(*last));
        let end = from + random.exponential(JOB).div_f64(node.speed);
        node.ends.push_back(end);
        if now > begin + WARM_UP {
            responses.push((end - now).as_secs_f64());
        }
        next += random.exponential(scenario.between_jobs());
    }
    let mean = responses.iter().sum::<f64>() / responses.len() as f64;
    (responses.len(), mean / JOB.as_secs_f64())
}

/// Makes the nodes report their current number of jobs.
fn tell(fleet: &Fleet, nodes: &mut [Node]) {
    let now = Instant::now();
    for (at, node) in nodes.iter_mut().enumerate() {
        while node.ends.front().is_some_and(|end| *end <= now) {
            node.ends.pop_front();
        }
        if node.told != node.ends.len() {
            node.told = node.ends.len();
            fleet.set(at, Behaviour::up(node.told as u64, &[CONTAINER]));
        }
    }
}

/// Returns the address of a client, each in a separate /24.
fn client(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x7F10_0001 + ((number as u32) << 8)))
}

fn answer(router: &Router, client: IpAddr, n: u32) -> Vec<String> {
    http::get_from(
        client,
        router.addr(),
        &format!("/api/v1/ips?container={CONTAINER}&n={n}"),
    )
    .strings()
}
