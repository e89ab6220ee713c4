//! `make bench`: measures speed and memory in one run and prints tables. The exit code only reports whether it ran.
//! Arguments select parts. `short` shortens each part and skips the longest ones.
#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod answers;
mod load;
mod requests;
mod resources;
mod rounds;
mod status;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

/// Length of the measurement: full, or shortened to some minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Full,
    Short,
}

impl Length {
    /// Returns the value for this length.
    pub fn pick<T>(self, full: T, short: T) -> T {
        match self {
            Length::Full => full,
            Length::Short => short,
        }
    }
}

/// A part of the benchmark.
struct Part {
    name: &'static str,
    what: &'static str,
    /// Seconds in full and short form, as measured on two cores. `None`: the short form skips the part.
    seconds: (u32, Option<u32>),
    run: fn(Length),
}

/// All parts, in the order of execution.
const PARTS: [Part; 11] = [
    Part {
        name: "answers",
        what: "duration of a response in the registry alone",
        seconds: (5, Some(1)),
        run: answers::with_few_and_many_nodes,
    },
    Part {
        name: "lock",
        what: "waits for the registry's lock",
        seconds: (16, Some(3)),
        run: answers::and_those_that_wait,
    },
    Part {
        name: "requests",
        what: "requests per second compared with bare tiny_http",
        seconds: (260, Some(20)),
        run: requests::beside_bare_tiny_http,
    },
    Part {
        name: "probing",
        what: "latencies while nodes are probed",
        seconds: (25, Some(5)),
        run: requests::while_probing,
    },
    Part {
        name: "status",
        what: "duration of /status, and latency of /api/v1/ips meanwhile",
        seconds: (110, Some(50)),
        run: status::beside_answers,
    },
    Part {
        name: "rounds",
        what: "cost of probing a fleet",
        seconds: (990, Some(62)),
        run: rounds::over_a_fleet,
    },
    Part {
        name: "flips",
        what: "delay until a change of a node is visible",
        seconds: (240, None),
        run: rounds::of_nodes_that_die_and_return,
    },
    Part {
        name: "start",
        what: "time from start to first response",
        seconds: (3, Some(1)),
        run: rounds::from_the_start,
    },
    Part {
        name: "resources",
        what: "cost of polling the resources of a large fleet",
        seconds: (425, None),
        run: resources::polled,
    },
    Part {
        name: "surveys",
        what: "worst-case cost of clients that request models",
        seconds: (320, None),
        run: resources::attacked,
    },
    Part {
        name: "creep",
        what: "memory over many rounds",
        seconds: (110, Some(22)),
        run: rounds::many_with_changing_lists,
    },
];

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if let ["bare", len] = wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        requests::serve_bare(len.parse().expect("a length"));
        return ExitCode::SUCCESS;
    }
    let is_short = wanted.iter().any(|wanted| wanted == "short");
    wanted.retain(|wanted| wanted != "short");
    let length = if is_short { Length::Short } else { Length::Full };
    let parts = PARTS.iter().filter_map(|part| {
        let is_named = wanted.iter().any(|wanted| wanted == part.name);
        let (full, short) = part.seconds;
        let seconds = length.pick(Some(full), short.or(is_named.then_some(full)))?;
        (wanted.is_empty() || is_named).then_some((part, seconds))
    });
    let parts: Vec<(&Part, u32)> = parts.collect();
    let total: u32 = parts.iter().map(|(_, seconds)| seconds).sum();
    // Tables go to standard output, progress to standard error.
    eprintln!("{} parts, some {total} s in all", parts.len());
    for (number, (part, seconds)) in parts.iter().enumerate() {
        eprintln!(
            "{}/{}: {} ({}), some {seconds} s",
            number + 1,
            parts.len(),
            part.what,
            part.name
        );
        let begin = Instant::now();
        (part.run)(length);
        eprintln!("{}/{}: took {} s", number + 1, parts.len(), begin.elapsed().as_secs());
    }
    ExitCode::SUCCESS
}

/// Returns the median.
fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}
