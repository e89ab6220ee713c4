//! Cost of resource queries: polling a large fleet, and the worst case of clients that request models.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Length;
use crate::support::fleet::{Behaviour, Fleet};
use crate::support::process::{Launch, Router, until};
use crate::support::{Connection, Honest};

const PATH: &str = "/api/v1/resources";
/// Size of the report of a service in bytes: the minimum of real services.
const ENTRY_BYTES: usize = 1_200;
/// Addresses of clients that request new models.
const ATTACKERS: Range<u8> = 1..201;
const COMMON_IDS: u64 = 64;
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 78, 0, 1);
/// All characters of a percent-encoded id.
const ENCODED: &str = "-._~%";

fn fleet(nodes: usize) -> Fleet {
    let fleet = Fleet::start(nodes);
    let plain = format!("{{\"hello-world\":{{\"x\":\"{}\"}}}}", "y".repeat(ENTRY_BYTES));
    let support = b"{\"hello-world\":{\"supported\":true}}".to_vec();
    fleet.set_resources(
        0..nodes,
        &Behaviour::Body(plain.into_bytes()),
        &Behaviour::Body(support),
    );
    fleet
}

fn launch(fleet: &Fleet, interval: Duration, resources_interval: u32) -> Router {
    let launch = Launch::beside_this_program().ips(fleet.list());
    let launch = launch.set("REFRESH_INTERVAL", interval.as_secs_f64());
    launch.set("RESOURCES_INTERVAL", resources_interval).start()
}

fn wait(lasting: Duration) {
    let end = Instant::now() + lasting;
    until(lasting * 2, || Instant::now() >= end);
}

/// Returns the maximum number of queries within any period of length `window`.
fn most_within(window: Duration, at: &[Instant]) -> usize {
    let within = |first: usize| {
        at[first..]
            .iter()
            .take_while(|last| **last - at[first] < window)
            .count()
    };
    (0..at.len()).map(within).max().unwrap_or(0)
}

/// Resource polling with probes: requests per node of both kinds, and the cost.
pub fn polled(length: Length) {
    let (nodes, interval) = (10_000, Duration::from_secs(30));
    let lasting = length.pick(Duration::from_secs(210), Duration::from_secs(45));
    println!(
        "\n## Resources of {nodes} nodes, {} s from the start\n",
        lasting.as_secs()
    );
    println!(
        "| RESOURCES_INTERVAL | nodes polled | max. polls in a second | probes | nodes probed 0/1/2/more times in the last interval | available | processor time | resident |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for resources_interval in [0, 600] {
        let fleet = fleet(nodes);
        let router = launch(&fleet, interval, resources_interval);
        router.addr();
        wait(lasting - interval);
        let before = fleet.asked_each();
        wait(interval);
        let after = fleet.asked_each();
        let mut asked = [0; 4];
        for (before, after) in before.iter().zip(&after) {
            asked[(after - before).min(3) as usize] += 1;
        }
        let polls: Vec<Instant> = fleet.resource_asks().into_iter().map(|(.., at)| at).collect();
        let metrics = router.get("/metrics");
        let up = metrics
            .text()
            .lines()
            .find(|line| line.starts_with("infernet_router_nodes{source=\"ips_file\",state=\"up\"}"));
        println!(
            "| {resources_interval} | {} | {} | {} | {} / {} / {} / {} | {} | {:.2} s | {:.1} MiB |",
            polls.len(),
            most_within(Duration::from_secs(1), &polls),
            fleet.asked_total(),
            asked[0],
            asked[1],
            asked[2],
            asked[3],
            up.and_then(|line| line.rsplit(' ').next()).unwrap_or_default(),
            router.cpu_time().as_secs_f64(),
            router.rss_kib() as f64 / 1024.0,
        );
    }
}

/// 200 addresses request new models as fast as possible, without a limit. Another client requests a known model.
pub fn attacked(length: Length) {
    let lasting = length.pick(Duration::from_secs(60), Duration::from_secs(15));
    println!(
        "\n## {} addresses request new models for {} s, 100 nodes, no limit\n",
        ATTACKERS.len(),
        lasting.as_secs()
    );
    println!(
        "| ids | requests | refused (429, 400) | requests to nodes | max. in a second | max. to one node in a minute | forged parameter passed | known id: answered / not, p50, p99 | resident before / peak |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let (short, long) = (|n: u64| format!("a{n}"), |n: u64| format!("{n:a>256}"));
    let forged = |n: u64| format!("a%26x=y{n}%26model_id=b%0d%0aX:y%23%3f/../{n}");
    let joined = |n: u64| format!("a{n}&x=y&n=1;b={n}");
    for (name, id) in [
        ("short", &short as &(dyn Fn(u64) -> String + Sync)),
        ("256 bytes", &long),
        ("`&`, CRLF, `#`, `?` encoded", &forged),
        ("`&`, `;` as they are", &joined),
    ] {
        let fleet = fleet(100);
        let router = launch(&fleet, Duration::from_secs(30), 600);
        let total = || router.get(PATH).header("X-Total-Count").map(str::to_owned);
        router.until("all nodes are known", || total().as_deref() == Some("100"));
        let known = format!("{PATH}?model_id=known");
        router.until("most nodes are known", || {
            router
                .get(&known)
                .json()
                .as_object()
                .is_some_and(|nodes| nodes.len() >= 90)
        });
        let before = router.rss_kib();
        let asked_before = fleet.resource_asks().len();
        let honest = Honest::start(HONEST, router.addr(), &known);
        let (asked, refused) = attack(&router, lasting, id);
        let seen = honest.end();
        let asks = fleet.resource_asks().split_off(asked_before);
        let times: Vec<Instant> = asks.iter().map(|(.., at)| *at).collect();
        let of_one = (0..100).map(|node| {
            let of_node = asks.iter().filter(|(asked, ..)| *asked == node);
            most_within(
                Duration::from_secs(60),
                &of_node.map(|(.., at)| *at).collect::<Vec<_>>(),
            )
        });
        let is_plain = |target: &str| {
            let id = target.strip_prefix("/resources?model_id=").unwrap_or("&");
            id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || ENCODED.as_bytes().contains(&byte))
        };
        println!(
            "| {name} | {asked} | {refused} | {} | {} | {} | {} | {} / {}, {:.1} ms, {:.1} ms | {:.1} / {:.1} MiB |",
            asks.len(),
            most_within(Duration::from_secs(1), &times),
            of_one.max().unwrap_or(0),
            asks.iter().filter(|(_, target, _)| !is_plain(target)).count(),
            seen.answered,
            seen.unanswered.len(),
            seen.quantile(0.5).as_secs_f64() * 1e3,
            seen.quantile(0.99).as_secs_f64() * 1e3,
            before as f64 / 1024.0,
            router.peak_rss_kib() as f64 / 1024.0,
        );
    }
}

/// Each address sends requests on a separate connection for a time. Returns the number of requests and of refusals.
fn attack(router: &Router, lasting: Duration, id: &(dyn Fn(u64) -> String + Sync)) -> (u64, u64) {
    let end = Instant::now() + lasting;
    let addr = router.addr();
    let ask = |attacker: u8| {
        let source = IpAddr::from([127, 79, 0, attacker]);
        let (mut asked, mut refused) = (0, 0);
        while Instant::now() < end {
            let mut connection = Connection::from(source, addr);
            // The router closes a connection after its thousandth response.
            for _ in 0..900 {
                // Every second request is for one of a few shared models, so accepted models are repeated.
                let number = match asked % 2 {
                    0 => asked / 2 % COMMON_IDS,
                    _ => u64::from(attacker) << 32 | asked,
                };
                let answer = connection.get(&format!("{PATH}?model_id={}", id(number)));
                asked += 1;
                refused += u64::from(answer.status == 429 || answer.status == 400);
                if Instant::now() >= end {
                    break;
                }
            }
        }
        (asked, refused)
    };
    std::thread::scope(|scope| {
        let attackers: Vec<_> = ATTACKERS.map(|attacker| scope.spawn(move || ask(attacker))).collect();
        let results = attackers.into_iter().map(|attacker| attacker.join().expect("no panic"));
        results.fold((0, 0), |(a, r), (asked, refused)| (a + asked, r + refused))
    })
}
