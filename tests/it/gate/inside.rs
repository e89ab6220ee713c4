//! Nobody but the gate can reach the inner server: by no port, path or name, once the router serves.

use std::collections::HashSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;

use super::{IPS, with_ten_nodes};
use crate::support::Router;

/// The inodes of its sockets.
fn sockets(router: &Router) -> HashSet<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", router.pid())).expect("it runs");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let link = link.to_string_lossy().into_owned();
        Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Lines of a table in /proc/net that are about one of these sockets, whose inode is in that column.
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
    assert!(!own.is_empty(), "the private connections are there");
    for line in &own {
        // __SO_ACCEPTCON
        assert_eq!(line[3], "00000000", "listens: {line:?}");
    }
    // Not only its own: whatever in the host has the name of an inner server refuses.
    let named = fs::read_to_string("/proc/net/unix").expect("there");
    let names = named
        .lines()
        .filter_map(|line| line.split_once('@').map(|(_, name)| name));
    let names: HashSet<&str> = names.filter(|name| name.starts_with("infernet-router")).collect();
    assert!(!names.is_empty(), "the accepted ends show where they were accepted");
    for name in names {
        let addr = SocketAddr::from_abstract_name(name).expect("a name");
        // One of a router that another test is starting at this moment may take it, and then throws all of it away.
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
        .expect("ours")
        .map(|file| file.expect("one").file_name())
        .collect();
    assert_eq!(files, ["ips.txt"]);
    // The list is read now and then, for a moment.
    router.until("no file stays open", || open_files(&router).is_empty());
}

/// The files that it has open, but for devices.
fn open_files(router: &Router) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{}/fd", router.pid())).expect("it runs");
    let files = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    files
        .filter(|path| path.is_absolute() && !path.starts_with("/dev"))
        .collect()
}
