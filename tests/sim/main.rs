//! `make sim`: how good the choice of nodes stays while counts are stale, in simulated time, with the router's own
//! registry. Prints tables; the exit code is 1 where ours is worse than random, or than it is said to be.
#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod model;
mod random;

use std::process::ExitCode;

use model::{Clients, Measured, Policy, Scenario};

/// Runs of each cell, and jobs in each.
const SEEDS: u64 = 8;
const JOBS: usize = 100_000;
/// Student's t for 8 runs: how far their mean may be off, one case in a thousand aside.
const T: f64 = 4.785;
/// What ours takes at 10 nodes, 70 % load, 30 s, each request from another client, at most.
const MOST_SECONDS: f64 = 4.2;

const POLICIES: [(Policy, &str); 5] = [
    (Policy::Perfect, "perfect knowledge"),
    (Policy::Ours, "**ours**"),
    (Policy::CountsOnly, "`PROMISES=off`"),
    (Policy::Random, "random"),
    (Policy::TwoChoices, "two random choices"),
];

fn main() -> ExitCode {
    println!(
        "Response in seconds, mean and 99th percentile, and the longest queue; jobs of 2 s, one at a time on each"
    );
    println!("node; the mean of {SEEDS} runs of {JOBS} jobs. `<` marks what is worse than random.");
    let mut faults = Vec::new();
    println!("\n## Each request from another client\n");
    header("nodes, load, interval");
    for nodes in [10, 100] {
        for load in [0.3, 0.7, 0.9] {
            for interval in [5, 30] {
                let name = format!("{nodes}, {load}, {interval} s");
                let ours = row(&name, &Scenario::new(nodes, load, interval), &mut faults);
                if (nodes, load, interval) == (10, 0.7, 30) && ours > MOST_SECONDS {
                    faults.push(format!("{name}: {ours:.2} s, above {MOST_SECONDS} s"));
                }
            }
        }
    }
    println!("\n## At load 0.7 and 30 s\n");
    header("nodes, case");
    for nodes in [10, 100] {
        for (name, scenario) in cases(Scenario::new(nodes, 0.7, 30)) {
            row(&format!("{nodes}, {name}"), &scenario, &mut faults);
        }
    }
    println!();
    faults.iter().for_each(|fault| println!("FAULT: {fault}"));
    if faults.is_empty() {
        println!("Nowhere is ours worse than random.");
    }
    ExitCode::from(u8::from(!faults.is_empty()))
}

fn cases(plain: Scenario) -> [(&'static str, Scenario); 11] {
    let clients = |clients| Scenario { clients, ..plain };
    [
        ("30 equal clients", clients(Clients::Equal(30))),
        ("10 equal clients", clients(Clients::Equal(10))),
        ("3 equal clients", clients(Clients::Equal(3))),
        ("one client", clients(Clients::Equal(1))),
        ("one of 10 makes half", clients(Clients::OneMakesHalf(10))),
        ("all in one /24", clients(Clients::OneSubnet)),
        ("one answer in four is used", Scenario { used: 0.25, ..plain }),
        (
            "half bypasses the router",
            Scenario {
                bypassing: 0.5,
                ..plain
            },
        ),
        (
            "half of the nodes 4 times as fast",
            Scenario {
                speed_ratio: 4.0,
                ..plain
            },
        ),
        (
            "a round takes half the interval",
            Scenario {
                round_share: 0.5,
                ..plain
            },
        ),
        ("30 s after a node was added", Scenario { joins: true, ..plain }),
    ]
}

fn header(first: &str) {
    let names: Vec<&str> = POLICIES.iter().map(|(_, name)| *name).collect();
    println!("| {first} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
}

/// Prints a row and returns the mean response of ours.
fn row(name: &str, scenario: &Scenario, faults: &mut Vec<String>) -> f64 {
    let runs = |policy| -> Vec<Measured> {
        (1..=SEEDS)
            .map(|seed| model::run(scenario, policy, JOBS, seed))
            .collect()
    };
    let all: Vec<Vec<Measured>> = POLICIES.iter().map(|(policy, _)| runs(*policy)).collect();
    let [_, ours, _, random, _] = &all[..] else {
        unreachable!("five policies");
    };
    let cells = all.iter().map(|runs| cell(runs, random, std::ptr::eq(runs, ours)));
    println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    for (measure, of) in MEASURES {
        let excess: Vec<f64> = ours
            .iter()
            .zip(random)
            .map(|(ours, random)| of(ours) - of(random))
            .collect();
        if is_above_zero(&excess) {
            faults.push(format!("{name}: {measure} is worse than random"));
        }
    }
    mean(ours.iter().map(|run| run.mean_seconds))
}

type Measure = fn(&Measured) -> f64;
const MEASURES: [(&str, Measure); 3] = [
    ("mean", |run| run.mean_seconds),
    ("99th percentile", |run| run.p99_seconds),
    ("longest queue", |run| run.worst_queue),
];

fn cell(runs: &[Measured], random: &[Measured], is_ours: bool) -> String {
    let figures = MEASURES.map(|(_, of)| {
        let figure = mean(runs.iter().map(of));
        let mark = if is_ours && figure > mean(random.iter().map(of)) {
            "<"
        } else {
            ""
        };
        match figure < 10.0 {
            true => format!("{figure:.1}{mark}"),
            false => format!("{figure:.0}{mark}"),
        }
    });
    figures.join(" / ")
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Whether the mean of these runs is above zero beyond noise.
fn is_above_zero(values: &[f64]) -> bool {
    let count = values.len() as f64;
    let middle = mean(values.iter().copied());
    let variance = values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / (count - 1.0);
    middle > T * (variance / count).sqrt()
}
