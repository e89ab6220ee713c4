//! `make sim`: measures the selection of nodes with stale counts, in simulated time with the router's registry. Prints
//! tables. The exit code is 1 if a case is worse than random. `short` measures a tenth of the time. Further arguments
//! select the cases by parts of their names. `real` runs the built router with nodes that queue, in real time for four
//! minutes.
#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod model;
mod random;
mod real;
mod scenario;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use model::{Measured, Policy};
use scenario::{Case, Fleet, Scenario};

/// Runs of each cell with separate seeds, and the measured time of each run.
const SEEDS: u64 = 4;
const MEASURED: Duration = Duration::from_secs(20_000);
const SHORT: Duration = Duration::from_secs(2_000);
/// Number of concurrent simulations.
const THREADS: usize = 2;

const POLICIES: [Policy; 4] = [
    Policy::Perfect,
    Policy::Random,
    Policy::CountsOnly,
    Policy::EarliestCompletion,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["real"] => real::run(),
        ["short", ref names @ ..] => simulate(SHORT, names),
        ref names => simulate(MEASURED, names),
    }
}

fn simulate(measured: Duration, names: &[&str]) -> ExitCode {
    println!(
        "Mean response with perfect knowledge in seconds, and the others' as multiples of it: {SEEDS} runs of {} s.\n\
         10 nodes, jobs of 2 s, one at a time on each, load 0.7, each node probed every 30 s, each request from\n\
         another client, unless the case says otherwise. `found`: value when the rule was\n\
         chosen; `before`: with the rule of 0.1.0; `!`: more than a tenth above `found`.\n",
        measured.as_secs()
    );
    println!("| case | perfect knowledge | random | `PROMISES=off` | **the router** | found | before |");
    println!("|---|---|---|---|---|---|---|");
    let mut cases = scenario::cases();
    cases.retain(|case| names.is_empty() || names.iter().any(|name| case.name.contains(name)));
    let mut faults = Vec::new();
    each(
        &cases,
        |case| measure(&case.scenario, measured),
        |case, all| faults.extend(row(case, &all)),
    );
    println!("\nShare of the jobs that go to a node on which all jobs fail immediately:\n");
    println!("| nodes | random | `PROMISES=off` | **the router** | found |\n|---|---|---|---|---|");
    each(
        &scenario::dead(),
        |(scenario, _)| measure(scenario, measured),
        |(scenario, found), all| {
            let [_, random, counts, ours] = all.map(|measured| measured.share_of_first);
            println!(
                "| {} | {random:.2} | {counts:.2} | {ours:.2} | {found:.2} |",
                scenario.nodes
            );
        },
    );
    if names.is_empty() {
        println!(
            "\nRequests of few subnets: mean response in seconds, with the expected value (`!`: a tenth above):\n"
        );
        println!("| fleet | 400 subnets | one | two | three | 400 and an attack |\n|---|---|---|---|---|---|");
        seconds(&scenario::subnets(), measured);
        println!("\nExplorer nodes with ever-rising pending counts, same columns as above:\n");
        println!("| fleet | none | one | three |\n|---|---|---|---|");
        seconds(&scenario::lying(), measured);
    }
    println!();
    faults.iter().for_each(|fault| println!("FAULT: {fault}"));
    if faults.is_empty() {
        println!("The router is worse than random in no case.");
    }
    ExitCode::from(u8::from(!faults.is_empty()))
}

/// Prints the mean response of the router for each variant of each fleet.
fn seconds<const N: usize>(fleets: &[Fleet<N>], measured: Duration) {
    let work = |fleet: &Fleet<N>| {
        fleet
            .scenarios
            .map(|scenario| mean_of(&scenario, Policy::EarliestCompletion, measured))
    };
    each(fleets, work, |fleet, all| {
        let cells = all.iter().zip(fleet.expected).map(|(found, expected)| {
            let mark = if found.mean_seconds > expected * 1.1 { " !" } else { "" };
            format!(" {:.2} ({expected}){mark} |", found.mean_seconds)
        });
        println!("| {} |{}", fleet.name, cells.collect::<String>());
    });
}

/// Processes all items with several threads and shows the results in the order of the items.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync, mut show: impl FnMut(&T, R)) {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = all.iter().map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                for at in numbers.take_while(|at| *at < all.len()) {
                    let result = work(&all[at]);
                    *done[at].lock().expect("no panic") = Some(result);
                }
            });
        }
    });
    for (one, done) in all.iter().zip(done) {
        let result = done.into_inner().expect("no panic");
        show(one, result.expect("a result of each"));
    }
}

/// Returns the mean of all runs, for each policy.
fn measure(scenario: &Scenario, measured: Duration) -> [Measured; 4] {
    POLICIES.map(|policy| mean_of(scenario, policy, measured))
}

fn mean_of(scenario: &Scenario, policy: Policy, measured: Duration) -> Measured {
    let runs: Vec<Measured> = (1..=SEEDS)
        .map(|seed| model::run(scenario, policy, measured, seed))
        .collect();
    let mean = |of: fn(&Measured) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    Measured {
        mean_seconds: mean(|run| run.mean_seconds),
        share_of_first: mean(|run| run.share_of_first),
    }
}

/// Prints a row. Returns a message if the router is worse than random.
fn row(case: &Case, all: &[Measured; 4]) -> Option<String> {
    let [perfect, random, counts, ours] = all.map(|measured| measured.mean_seconds);
    let times = |seconds: f64| match seconds / perfect {
        times @ 10.0.. => format!("{times:.0}"),
        times => format!("{times:.2}"),
    };
    let known = |known: Option<f64>| known.map_or_else(String::new, |known| known.to_string());
    let mark = if case.found.is_some_and(|found| ours / perfect > found * 1.1) {
        " !"
    } else {
        ""
    };
    println!(
        "| {} | {perfect:.2} s | {} | {} | **{}**{mark} | {} | {} |",
        case.name,
        times(random),
        times(counts),
        times(ours),
        known(case.found),
        known(case.before),
    );
    (ours > random).then(|| format!("{}: {} is worse than random", case.name, times(ours)))
}
