//! The real binary against stand-in nodes.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod api;
mod attributes;
mod documents;
mod explorer;
mod gate;
mod limits;
mod lists;
mod log;
mod log_events;
mod machine;
mod operation;
mod polling;
mod process;
mod resources;
mod routing;
mod settings;
mod status;
mod tls;

use std::net::SocketAddr;

use support::{Fleet, Launch, Router};

/// Returns a launch of the tested binary.
fn launch() -> Launch {
    Launch::of(env!("CARGO_BIN_EXE_infernet-router"))
}

/// Returns the addresses of all available nodes with `hello-world`, sorted.
#[track_caller]
fn available(router: &Router) -> Vec<String> {
    let mut addresses = router.get("/api/v1/ips?container=hello-world&n=1000").strings();
    addresses.sort_unstable();
    addresses
}

/// Returns addresses of a fleet as in responses, sorted.
fn addresses(fleet: &Fleet, nodes: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut addresses: Vec<_> = nodes.into_iter().map(|node| fleet.addr(node).to_string()).collect();
    addresses.sort_unstable();
    addresses
}

/// Waits until exactly these nodes of a fleet are available.
#[track_caller]
fn wait_available(router: &Router, fleet: &Fleet, nodes: impl IntoIterator<Item = usize>) {
    let wanted = addresses(fleet, nodes);
    router.until(&format!("{wanted:?} are available"), || available(router) == wanted);
}

/// Returns the pattern of a log line about a node.
fn line(event: &str, node: SocketAddr, then: &str) -> String {
    format!("{event}:…node=\"{node}\"…{then}")
}
