//! `SHUTDOWN_DELAY`: a load balancer removes the router before the router exits.

use std::time::{Duration, Instant};

use serde_json::json;

use super::IPS;
use crate::launch;
use crate::support::{Connection, Fleet, PATIENCE, Signal};

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a duration")]
fn during_shutdown_delay_serves_with_unhealthy_status() {
    let fleet = Fleet::start(3);
    let router = launch().ips(fleet.list()).set("SHUTDOWN_DELAY", 2).start();
    let mut kept = Connection::open(router.addr());
    assert_eq!(kept.get("/health").status, 200);
    let signaled = Instant::now();
    router.signal(Signal::TERM);
    router.until("health returns 503", || router.get("/health").status == 503);
    for target in ["/health", "/"] {
        let health = router.get(target);
        assert_eq!((health.status, health.json()), (503, json!({"status": "ending"})));
    }
    // The router serves new and existing connections and keeps them open.
    assert_eq!(router.get(IPS).strings().len(), 3);
    let answer = kept.get(IPS);
    assert_eq!((answer.status, answer.header("Connection")), (200, None));
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0));
    assert!(signaled.elapsed() >= Duration::from_secs(2));
}

#[test]
fn second_signal_during_delay_exits_immediately() {
    let router = launch().set("SHUTDOWN_DELAY", 300).start();
    assert_eq!(router.get("/health").status, 200);
    router.signal(Signal::TERM);
    router.until("health returns 503", || router.get("/health").status == 503);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(128 + 15));
}
