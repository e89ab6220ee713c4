//! Responses that clients do not read: bounded in the kernel too, and discarded with their connection.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{IPS, with_ten_nodes};
use crate::launch;
use crate::support::attack::{self, FIRST_ATTACKER, connect};
use crate::support::{Fleet, PATIENCE, Router};

const CONNECTIONS: usize = 32;
/// Most bytes that the kernel holds for one connection if its client has begun to read.
const MAX_KERNEL_BYTES: usize = 80 * 1024;
/// A client may take about this long to read a response that the kernel has.
const READ_TIME: Duration = Duration::from_secs(9);

/// Response bytes in the send queues of the kernel: of open connections, and of closed ones.
fn undelivered(router: &Router) -> (usize, usize) {
    const LISTENS: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let port = format!(":{:04X}", router.addr().port());
    let (mut open, mut closed) = (0, 0);
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns[1].ends_with(&port) && columns[3] != LISTENS {
            let queued = columns[4].split_once(':').expect("two queues").0;
            let queued = usize::from_str_radix(queued, 16).expect("a number");
            match columns[9] {
                "0" => closed += queued,
                _ => open += queued,
            }
        }
    }
    (open, closed)
}

/// Opens a connection that sends the bytes and never reads.
fn never_reads(router: &Router, number: usize, bytes: &[u8]) -> TcpStream {
    let from = Ipv4Addr::from(u32::from(FIRST_ATTACKER) + number as u32 % 6);
    let mut stream = connect(from, router.addr(), PATIENCE).expect("a connection");
    sockopt::set_socket_recv_buffer_size(&stream, 1).expect("set");
    // The router may have refused or evicted the connection.
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn evicted_readers_leave_nothing_in_the_kernel() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).set("MAX_CONNECTIONS", CONNECTIONS).start();
    let long = attack::get("/openapi.json").repeat(5);
    let last = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut hoard = Vec::new();
    for number in 0..400 {
        let stream = never_reads(&router, number, if number % 2 == 0 { &long } else { last });
        if number % 3 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        hoard.push(stream);
    }
    router.until("another client is served", || {
        crate::support::http::get_from(super::source(9), router.addr(), "/health").status == 200
    });
    router.until("closed connections hold nothing", || {
        undelivered(&router).1 < CONNECTIONS * 1024
    });
    let (open, _) = undelivered(&router);
    assert!(open <= CONNECTIONS * MAX_KERNEL_BYTES, "{open} bytes in the kernel");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the router's deadline is a time")]
fn half_closed_client_gets_a_long_last_response() {
    let (_fleet, router) = with_ten_nodes();
    let read = || {
        let mut stream = never_reads(&router, 0, b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.shutdown(Shutdown::Write).expect("shut");
        router.until("the kernel has response bytes", || undelivered(&router).0 > 0);
        assert_eq!(router.get(IPS).status, 200);
        // With the small buffer each KiB takes a tenth of a second.
        sockopt::set_socket_recv_buffer_size(&stream, 1024 * 1024).expect("set");
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut got).map(|_| got)
    };
    let got = loop {
        let begun = Instant::now();
        match read() {
            // The client was slower than the router permits: a busy machine.
            Err(_) if begun.elapsed() > READ_TIME => {}
            got => break got.expect("no reset"),
        }
    };
    let body = got
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .expect("a header section")
        + 4;
    assert_eq!(got.len() - body, router.get("/openapi.json").body.len());
}
