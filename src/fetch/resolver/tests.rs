//! Names that are slow, silent, known and unknown.

use super::*;
use crossbeam_channel::{Sender, bounded};

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn the_last_answer_stays_when_a_look_up_fails() {
    let names = HostResolver::default();
    learn(&names, "no-such-host.invalid", [127, 0, 0, 1], None, Instant::now());
    let found = names.look_up("no-such-host.invalid", Duration::from_secs(30));
    assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
    names.close();
}

#[test]
fn finds_localhost_and_not_what_does_not_exist() {
    let names = HostResolver::default();
    assert!(
        names
            .look_up("localhost", Duration::from_secs(30))
            .iter()
            .all(IpAddr::is_loopback)
    );
    assert!(!names.known("localhost").is_empty());
    assert!(
        names
            .look_up("no-such-host.invalid", Duration::from_secs(30))
            .is_empty()
    );
    names.close();
}

/// A name server that is silent for names that begin so, until the sender is dropped.
fn silent_for(prefix: &'static str) -> (HostResolver, Sender<()>) {
    let (end, ended) = bounded(0);
    let names = HostResolver::new(Box::new(move |host| {
        if host.starts_with(prefix) {
            let _ = ended.recv();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(vec![IpAddr::from([192, 0, 2, 1])])
    }));
    (names, end)
}

const GOOD: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

#[test]
fn forty_names_of_a_silent_server_keep_no_other_name_waiting() {
    let (names, end) = silent_for("silent");
    for n in 0..40 {
        assert!(names.look_up(&format!("silent{n}"), Duration::ZERO).is_empty());
    }
    // Only one that is starved would take an hour.
    assert_eq!(names.look_up("good", Duration::from_secs(3600)), GOOD);
    drop(end);
    names.close();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn names_that_were_slow_leave_threads_to_the_others_however_many_they_are() {
    let (names, end) = silent_for("silent");
    let now = Instant::now();
    let slow = || Err(io::ErrorKind::TimedOut.into());
    for n in 0..1000 {
        let host = format!("silent{n}");
        learn(&names, &host, [192, 0, 2, 1], None, now);
        names.lock().looked_up(&host, slow(), now, now + SLOW);
    }
    assert_eq!(names.lock().slow_names, 1000);
    for n in 0..1000 {
        names.lock().names.get_mut(&format!("silent{n}")).expect("known").tried = None;
        names.look_up(&format!("silent{n}"), Duration::ZERO);
    }
    assert_eq!(names.look_up("good", Duration::from_secs(3600)), GOOD);
    assert!(names.lock().slow_threads <= MAX_SLOW_THREADS);
    drop(end);
    names.close();
}

/// A resolver whose threads are all held by a broken name server.
fn stuck() -> HostResolver {
    let names = HostResolver::default();
    names.lock().threads = MAX_THREADS;
    names
}

fn learn(names: &HostResolver, host: &str, addr: [u8; 4], tried: Option<Instant>, now: Instant) {
    let entry = Entry {
        addrs: vec![IpAddr::from(addr)],
        tried,
        asked: now,
        queued: false,
        slow: false,
    };
    names.lock().names.insert(host.to_owned(), entry);
}

#[test]
fn an_unknown_name_is_waited_for_as_long_as_its_asker_can() {
    let names = stuck();
    assert!(names.look_up("a.example", Duration::from_millis(20)).is_empty());
    assert!(names.look_up("a.example", Duration::ZERO).is_empty());
    assert_eq!(names.lock().queue, ["a.example"], "waits for a thread only once");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn a_known_name_is_not_waited_for_much_longer_than_a_second() {
    let names = stuck();
    learn(&names, "a.example", [192, 0, 2, 1], None, Instant::now());
    // Only an answer that is not used would take an hour.
    let found = names.look_up("a.example", Duration::from_secs(3600));
    assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn a_fresh_answer_is_used_without_asking_again() {
    let names = stuck();
    let now = Instant::now();
    learn(&names, "a.example", [192, 0, 2, 1], Some(now), now);
    let found = names.look_up("a.example", Duration::from_secs(3600));
    assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
    assert!(names.lock().queue.is_empty());
    assert!(names.lock().enqueue("a.example", now + FRESH));
    assert_eq!(names.lock().queue, ["a.example"]);
}

#[test]
fn nobody_waits_for_names_that_are_closed() {
    let names = stuck();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| names.look_up("a.example", Duration::from_secs(3600)));
        while names.lock().queue.is_empty() {
            std::thread::yield_now();
        }
        names.close();
        assert!(asker.join().expect("no panic").is_empty());
    });
    assert!(names.look_up("b.example", Duration::from_secs(3600)).is_empty());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn names_that_nobody_asks_for_make_room_for_new_ones() {
    let names = stuck();
    let now = Instant::now();
    let mut state = names.lock();
    for i in 0..MAX_NAMES {
        state.names.insert(
            i.to_string(),
            Entry {
                addrs: Vec::new(),
                tried: None,
                asked: now,
                queued: i == 0,
                slow: false,
            },
        );
    }
    assert!(state.enqueue("1", now), "known");
    assert!(!state.enqueue("a.example", now), "no room");
    assert!(state.enqueue("a.example", now + IDLE), "room");
    let mut left: Vec<_> = state.names.keys().map(String::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["0", "1", "a.example"], "those that are being looked up stay");
}

#[test]
fn a_literal_needs_no_look_up() {
    let names = HostResolver::default();
    assert_eq!(names.known("::1"), [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    assert_eq!(names.lock().threads, 0);
}
