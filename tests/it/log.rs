//! The form of the log, and a slow log reader that blocks nothing.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::process::until;
use super::support::{Behaviour, Fleet, PATIENCE, Router, Signal, http};
use super::{addresses, available, launch, wait_available};

/// Longest shutdown (contract).
const END: Duration = Duration::from_secs(5);

fn dropped(router: &Router) -> u64 {
    let metrics = router.get("/metrics");
    let value = |line: &str| {
        line.strip_prefix("infernet_router_log_lines_dropped_total ")?
            .parse()
            .ok()
    };
    metrics.text().lines().find_map(value).expect("a sample")
}

/// Starts a router that logs a line for each of many probes, and its fleet.
fn talkative() -> (Router, Fleet) {
    let fleet = Fleet::start(50);
    let launch = launch().ips(fleet.list()).set("RUST_LOG", "debug");
    let router = launch.set("REFRESH_INTERVAL", "0.1").start();
    wait_available(&router, &fleet, 0..50);
    (router, fleet)
}

#[test]
fn stalled_log_reader_blocks_nothing() {
    let (router, fleet) = talkative();
    router.stall_log(true);
    router.until("lines are dropped", || dropped(&router) > 0);
    fleet.set(0, Behaviour::Status(500));
    wait_available(&router, &fleet, 1..50);
    fleet.set(0, Behaviour::up(0, &["hello-world"]));
    wait_available(&router, &fleet, 0..50);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_gone(END).code(), Some(0));
}

#[test]
fn second_signal_terminates_despite_stalled_log_reader() {
    let (router, _fleet) = talkative();
    router.stall_log(true);
    router.until("lines are dropped", || dropped(&router) > 0);
    // The shutdown waits for a request in flight.
    let mut half = super::support::Connection::open(router.addr());
    half.send("GET /health HTTP/1.1\r\nHo");
    router.signal(Signal::TERM);
    router.until("new connections are refused", || {
        std::net::TcpStream::connect_timeout(&router.addr(), PATIENCE).is_err()
    });
    router.signal(Signal::INT);
    assert_eq!(router.wait_gone(END).code(), Some(130));
}

#[test]
fn dropped_lines_are_counted_and_reported() {
    let (router, fleet) = talkative();
    router.stall_log(true);
    router.until("lines are dropped", || dropped(&router) > 0);
    router.stall_log(false);
    let warning = router.wait_line("log lines dropped: ", PATIENCE);
    assert!(warning.contains(" WARN  [infernet_router::log] "), "{warning}");
    let count = warning
        .rsplit("lines=")
        .next()
        .and_then(|count| count.parse::<u64>().ok());
    assert!(
        count.is_some_and(|count| (1..=dropped(&router)).contains(&count)),
        "{warning}"
    );
    // All lines before and after the report are complete.
    router.wait_line_after(router.log_len(), "probe finished:", PATIENCE);
    for line in router.log() {
        assert!(line.starts_with("20") && line.contains(" [infernet_router"), "{line:?}");
    }
    assert_eq!(available(&router), addresses(&fleet, 0..50));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "lines a second are measured")]
fn changing_fleet_logs_one_line_per_second() {
    const NODES: usize = 1_200;
    let fleet = Fleet::start(NODES);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    let last = format!("/api/v1/ips?container=hello-world&n=1&offset={}", NODES - 1);
    let all_are_up = || router.get(&last).strings().len() == 1;
    router.until("all nodes are up", all_are_up);
    assert!(router.count_lines("node up:") <= 1_010, "the burst");
    let (mark, begin) = (router.log_len(), Instant::now());
    for _ in 0..3 {
        fleet.set_range(0..500, Behaviour::Status(500));
        router.until("five hundred nodes are down", || {
            let metrics = router.get("/metrics");
            metrics
                .text()
                .contains("nodes{source=\"ips_file\",state=\"down\"} 500\n")
        });
        fleet.set_range(0..500, Behaviour::up(0, &["hello-world"]));
        router.until("all nodes are up", all_are_up);
    }
    let lines = router.log_len() - mark;
    assert!(
        lines as u64 <= begin.elapsed().as_secs() + 5,
        "{lines} lines in {:?}",
        begin.elapsed()
    );
    router.wait_line_after(mark, "suppressed=", PATIENCE);
}

#[test]
fn json_lines_are_objects_with_keys() {
    let fleet = Fleet::start(2);
    fleet.set(1, Behaviour::Status(500));
    let list = format!("\u{1b}[2J\u{2028}\"\n{}", fleet.list());
    let router = launch().ips(list).set("LOG_FORMAT", "json").start();
    router.wait_line("node down:…status 500", PATIENCE);
    router.wait_line("serving: accepting requests", PATIENCE);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0));
    let log = router.log();
    assert!(log.len() > 4, "{log:?}");
    for line in &log {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let object = object.as_object().expect("an object");
        for key in ["level", "message", "target", "time"] {
            assert!(object.contains_key(key), "{key}: {line}");
        }
        let text = |key: &str| object[key].as_str().expect("a text");
        assert!(["INFO", "WARN"].contains(&text("level")), "{line}");
        assert!(text("target").starts_with("infernet_router"), "{line}");
        assert!(text("time").starts_with("20") && text("time").ends_with('Z'), "{line}");
        assert!(!text("message").contains(char::is_control), "{line}");
    }
    assert!(
        log.last()
            .is_some_and(|line| line.contains(r#""message":"stopped: shutdown is complete""#))
    );
}

#[test]
fn journald_lines_have_a_priority() {
    let fleet = Fleet::start(2);
    fleet.set(1, Behaviour::Status(500));
    let stream = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM";
    let router = launch().ips(fleet.list()).shell(stream).start();
    let line = router.wait_line("node down:…status 500", PATIENCE);
    assert!(line.starts_with("<4>WARN  [infernet_router::poller] node "), "{line}");
    let line = router.wait_line("serving: accepting requests", PATIENCE);
    assert!(line.starts_with("<6>INFO  [infernet_router] serving: "), "{line}");
    assert!(
        router.log().iter().all(|line| line.starts_with('<')),
        "{:?}",
        router.log()
    );
}

#[test]
fn other_journal_stream_is_ignored() {
    for stream in ["1:2", "", "x"] {
        let router = launch().set("JOURNAL_STREAM", stream).start();
        let line = router.wait_line("serving: accepting requests", PATIENCE);
        assert!(
            line.starts_with("20") && line.contains("Z INFO  [infernet_router] "),
            "{line}"
        );
    }
}

#[test]
fn log_file_at_its_size_limit_drops_lines() {
    let fleet = Fleet::start(20);
    let launch = launch()
        .ips(fleet.list())
        .set("RUST_LOG", "debug")
        .set("REFRESH_INTERVAL", "0.1");
    let file = std::fs::File::create(launch.directory().join("log")).expect("a file");
    let launch = launch.ulimit("-f 8").arg("--print-port");
    let mut child = launch
        .command()
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .expect("the binary is there");
    let mut port = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut port).expect("UTF-8");
    let addr = SocketAddr::from(([127, 0, 0, 1], port.trim_end().parse().expect("a port")));
    let is_dropping = || {
        let metrics = http::get(addr, "/metrics");
        !metrics.text().contains("infernet_router_log_lines_dropped_total 0\n")
    };
    let dropped = until(PATIENCE, is_dropping);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("exited").code(), Some(0));
    assert!(dropped, "lines above the limit are counted");
}
