//! Only the gate can reach the inner server: no port, path or name accepts a connection once the router serves.

use std::collections::HashSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;

use super::{IPS, with_ten_nodes};
use crate::support::Router;

/// The inodes of the router's sockets.
fn sockets(router: &Router) -> HashSet<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", router.pid())).expect("a running router");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let link = link.to_string_lossy().into_owned();
        Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Returns the lines of a table in /proc/net with the inode of one of the sockets in the given column.
fn lines(table: &str, column: usize, sockets: &HashSet<String>) -> Vec<Vec<String>> {
    let table = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect());
    lines
        .filter(|line: &Vec<String>| line.get(column).is_some_and(|inode| sockets.contains(inode)))
        .collect()
}

#[test]
fn only_the_public_port_listens() {
    const LISTENS: &str = "0A";
    let (_fleet, router) = with_ten_nodes();
    let own = sockets(&router);
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let listening = lines(table, 9, &own).into_iter().filter(|line| line[3] == LISTENS);
        ports.extend(listening.map(|line| line[1].clone()));
    }
    assert_eq!(ports, [format!("0100007F:{:04X}", router.addr().port())]);
    for table in ["udp", "udp6", "raw", "packet"] {
        assert_eq!(lines(table, 9, &own), Vec::<Vec<String>>::new(), "{table}");
    }
}

#[test]
fn no_name_or_path_accepts_a_connection() {
    let (_fleet, router) = with_ten_nodes();
    let own = lines("unix", 6, &sockets(&router));
    assert!(!own.is_empty(), "no private connection");
    for line in &own {
        // __SO_ACCEPTCON
        assert_eq!(line[3], "00000000", "listens: {line:?}");
    }
    // Each name of an inner server on this host refuses connections.
    let named = fs::read_to_string("/proc/net/unix").expect("there");
    let names = named
        .lines()
        .filter_map(|line| line.split_once('@').map(|(_, name)| name));
    let names: HashSet<&str> = names.filter(|name| name.starts_with("infernet-router")).collect();
    assert!(!names.is_empty(), "no accepted connection shows its name");
    for name in names {
        let addr = SocketAddr::from_abstract_name(name).expect("a name");
        // A router that another test is starting may accept a connection, and discards it.
        let is_own = own
            .iter()
            .any(|line| line.last().is_some_and(|last| last.ends_with(name)));
        if is_own {
            assert!(UnixStream::connect_addr(&addr).is_err(), "{name}");
        }
    }
    assert_eq!(router.get(IPS).strings().len(), 3);
}

#[test]
fn serving_writes_no_file() {
    let (_fleet, router) = with_ten_nodes();
    let files: Vec<_> = fs::read_dir(router.directory())
        .expect("the directory of the test")
        .map(|file| file.expect("one").file_name())
        .collect();
    assert_eq!(files, ["ips.txt"]);
    // The router opens the list briefly from time to time.
    router.until("no file is open", || open_files(&router).is_empty());
}

/// The open files of the router, without devices.
fn open_files(router: &Router) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{}/fd", router.pid())).expect("a running router");
    let files = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    files
        .filter(|path| path.is_absolute() && !path.starts_with("/dev"))
        .collect()
}
