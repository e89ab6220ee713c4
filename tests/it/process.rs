//! Signals, shutdown, and protection of the log against forged lines.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::support::process::until;
use super::support::{Behaviour, Connection, Explorer, Fleet, Listing, PATIENCE, Router, Signal, Silent, terminal};
use super::{addresses, available, launch, wait_available};

/// Longest shutdown (contract).
const END: Duration = Duration::from_secs(5);
/// Default capacity of a pipe: pipe(7).
const PIPE_BYTES: usize = 65_536;

/// Nodes that block a probe until its timeout, in each way.
fn hanging() -> Fleet {
    let fleet = Fleet::start(5);
    let ways = [
        Behaviour::Hang,
        Behaviour::HangAfterHead,
        Behaviour::Drip,
        Behaviour::DripHead,
    ];
    for (node, way) in ways.into_iter().enumerate() {
        fleet.set(node, way);
    }
    fleet
}

/// Sends a signal and asserts that the router exits in time.
#[track_caller]
fn ends(router: &Router, signal: Signal) {
    router.signal(signal);
    let status = router.wait_exit(END);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        router.log().last().is_some_and(|line| line.contains("stopped: ")),
        "{:?}",
        router.log()
    );
    assert_eq!(router.count_lines("ERROR"), 0, "{:?}", router.log());
}

#[test]
fn either_signal_shuts_down_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let fleet = Fleet::start(2);
        let router = launch().ips(fleet.list()).start();
        assert_eq!(available(&router), addresses(&fleet, 0..2));
        ends(&router, signal);
    }
}

#[test]
fn hanging_peers_do_not_delay_shutdown() {
    for (signal, listing) in [(Signal::TERM, Listing::Hang), (Signal::INT, Listing::Drip)] {
        let fleet = hanging();
        let explorer = Explorer::start(listing);
        let launch = launch().ips(fleet.list()).set("API_URL", explorer.url());
        let router = launch.set("REFRESH_INTERVAL", "0.1").start();
        assert_eq!(available(&router), addresses(&fleet, [4]));
        // One connection with a complete request, one without a request, one with a partial request.
        let mut idle = Connection::open(router.addr());
        assert_eq!(idle.get("/health").status, 200);
        let mut silent = Connection::open(router.addr());
        let mut half = Connection::open(router.addr());
        half.send("GET /health HTTP/1.1\r\nHo");
        let asked = fleet.asked(0);
        fleet.wait_asked(0, asked + 1, PATIENCE);
        ends(&router, signal);
        assert_eq!(idle.wait_closed(), b"");
        // The router may have sent 408 on this connection.
        silent.wait_closed();
    }
}

#[test]
fn sighup_reloads_the_list_immediately() {
    let fleet = Fleet::start(2);
    let launch = launch().ips(fleet.list_of(0..1)).set("REFRESH_INTERVAL", 86_400);
    let router = launch.start();
    assert_eq!(available(&router), addresses(&fleet, 0..1));
    for nodes in 1..3 {
        let mark = router.log_len();
        router.write_ips(fleet.list_of(0..nodes));
        router.signal(Signal::HUP);
        router.wait_line_after(
            mark,
            &format!("list loaded: file changed, file=\"ips.txt\" nodes={nodes}"),
            PATIENCE,
        );
        wait_available(&router, &fleet, 0..nodes);
    }
    // Also for an unchanged list.
    let mark = router.log_len();
    router.signal(Signal::HUP);
    router.wait_line_after(mark, "list loaded: file changed, file=\"ips.txt\" nodes=2", PATIENCE);
    ends(&router, Signal::TERM);
}

#[test]
fn signal_before_serving_shuts_down() {
    let fleet = hanging();
    let router = launch().ips(fleet.list()).start();
    fleet.wait_asked_total(5, PATIENCE);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(END).code(), Some(0));
    assert_eq!(router.count_lines("serving: "), 0, "{:?}", router.log());
}

#[test]
fn hanging_connects_do_not_delay_shutdown() {
    let silent = Silent::start();
    let explorer = format!("http://{}", silent.addr());
    let launch = launch().ips(silent.addr().to_string()).set("API_URL", explorer);
    let router = launch.set("REFRESH_INTERVAL", "0.1").start();
    let mut half = Connection::open(router.addr());
    half.send("GET /health HTTP/1.1\r\nHo");
    router.wait_line("node down:…timeout: no complete response", PATIENCE);
    ends(&router, Signal::TERM);
}

#[test]
fn request_in_flight_is_answered_at_shutdown() {
    let router = launch().start();
    let addr = router.addr();
    let mut half = Connection::open(addr);
    half.send("GET /health HTTP/1.1\r\nHo");
    router.signal(Signal::TERM);
    router.until("new connections are refused", || {
        TcpStream::connect_timeout(&addr, PATIENCE).is_err()
    });
    half.send("st: router\r\n\r\n");
    let answer = half.receive();
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    assert_eq!(half.wait_closed(), b"");
    assert_eq!(router.wait_exit(END).code(), Some(0));
}

#[test]
fn second_signal_terminates_immediately() {
    for (first, second, code) in [(Signal::TERM, Signal::INT, 130), (Signal::INT, Signal::TERM, 143)] {
        let router = launch().start();
        let mut half = Connection::open(router.addr());
        half.send("GET /health HTTP/1.1\r\nHo");
        router.signal(first);
        router.wait_line("shutdown: draining", PATIENCE);
        router.signal(second);
        assert_eq!(router.wait_exit(END).code(), Some(code));
        assert!(
            !router.log().iter().any(|line| line.contains("stopped: ")),
            "{:?}",
            router.log()
        );
    }
}

/// Returns the levels of the log lines of a router with one invalid line and two nodes.
fn levels(level: &str) -> Vec<String> {
    let fleet = Fleet::start(2);
    fleet.set(1, Behaviour::Status(500));
    let list = format!("?\n{}", fleet.list());
    let router = launch().ips(list).set("RUST_LOG", level).start();
    // The first probes, and one recheck.
    fleet.wait_asked_total(3, PATIENCE);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0));
    let level_of = |line: &String| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut levels: Vec<_> = router.log().iter().map(level_of).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}

#[test]
fn log_level_selects_the_lines() {
    assert_eq!(levels("off"), [""; 0]);
    assert_eq!(levels("error"), [""; 0]);
    assert_eq!(levels("warn"), ["WARN"]);
    assert_eq!(levels("INFO"), ["INFO", "WARN"]);
    assert_eq!(levels("debug"), ["DEBUG", "INFO", "WARN"]);
}

#[test]
fn untrusted_text_forges_no_log_line() {
    let forged = "\n2026-01-01T00:00:00.000Z ERROR [forged] \u{1b}[2J\r\u{2028}x";
    let quoted = serde_json::to_string(forged).expect("a text is JSON");
    let fleet = Fleet::start(7);
    let body = |text: String| Behaviour::Body(text.into());
    fleet.set(0, body(format!(r#"{{"containers":[],"pending":{{{quoted}:null}}}}"#)));
    fleet.set(1, body(format!(r#"{{"containers":{quoted},"pending":{{}}}}"#)));
    fleet.set(
        2,
        body(format!(
            r#"{{"containers":[{{"id":{quoted},"description":{quoted}}}],"pending":{{}}}}"#
        )),
    );
    fleet.set(3, Behaviour::Raw(format!("HTTP/1.1 200 {forged}\r\n\r\n").into()));
    fleet.set(4, Behaviour::Raw(format!("{forged}\r\n\r\n").into()));
    fleet.set(5, Behaviour::Redirect("http://a b\u{1b}[2J/info".to_owned()));
    let explorer = Explorer::start(Listing::Body(format!(r#"{{"data":{quoted}}}"#)));
    let launch = launch()
        .ips(format!("{}{forged}\n", fleet.list()))
        .set("RUST_LOG", "trace");
    let router = launch.set("API_URL", explorer.url()).start();
    router.wait_line("last good list stays in effect", PATIENCE);
    for head in [
        "GET /%0a%0dERROR?container=%1b%0a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api/v1/ips?container=a&n=%0aERROR HTTP/1.1\r\nHost: a\r\nX: \u{1b}[2J\r\n\r\n",
        "GET /\u{1b}[2J HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{1b}[2J\r\n\r\n",
    ] {
        let mut client = Connection::open(router.addr());
        client.send(head);
        client.finish_sending();
        client.wait_closed();
    }
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0));
    assert!(router.count_lines("node down:") >= 4, "{:?}", router.log());
    for line in router.log() {
        let (time, rest) = line.split_once(' ').unwrap_or_default();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line:?}");
        let module = rest.get(6..).unwrap_or_default();
        assert!(module.starts_with("[infernet_router"), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
    }
}

#[test]
fn closed_log_reader_stops_nothing() {
    let fleet = Fleet::start(2);
    let router = launch().ips(fleet.list()).set("REFRESH_INTERVAL", 1).start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    router.close_log();
    // Each change is a line. The pipe is closed by the second line.
    for _ in 0..2 {
        fleet.set(0, Behaviour::Status(500));
        wait_available(&router, &fleet, [1]);
        router.wait_log_closed();
        fleet.set(0, Behaviour::up(0, &["hello-world"]));
        wait_available(&router, &fleet, 0..2);
    }
    router.write_ips(format!("?\n{}", fleet.list_of(1..2)));
    wait_available(&router, &fleet, [1]);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(END).code(), Some(0));
}

#[test]
fn descriptor_limit_reduces_connections_with_warning() {
    let fleet = Fleet::start(100);
    let router = launch().ips(fleet.list()).ulimit("-n 200").start();
    router.wait_line("descriptor limit too low: ", PATIENCE);
    wait_available(&router, &fleet, 0..100);
    assert_eq!(router.count_lines("node down:"), 0);
    ends(&router, Signal::TERM);
}

#[test]
fn sighup_before_settings_are_read_does_not_kill() {
    // The process blocks on the error about its setting, since the pipe is full.
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    writer
        .write_all(&[b' '; PIPE_BYTES])
        .expect("the pipe holds this many bytes");
    let mut child = launch()
        .set("PORT", "http")
        .command()
        .stderr(writer)
        .spawn()
        .expect("the binary is there");
    let status = format!("/proc/{}/status", child.id());
    let catches_sighup = || {
        let status = std::fs::read_to_string(&status).expect("the process is there");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        mask.is_some_and(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 1 == 1))
    };
    assert!(until(PATIENCE, catches_sighup), "no handler before the settings");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).expect("sent");
    // The rest is the error.
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("exited").code(), Some(2), "{}", text.trim());
}

#[test]
fn sighup_shuts_down_after_terminal_hangup() {
    let (keyboard, program) = terminal::open();
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start_on(program);
    assert_eq!(router.get("/health").status, 200);
    let mark = router.log_len();
    router.signal(Signal::HUP);
    router.wait_line_after(mark, "list loaded: ", PATIENCE);
    drop(keyboard);
    router.signal(Signal::HUP);
    assert_eq!(router.wait_exit(END).code(), Some(0));
}
