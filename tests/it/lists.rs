//! ips.txt: all forms of lines, and changes of the file while the router runs.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::support::{Behaviour, Explorer, Fleet, HungDisk, Listing, PATIENCE, Router, Signal};
use super::{addresses, available, launch, wait_available};

/// Interval in which the router probes each node once.
const ONCE: &str = "86400";

#[test]
fn each_line_form_is_returned_as_listed() {
    let fleet = Fleet::start(5);
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|node| fleet.addr(node).to_string());
    let list = format!(
        "\u{feff}  {a}\t# the first\r\n\r\n# none: 127.0.0.1:1\nhttp://{b}\r\n{c}#x\nhttp://{d}  \n{d} # again\n{a}\nHTTP://{e}"
    );
    let router = launch().ips(list).start();
    let mut wanted = [
        a,
        format!("http://{b}"),
        c,
        format!("http://{d}"),
        format!("HTTP://{e}"),
    ];
    wanted.sort_unstable();
    assert_eq!(available(&router), wanted);
    assert_eq!(router.count_lines("line skipped"), 0, "{:?}", router.log());
    assert_eq!(fleet.asked_each(), [1; 5]);
}

#[test]
fn invalid_line_is_skipped_with_number_and_text() {
    let fleet = Fleet::start(1);
    let list = format!(
        "127.0.0.1:1/../a\n\nuser@127.0.0.1:1\n{}\n127.0.0.1:0\n127.0.0.1:65536\n::1\nftp://a\na b # c\n\x1b[31mred\u{202e}\n",
        fleet.addr(0)
    );
    let router = launch().ips(list).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    for line in [
        r#"line=1 text="127.0.0.1:1/../a" "#,
        r#"line=3 text="user@127.0.0.1:1" "#,
        r#"line=5 text="127.0.0.1:0" "#,
        r#"line=6 text="127.0.0.1:65536" "#,
        r#"line=7 text="::1" "#,
        r#"line=8 text="ftp://a" "#,
        r#"line=9 text="a b" "#,
        r#"line=10 text="\u{1b}[31mred\u{202e}" "#,
    ] {
        let line = format!("line skipped: not a node, file=\"ips.txt\" {line}reason=\"");
        assert_eq!(router.count_lines(&line), 1, "{line:?} in {:?}", router.log());
    }
    assert_eq!(router.count_lines("line skipped"), 8);
}

#[test]
fn twenty_invalid_lines_are_reported_and_others_counted() {
    let router = launch().ips("?\n".repeat(1000)).start();
    router.addr();
    assert_eq!(router.count_lines("line skipped: "), 20);
    let line = "lines skipped: more invalid lines, file=\"ips.txt\" lines=980";
    assert_eq!(router.count_lines(line), 1);
}

#[test]
fn reload_keeps_the_state_of_remaining_nodes() {
    let fleet = Fleet::start(4);
    let router = launch().ips(fleet.list_of(0..2)).set("REFRESH_INTERVAL", ONCE).start();
    assert_eq!(available(&router), addresses(&fleet, [0, 1]));
    // A probe would find the node down. It remains in the list, so there is no probe.
    fleet.set(1, Behaviour::Status(500));
    router.write_ips(fleet.list_of(1..3));
    wait_available(&router, &fleet, [1, 2]);
    assert_eq!(fleet.asked_each(), [1, 1, 1, 0]);
    router.wait_line(&format!("node removed:…node=\"{}\"", fleet.addr(0)), PATIENCE);
    // Listed again it is a new node and probed immediately.
    router.write_ips(fleet.list_of(0..4));
    wait_available(&router, &fleet, 0..4);
    assert_eq!(fleet.asked_each(), [2, 1, 1, 1]);
}

#[test]
fn half_written_list_is_not_loaded() {
    let fleet = Fleet::start(2);
    // On a busy machine the list may remain unchanged for nearly a second: the test repeats.
    let written_in_time = (0..20).find_map(|_| {
        let router = launch().ips(fleet.list()).start();
        assert_eq!(available(&router), addresses(&fleet, 0..2));
        write_slowly(&router, &fleet).then_some(router)
    });
    let router = written_in_time.expect("20 lists were all written too slowly");
    router.wait_line(&loaded(SLOW_LINES + 2), PATIENCE);
    assert_eq!(router.count_lines("list loaded: file changed"), 1);
    assert_eq!(router.count_lines("node removed:"), 0);
}

/// The log line of a reload.
fn loaded(nodes: impl std::fmt::Display) -> String {
    format!("list loaded: file changed, file=\"ips.txt\" nodes={nodes}")
}

/// Lines of [`write_slowly`] before the lines of the fleet: about two seconds. The router reads after five anyway.
const SLOW_LINES: u16 = 20;

/// Writes a list like a script that needs about 100 ms for each line. The router checks the file meanwhile. Returns
/// false if the list remained unchanged for nearly one second, after which the router reads it, or took nearly five.
#[expect(clippy::disallowed_methods, reason = "a list that is written too slowly is read")]
fn write_slowly(router: &Router, fleet: &Fleet) -> bool {
    let lines = (1..=SLOW_LINES).map(|port| format!("127.9.9.9:{port}\n"));
    let (mut list, mut is_in_time) = (String::new(), true);
    let begin = Instant::now();
    for line in lines.chain([fleet.list_of(0..1), fleet.list_of(1..2)]) {
        let since = Instant::now();
        list.push_str(&line);
        router.write_ips(&list);
        router.until("the next line is due", || since.elapsed() > Duration::from_millis(100));
        is_in_time &= since.elapsed() < Duration::from_millis(800);
    }
    is_in_time && begin.elapsed() < Duration::from_secs(4)
}

#[test]
fn constantly_changing_list_is_read_after_five_seconds() {
    let fleet = Fleet::start(2);
    let router = launch().ips(fleet.list_of(0..1)).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    let (list, mut changes) = (fleet.list(), 0);
    router.until("the changing list is read", || {
        changes += 1;
        router.write_ips(format!("{list}# {changes}\n"));
        available(&router) == addresses(&fleet, 0..2)
    });
    let line = "file unsettled: read while it keeps changing, file=\"ips.txt\" after_s=5";
    assert_eq!(router.count_lines(line), 1, "{:?}", router.log());
}

#[test]
fn reload_without_half_of_the_nodes_warns() {
    let fleet = Fleet::start(4);
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, 0..4));
    router.write_ips(fleet.list_of(0..3));
    router.wait_line(&loaded(3), PATIENCE);
    router.write_ips(fleet.list_of(1..2));
    wait_available(&router, &fleet, [1]);
    let line = "list shrunk: half of the nodes or more were removed, file=\"ips.txt\" before=3 nodes=1 removed=2";
    router.wait_line(line, PATIENCE);
    assert_eq!(router.count_lines("list shrunk"), 1, "{:?}", router.log());
}

#[test]
fn list_of_comments_is_an_empty_list() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    router.write_ips("# empty\n");
    wait_available(&router, &fleet, []);
    router.wait_line(&loaded(0), PATIENCE);
}

#[test]
fn without_list_and_explorer_warns_and_serves() {
    let none = launch().start();
    let empty = launch().ips("\n").start();
    let elsewhere = launch().set("IPS_FILE", "nodes/list.txt").start();
    for (router, line) in [
        (
            &none,
            r#"list missing: no node is listed until it is read, file="ips.txt" reason="no such file" explorer=false"#,
        ),
        (
            &empty,
            r#"no nodes: the list is empty and API_URL is not set, file="ips.txt""#,
        ),
        (
            &elsewhere,
            r#"list missing: no node is listed until it is read, file="nodes/list.txt" reason="no such file" explorer=false"#,
        ),
    ] {
        assert_eq!(available(router), [""; 0]);
        assert_eq!(router.count_lines(line), 1, "{:?}", router.log());
    }
    // The line may appear later.
    let fleet = Fleet::start(1);
    fs::create_dir(elsewhere.directory().join("nodes")).expect("made");
    fs::write(elsewhere.directory().join("nodes/list.txt"), fleet.list()).expect("written");
    wait_available(&elsewhere, &fleet, [0]);
}

/// Waits until the router has reported this problem and has had time to report it again.
fn wait_problem(router: &Router, fleet: &Fleet, problem: &str) {
    let line = format!("list rejected: last loaded list stays in effect, file=\"ips.txt\" reason=\"{problem}");
    router.wait_line(&line, PATIENCE);
    // Two more reads, one per second.
    fleet.wait_asked(0, fleet.asked(0) + 2, PATIENCE);
    assert_eq!(router.count_lines(&line), 1, "{problem}");
    assert_eq!(available(router), addresses(fleet, [0]), "{problem}");
}

#[test]
fn unreadable_list_is_reported_once_and_changes_nothing() {
    let fleet = Fleet::start(2);
    let router = launch().ips(fleet.list_of(0..1)).set("REFRESH_INTERVAL", 1).start();
    let path = router.directory().join("ips.txt");
    assert_eq!(available(&router), addresses(&fleet, [0]));

    fs::remove_file(&path).expect("removed");
    wait_problem(&router, &fleet, "no such file");
    fs::create_dir(&path).expect("made");
    wait_problem(
        &router,
        &fleet,
        "a directory (docker makes one when the file to mount is missing",
    );
    fs::remove_dir(&path).expect("removed");
    // As Windows writes "Unicode".
    router.write_ips(b"\xff\xfe1\x002\x00\n\x00");
    wait_problem(&router, &fleet, "expected text in UTF-8, not a binary file or UTF-16");
    // The shell empties the target of `>` before the tool writes.
    router.write_ips("");
    wait_problem(&router, &fleet, "empty, as a failed tool leaves it");
    router.write_ips("<!doctype html>\n<title>502 Bad Gateway</title>\n");
    wait_problem(
        &router,
        &fleet,
        r#"no line is a valid address; line 1: \"<!doctype html>\": "#,
    );
    router.write_ips(fleet.list());
    wait_available(&router, &fleet, 0..2);
}

#[test]
fn unreadable_list_reports_the_uid() {
    let launch = launch().ips("127.0.0.1:1\n");
    let path = launch.directory().join("ips.txt");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&path, mode).expect("a file of the test");
    if fs::read(&path).is_ok() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let uid = rustix::process::geteuid().as_raw();
    let router = launch.start();
    router.wait_line(
        &format!("file=\"ips.txt\" reason=\"permission denied to uid {uid}\""),
        PATIENCE,
    );
}

/// Creates a FIFO without a writer.
fn make_fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("the directory is ours");
}

#[test]
fn non_regular_file_is_rejected_without_blocking() {
    let launch = launch().set("SSL_CERT_FILE", "fifo").set("IPS_FILE", "fifo");
    make_fifo(&launch.directory().join("fifo"));
    let router = launch.start();
    assert_eq!(available(&router), [""; 0]);
    assert_eq!(router.count_lines("file=fifo reason=\"not a regular file\""), 1);
    assert_eq!(router.count_lines("file=\"fifo\" reason=\"not a regular file\""), 1);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn hung_disk_delays_neither_startup_nor_shutdown() {
    let fleet = Fleet::start(1);
    let explorer = Explorer::start(Listing::Nodes(vec![fleet.addr(0)]));
    let launch = launch().set("API_URL", explorer.url());
    let Some(disk) = HungDisk::mount() else {
        eprintln!("NOT TESTED: this user may not mount a disk that hangs");
        return;
    };
    let list = disk.path().join("ips.txt");
    let router = launch.set("IPS_FILE", list.display()).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    router.wait_line(
        &format!(
            "file=\"{}\" reason=\"not read within 3 s, as when its disk hangs\"",
            list.display()
        ),
        PATIENCE,
    );
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn line_that_is_not_utf8_is_skipped() {
    let fleet = Fleet::start(2);
    let [a, b] = [0, 1].map(|node| fleet.addr(node).to_string());
    let list = [b"# caf\xe9\n", a.as_bytes(), b"\n", b.as_bytes(), b"\n\xff:80\n"].concat();
    let router = launch().ips(list).start();
    assert_eq!(available(&router), [a, b]);
    for (number, text) in [(1, ""), (4, "\u{fffd}:80")] {
        let line = format!(r#"line={number} text="{text}" reason="expected UTF-8""#);
        assert_eq!(router.count_lines(&line), 1, "{:?}", router.log());
    }
}

#[test]
fn trailing_slash_is_dropped_and_password_masked() {
    let fleet = Fleet::start(1);
    let list = format!("http://{}/\nhttp://me:secret@127.0.0.1:1\n", fleet.addr(0));
    let router = launch().ips(&list).start();
    assert_eq!(available(&router), [format!("http://{}", fleet.addr(0))]);
    assert_eq!(
        router.count_lines(r#"line=2 text="http://***@127.0.0.1:1" "#),
        1,
        "{:?}",
        router.log()
    );
    assert_eq!(router.count_lines("secret"), 0);
    let ended = launch().ips(list).arg("check").run();
    assert!(ended.stdout.contains("http://***@127.0.0.1:1"), "{ended:?}");
    assert!(!format!("{ended:?}").contains("secret"), "{ended:?}");
}

#[test]
fn nodes_above_100_000_are_reported_without_memory() {
    // 1,000,001 lines, with addresses that refuse connections.
    let line = |n: u32| format!("127.{}.{}.{}:9\n", 100 + (n >> 16), n >> 8 & 255, n & 255);
    let list: String = (0..1_000_001).map(line).collect();
    let router = launch().ips(list).start();
    router.wait_line(
        "list truncated: too many nodes, file=\"ips.txt\" nodes=100000 skipped=900001",
        PATIENCE,
    );
    router.addr();
    let peak = router.peak_rss_kib();
    assert!(peak < 200 * 1024, "{peak} KiB");
}

#[test]
fn replaced_file_that_alone_is_mounted_is_reported() {
    let fleet = Fleet::start(1);
    let launch = launch().set("REFRESH_INTERVAL", 1);
    let path = launch.directory().join("mounted");
    fs::write(&path, fleet.list()).expect("the directory is ours");
    let file = fs::File::open(&path).expect("the file");
    // Refers to the file itself, like a mount, even after its directory entry is replaced.
    let mounted = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let router = launch.set("IPS_FILE", &mounted).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    fs::remove_file(&path).expect("the directory is ours");
    let line = format!("file=\"{mounted}\" reason=\"replaced on the host, where this file alone is mounted");
    router.wait_line(&line, PATIENCE);
    fleet.wait_asked(0, fleet.asked(0) + 2, PATIENCE);
    assert_eq!((router.count_lines(&line), router.count_lines("file changed")), (1, 0));
    assert_eq!(available(&router), addresses(&fleet, [0]));
}

#[test]
fn changed_symlink_is_followed() {
    let fleet = Fleet::start(2);
    let launch = launch()
        .file("..1/ips.txt", fleet.list_of(0..1))
        .file("..2/ips.txt", fleet.list_of(1..2));
    let directory = launch.directory().to_owned();
    let link = |to: &str, name: &str| symlink(to, directory.join(name)).expect("the directory is ours");
    // As Kubernetes mounts and updates a ConfigMap.
    link("..1", "..data");
    link("..data/ips.txt", "ips.txt");
    let router = launch.start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    link("..2", "..data_tmp");
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("the directory is ours");
    wait_available(&router, &fleet, [1]);
}

#[test]
fn path_prefix_is_probed_and_returned() {
    let fleet = Fleet::below_path(2);
    let [a, b] = [0, 1].map(|node| fleet.addr(node).to_string());
    let list = format!("http://{a}/node-7/\n{b}/node-7/info\n{b}/node-7//x\n{b}/%2e%2e/node-7\n{b}/a%2fb\n");
    let router = launch().ips(list).start();
    assert_eq!(available(&router), [format!("http://{a}/node-7")]);
    assert_eq!(router.count_lines("line skipped"), 4, "{:?}", router.log());
    assert_eq!(router.count_lines(&format!("did you mean {b}/node-7?")), 1);
}

#[test]
fn duplicate_lines_are_reported_once_per_reload() {
    let fleet = Fleet::start(2);
    let [a, b] = [0, 1].map(|node| fleet.addr(node).to_string());
    let router = launch().ips(format!("{a}\n{b}\n\nhttp://{a} backup\n{b}\n")).start();
    assert_eq!(available(&router), addresses(&fleet, 0..2));
    let line = "list duplicates: the first line of each node applies, file=\"ips.txt\" lines=2 first_line=4";
    assert_eq!(router.count_lines(line), 1, "{:?}", router.log());
    router.write_ips(format!("{a}\n{a}\n"));
    router.wait_line(&loaded(1), PATIENCE);
    assert_eq!(router.count_lines("list duplicates"), 2);
}

#[test]
fn node_info_may_have_bom_and_repeated_fields() {
    let fleet = Fleet::start(2);
    let body = r#"{"version":"1","version":"2","chain":{},"chain":{},"containers":[{"id":"a","image":"x","image":"y"}],"pending":{}}"#;
    fleet.set(0, Behaviour::Body(body.into()));
    fleet.set(1, Behaviour::Body(format!("\u{feff}{body}").into()));
    let router = launch().ips(fleet.list()).start();
    assert_eq!(
        router.get("/api/v1/ips?container=a").json().as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn failure_names_the_default_port() {
    let router = launch().ips("127.2.0.12\n").start();
    router.wait_line("(default port 80: the address has none)", PATIENCE);
}

#[test]
fn gauge_reports_whether_list_was_accepted() {
    let router = launch().ips("127.0.0.1:1\n").start();
    let gauge = |value: u8| format!("\ninfernet_router_ips_file_ok {value}\n");
    let is = |value| router.get("/metrics").text().contains(&gauge(value));
    router.until("the list is accepted", || is(1));
    router.write_ips("<html>\n");
    router.until("an error page is rejected", || is(0));
    router.write_ips("# none\n");
    router.until("an empty list is accepted", || is(1));
    assert!(!router.get("/metrics").text().contains("infernet_router_explorer_ok"));
}
