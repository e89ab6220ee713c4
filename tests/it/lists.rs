//! ips.txt: all its forms, and what happens to it while the router runs.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::support::{Behaviour, Explorer, Fleet, HungDisk, Listing, PATIENCE, Router, Signal};
use super::{addresses, available, launch, wait_available};

/// So long that nobody is asked a second time.
const ONCE: &str = "86400";

#[test]
fn every_form_of_a_line_is_understood_and_given_back_as_it_was_listed() {
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
    assert_eq!(router.count_lines("skipped"), 0, "{:?}", router.log());
    assert_eq!(fleet.asked_each(), [1; 5]);
}

#[test]
fn a_bad_line_is_reported_with_its_number_and_its_text_and_skipped() {
    let fleet = Fleet::start(1);
    let list = format!(
        "127.0.0.1:1/info\n\nuser@127.0.0.1:1\n{}\n127.0.0.1:0\n127.0.0.1:65536\n::1\nftp://a\na b # c\n\x1b[31mred\u{202e}\n",
        fleet.addr(0)
    );
    let router = launch().ips(list).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    for line in [
        r#"ips.txt: line 1: "127.0.0.1:1/info": "#,
        r#"ips.txt: line 3: "user@127.0.0.1:1": "#,
        r#"ips.txt: line 5: "127.0.0.1:0": "#,
        r#"ips.txt: line 6: "127.0.0.1:65536": "#,
        r#"ips.txt: line 7: "::1": "#,
        r#"ips.txt: line 8: "ftp://a": "#,
        r#"ips.txt: line 9: "a b # c": "#,
        r#"ips.txt: line 10: "\u{1b}[31mred\u{202e}": "#,
    ] {
        assert_eq!(router.count_lines(line), 1, "{line:?} in {:?}", router.log());
    }
    assert_eq!(router.count_lines("; skipped"), 8);
}

#[test]
fn of_many_bad_lines_twenty_are_reported_and_the_others_counted() {
    let router = launch().ips("?\n".repeat(1000)).start();
    router.addr();
    assert_eq!(router.count_lines("ips.txt: line "), 20);
    assert_eq!(router.count_lines("ips.txt: 980 more bad lines; skipped"), 1);
}

#[test]
fn a_list_that_is_written_in_place_counts_and_nodes_that_stay_keep_their_state() {
    let fleet = Fleet::start(4);
    let router = launch().ips(fleet.list_of(0..2)).set("REFRESH_INTERVAL", ONCE).start();
    assert_eq!(available(&router), addresses(&fleet, [0, 1]));
    // A probe would find it down now; as it stays listed there is none.
    fleet.set(1, Behaviour::Status(500));
    router.write_ips(fleet.list_of(1..3));
    wait_available(&router, &fleet, [1, 2]);
    assert_eq!(fleet.asked_each(), [1, 1, 1, 0]);
    router.wait_line(&format!("node \"{}\" is not listed any more", fleet.addr(0)), PATIENCE);
    // Listed anew it is a new node, and asked at once.
    router.write_ips(fleet.list_of(0..4));
    wait_available(&router, &fleet, 0..4);
    assert_eq!(fleet.asked_each(), [2, 1, 1, 1]);
}

#[test]
fn a_half_written_list_counts_for_nothing() {
    let fleet = Fleet::start(2);
    // A machine that is too busy to write for nearly a second makes a list that stays the same for so long: once more.
    let written_in_time = (0..20).find_map(|_| {
        let router = launch().ips(fleet.list()).start();
        assert_eq!(available(&router), addresses(&fleet, 0..2));
        write_slowly(&router, &fleet).then_some(router)
    });
    let router = written_in_time.expect("20 lists were all written too slowly");
    router.wait_line(&format!("ips.txt: read again, {} nodes", SLOW_LINES + 2), PATIENCE);
    assert_eq!(router.count_lines("read again"), 1);
    assert_eq!(router.count_lines("is not listed any more"), 0);
}

/// Lines of [`write_slowly`] before those of the fleet: some three seconds of writing.
const SLOW_LINES: u16 = 30;

/// As a script writes it that takes some 100 ms for each line: the file is looked at in between. False where the list
/// stayed the same for nearly the second after which it counts.
#[expect(clippy::disallowed_methods, reason = "a list that is written too slowly counts")]
fn write_slowly(router: &Router, fleet: &Fleet) -> bool {
    let lines = (1..=SLOW_LINES).map(|port| format!("127.9.9.9:{port}\n"));
    let (mut list, mut is_in_time) = (String::new(), true);
    for line in lines.chain([fleet.list_of(0..1), fleet.list_of(1..2)]) {
        let since = Instant::now();
        list.push_str(&line);
        router.write_ips(&list);
        router.until("the next line is due", || since.elapsed() > Duration::from_millis(100));
        is_in_time &= since.elapsed() < Duration::from_millis(800);
    }
    is_in_time
}

#[test]
fn an_empty_list_is_an_empty_list() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    router.write_ips("# nobody\n");
    wait_available(&router, &fleet, []);
    router.wait_line("ips.txt: read again, 0 nodes", PATIENCE);
}

#[test]
fn without_a_list_and_an_explorer_there_is_a_warning_and_service() {
    let none = launch().start();
    let empty = launch().ips("\n").start();
    let elsewhere = launch().set("IPS_FILE", "nodes/list.txt").start();
    for (router, line) in [
        (
            &none,
            "WARN  [infernet_router] ips.txt: no such file; API_URL is not set either",
        ),
        (
            &empty,
            "WARN  [infernet_router] ips.txt lists no node and API_URL is not set",
        ),
        (
            &elsewhere,
            "WARN  [infernet_router] nodes/list.txt: no such file; API_URL",
        ),
    ] {
        assert_eq!(available(router), [""; 0]);
        assert_eq!(router.count_lines(line), 1, "{:?}", router.log());
    }
    // It may come later.
    let fleet = Fleet::start(1);
    fs::create_dir(elsewhere.directory().join("nodes")).expect("made");
    fs::write(elsewhere.directory().join("nodes/list.txt"), fleet.list()).expect("written");
    wait_available(&elsewhere, &fleet, [0]);
}

/// Waits until this trouble was reported, and until the router has had the time to report it again.
fn wait_trouble(router: &Router, fleet: &Fleet, trouble: &str) {
    let line = format!("ips.txt: {trouble}");
    router.wait_line(&line, PATIENCE);
    // Two more rounds of a second.
    fleet.wait_asked(0, fleet.asked(0) + 2, PATIENCE);
    assert_eq!(router.count_lines(&line), 1, "{trouble}");
    assert_eq!(available(router), addresses(fleet, [0]), "{trouble}");
}

#[test]
fn a_list_that_can_not_be_read_is_reported_once_and_the_last_one_stays() {
    let fleet = Fleet::start(2);
    let router = launch().ips(fleet.list_of(0..1)).set("REFRESH_INTERVAL", 1).start();
    let path = router.directory().join("ips.txt");
    assert_eq!(available(&router), addresses(&fleet, [0]));

    fs::remove_file(&path).expect("removed");
    wait_trouble(&router, &fleet, "no such file; the list that was read last stays");
    fs::create_dir(&path).expect("made");
    wait_trouble(
        &router,
        &fleet,
        "a directory (docker makes one when the file to mount is missing",
    );
    fs::remove_dir(&path).expect("removed");
    // As Windows writes "Unicode".
    router.write_ips(b"\xff\xfe1\x002\x00\n\x00");
    wait_trouble(
        &router,
        &fleet,
        "expected text in UTF-8, not a binary file or UTF-16; the list that was read last stays",
    );
    // The shell empties a file before the tool behind `>` has written anything.
    router.write_ips("");
    wait_trouble(&router, &fleet, "empty, as a tool that failed leaves it");
    router.write_ips("<!doctype html>\n<title>502 Bad Gateway</title>\n");
    wait_trouble(
        &router,
        &fleet,
        r#"none of its lines is an address; line 1: "<!doctype html>": "#,
    );
    router.write_ips(fleet.list());
    wait_available(&router, &fleet, 0..2);
}

#[test]
fn a_list_without_permission_is_reported_with_the_uid() {
    let launch = launch().ips("127.0.0.1:1\n");
    let path = launch.directory().join("ips.txt");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&path, mode).expect("ours");
    if fs::read(&path).is_ok() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let uid = rustix::process::geteuid().as_raw();
    let router = launch.start();
    router.wait_line(&format!("ips.txt: permission denied to uid {uid}"), PATIENCE);
}

/// Makes a FIFO that nobody writes.
fn make_fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("the directory is ours");
}

#[test]
fn what_is_no_regular_file_is_no_list_and_holds_nobody_up() {
    let launch = launch().set("SSL_CERT_FILE", "fifo").set("IPS_FILE", "fifo");
    make_fifo(&launch.directory().join("fifo"));
    let router = launch.start();
    assert_eq!(available(&router), [""; 0]);
    assert_eq!(router.count_lines("fifo: not a regular file"), 1);
    assert_eq!(router.count_lines("SSL_CERT_FILE=\"fifo\": not a regular file"), 1);
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_disk_that_hangs_delays_neither_the_start_nor_the_end() {
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
        &format!("{}: not read within 3 s, as when its disk hangs", list.display()),
        PATIENCE,
    );
    router.signal(Signal::TERM);
    assert_eq!(router.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_line_that_is_not_utf8_is_skipped_like_any_other_bad_one() {
    let fleet = Fleet::start(2);
    let [a, b] = [0, 1].map(|node| fleet.addr(node).to_string());
    let list = [b"# caf\xe9\n", a.as_bytes(), b"\n", b.as_bytes(), b"\n\xff:80\n"].concat();
    let router = launch().ips(list).start();
    assert_eq!(available(&router), [a, b]);
    for (number, text) in [(1, "# caf\u{fffd}"), (4, "\u{fffd}:80")] {
        let line = format!(r#"ips.txt: line {number}: "{text}": expected UTF-8; skipped"#);
        assert_eq!(router.count_lines(&line), 1, "{:?}", router.log());
    }
}

#[test]
fn a_slash_at_the_end_is_dropped_and_a_password_is_masked() {
    let fleet = Fleet::start(1);
    let list = format!("http://{}/\nhttp://me:secret@127.0.0.1:1\n", fleet.addr(0));
    let router = launch().ips(&list).start();
    assert_eq!(available(&router), [format!("http://{}", fleet.addr(0))]);
    assert_eq!(
        router.count_lines(r#"line 2: "http://me:***@127.0.0.1:1": "#),
        1,
        "{:?}",
        router.log()
    );
    assert_eq!(router.count_lines("secret"), 0);
    let ended = launch().ips(list).arg("check").run();
    assert!(ended.stdout.contains("http://me:***@127.0.0.1:1"), "{ended:?}");
    assert!(!format!("{ended:?}").contains("secret"), "{ended:?}");
}

#[test]
fn of_more_than_a_hundred_thousand_nodes_the_rest_is_reported_and_costs_no_memory() {
    // 1,000,001 lines; nothing listens there.
    let line = |n: u32| format!("127.{}.{}.{}:9\n", 100 + (n >> 16), n >> 8 & 255, n & 255);
    let list: String = (0..1_000_001).map(line).collect();
    let router = launch().ips(list).start();
    router.wait_line(
        "ips.txt: 100000 nodes are as many as there may be; 900001 lines with more of them; skipped",
        PATIENCE,
    );
    router.addr();
    let peak = router.peak_rss_kib();
    assert!(peak < 200 * 1024, "{peak} KiB");
}

#[test]
fn a_file_that_is_replaced_where_it_alone_is_mounted_is_told_as_that() {
    let fleet = Fleet::start(1);
    let launch = launch().set("REFRESH_INTERVAL", 1);
    let path = launch.directory().join("mounted");
    fs::write(&path, fleet.list()).expect("the directory is ours");
    let file = fs::File::open(&path).expect("it is there");
    // Names the file itself, as a mount of it does, whatever becomes of its entry in the directory.
    let mounted = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let router = launch.set("IPS_FILE", &mounted).start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    fs::remove_file(&path).expect("the directory is ours");
    let line = format!("{mounted}: replaced on the host, where this file alone is mounted");
    router.wait_line(&line, PATIENCE);
    fleet.wait_asked(0, fleet.asked(0) + 2, PATIENCE);
    assert_eq!((router.count_lines(&line), router.count_lines("read again")), (1, 0));
    assert_eq!(available(&router), addresses(&fleet, [0]));
}

#[test]
fn a_symlink_that_comes_to_point_elsewhere_is_followed() {
    let fleet = Fleet::start(2);
    let launch = launch()
        .file("..1/ips.txt", fleet.list_of(0..1))
        .file("..2/ips.txt", fleet.list_of(1..2));
    let directory = launch.directory().to_owned();
    let link = |to: &str, name: &str| symlink(to, directory.join(name)).expect("the directory is ours");
    // As Kubernetes mounts a ConfigMap, and as it changes it.
    link("..1", "..data");
    link("..data/ips.txt", "ips.txt");
    let router = launch.start();
    assert_eq!(available(&router), addresses(&fleet, [0]));
    link("..2", "..data_tmp");
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("the directory is ours");
    wait_available(&router, &fleet, [1]);
}
