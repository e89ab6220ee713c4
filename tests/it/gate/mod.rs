//! The gate: no input from the network crashes, blocks or exhausts the router.

mod attacks;
mod cors;
mod ending;
mod hazards;
mod heads;
mod inside;
mod limits;
mod order;
mod system;
mod unread;

use std::net::{IpAddr, Ipv4Addr};

use crate::launch;
use crate::support::honest::Seen;
use crate::support::{Fleet, Honest, PATIENCE, Router};

const IPS: &str = "/api/v1/ips?container=hello-world";

/// Address of the honest client. No attacker uses it.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// A loopback address that no other client uses.
fn source(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 55, 0, last))
}

/// A router with ten nodes, which serve until the fleet is dropped.
fn with_ten_nodes() -> (Fleet, Router) {
    let fleet = Fleet::start(10);
    let router = launch().ips(fleet.list()).start();
    router.until("all nodes are up", || router.get(IPS).strings().len() == 3);
    (fleet, router)
}

/// Threads and descriptors of an idle router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    threads: u64,
    descriptors: usize,
}

impl Usage {
    /// The lowest values of 20 samples, without connections and probes of the start.
    fn of(router: &Router) -> Self {
        let now = || Usage {
            threads: router.threads(),
            descriptors: router.descriptors(),
        };
        let mut least = now();
        let mut samples = 0;
        router.until("startup is finished", || {
            let usage = now();
            least = Usage {
                threads: least.threads.min(usage.threads),
                descriptors: least.descriptors.min(usage.descriptors),
            };
            samples += 1;
            samples > 20
        });
        least
    }

    /// Waits until the router has no more threads and descriptors than this.
    #[track_caller]
    fn wait_back(self, router: &Router) {
        router.until("threads and descriptors are back at their count before", || {
            router.threads() <= self.threads && router.descriptors() <= self.descriptors
        });
    }
}

/// Runs an attack while an honest client sends requests. Asserts that the router answered all requests of the honest
/// client, returned to its threads and descriptors from before, and did not panic.
#[track_caller]
fn under_attack<T>(router: &Router, attack: impl FnOnce() -> T) -> T {
    let before = Usage::of(router);
    let honest = Honest::start(HONEST, router.addr(), IPS);
    let outcome = attack();
    answered(honest.end());
    assert_eq!(router.get(IPS).status, 200);
    before.wait_back(router);
    assert!(router.is_running());
    assert_eq!(router.count_lines("panicked"), 0);
    outcome
}

#[track_caller]
fn answered(seen: Seen) {
    assert_eq!(
        seen.unanswered,
        Vec::<String>::new(),
        "beside {} answers",
        seen.answered
    );
    assert!(seen.answered > 0);
    // Only a hang takes this long.
    assert!(seen.quantile(1.0) < PATIENCE);
}
