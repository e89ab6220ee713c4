//! `make soak`: runs all attacks in turn and together for ten minutes, or for the seconds of the argument, and measures
//! an honest client. The exit code is 0 if the router answered all its requests, did not panic, and released threads,
//! descriptors and the kernel's TCP memory. `make soak-accidents`: operational accidents instead.
#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod accidents;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::attack::{self, Attack, Then, UnderWay, random_heads};
use support::honest::Seen;
use support::process::until;
use support::{Fleet, Honest, Launch, PATIENCE, Router};

const LASTING: Duration = Duration::from_secs(600);
/// Pause before the first measurement.
const SETTLING: Duration = Duration::from_secs(6);
/// Interval of measurements.
const REPORT: Duration = Duration::from_secs(30);
/// Duration of a mix of attacks. The next mix meets the state that it left.
const MIX: Duration = Duration::from_secs(20);
const IPS: &str = "/api/v1/ips?container=hello-world";
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// TCP memory that may remain after the attacks: the kernel frees it in batches for each core.
const MAX_LEFT_TCP_MIB: f64 = 4.0;
/// Maximum number of random heads.
const MAX_HEADS: usize = 1_000_000;

/// Attacks that run concurrently. The last mix is all attacks.
const MIXES: [&[usize]; 7] = [
    &[0, 4],
    &[1, 5, 7],
    &[2, 3, 6],
    &[8, 9],
    &[10, 11, 4],
    &[1, 3, 9],
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
];

fn attacks() -> Vec<Attack> {
    let body =
        |method: &str, lines: &str| format!("{method} {IPS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes();
    let ranges: Vec<String> = (0..500).map(|n| format!("5-{n}")).collect();
    let attack = |name, connections, sources, opening, then| Attack {
        name,
        connections,
        sources,
        opening,
        then,
    };
    let drip = |opening: &[u8]| (opening.to_vec(), Then::Drip(b"X: y\r\n"));
    let (head, dripped) = drip(b"GET / HTTP/1.1\r\nHost: a\r\n");
    vec![
        attack("idle, one address", 900, 1, Vec::new(), Then::Silence),
        attack("idle, 300 addresses", 900, 300, Vec::new(), Then::Silence),
        attack("dripped heads (slowhttptest -H)", 200, 200, head, dripped),
        attack(
            "bodies that never come",
            64,
            1,
            body("GET", "Content-Length: 5000"),
            Then::Silence,
        ),
        attack(
            "dripped bodies (slowhttptest -B)",
            100,
            10,
            body("POST", "Content-Length: 4096"),
            Then::Drip(b"a=b&"),
        ),
        attack(
            "pipelining, never reading",
            32,
            4,
            Vec::new(),
            Then::Flood(attack::get(IPS)),
        ),
        attack(
            "slow readers (slowhttptest -X)",
            200,
            20,
            attack::get("/openapi.json").repeat(2_000),
            Then::ReadSlowly,
        ),
        attack(
            "ranges (slowhttptest -R)",
            100,
            100,
            body(
                "GET",
                &format!("Connection: close\r\nRange: bytes=0-,{}", ranges.join(",")),
            ),
            Then::Read,
        ),
        attack("resets", 600, 60, attack::get(IPS), Then::Reset),
        attack(
            "n=1000, never read",
            500,
            10,
            attack::get(&format!("{IPS}&n=1000")).repeat(20),
            Then::Silence,
        ),
        attack(
            "flood of bodies",
            8,
            4,
            body("PUT", "Content-Length: 999999999"),
            Then::Flood(vec![b'x'; 1024]),
        ),
        attack(
            "a hundred petabytes",
            64,
            8,
            body("GET", "Content-Length: 100000000000000000"),
            Then::Silence,
        ),
    ]
}

/// Sends random heads from consecutive seeds until it is dropped.
struct Heads {
    stop: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Heads {
    fn start(addr: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel();
        let send = move || {
            let (mut sent, mut seed) = (0, 1);
            while sent < MAX_HEADS && stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                sent += random_heads(addr, seed, MAX_HEADS - sent, Duration::from_millis(500));
                seed += 1;
            }
            sent
        };
        let thread = std::thread::spawn(send);
        Self { stop, thread }
    }

    fn end(self) -> usize {
        drop(self.stop);
        self.thread.join().expect("no panic")
    }
}

/// Returns the kernel's TCP memory in MiB, including the connections of the attackers.
fn tcp_mib() -> f64 {
    const PAGES_PER_MIB: f64 = 256.0;
    let sockets = std::fs::read_to_string("/proc/net/sockstat").expect("a table");
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).expect("TCP");
    let pages = tcp.rsplit(' ').next().and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("a number") / PAGES_PER_MIB
}

fn print(when: &str, router: &Router) {
    println!(
        "| {when} | {:.1} MiB | {:.1} MiB | {:.1} MiB | {} | {} | {:.1} s |",
        router.rss_kib() as f64 / 1024.0,
        router.peak_rss_kib() as f64 / 1024.0,
        tcp_mib(),
        router.threads(),
        router.descriptors(),
        router.cpu_time().as_secs_f64(),
    );
}

fn wait(lasting: Duration) {
    let (_open, channel) = mpsc::channel::<()>();
    assert_eq!(channel.recv_timeout(lasting), Err(RecvTimeoutError::Timeout));
}

/// Runs the attacks in turn and prints measurements.
fn attack(router: &Router, lasting: Duration) {
    let (attacks, begin) = (attacks(), Instant::now());
    let mut next_report = begin + REPORT;
    let mut totals = vec![attack::Outcome::default(); attacks.len()];
    for mix in MIXES.iter().cycle() {
        let under_way: Vec<(usize, UnderWay)> = mix
            .iter()
            .map(|number| (*number, attacks[*number].start(router.addr())))
            .collect();
        let end = Instant::now() + MIX.min(lasting.saturating_sub(begin.elapsed()));
        while Instant::now() < end {
            wait(next_report.min(end).saturating_duration_since(Instant::now()));
            if Instant::now() >= next_report {
                next_report += REPORT;
                print(&format!("{} s", begin.elapsed().as_secs()), router);
            }
        }
        for (number, one) in under_way {
            let outcome = one.end();
            totals[number].opened += outcome.opened;
            totals[number].closed_by_router += outcome.closed_by_router;
            totals[number].most = totals[number].most.max(outcome.most);
        }
        if begin.elapsed() >= lasting {
            break;
        }
    }
    println!("\n| attack | opened | closed by the router | peak concurrent |");
    println!("|---|---|---|---|");
    for (attack, total) in attacks.iter().zip(totals) {
        println!(
            "| {} | {} | {} | {} |",
            attack.name, total.opened, total.closed_by_router, total.most
        );
    }
}

fn tell(seen: &Seen) {
    println!("\n| honest requests answered | unanswered | p50 | p99 | slowest |");
    println!("|---|---|---|---|---|");
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| seen.quantile(part).as_secs_f64() * 1e3);
    println!(
        "| {} | {} | {p50:.1} ms | {p99:.1} ms | {max:.1} ms |",
        seen.answered,
        seen.unanswered.len()
    );
    seen.unanswered
        .iter()
        .take(10)
        .for_each(|what| println!("unanswered: {what}"));
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (has_accidents, numbers) = match arguments.split_first() {
        Some((first, rest)) if first == "accidents" => (true, rest),
        _ => (false, &arguments[..]),
    };
    let number = |at: usize| numbers.get(at).map(|text| text.parse::<u32>().expect("a number"));
    let lasting = number(0).map_or(LASTING, |seconds| Duration::from_secs(seconds.into()));
    if has_accidents {
        return accidents::run(lasting);
    }
    let nodes = number(1).unwrap_or(10) as usize;
    let fleet = Fleet::start(nodes);
    let router = Launch::beside_this_program()
        .ips(fleet.list())
        .set("REFRESH_INTERVAL", 5)
        .start();
    let last = format!("{IPS}&n=1&offset={}", nodes - 1);
    router.until("all nodes are known", || router.get(&last).strings().len() == 1);

    // Threads of the startup exit within five seconds.
    wait(SETTLING);
    println!("\n## Soak of {} s with {nodes} nodes\n", lasting.as_secs());
    println!("| | resident | peak | TCP in the kernel | threads | descriptors | processor time |");
    println!("|---|---|---|---|---|---|---|");
    print("before", &router);
    let (threads, descriptors, tcp) = (router.threads(), router.descriptors(), tcp_mib());
    let honest = Honest::start(HONEST, router.addr(), IPS);
    let heads = Heads::start(router.addr());
    attack(&router, lasting);
    let (heads, seen) = (heads.end(), honest.end());
    // Probes in flight change these values temporarily.
    let is_back = until(PATIENCE, || {
        let is_tcp_back = tcp_mib() <= tcp + MAX_LEFT_TCP_MIB;
        router.threads() <= threads && router.descriptors() <= descriptors && is_tcp_back
    });
    println!("\n| | resident | peak | TCP in the kernel | threads | descriptors | processor time |");
    println!("|---|---|---|---|---|---|---|");
    print("after", &router);
    println!("\nrandom heads: {heads}");
    tell(&seen);
    let panicked = router.count_lines("panicked");
    println!("\npanics: {panicked}; warnings and errors:");
    let log = router.log();
    log.iter()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .take(20)
        .for_each(|line| println!("    {line}"));

    let all_good = seen.unanswered.is_empty() && panicked == 0 && is_back && router.is_running();
    println!("\n{}", if all_good { "PASSED" } else { "FAILED" });
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
