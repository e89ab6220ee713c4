use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::super::connection::limits::{
    HEAD_TIMEOUT, LINGER_TIMEOUT, MAX_LINGER_BYTES, MIN_WAIT, MIN_WRITE, WRITE_TIMEOUT,
};
use super::eviction::iter_from;
use super::*;

/// The share of one client is four.
const MAX_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const BUSY: &str = "The router is busy";
const SHARE: &str = "Too many connections from this address";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
/// More than the sockets between the gate and a client hold.
const LONG: usize = 20 * 1024 * 1024;

/// Longer than any connection is protected from eviction.
const PATIENT: Duration = Duration::from_secs(2);

/// The stage to which a test brings a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Accepted and silent.
    Reading,
    Waiting,
    Inside,
    Idle,
    Writing,
    Lingering,
}

struct Rig {
    clients: Clients,
    listener: TcpListener,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig() -> Rig {
    let config = Config {
        max_connections: MAX_CONNECTIONS,
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("a block")],
        idle_timeout: IDLE_TIMEOUT,
        ..Config::from_lookup(|_| None).expect("the defaults are valid")
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    Rig {
        clients: Clients::new(epoll, config, Arc::default()),
        listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
        now: Instant::now(),
    }
}

impl Clients {
    pub(in crate::gate) fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    /// Connections whose request waits for a worker.
    pub(in crate::gate) fn waiting(&self) -> usize {
        let all = self.sockets.iter();
        all.filter(|(_, socket)| socket.connection.is_waiting()).count()
    }

    pub(in crate::gate) fn unsent(&self) -> usize {
        self.unsent
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

impl Rig {
    /// A connection of this peer, and its key unless it was rejected. Earlier connections may be evicted by then.
    fn admit(&mut self, peer: IpAddr) -> (TcpStream, Option<Key>) {
        let before: Vec<Key> = self.keys();
        let client = TcpStream::connect(self.listener.local_addr().expect("bound")).expect("a connection");
        let (stream, _) = self.listener.accept().expect("it is there");
        stream.set_nonblocking(true).expect("set");
        self.now += MIN_WAIT;
        self.clients.admit(stream, peer, self.now);
        let key = self.keys().into_iter().find(|key| !before.contains(key));
        (client, key)
    }

    fn admitted(&mut self, peer: IpAddr) -> (TcpStream, Key) {
        let (client, key) = self.admit(peer);
        (client, key.expect("it is taken in"))
    }

    /// A connection of this peer at this stage.
    fn admitted_at(&mut self, peer: IpAddr, at: At) -> (TcpStream, Key) {
        let (client, key) = self.admitted(peer);
        self.bring(key, at);
        (client, key)
    }

    /// All connections with a slot.
    fn keys(&self) -> Vec<Key> {
        let all = self.clients.sockets.iter();
        let held = all.filter(|(_, socket)| socket.holder != Holder::Rejected);
        held.map(|(key, _)| key).collect()
    }

    /// Brings a new or idle connection to this stage, by the events on the way there.
    #[track_caller]
    fn bring(&mut self, key: Key, at: At) {
        let request = match at {
            At::Reading => return,
            // More bytes than announced may follow.
            At::Lingering => &b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\n"[..],
            _ => GET,
        };
        self.clients.pump(key, Event::Received(request), self.now);
        if at == At::Waiting {
            return;
        }
        self.forward(key);
        let response = match at {
            At::Inside => return,
            At::Writing => [OK, &vec![b'x'; LONG]].concat(),
            _ => OK.to_vec(),
        };
        self.clients.pump(key, Event::Responded(response), self.now);
    }

    /// Forwards the next waiting request, which belongs to this connection.
    #[track_caller]
    fn forward(&mut self, key: Key) {
        let (client, _) = self.clients.next_waiting(self.now).expect("it waits");
        assert_eq!(client, key);
    }

    fn refused(&self, why: Refused) -> u64 {
        self.clients.metrics.refused[why].get()
    }

    fn is_there(&self, key: Key) -> bool {
        self.clients.sockets.get(key).is_some()
    }

    fn expire_after(&mut self, time: Duration) {
        self.clients.expire(self.now + time);
    }
}

/// All bytes that the client receives until the connection closes or fails.
fn all(mut client: TcpStream) -> String {
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    String::from_utf8(got).expect("text")
}

fn is_prepared_503(answer: &str, why: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n")
        && answer.contains("\r\nRetry-After: 1\r\n")
        && answer.contains("\r\nConnection: close\r\n")
        && answer.ends_with(&format!("{{\"error\":\"{why}\"}}"))
}

#[test]
fn client_above_quarter_of_connections_gets_503() {
    let mut rig = rig();
    let held: Vec<_> = (0..4).map(|_| rig.admitted(ip(1))).collect();
    let (fifth, key) = rig.admit(ip(1));
    assert_eq!(key, None);
    assert!(is_prepared_503(&all(fifth), SHARE));
    assert_eq!(rig.refused(Refused::Share), 1);
    rig.admitted(ip(2));
    // A released slot is free again.
    rig.clients.close(held[0].1, None);
    rig.admitted(ip(1));
    assert_eq!(rig.admit(ip(1)).1, None);
}

#[test]
fn at_share_limit_evicts_longest_idle() {
    let mut rig = rig();
    let busy = rig.admitted_at(ip(1), At::Inside);
    let idle = [At::Idle, At::Idle, At::Lingering].map(|at| rig.admitted_at(ip(1), at));
    let other = rig.admitted_at(ip(2), At::Idle);
    // It gets another response, and so is idle for the shortest time.
    rig.bring(idle[0].1, At::Idle);
    let _new: Vec<_> = (0..3).map(|_| rig.admitted_at(ip(1), At::Inside)).collect();
    assert!([busy.1, other.1].into_iter().all(|key| rig.is_there(key)));
    assert!(!idle.iter().any(|(_, key)| rig.is_there(*key)));
    assert_eq!((rig.refused(Refused::MadeRoom), rig.refused(Refused::Share)), (2, 0));
    assert_eq!(rig.admit(ip(1)).1, None, "none is idle");
    assert_eq!(rig.refused(Refused::Share), 1);
}

#[test]
fn longest_idle_connection_is_evicted_first() {
    let mut rig = rig();
    let idle: Vec<_> = (0..4).map(|_| rig.admitted_at(ip(1), At::Idle)).collect();
    rig.bring(idle[0].1, At::Idle);
    rig.now += MIN_WAIT;
    rig.bring(idle[1].1, At::Idle);
    rig.admitted(ip(1));
    let there: Vec<bool> = idle.iter().map(|(_, key)| rig.is_there(*key)).collect();
    assert_eq!(there, [true, true, false, true]);
}

#[test]
fn connection_silent_for_a_second_is_idle() {
    let mut rig = rig();
    let silent = rig.admitted(ip(1));
    let _busy: Vec<_> = (0..3).map(|_| rig.admitted_at(ip(1), At::Inside)).collect();
    assert_eq!(rig.admit(ip(1)).1, None, "its request may be on its way");
    rig.now += MIN_WRITE;
    rig.admitted(ip(1));
    assert!(!rig.is_there(silent.1));
}

#[test]
fn half_close_does_not_protect_an_unread_response() {
    let mut rig = rig();
    let unread = |rig: &mut Rig| {
        let (client, key) = rig.admitted(ip(1));
        let last = b"GET /a HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
        rig.clients.pump(key, Event::Received(last), rig.now);
        rig.forward(key);
        let response = [OK, &[b'x'; 2 * 1024]].concat();
        rig.clients.pump(key, Event::Responded(response), rig.now);
        (client, key)
    };
    let unread: Vec<_> = (0..4).map(|_| unread(&mut rig)).collect();
    rig.now += MIN_WRITE;
    for (_, key) in &unread {
        rig.clients.pump(*key, Event::Ended, rig.now);
    }
    rig.admitted(ip(1));
    assert!(!rig.is_there(unread[0].1));
}

#[test]
fn share_covers_ipv6_network_or_any_ipv4_form() {
    let mut rig = rig();
    let addr = |addr: &str| addr.parse::<IpAddr>().expect("an address");
    let held: Vec<_> = (1..=4).map(|n| rig.admitted(addr(&format!("2001:db8::{n}")))).collect();
    assert_eq!(rig.admit(addr("2001:db8::ffff")).1, None);
    rig.admitted(addr("2001:db8:0:1::1"));
    let mapped: Vec<_> = (0..4).map(|_| rig.admitted(addr("::ffff:192.0.2.7"))).collect();
    assert_eq!(rig.admit(ip(7)).1, None);
    assert_eq!((held.len(), mapped.len()), (4, 4));
}

#[test]
fn trusted_proxy_has_no_share() {
    let mut rig = rig();
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| rig.admitted(proxy)).collect();
    assert_eq!(held.len(), rig.keys().len());
    assert_eq!(rig.refused(Refused::Share), 0);
}

#[test]
fn at_cap_evicts_longest_wait_of_largest_client() {
    let mut rig = rig();
    let mut held = Vec::new();
    // The oldest connection belongs to a client with two. Client 9 has the most, four.
    for last in [1, 9, 9, 9, 9, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5] {
        held.push(rig.admitted(ip(last)));
    }
    rig.admitted(ip(6));
    assert!(!rig.is_there(held[1].1));
    assert_eq!(all(held.swap_remove(1).0), "");
    assert_eq!((rig.refused(Refused::MadeRoom), rig.keys().len()), (1, MAX_CONNECTIONS));
}

#[test]
fn requests_in_flight_are_not_evicted() {
    let mut rig = rig();
    let mut held: Vec<_> = (0..15_u8).map(|n| rig.admitted_at(ip(n / 4), At::Inside)).collect();
    held.push(rig.admitted(ip(3)));
    let (_newcomer, newest) = rig.admitted_at(ip(100), At::Inside);
    assert!(!rig.is_there(held[15].1) && rig.is_there(newest));
    let (refused, key) = rig.admit(ip(101));
    assert_eq!(key, None);
    assert!(is_prepared_503(&all(refused), BUSY));
    assert_eq!((rig.refused(Refused::Full), rig.keys().len()), (1, MAX_CONNECTIONS));
    assert_eq!((rig.refused(Refused::Busy), rig.refused(Refused::MadeRoom)), (0, 1));
}

#[test]
fn recent_stage_is_not_evicted_for_equal_client() {
    for (at, least) in [
        (At::Reading, MIN_WAIT),
        (At::Lingering, MIN_WAIT),
        (At::Writing, MIN_WRITE),
    ] {
        let mut rig = rig();
        let _held: Vec<_> = (0..15_u8).map(|n| rig.admitted_at(ip(n), At::Inside)).collect();
        let (_client, key) = rig.admitted_at(ip(15), at);
        let begin = rig.now;
        rig.now = begin + least - Duration::from_millis(1) - MIN_WAIT;
        assert_eq!(rig.admit(ip(100)).1, None, "{at:?}");
        assert!(rig.is_there(key), "{at:?}");
        rig.now = begin + least - MIN_WAIT;
        rig.admitted(ip(100));
        assert!(!rig.is_there(key), "{at:?}");
    }
}

#[test]
fn waiting_request_is_evicted_for_smaller_client() {
    let mut rig = rig();
    let head = b"HEAD /a HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut held: Vec<_> = (0..11_u8).map(|n| rig.admitted_at(ip(n / 4), At::Inside)).collect();
    let reading = rig.admitted(ip(3));
    let (first, key) = rig.admitted(ip(3));
    rig.clients.pump(key, Event::Received(head), rig.now);
    rig.now += Duration::from_millis(1);
    held.extend((0..3).map(|n| rig.admitted_at(ip(3 + n % 2), At::Waiting)));
    let _newcomer = rig.admitted_at(ip(100), At::Waiting);
    assert!(
        !rig.is_there(reading.1) && rig.is_there(key),
        "one that has no request goes before"
    );
    rig.admitted(ip(101));
    assert!(!rig.is_there(key));
    let answer = all(first);
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\n"),
        "a HEAD gets no body: {answer}"
    );
    assert_eq!(rig.clients.unsent, 0);
    assert_eq!(held.iter().filter(|(_, key)| rig.is_there(*key)).count(), 14);
}

#[test]
fn client_with_more_connections_evicts_none() {
    let mut rig = rig();
    let at = |n| if n == 2 { At::Reading } else { At::Inside };
    let held: Vec<_> = [1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5]
        .map(|n| rig.admitted_at(ip(n), at(n)))
        .into();
    rig.now += PATIENT;
    assert_eq!(rig.admit(ip(1)).1, None);
    assert!(rig.is_there(held[3].1));
    rig.admitted(ip(2));
    assert!(!rig.is_there(held[3].1), "its own may go");
}

#[test]
fn client_still_equal_after_eviction_is_evicted_immediately() {
    for at in [At::Reading, At::Lingering, At::Writing] {
        let mut rig = rig();
        let _held: Vec<_> = (0..15_u8).map(|n| rig.admitted_at(ip(n / 2), At::Inside)).collect();
        let (_client, key) = rig.admitted_at(ip(7), At::Inside);
        rig.clients.close(key, None);
        let (_client, key) = rig.admitted_at(ip(6), at);
        rig.now -= MIN_WAIT;
        // A client that has one already would then have more.
        let (_one, one) = rig.admitted_at(ip(100), at);
        assert!(!rig.is_there(key), "{at:?}");
        rig.now -= MIN_WAIT;
        assert_eq!(rig.admit(ip(101)).1, None, "{at:?}");
        assert!(rig.is_there(one), "{at:?}");
    }
}

#[test]
fn proxy_connections_are_evicted_last() {
    let mut rig = rig();
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let held: Vec<_> = (0..15).map(|_| rig.admitted(proxy)).collect();
    let (_client, own) = rig.admitted(ip(1));
    rig.admitted_at(ip(2), At::Inside);
    assert!(!rig.is_there(own) && rig.is_there(held[0].1));
    rig.admitted(proxy);
    assert!(!rig.is_there(held[0].1));
}

#[test]
fn eviction_scan_continues_after_last_position() {
    let mut arena = Arena::default();
    let keys: Vec<Key> = (0..5).map(|n| arena.insert(n)).collect();
    arena.remove(keys[3]);
    let from = |start| iter_from(&arena, start).map(|(_, n)| *n).collect::<Vec<_>>();
    assert_eq!(
        (from(0), from(2), from(4)),
        (vec![0, 1, 2, 4], vec![2, 4, 0, 1], vec![4, 0, 1, 2])
    );
    assert_eq!(from(9), [0, 1, 2, 4], "past the end");
    assert!(iter_from(&arena, 2).all(|(key, n)| arena.get(key) == Some(n)));
}

#[test]
fn rejected_connections_linger_up_to_a_limit() {
    let mut rig = rig();
    let _held: Vec<_> = (0..4).map(|_| rig.admitted_at(ip(1), At::Inside)).collect();
    let refused: Vec<_> = (0..MAX_REJECTED + 3).map(|_| rig.admit(ip(1)).0).collect();
    assert_eq!(rig.clients.held_by(Holder::Rejected), MAX_REJECTED);
    assert_eq!(rig.refused(Refused::Share), MAX_REJECTED as u64 + 3);
    for client in refused {
        assert!(is_prepared_503(&all(client), SHARE), "also without lingering");
    }
    rig.now += LINGER_TIMEOUT;
    rig.clients.expire(rig.now);
    assert_eq!(rig.clients.held_by(Holder::Rejected), 0);
    // The cap remains the same.
    let _more: Vec<_> = (4..16).map(|n| rig.admitted(ip(n))).collect();
    assert_eq!(rig.refused(Refused::MadeRoom), 0);
}

#[test]
fn silent_connection_is_closed_without_a_response() {
    let mut rig = rig();
    let (silent, new) = rig.admitted(ip(2));
    let (slow, begun) = rig.admitted(ip(3));
    rig.clients.pump(begun, Event::Received(b"GET"), rig.now);
    let (client, key) = rig.admitted_at(ip(1), At::Idle);
    rig.expire_after(HEAD_TIMEOUT);
    rig.expire_after(HEAD_TIMEOUT + LINGER_TIMEOUT);
    assert!(!rig.is_there(new) && !rig.is_there(begun) && rig.is_there(key));
    assert_eq!(all(silent), "");
    assert!(all(slow).starts_with("HTTP/1.1 408 "));
    rig.expire_after(IDLE_TIMEOUT - Duration::from_millis(1));
    assert!(rig.is_there(key));
    rig.expire_after(IDLE_TIMEOUT);
    assert!(!rig.is_there(key));
    assert_eq!(all(client).as_bytes(), OK);
}

#[test]
fn any_number_of_empty_lines_may_precede_a_request() {
    let mut rig = rig();
    let (_client, key) = rig.admitted_at(ip(1), At::Idle);
    for lines in [
        &b"\r\n".repeat(4_000)[..],
        b"\r",
        b"\n\r",
        &b"\n\r".repeat(4_000),
        b"\n",
    ] {
        rig.clients.pump(key, Event::Received(lines), rig.now);
        assert!(
            rig.clients
                .sockets
                .get(key)
                .is_some_and(|socket| socket.connection.idle_after() == Some(Duration::ZERO))
        );
    }
    rig.bring(key, At::Inside);
}

#[test]
fn empty_lines_leave_a_connection_idle() {
    for ahead in [false, true] {
        let mut rig = rig();
        let (client, key) = match ahead {
            true => {
                let (client, key) = rig.admitted(ip(1));
                rig.clients
                    .pump(key, Event::Received(&[GET, b"\r\n"].concat()), rig.now);
                rig.forward(key);
                rig.clients.pump(key, Event::Responded(OK.to_vec()), rig.now);
                (client, key)
            }
            false => {
                let (client, key) = rig.admitted_at(ip(1), At::Idle);
                rig.clients.pump(key, Event::Received(b"\r\n"), rig.now);
                (client, key)
            }
        };
        assert!(!rig.clients.any_left(false), "nothing is owed");
        rig.expire_after(HEAD_TIMEOUT);
        assert!(rig.is_there(key), "it has the idle timeout");
        rig.clients.pump(key, Event::Ended, rig.now);
        assert!(!rig.is_there(key));
        assert_eq!(all(client).as_bytes(), OK);
    }
}

#[test]
fn reader_without_progress_is_evicted_first() {
    let mut rig = rig();
    let half = |rig: &mut Rig, n| {
        let (client, key) = rig.admitted_at(ip(n), At::Inside);
        let response = [OK, &vec![b'x'; LONG / 4]].concat();
        rig.clients.pump(key, Event::Responded(response), rig.now);
        (client, key)
    };
    let (_stuck, stuck) = half(&mut rig, 1);
    let (mut steady, reading) = half(&mut rig, 2);
    // It has more unread bytes than the older one, but has just read some.
    let mut buffer = vec![0; 4096];
    rig.now += MIN_WRITE;
    let _ = steady.read(&mut buffer).expect("there is more");
    rig.clients.pump(reading, Event::Writable, rig.now);
    let (_newest, newest) = half(&mut rig, 3);
    assert!(!rig.is_there(stuck) && rig.is_there(reading) && rig.is_there(newest));
    assert_eq!(rig.refused(Refused::SlowReader), 1);
}

#[test]
fn reader_that_has_stopped_is_disconnected() {
    let mut rig = rig();
    let (_client, key) = rig.admitted_at(ip(1), At::Writing);
    // Bytes that only the kernel accepts are not progress.
    rig.expire_after(WRITE_TIMEOUT - Duration::from_millis(2));
    assert!(rig.is_there(key));
    rig.expire_after(WRITE_TIMEOUT + Duration::from_millis(2));
    assert!(!rig.is_there(key));
    assert_eq!((rig.refused(Refused::SlowReader), rig.clients.unsent()), (1, 0));
}

#[test]
fn above_unsent_limit_evicts_reader_with_most_unread() {
    let mut rig = rig();
    let (mut client, first) = rig.admitted_at(ip(1), At::Writing);
    // It has read some, and so has less unread data than the next one.
    let (mut buffer, before) = (vec![0; LONG / 2], rig.clients.unsent());
    while rig.clients.unsent() > before - LONG / 4 {
        let _ = client.read(&mut buffer).expect("there is more");
        rig.clients.pump(first, Event::Writable, rig.now);
    }
    let (_other, second) = rig.admitted_at(ip(2), At::Inside);
    let long = [OK, &vec![b'x'; LONG]].concat();
    rig.clients.pump(second, Event::Responded(long), rig.now);
    assert!(!rig.is_there(first), "the newest one stays");
    let (_third, third) = rig.admitted_at(ip(3), At::Inside);
    let short = [OK, &vec![b'x'; LONG / 2]].concat();
    rig.clients.pump(third, Event::Responded(short), rig.now);
    assert!(!rig.is_there(second) && rig.is_there(third));
    assert_eq!(rig.refused(Refused::SlowReader), 2);
    rig.clients.close(third, None);
    assert_eq!(rig.clients.unsent, 0);
}

#[test]
fn response_read_in_pieces_is_complete() {
    let mut rig = rig();
    let (mut client, key) = rig.admitted_at(ip(1), At::Inside);
    let body: Vec<u8> = (0..LONG).map(|n| n as u8).collect();
    let answer = [OK, &body].concat();
    rig.clients.pump(key, Event::Responded(answer.clone()), rig.now);
    let mut got = Vec::new();
    client.set_nonblocking(true).expect("set");
    while got.len() < answer.len() {
        let _ = std::io::Read::by_ref(&mut client).take(100_000).read_to_end(&mut got);
        rig.clients.pump(key, Event::Writable, rig.now);
    }
    assert!(got == answer);
    assert_eq!(rig.clients.unsent, 0);
}

#[test]
fn bytes_after_last_request_leave_response_complete() {
    let mut rig = rig();
    rustix::net::sockopt::set_socket_send_buffer_size(&rig.listener, super::super::SEND_BUFFER_BYTES).expect("set");
    let (mut client, key) = rig.admitted(ip(1));
    let closing = b"GET /a HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    rig.clients.pump(key, Event::Received(closing), rig.now);
    rig.forward(key);
    let answer = [OK, &[b'x'; 60_000]].concat();
    rig.clients.pump(key, Event::Responded(answer.clone()), rig.now);
    while rig.clients.unsent() > 0 {
        rig.clients.pump(key, Event::Writable, rig.now);
    }
    client.write_all(b"\r\n").expect("sent");
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("no reset");
    assert!(got == answer);
}

#[test]
fn untrusted_proxy_is_logged_once_per_hour() {
    let mut rig = rig();
    let forwarded = b"GET /a HTTP/1.1\r\nHost: b\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n";
    for (peer, client, is_known) in [
        ("192.0.2.1", "192.0.2.1", false),
        ("10.0.0.1", "198.51.100.1", true),
        ("192.0.2.2", "192.0.2.2", false),
    ] {
        let (_client, key) = rig.admitted(peer.parse().expect("an address"));
        rig.clients.pump(key, Event::Received(forwarded), rig.now);
        let (_, in_flight) = rig.clients.next_waiting(rig.now).expect("it waits");
        let context = &in_flight.request.context;
        assert_eq!(
            (context.client.to_string(), context.is_client_known),
            (client.to_owned(), is_known)
        );
    }
    assert_eq!(rig.clients.untrusted_proxies.admit(rig.now), None, "logged once");
    let suppressed = rig.clients.untrusted_proxies.admit(rig.now + Duration::from_secs(3600));
    let suppressed = format!("{:?}", suppressed.expect("logged again"));
    assert!(suppressed.contains('2'), "with the count: {suppressed}");
}

#[test]
fn bytes_after_last_response_are_discarded_up_to_a_limit() {
    let mut rig = rig();
    let (_client, key) = rig.admitted_at(ip(1), At::Lingering);
    let reads = |rig: &Rig| {
        let socket = rig.clients.sockets.get(key).expect("it lingers");
        socket.connection.interest().contains(EventFlags::IN)
    };
    rig.clients
        .pump(key, Event::Received(&vec![b'x'; MAX_LINGER_BYTES - 1]), rig.now);
    assert!(reads(&rig));
    rig.clients.pump(key, Event::Received(b"x"), rig.now);
    assert!(!reads(&rig));
}
