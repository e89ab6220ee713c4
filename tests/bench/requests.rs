//! Requests per second and latencies of `/api/v1/ips`, compared with bare tiny_http with a constant of the same size.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::load::{self, Keep, Measured};
use crate::support::fleet::{Behaviour, Fleet};
use crate::support::process::{Launch, Router, cpu_time};
use crate::{Length, median};

const TARGET: &str = "/api/v1/ips?container=hello-world";
const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const SHORT_SIZES: [usize; 2] = [10, 10_000];
const LOADS: [(usize, Keep); 4] = [(1, Keep::Alive), (8, Keep::Alive), (64, Keep::Alive), (8, Keep::Close)];
/// Number of runs for a median, and duration of a run.
const RUNS: usize = 5;
const SHORT_RUNS: usize = 1;
const LASTING: Duration = Duration::from_millis(1_500);
/// Limit for the first probes of 100,000 nodes.
const PATIENCE: Duration = Duration::from_secs(180);

/// tiny_http in a separate process with typical use: a few workers and its own `Response`.
struct Bare {
    process: Child,
    addr: SocketAddr,
}

impl Bare {
    fn start(len: usize) -> Self {
        let this = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(this)
            .args(["bare", &len.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("an address");
        let addr = line.trim().parse().expect("an address");
        Self { process, addr }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server process of [`Bare`], which runs until it is killed.
pub fn serve_bare(len: usize) {
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a port"));
    println!("{}", server.server_addr());
    let body = vec![b'x'; len];
    let serve = |server: Arc<tiny_http::Server>, body: Vec<u8>| {
        while let Ok(request) = server.recv() {
            let json = tiny_http::Header::from_bytes("Content-Type", "application/json").expect("a header");
            let _ = request.respond(tiny_http::Response::from_data(body.clone()).with_header(json));
        }
    };
    let worker = |_| {
        let (server, body) = (Arc::clone(&server), body.clone());
        std::thread::spawn(move || serve(server, body))
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
}

/// Starts a router with all nodes up, which sends no probes during the measurement.
fn router(fleet: &Fleet, interval: &str) -> Router {
    let router = Launch::beside_this_program()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", interval)
        .start();
    let last = format!("{TARGET}&n=1&offset={}", fleet.len() - 1);
    let all_known = || router.get(&last).strings().len() == 1;
    assert!(
        crate::support::process::until(PATIENCE, all_known),
        "all nodes become known"
    );
    router
}

/// Returns the medians of several runs.
#[derive(Clone, Copy)]
struct Row {
    rps: f64,
    /// Processor time of the server per response, in microseconds.
    cpu: f64,
    p50: u32,
    p99: u32,
    p999: u32,
}

impl Row {
    fn cells(&self) -> String {
        let Self {
            rps,
            p50,
            p99,
            p999,
            cpu,
        } = self;
        format!("{rps:.0} | {p50} | {p99} | {p999} | {cpu:.1}")
    }
}

fn row(runs: &[(Measured, f64)]) -> Row {
    let quantile = |part| median(runs.iter().map(|(run, _)| run.quantile(part)).collect());
    Row {
        rps: median(runs.iter().map(|(run, _)| run.requests_per_second).collect()),
        cpu: median(runs.iter().map(|(_, cpu)| *cpu).collect()),
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
    }
}

/// Runs one load. Returns the result, and the processor time of the server per response, in microseconds.
fn run(server: u32, addr: SocketAddr, target: &str, (connections, keep): (usize, Keep)) -> (Measured, f64) {
    let before = cpu_time(server);
    let measured = load::run(addr, target, connections, keep, LASTING);
    let spent = cpu_time(server) - before;
    let cpu = spent.as_secs_f64() * 1e6 / measured.count() as f64;
    (measured, cpu)
}

/// The router and bare tiny_http, one run of each in turn.
pub fn beside_bare_tiny_http(length: Length) {
    println!("\n## Requests per second of {TARGET}, compared with bare tiny_http\n");
    println!("\"Processor\" is the processor time of the server per response. Latencies are in microseconds.\n");
    println!(
        "| nodes | connections | router/s | p50 | p99 | p99.9 | processor µs | bare/s | p50 | p99 | p99.9 | \
         processor µs | ratio of requests | of processor time |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut first: Vec<f64> = Vec::new();
    for &nodes in length.pick(&SIZES[..], &SHORT_SIZES) {
        let fleet = Fleet::start(nodes);
        let router = router(&fleet, "86400");
        let len = router.get(TARGET).body.len();
        let bare = Bare::start(len);
        for (at, load) in LOADS.into_iter().enumerate() {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..length.pick(RUNS, SHORT_RUNS) {
                ours.push(run(router.pid(), router.addr(), TARGET, load));
                theirs.push(run(bare.process.id(), bare.addr, "/", load));
            }
            let (ours, theirs) = (row(&ours), row(&theirs));
            let (connections, keep) = load;
            let kept = if keep == Keep::Alive { "kept" } else { "new each time" };
            println!(
                "| {nodes} | {connections} {kept} | {} | {} | {:.2} | {:.2} |",
                ours.cells(),
                theirs.cells(),
                ours.rps / theirs.rps,
                ours.cpu / theirs.cpu
            );
            match first.get(at) {
                None => first.push(ours.rps / theirs.rps),
                Some(ten) => println!(
                    "|  |  | cost vs. 10 nodes: {:.2} times ||||||||||||",
                    ten / (ours.rps / theirs.rps)
                ),
            }
        }
    }
}

/// The same load without probes and during a round over 10,000 nodes.
pub fn while_probing(length: Length) {
    println!("\n## p99 of {TARGET} with 10,000 nodes, 8 connections, with and without probes\n");
    println!("| | requests/s | p50 µs | p99 µs | p99.9 µs | processor µs per response |");
    println!("|---|---|---|---|---|---|");
    let fleet = Fleet::start(10_000);
    fleet.set_all(Behaviour::up(1, &["hello-world", "another"]));
    let (quiet, probing) = (router(&fleet, "86400"), router(&fleet, "5"));
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..length.pick(RUNS, SHORT_RUNS) {
        without.push(run(quiet.pid(), quiet.addr(), TARGET, (8, Keep::Alive)));
        with.push(run(probing.pid(), probing.addr(), TARGET, (8, Keep::Alive)));
    }
    for (name, runs) in [("no probes", without), ("2,000 probes a second", with)] {
        println!("| {name} | {} |", row(&runs).cells());
    }
}
