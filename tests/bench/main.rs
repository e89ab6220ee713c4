//! `make bench`: speed and memory, measured side by side in one run and printed as tables. The exit code only says
//! whether it ran. With arguments, only the parts that they name: answers, lock,
//! requests, probing, rounds, flips, start, creep.
#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod answers;
mod load;
mod requests;
mod rounds;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

/// The parts, in the order in which they run, each with the seconds it takes.
const PARTS: [(&str, fn()); 8] = [
    ("answers", answers::with_few_and_many_nodes),
    ("lock", answers::and_those_that_wait),
    ("requests", requests::beside_bare_tiny_http),
    ("probing", requests::while_probing),
    ("rounds", rounds::over_a_fleet),
    ("flips", rounds::of_nodes_that_die_and_return),
    ("start", rounds::from_the_start),
    ("creep", rounds::many_with_changing_lists),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let ["bare", len] = wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        requests::serve_bare(len.parse().expect("a length"));
        return ExitCode::SUCCESS;
    }
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
    ExitCode::SUCCESS
}

/// The middle one.
fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}
