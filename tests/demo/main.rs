//! `make demo`: the router against three stand-in nodes on loopback, and the curl lines to try. Settings in the
//! environment are the router's. With the argument `nodes`, the nodes alone, for a router that is started elsewhere.
#![allow(missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::io::{self, Read, Write};

use infernet_router::config::SETTINGS;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use support::process::Signal;
use support::{Behaviour, Fleet, Launch};

fn main() -> io::Result<()> {
    let fleet = Fleet::start(3);
    fleet.set(0, Behaviour::up(7, &["hello-world", "summarizer"]));
    fleet.set(1, Behaviour::up(2, &["hello-world"]));
    fleet.set(2, Behaviour::up(0, &["hello-world", "classifier", "summarizer"]));
    match std::env::args().nth(1).as_deref() {
        Some("nodes") => list_nodes(&fleet),
        _ => route(&fleet),
    }
}

/// Prints an ips.txt, and ends when its input does.
fn list_nodes(fleet: &Fleet) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(fleet.list().as_bytes())?;
    stdout.flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

/// The demo ends when the router does. A terminal sends its Ctrl-C to both.
fn route(fleet: &Fleet) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let closer = signals.handle();
    let mut launch = Launch::beside_this_program().ips(fleet.list()).set("PORT", 4000);
    launch = launch.unset("RATELIMIT_REQS_PER_MIN");
    for setting in SETTINGS {
        if let Ok(value) = std::env::var(setting.name) {
            launch = launch.set(setting.name, value);
        }
    }
    let router = launch.start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in signals.forever().filter(|signal| *signal == SIGTERM) {
                router.signal(Signal::TERM);
            }
        });
        router.follow(|line| {
            // A reader that went away is no reason to leave the router behind.
            let _ = writeln!(io::stdout(), "{line}");
            if line.contains("serving on http://") {
                let _ = writeln!(io::stdout(), "{}", help(&router.addr().to_string()));
            }
        });
        closer.close();
    });
    Ok(())
}

fn help(addr: &str) -> String {
    format!(
        "\nThree stand-in nodes: 7, 2 and 0 jobs pending. Try in another terminal:\n\n  \
         curl 'http://{addr}/api/v1/ips?container=hello-world'\n  \
         curl 'http://{addr}/api/v1/ips?container=hello-world&container=summarizer&n=1'\n  \
         curl http://{addr}/api/v1/containers\n  \
         curl http://{addr}/metrics\n\n\
         Ctrl-C ends it.\n"
    )
}
