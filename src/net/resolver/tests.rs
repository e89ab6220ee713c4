//! Names that are slow, silent, known, unknown and removed.

use super::super::system;
use super::*;
use crossbeam_channel::{Sender, bounded};

impl HostResolver {
    /// Stores addresses as if a lookup had just returned them.
    #[expect(clippy::disallowed_methods, reason = "the result is as old as the test")]
    pub(crate) fn learn(&self, host: &str, addrs: Vec<IpAddr>) {
        let (now, mut state) = (Instant::now(), self.lock());
        state.name(host, now);
        state.record(host, Ok(addrs), now, now);
    }
}

const INTERVAL: Duration = Duration::from_secs(30);

fn failed() -> Result<Vec<IpAddr>, LookupError> {
    Err(LookupError::Failed("no response".to_owned()))
}

#[test]
fn failed_lookup_keeps_last_addresses() {
    let names = HostResolver::new(INTERVAL, Box::new(system::look_up));
    learn(&names, "no-such-host.invalid", [127, 0, 0, 1], None);
    let found = names.look_up("no-such-host.invalid", Duration::from_secs(30));
    assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
    names.close();
}

#[test]
fn localhost_is_found_and_invalid_name_is_not() {
    let names = HostResolver::new(INTERVAL, Box::new(system::look_up));
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

/// A name server that is silent for names with this prefix, until the sender is dropped.
fn silent_for(prefix: &'static str) -> (HostResolver, Sender<()>) {
    let (end, ended) = bounded(0);
    let names = HostResolver::new(
        INTERVAL,
        Box::new(move |host| {
            if host.starts_with(prefix) {
                let _ = ended.recv();
                return failed();
            }
            Ok(vec![IpAddr::from([192, 0, 2, 1])])
        }),
    );
    (names, end)
}

const GOOD: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

#[test]
fn silent_names_delay_no_other_name() {
    let (names, end) = silent_for("silent");
    for n in 0..40 {
        assert!(names.look_up(&format!("silent{n}"), Duration::ZERO).is_empty());
    }
    // Only a starved request would take an hour.
    assert_eq!(names.look_up("good", Duration::from_secs(3600)), GOOD);
    drop(end);
    names.close();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn thousand_slow_names_delay_no_other_name() {
    let (names, end) = silent_for("silent");
    let now = Instant::now();
    for n in 0..1000 {
        let host = format!("silent{n}");
        learn(&names, &host, [192, 0, 2, 1], None);
        names.lock().record(&host, failed(), now, now + SLOW);
    }
    assert_eq!(names.lock().problems.len(), 1000);
    for n in 0..1000 {
        names.lock().names.get_mut(&format!("silent{n}")).expect("known").tried = None;
        names.look_up(&format!("silent{n}"), Duration::ZERO);
    }
    assert_eq!(names.look_up("good", Duration::from_secs(3600)), GOOD);
    assert!(names.lock().in_progress.values().filter(|slow| **slow).count() <= MAX_SLOW_LOOKUPS);
    drop(end);
    names.close();
}

/// A resolver with all threads blocked by a broken name server.
fn stuck() -> HostResolver {
    let names = HostResolver::new(INTERVAL, Box::new(system::look_up));
    let lookups = (0..MAX_LOOKUPS).map(|n| (format!("stuck{n}"), false));
    names.lock().in_progress.extend(lookups);
    names
}

fn learn(names: &HostResolver, host: &str, addr: [u8; 4], tried: Option<Instant>) {
    let addrs = vec![IpAddr::from(addr)];
    let name = Name {
        addrs,
        tried,
        ..Name::default()
    };
    names.lock().names.insert(host.to_owned(), name);
}

#[test]
fn unknown_name_is_awaited_until_the_deadline() {
    let names = stuck();
    assert!(names.look_up("a.example", Duration::from_millis(20)).is_empty());
    assert!(names.look_up("a.example", Duration::ZERO).is_empty());
    assert_eq!(names.lock().in_progress.len(), MAX_LOOKUPS);
}

#[test]
fn known_name_is_awaited_for_a_second() {
    let names = stuck();
    learn(&names, "a.example", [192, 0, 2, 1], None);
    // Only an unused result would take an hour.
    let found = names.look_up("a.example", Duration::from_secs(3600));
    assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn fresh_result_needs_no_lookup() {
    let names = stuck();
    let now = Instant::now();
    learn(&names, "a.example", [192, 0, 2, 1], Some(now));
    let found = names.look_up("a.example", Duration::from_secs(3600));
    assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
    let is_fresh = |now| names.lock().names["a.example"].is_younger(MAX_FRESH, now);
    assert!(is_fresh(now + MAX_FRESH - Duration::from_nanos(1)) && !is_fresh(now + MAX_FRESH));
}

#[test]
fn closed_resolver_blocks_no_request() {
    let names = stuck();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| names.look_up("a.example", Duration::from_secs(3600)));
        while names.lock().names.is_empty() {
            std::thread::yield_now();
        }
        names.close();
        assert!(asker.join().expect("no panic").is_empty());
    });
    assert!(names.look_up("b.example", Duration::from_secs(3600)).is_empty());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn full_table_evicts_idle_names() {
    let names = stuck();
    let now = Instant::now();
    let mut state = names.lock();
    state.in_progress.insert("0".to_owned(), false);
    for i in 0..MAX_NAMES {
        let name = Name {
            tried: Some(now),
            ..Name::default()
        };
        state.names.insert(i.to_string(), name);
    }
    assert!(state.name("1", now).is_some(), "known");
    assert!(state.name("a.example", now).is_none(), "no room");
    let recent = state.names.get_mut("1").expect("known");
    recent.tried = Some(now + Duration::from_secs(1));
    assert!(state.name("a.example", now + IDLE).is_some(), "room");
    let mut left: Vec<_> = state.names.keys().map(String::as_str).collect();
    left.sort_unstable();
    assert_eq!(
        left,
        ["0", "1", "a.example"],
        "names with a recent lookup or one in progress are kept"
    );
}

#[test]
fn ip_address_needs_no_lookup() {
    let names = HostResolver::new(INTERVAL, Box::new(system::look_up));
    assert_eq!(names.known("::1"), [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    assert!(names.lock().in_progress.is_empty());
}

/// A name with one known address. Its lookups start at these multiples of a tenth of the interval.
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn known_after(results: &[(u32, Result<Vec<IpAddr>, LookupError>)]) -> Vec<IpAddr> {
    let names = stuck();
    let begin = Instant::now();
    learn(&names, "a.example", [192, 0, 2, 1], None);
    for (tenths, result) in results {
        let at = begin + INTERVAL / 10 * *tenths;
        names.lock().record("a.example", result.clone(), at, at);
    }
    names.known("a.example")
}

#[test]
fn third_definite_result_removes_known_addresses() {
    let gone = || Err(LookupError::NotFound);
    assert_eq!(known_after(&[(0, gone()), (10, gone())]), GOOD);
    assert!(known_after(&[(0, gone()), (10, gone()), (20, gone())]).is_empty());
}

#[test]
fn definite_results_within_an_interval_count_once() {
    let gone = || Err(LookupError::NotFound);
    assert_eq!(
        known_after(&[(0, gone()), (5, gone()), (8, gone()), (10, gone()), (15, gone())]),
        GOOD
    );
}

#[test]
fn temporary_failure_and_success_restart_the_count() {
    let gone = || Err(LookupError::NotFound);
    assert_eq!(
        known_after(&[(0, gone()), (10, gone()), (20, failed()), (30, gone())]),
        GOOD
    );
    assert_eq!(
        known_after(&[(0, gone()), (10, gone()), (20, Ok(GOOD.to_vec())), (30, gone())]),
        GOOD
    );
    assert_eq!(
        known_after(&[(0, failed()), (10, failed()), (20, failed()), (30, failed())]),
        GOOD
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
fn reason_distinguishes_removed_failing_and_slow() {
    let names = stuck();
    let now = Instant::now();
    let reason = |host: &str| {
        names
            .addresses(host, Duration::ZERO)
            .expect_err("no address")
            .to_string()
    };
    assert_eq!(reason("gone.example"), "timeout: host name not resolved");
    names
        .lock()
        .record("gone.example", Err(LookupError::NotFound), now, now);
    assert_eq!(reason("gone.example"), "host name not found");
    assert_eq!(names.problem(), None);
    reason("failing.example");
    names.lock().record("failing.example", failed(), now, now);
    assert_eq!(reason("failing.example"), "name server failed: no response");
    let problem = names.problem().expect("a problem");
    assert!(
        problem.contains("1 host names") && problem.contains("failing.example"),
        "{problem}"
    );
    names.lock().record("failing.example", Ok(GOOD.to_vec()), now, now);
    assert_eq!(names.problem(), None);
}

#[test]
fn name_of_link_local_or_metadata_is_refused() {
    let names = stuck();
    for addr in [
        [169, 254, 169, 254],
        [100, 100, 100, 200],
        [0, 0, 0, 0],
        [255, 255, 255, 255],
    ] {
        names.learn("a.example", vec![IpAddr::from(addr)]);
        let error = names.addresses("a.example", Duration::ZERO).expect_err("refused");
        assert!(error.to_string().starts_with("host name resolves to "), "{error}");
        names.learn("a.example", vec![IpAddr::from(addr), GOOD[0]]);
        assert_eq!(names.addresses("a.example", Duration::ZERO), Ok(GOOD.to_vec()));
    }
    let listed = [169, 254, 1, 1];
    assert_eq!(
        names.addresses("169.254.1.1", Duration::ZERO),
        Ok(vec![IpAddr::from(listed)]),
        "the operator chose it"
    );
}
