use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use super::super::connection::{HEAD_TIMEOUT, IDLE_TIMEOUT, LINGER_TIMEOUT, WAIT_TIMEOUT, WRITE_TIMEOUT};
use super::*;

/// The share of one client is then four.
const MAX_CONNECTIONS: usize = 16;
const BUSY: &str = "The router is busy";
const SHARE: &str = "Too many connections from this address";

/// Longer than anything may take before it makes room.
const PATIENT: Duration = Duration::from_secs(2);

struct Rig {
    clients: Clients,
    listener: TcpListener,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn rig() -> Rig {
    let settings = Settings {
        max_connections: MAX_CONNECTIONS,
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("a block")],
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    Rig {
        clients: Clients::new(epoll, settings, Arc::default()),
        listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
        now: Instant::now(),
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

impl Rig {
    /// A connection from there, and its key unless it was turned away. By then the last one has had its time.
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

    /// All that have a place.
    fn keys(&self) -> Vec<Key> {
        let all = self.clients.connections.iter();
        let held = all.filter(|(_, connection)| connection.holder != Holder::Nobody);
        held.map(|(key, _)| key).collect()
    }

    fn put(&mut self, key: Key, stage: Stage) {
        let now = self.now;
        self.clients
            .get_mut(key)
            .expect("it is there")
            .enter(stage, HEAD_TIMEOUT, now);
    }

    fn refused(&self, why: Refused) -> u64 {
        self.clients.metrics.refused[why].get()
    }

    fn stage(&mut self, key: Key) -> Option<Stage> {
        self.clients.get_mut(key).map(|connection| connection.stage)
    }

    fn deliver(&mut self, key: Key, answer: &[u8]) {
        self.put(key, Stage::Inside);
        let under_way = UnderWay {
            connection: key,
            sent: self.now,
            is_head: false,
        };
        self.clients.deliver(under_way, answer, self.now);
    }
}

fn all(mut client: TcpStream) -> String {
    let mut got = String::new();
    client.read_to_string(&mut got).expect("text, and then the end");
    got
}

fn is_prepared_503(answer: &str, why: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n")
        && answer.contains("\r\nRetry-After: 1\r\n")
        && answer.contains("\r\nConnection: close\r\n")
        && answer.ends_with(&format!("{{\"error\":\"{why}\"}}"))
}

#[test]
fn a_client_has_a_quarter_of_the_connections_and_a_503_past_it() {
    let mut rig = rig();
    let held: Vec<_> = (0..4).map(|_| rig.admitted(ip(1))).collect();
    let (fifth, key) = rig.admit(ip(1));
    assert_eq!(key, None);
    assert!(is_prepared_503(&all(fifth), SHARE));
    assert_eq!(rig.refused(Refused::Share), 1);
    rig.admitted(ip(2));
    // A place that is given back is one to take.
    rig.clients.close(held[0].1, None);
    rig.admitted(ip(1));
    assert_eq!(rig.admit(ip(1)).1, None);
}

#[test]
fn a_share_is_that_of_an_ipv6_network_and_of_an_ipv4_address_however_it_is_written() {
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
fn a_trusted_proxy_has_no_share() {
    let mut rig = rig();
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| rig.admitted(proxy)).collect();
    assert_eq!(held.len(), rig.keys().len());
    assert_eq!(rig.refused(Refused::Share), 0);
}

#[test]
fn at_the_cap_the_longest_wait_of_the_client_that_holds_most_makes_room() {
    let mut rig = rig();
    let mut held = Vec::new();
    // The oldest connection of all is one of two of its client; 9 has four, the most.
    for last in [1, 9, 9, 9, 9, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5] {
        held.push(rig.admitted(ip(last)));
    }
    rig.admitted(ip(6));
    assert_eq!(rig.stage(held[1].1), None);
    assert_eq!(all(held.swap_remove(1).0), "");
    assert_eq!((rig.refused(Refused::MadeRoom), rig.keys().len()), (1, MAX_CONNECTIONS));
}

#[test]
fn requests_that_are_being_answered_make_no_room_and_a_503_is_left_for_when_all_are() {
    let mut rig = rig();
    let held: Vec<_> = (0..16_u8).map(|n| rig.admitted(ip(n / 4))).collect();
    for (_, key) in held.iter().skip(1) {
        rig.put(*key, Stage::Inside);
    }
    let (_newcomer, newest) = rig.admitted(ip(100));
    assert_eq!(rig.stage(held[0].1), None);
    rig.put(newest, Stage::Inside);
    let (refused, key) = rig.admit(ip(101));
    assert_eq!(key, None);
    assert!(is_prepared_503(&all(refused), BUSY));
    assert_eq!((rig.refused(Refused::Full), rig.keys().len()), (1, MAX_CONNECTIONS));
}

#[test]
fn a_head_has_a_moment_and_an_answer_a_second_before_they_make_room_for_a_client_that_holds_as_many() {
    for (stage, least) in [
        (Stage::Reading, MIN_WAIT),
        (Stage::Lingering, MIN_WAIT),
        (Stage::Writing, MIN_WRITE),
    ] {
        let mut rig = rig();
        let held: Vec<_> = (0..16_u8).map(|n| rig.admitted(ip(n))).collect();
        for (_, key) in &held {
            rig.put(*key, Stage::Inside);
        }
        rig.put(held[7].1, stage);
        let begin = rig.now;
        rig.now = begin + least - Duration::from_millis(1) - MIN_WAIT;
        assert_eq!(rig.admit(ip(100)).1, None, "{stage:?}");
        assert_eq!(rig.stage(held[7].1), Some(stage));
        rig.now = begin + least - MIN_WAIT;
        rig.admitted(ip(100));
        assert_eq!(rig.stage(held[7].1), None, "{stage:?}");
    }
}

#[test]
fn a_request_that_waits_for_a_worker_gives_way_to_one_of_a_client_that_holds_less() {
    let mut rig = rig();
    let mut held: Vec<_> = (0..16_u8).map(|n| rig.admitted(ip(n / 4))).collect();
    for (at, (_, key)) in held.iter().enumerate() {
        rig.now += Duration::from_millis(1);
        rig.put(*key, if at % 4 == 2 { Stage::Waiting } else { Stage::Inside });
    }
    rig.put(held[15].1, Stage::Reading);
    let (_one, newest) = rig.admitted(ip(100));
    assert_eq!(rig.stage(held[15].1), None, "one that has no request goes before");
    rig.put(newest, Stage::Waiting);
    rig.admitted(ip(101));
    assert_eq!(rig.stage(held[2].1), None);
    assert!(is_prepared_503(&all(held.swap_remove(2).0), BUSY));
    assert!(rig.stage(newest).is_some());
    assert_eq!(rig.clients.unsent, 0);
}

#[test]
fn nobody_makes_room_for_a_client_that_holds_more() {
    let mut rig = rig();
    let held: Vec<_> = [1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5]
        .map(|n| rig.admitted(ip(n)))
        .into();
    for (at, (_, key)) in held.iter().enumerate() {
        rig.put(*key, if at == 3 { Stage::Reading } else { Stage::Inside });
    }
    rig.now += PATIENT;
    assert_eq!(rig.admit(ip(1)).1, None);
    assert_eq!(rig.stage(held[3].1), Some(Stage::Reading));
    rig.admitted(ip(2));
    assert_eq!(rig.stage(held[3].1), None, "its own may go");
}

#[test]
fn a_client_that_would_still_hold_as_many_as_the_newcomer_makes_room_at_once() {
    for stage in [Stage::Reading, Stage::Lingering, Stage::Writing] {
        let mut rig = rig();
        let held: Vec<_> = (0..16_u8).map(|n| rig.admitted(ip(n / 2))).collect();
        for (_, key) in &held {
            rig.put(*key, Stage::Inside);
        }
        rig.now += MIN_WRITE;
        rig.put(held[7].1, stage);
        rig.now -= MIN_WAIT;
        // Whoever holds one already would then hold more.
        let (_one, one) = rig.admitted(ip(100));
        assert_eq!(rig.stage(held[7].1), None, "{stage:?}");
        rig.put(one, stage);
        rig.now -= MIN_WAIT;
        assert_eq!(rig.admit(ip(101)).1, None, "{stage:?}");
    }
}

#[test]
fn a_proxys_connections_make_room_when_nobody_elses_do() {
    let mut rig = rig();
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let held: Vec<_> = (0..15).map(|_| rig.admitted(proxy)).collect();
    let (_client, own) = rig.admitted(ip(1));
    rig.admitted(ip(2));
    assert_eq!((rig.stage(own), rig.stage(held[0].1)), (None, Some(Stage::Reading)));
    let (_, newest) = rig.admitted(proxy);
    for key in rig.keys() {
        let is_own = rig
            .clients
            .get_mut(key)
            .is_some_and(|c| c.holder != Holder::TrustedProxy);
        if is_own {
            rig.put(key, Stage::Inside);
        }
    }
    rig.admitted(proxy);
    assert_eq!(rig.stage(held[0].1), None);
    assert!(rig.stage(newest).is_some());
}

#[test]
fn those_turned_away_linger_beyond_the_cap_up_to_a_bound() {
    let mut rig = rig();
    let _held: Vec<_> = (0..4).map(|_| rig.admitted(ip(1))).collect();
    let refused: Vec<_> = (0..MAX_REFUSED + 3).map(|_| rig.admit(ip(1)).0).collect();
    assert_eq!(rig.clients.refused, MAX_REFUSED);
    assert_eq!(rig.refused(Refused::Share), MAX_REFUSED as u64 + 3);
    for client in refused {
        assert!(is_prepared_503(&all(client), SHARE), "also those that do not linger");
    }
    rig.clients.end_late(rig.now + LINGER_TIMEOUT);
    assert_eq!((rig.clients.refused, rig.clients.connections.len()), (0, 4));
    // The cap is what it was.
    let _more: Vec<_> = (4..16).map(|n| rig.admitted(ip(n))).collect();
    assert_eq!(rig.refused(Refused::MadeRoom), 0);
}

#[test]
fn each_stage_ends_at_its_deadline_and_not_before() {
    let rows = [
        (Stage::Reading, HEAD_TIMEOUT, "HTTP/1.1 408 ", Some(Refused::Late)),
        (Stage::Waiting, WAIT_TIMEOUT, "HTTP/1.1 503 ", Some(Refused::Busy)),
        (Stage::Inside, HEAD_TIMEOUT, "HTTP/1.1 502 ", Some(Refused::Lost)),
        (Stage::Writing, WRITE_TIMEOUT, "", Some(Refused::SlowReader)),
        (Stage::Lingering, LINGER_TIMEOUT, "", None),
    ];
    for (stage, timeout, says, why) in rows {
        let mut rig = rig();
        let (client, key) = rig.admitted(ip(1));
        let now = rig.now;
        rig.clients.get_mut(key).expect("there").enter(stage, timeout, now);
        rig.clients.end_late(now + timeout - Duration::from_millis(1));
        assert_eq!(rig.stage(key), Some(stage));
        rig.clients.end_late(now + timeout);
        assert_ne!(rig.stage(key), Some(stage), "{stage:?}");
        rig.clients.end_late(now + timeout + LINGER_TIMEOUT);
        assert_eq!(rig.stage(key), None);
        let answer = all(client);
        assert!(
            answer.starts_with(says) && answer.is_empty() == says.is_empty(),
            "{stage:?}: {answer}"
        );
        assert_eq!(
            why.map_or(0, |why| rig.refused(why)),
            u64::from(why.is_some()),
            "{stage:?}"
        );
    }
}

#[test]
fn a_kept_connection_that_says_nothing_is_closed_without_a_word() {
    let mut rig = rig();
    let (mut client, key) = rig.admitted(ip(1));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let now = rig.now;
    while !rig.clients.get_mut(key).expect("there").has_input() {
        rig.clients.turn_to(key, EventFlags::IN, &mut [0; 1024], now);
    }
    let request = rig.clients.get_mut(key).expect("there").next_request();
    assert!(matches!(request, Ok(Some(_))));
    rig.deliver(key, b"answer");
    rig.clients.end_late(now + IDLE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.stage(key), Some(Stage::Reading));
    rig.clients.end_late(now + IDLE_TIMEOUT);
    assert_eq!((rig.stage(key), &*all(client)), (None, "answer"));
}

#[test]
fn the_slowest_readers_are_cut_off_when_too_much_is_unsent() {
    let mut rig = rig();
    let answer = vec![b'x'; MAX_UNSENT_BYTES];
    let (_one, first) = rig.admitted(ip(1));
    rig.deliver(first, &answer);
    assert_eq!(rig.stage(first), Some(Stage::Writing), "the newest one stays");
    rig.now += Duration::from_millis(1);
    let (_other, second) = rig.admitted(ip(2));
    rig.deliver(second, &answer);
    assert_eq!((rig.stage(first), rig.stage(second)), (None, Some(Stage::Writing)));
    assert_eq!(rig.refused(Refused::SlowReader), 1);
    rig.clients.close(second, None);
    assert_eq!(rig.clients.unsent, 0);
}

#[test]
fn an_answer_that_is_taken_in_pieces_is_all_there() {
    let mut rig = rig();
    let (mut client, key) = rig.admitted(ip(1));
    let answer: Vec<u8> = (0..8_000_000_u32).map(|n| n as u8).collect();
    rig.deliver(key, &answer);
    assert_eq!(rig.stage(key), Some(Stage::Writing));
    let mut got = Vec::new();
    client.set_nonblocking(true).expect("set");
    while rig.stage(key).is_some() {
        let _ = std::io::Read::by_ref(&mut client).take(100_000).read_to_end(&mut got);
        let now = rig.now;
        match rig.stage(key) {
            Some(Stage::Writing) => drop(rig.clients.turn_to(key, EventFlags::OUT, &mut [0; 1024], now)),
            _ => rig.clients.close(key, None),
        }
    }
    client.set_nonblocking(false).expect("set");
    client.read_to_end(&mut got).expect("the rest");
    assert!(got == answer);
    assert_eq!(rig.clients.unsent, 0);
}

#[test]
fn trouble_is_told_once_a_minute_and_kind() {
    let mut rig = rig();
    let start = rig.now;
    let told = |rig: &Rig, kind: Refused| rig.clients.complained[kind as usize];
    rig.clients.complain(Refused::Share, "a", start);
    assert_eq!(
        (told(&rig, Refused::Share), told(&rig, Refused::Full)),
        (Some(start), None)
    );
    let later = start + COMPLAINT_INTERVAL - Duration::from_millis(1);
    rig.clients.complain(Refused::Full, "b", later);
    rig.clients.complain(Refused::Share, "a", later);
    assert_eq!(
        (told(&rig, Refused::Share), told(&rig, Refused::Full)),
        (Some(start), Some(later))
    );
    rig.clients.complain(Refused::Share, "a", start + COMPLAINT_INTERVAL);
    assert_eq!(told(&rig, Refused::Share), Some(start + COMPLAINT_INTERVAL));
}
