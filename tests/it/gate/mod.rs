//! The front door: what arrives from the network can't stop, stall or swell the router.

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

/// Where the honest client sits; no attacker does.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// An address of this machine that nobody else uses.
fn source(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 55, 0, last))
}

/// A router that knows ten nodes, which live as long as the fleet.
fn with_ten_nodes() -> (Fleet, Router) {
    let fleet = Fleet::start(10);
    let router = launch().ips(fleet.list()).start();
    router.until("it knows its nodes", || router.get(IPS).strings().len() == 3);
    (fleet, router)
}

/// What a router is made of when nobody does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    threads: u64,
    descriptors: usize,
}

impl Made {
    /// Once connections and probes of the beginning are gone.
    fn of(router: &Router) -> Self {
        let now = || Made {
            threads: router.threads(),
            descriptors: router.descriptors(),
        };
        let mut least = now();
        let mut looks = 0;
        router.until("its beginning is over", || {
            let made = now();
            least = Made {
                threads: least.threads.min(made.threads),
                descriptors: least.descriptors.min(made.descriptors),
            };
            looks += 1;
            looks > 20
        });
        least
    }

    /// Waits until the router is made of no more than that again.
    #[track_caller]
    fn wait_back(self, router: &Router) {
        router.until("threads and descriptors are what they were", || {
            router.threads() <= self.threads && router.descriptors() <= self.descriptors
        });
    }
}

/// While an honest client asks, does something bad, waits until the honest one has asked often enough, and checks that
/// all its requests were answered, that the router serves on with the threads and descriptors that it had, and that
/// nothing panicked.
#[track_caller]
fn under_attack<T>(router: &Router, attack: impl FnOnce() -> T) -> T {
    let before = Made::of(router);
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
    // Which only a hang reaches.
    assert!(seen.quantile(1.0) < PATIENCE);
}
