//! Operational accidents in turn while an honest client sends requests: the list is truncated, replaced by an error
//! page or emptied, the Explorer lists no node or responds with a page, all nodes refuse connections, the log reader
//! stalls.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::support::process::Signal;
use super::support::{Explorer, Fleet, Honest, Launch, Listing, PATIENCE, Router};
use super::{HONEST, IPS, print, tell, wait};

const INTERVAL: Duration = Duration::from_secs(2);
/// Nodes in ips.txt, and as many only in the Explorer: their debug lines fill a pipe within seconds.
const NODES: usize = 100;
/// Duration of an accident: longer than the router waits before it reads a list or takes a node down, shorter than ten
/// empty responses of the Explorer and than a suspected mass failure.
const LASTING: Duration = Duration::from_secs(5);
/// Time for recovery after an accident.
const RECOVERY: Duration = Duration::from_secs(4);
/// Maximum latency of a response.
const MAX_LATENCY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Accident {
    ListCut,
    ListGarbage,
    ListEmptied,
    ExplorerBlank,
    ExplorerPage,
    NodesVanish,
    LogStalls,
}

const ALL: [Accident; 7] = [
    Accident::ListCut,
    Accident::ListGarbage,
    Accident::ListEmptied,
    Accident::ExplorerBlank,
    Accident::ExplorerPage,
    Accident::NodesVanish,
    Accident::LogStalls,
];

struct World {
    fleet: Fleet,
    explorer: Explorer,
    router: Router,
}

impl World {
    fn list(&self) -> String {
        self.fleet.list_of(0..NODES)
    }

    fn named(&self) -> Listing {
        Listing::Nodes((NODES..2 * NODES).map(|node| self.fleet.addr(node)).collect())
    }

    fn begin(&self, accident: Accident) {
        let list = self.list();
        match accident {
            Accident::ListCut => self.router.write_ips(&list[..list.len() / 2 + 3]),
            Accident::ListGarbage => self
                .router
                .write_ips("<!doctype html>\n<title>502 Bad Gateway</title>\n"),
            Accident::ListEmptied => self.router.write_ips(""),
            Accident::ExplorerBlank => self.explorer.set(Listing::Nodes(Vec::new())),
            Accident::ExplorerPage => self.explorer.set(Listing::Html),
            Accident::NodesVanish => self.fleet.refuse(),
            Accident::LogStalls => self.router.stall_log(true),
        }
        // SIGHUP makes the router read the list immediately.
        self.router.signal(Signal::HUP);
    }

    fn end(&self) {
        self.router.write_ips(self.list());
        self.explorer.set(self.named());
        self.fleet.listen();
    }

    fn dropped_lines(&self) -> String {
        let metrics = self.router.get("/metrics");
        let value = |line: &str| {
            line.strip_prefix("infernet_router_log_lines_dropped_total ")
                .map(str::to_owned)
        };
        metrics.text().lines().find_map(value).unwrap_or_default()
    }
}

pub fn run(lasting: Duration) -> ExitCode {
    let fleet = Fleet::start(2 * NODES);
    let explorer = Explorer::start(Listing::Wait);
    let router = Launch::beside_this_program()
        .ips(fleet.list_of(0..NODES))
        .set("API_URL", explorer.url())
        .set("REFRESH_INTERVAL", INTERVAL.as_secs())
        .set("RUST_LOG", "debug")
        .start();
    let world = World {
        fleet,
        explorer,
        router,
    };
    world.explorer.set(world.named());
    let last = format!("{IPS}&n=1&offset={}", 2 * NODES - 1);
    world
        .router
        .until("all nodes are known", || world.router.get(&last).strings().len() == 1);

    println!(
        "\n## Accidents for {} s, {NODES} nodes in each list\n",
        lasting.as_secs()
    );
    println!(
        "| | resident | peak | TCP in the kernel | threads | descriptors | processor time |\n|---|---|---|---|---|---|---|"
    );
    print("before", &world.router);
    let honest = Honest::start(HONEST, world.router.addr(), IPS);
    let (begin, mut happened) = (Instant::now(), 0);
    // Each accident alone, then each with a stalled log reader.
    for (accident, stalls) in [false, true]
        .into_iter()
        .flat_map(|stalls| ALL.map(|one| (one, stalls)))
        .cycle()
    {
        if begin.elapsed() >= lasting {
            break;
        }
        world.router.stall_log(stalls);
        world.begin(accident);
        wait(LASTING);
        world.end();
        wait(RECOVERY);
        world.router.stall_log(false);
        happened += 1;
    }
    let seen = honest.end();
    print("after", &world.router);
    tell(&seen);
    println!(
        "\naccidents: {happened}; empty responses: {}; lines dropped: {}",
        seen.empty,
        world.dropped_lines()
    );
    world.router.stall_log(true);
    world.router.signal(Signal::TERM);
    let exit = world.router.wait_gone(PATIENCE).code();
    world.router.stall_log(false);
    let panicked = world.router.count_lines("panicked");
    println!("panics: {panicked}; exit status {exit:?} with a stalled log reader");
    let doubts = world.router.count_lines("mass failure suspected:");
    println!("mass failures suspected: {doubts}");

    let is_good = seen.unanswered.is_empty() && seen.empty == 0 && seen.quantile(1.0) <= MAX_LATENCY;
    let all_good = is_good && panicked == 0 && exit == Some(0) && happened > 0;
    println!("\n{}", if all_good { "PASSED" } else { "FAILED" });
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
