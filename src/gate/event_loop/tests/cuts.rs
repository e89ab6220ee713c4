//! Requests cut and half-closed in the batch that brings an answer, and answers that are put off.

use super::*;

#[test]
fn a_head_that_waits_for_a_place_inside_is_answered_without_a_body_whatever_was_read_since() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"HEAD /a HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let (number, _) = take_request(&mut workers);
    let _others: Vec<TcpStream> = (0..MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert_eq!(
        rig.event_loop.clients.waiting(),
        1,
        "one waits for the place that the answer makes"
    );
    workers[number].write_all(OK).expect("sent");
    client.write_all(b" b\r\n\r\n").expect("sent");
    rig.batch(2);
    assert_eq!(rig.event_loop.clients.waiting(), 1, "the HEAD waits");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    // All that are before it, one by one.
    let head = &OK[..OK.len() - 2];
    let mut answers = OK.repeat(MAX_IN_FLIGHT / CONNECTIONS);
    answers.extend(head);
    for worker in &mut workers {
        worker.write_all(&answers[..answers.len() - head.len()]).expect("sent");
    }
    rig.until("all but the HEAD are answered", |event_loop| load(event_loop) == 1);
    let pool = rig.event_loop.pool.as_ref().expect("there");
    let at = pool
        .connections
        .iter()
        .position(|worker| worker.load() == 1)
        .expect("one has it");
    workers[at].write_all(head).expect("sent");
    assert_eq!(rig.read(&mut client, |got| got.ends_with("\r\n\r\n")).as_bytes(), head);
}

/// A client whose second request is cut, and comes whole in the batch that brings the answer to the first.
fn cut_in_the_batch_of_an_answer(rig: &mut Rig, workers: &mut [UnixStream], rest: &[u8]) -> TcpStream {
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"GET /second HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let (number, request) = take_request(workers);
    assert_eq!(request, CANONICAL);
    workers[number].write_all(OK).expect("sent");
    client.write_all(rest).expect("sent");
    rig.batch(2);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client
}

#[test]
fn a_connection_whose_answer_promised_to_keep_it_is_kept_however_requests_are_cut() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = cut_in_the_batch_of_an_answer(&mut rig, &mut workers, b" b\r\n\r\nGET /third HTTP");
    let (number, request) = take_request(&mut workers);
    assert!(request.starts_with("GET /second HTTP/1.1\r\n") && !request.contains("Persistence"));
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client.write_all(b"/1.1\r\nHost: b\r\n\r\n").expect("sent");
    rig.until("the third request is inside", |event_loop| {
        event_loop.clients.is_empty() || load(event_loop) > 0
    });
    let (number, request) = take_request(&mut workers);
    assert!(request.starts_with("GET /third HTTP/1.1\r\n"));
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn a_connection_has_one_request_inside_at_most_and_its_answers_come_in_order() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let rest = b" b\r\n\r\nGET /third HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut client = cut_in_the_batch_of_an_answer(&mut rig, &mut workers, rest);
    for name in ["second", "third"] {
        rig.until("its request is inside", |event_loop| load(event_loop) > 0);
        assert_eq!(load(&rig.event_loop), 1);
        let (number, request) = take_request(&mut workers);
        assert!(request.starts_with(&format!("GET /{name} HTTP/1.1\r\n")), "{request}");
        workers[number].write_all(OK).expect("sent");
        assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    }
}

#[test]
fn a_long_answer_goes_on_though_the_client_closes_its_half_in_the_batch_that_brings_it() {
    // More than the sockets between the gate and a client hold.
    const LEN: usize = 15 * 1024 * 1024;
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.ask();
    let (number, _) = take_request(&mut workers);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + LEN, b'x');
    let mut written = 0;
    rig.until("all but the last byte is inside", |_| {
        match workers[number].write(&answer[written..answer.len() - 1]) {
            Ok(more) => written += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        written == answer.len() - 1
    });
    rig.until("the gate has read it", |event_loop| {
        rustix::io::ioctl_fionread(event_loop.pool.as_ref().expect("there").connections[number].stream()) == Ok(0)
    });
    workers[number].write_all(b"x").expect("sent");
    client.shutdown(Shutdown::Write).expect("shut");
    rig.batch(2);
    assert!(rig.event_loop.clients.unsent() > 0, "the answer is long");
    let mut got = 0;
    let mut buffer = vec![0; 1024 * 1024];
    rig.until("the client has all of it", |_| {
        match client.read(&mut buffer) {
            Ok(more) => got += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        got == answer.len()
    });
}

#[test]
fn requests_sent_ahead_are_answered_though_the_client_closes_its_half_in_the_batch_of_an_answer() {
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.connect();
    client.write_all(&GET.repeat(2)).expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(OK).expect("sent");
    client.shutdown(Shutdown::Write).expect("shut");
    rig.batch(2);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    let (number, request) = take_request(&mut workers);
    assert_eq!(request, CANONICAL);
    workers[number].write_all(OK).expect("sent");
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK);
}

#[test]
fn an_answer_that_is_put_off_is_asked_for_again_until_it_may_wait_no_longer() {
    let deferred = [DEFERRED, b"Processing\r\nContent-Length: 0\r\n\r\n"].concat();
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut client = rig.ask();
    let mut requests = Vec::new();
    let begin = rig.now;
    loop {
        let (number, request) = take_request(&mut workers);
        let is_last = request.contains("\r\nDeferral: over\r\n\r\n");
        requests.push(request);
        workers[number]
            .write_all(if is_last { OK } else { &deferred })
            .expect("sent");
        if is_last {
            break;
        }
        rig.until("it is put off", |event_loop| event_loop.clients.deferred() == 1);
        // Another one is not behind it.
        let mut other = rig.ask();
        let (number, request) = take_request(&mut workers);
        assert_eq!(request, CANONICAL);
        workers[number].write_all(OK).expect("sent");
        assert_eq!(rig.answer(&mut other).as_bytes(), OK);
        rig.tick_after(TICK);
    }
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    assert_eq!(requests[0], CANONICAL);
    let again = CANONICAL.replace("\r\n\r\n", "\r\nDeferral: more\r\n\r\n");
    assert!(requests[1..requests.len() - 1].iter().all(|request| *request == again));
    let waited = rig.now - begin;
    assert!(
        waited <= Duration::from_secs(2) && waited > Duration::from_millis(1_700),
        "{waited:?}"
    );
    assert_eq!(rig.event_loop.clients.deferred(), 0);
}

#[test]
fn so_many_answers_are_put_off_and_the_next_one_is_wanted_at_once_as_is_one_at_the_end() {
    let deferred = [DEFERRED, b"Processing\r\nContent-Length: 0\r\n\r\n"].concat();
    let mut rig = rig();
    let mut workers = rig.workers();
    let mut clients = Vec::new();
    for _ in 0..MAX_DEFERRED {
        clients.push(rig.ask());
        let (number, _) = take_request(&mut workers);
        workers[number].write_all(&deferred).expect("sent");
        let count = clients.len();
        rig.until("it is put off", |event_loop| event_loop.clients.deferred() == count);
    }
    let one_more = rig.ask();
    let (number, _) = take_request(&mut workers);
    workers[number].write_all(&deferred).expect("sent");
    let (number, request) = rig.next_request(&mut workers);
    assert!(request.ends_with("\r\nDeferral: over\r\n\r\n"), "{request}");
    workers[number].write_all(OK).expect("sent");
    drop((clients, one_more));

    let mut rig = self::rig();
    let mut workers = rig.workers();
    let _client = rig.ask();
    let (number, _) = take_request(&mut workers);
    rig.event_loop.drain(rig.now);
    workers[number].write_all(&deferred).expect("sent");
    let (_, last) = rig.next_request(&mut workers);
    assert!(last.ends_with("\r\nDeferral: over\r\n\r\n"), "{last}");
}
