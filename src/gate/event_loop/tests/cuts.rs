//! Requests that are cut and half-closed in the batch that brings a response, and deferred responses.

use super::*;

#[test]
fn waiting_head_request_gets_no_body() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"HEAD /a HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let first = worker.take_one();
    let _others: Vec<TcpStream> = (0..MAX_IN_FLIGHT).map(|_| rig.ask()).collect();
    assert_eq!(rig.event_loop.clients.waiting(), 1, "one waits for the ticket");
    worker.respond(&first, OK);
    client.write_all(b" b\r\n\r\n").expect("sent");
    rig.batch(2);
    assert_eq!(rig.event_loop.clients.waiting(), 1, "the HEAD waits");
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    let head = &OK[..OK.len() - 2];
    loop {
        let request = rig.next_request(&mut worker);
        if request.line == "HEAD /a" {
            worker.respond(&request, head);
            break;
        }
        worker.respond(&request, OK);
    }
    assert_eq!(rig.read(&mut client, |got| got.ends_with("\r\n\r\n")).as_bytes(), head);
}

/// A client with a split second request, completed in the batch of the first response.
fn cut_in_the_batch_of_a_response(rig: &mut Rig, worker: &mut Worker, rest: &[u8]) -> TcpStream {
    let mut client = rig.connect();
    client
        .write_all(&[GET, b"GET /second HTTP/1.1\r\nHost:"].concat())
        .expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let request = worker.take_one();
    assert_eq!(request.line, "GET /a");
    worker.respond(&request, OK);
    client.write_all(rest).expect("sent");
    rig.batch(2);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client
}

#[test]
fn kept_connection_is_kept_however_requests_are_cut() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = cut_in_the_batch_of_a_response(&mut rig, &mut worker, b" b\r\n\r\nGET /third HTTP");
    let request = worker.take_one();
    assert_eq!(request.line, "GET /second");
    assert_eq!(request.context.persistence, Persistence::Persist);
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    client.write_all(b"/1.1\r\nHost: b\r\n\r\n").expect("sent");
    let request = rig.next_request(&mut worker);
    assert_eq!(request.line, "GET /third");
    worker.respond(&request, OK);
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
}

#[test]
fn pipelined_requests_go_inside_one_by_one() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let rest = b" b\r\n\r\nGET /third HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut client = cut_in_the_batch_of_a_response(&mut rig, &mut worker, rest);
    for line in ["GET /second", "GET /third"] {
        let request = rig.next_request(&mut worker);
        assert_eq!((load(&rig.event_loop), &*request.line), (1, line));
        worker.respond(&request, OK);
        assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    }
}

#[test]
fn long_response_continues_though_the_client_half_closes() {
    // More than the sockets between the gate and a client hold.
    const LEN: usize = 8 * 1024 * 1024;
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    let request = worker.take_one();
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").into_bytes();
    response.resize(response.len() + LEN, b'x');
    worker.respond(&request, &response);
    client.shutdown(Shutdown::Write).expect("shut");
    rig.batch(2);
    assert!(rig.event_loop.clients.unsent() > 0, "the response is long");
    let mut got = 0;
    let mut buffer = vec![0; 1024 * 1024];
    rig.until("the client has all of it", |_| {
        match client.read(&mut buffer) {
            Ok(more) => got += more,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        got == response.len()
    });
}

#[test]
fn pipelined_requests_of_half_closed_client_get_responses() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.connect();
    client.write_all(&GET.repeat(2)).expect("sent");
    rig.until("its first request is inside", |event_loop| load(event_loop) > 0);
    let request = worker.take_one();
    worker.respond(&request, OK);
    client.shutdown(Shutdown::Write).expect("shut");
    rig.until("its second request is inside", |_| {
        worker.take().inspect(|request| worker.respond(request, OK)).is_some()
    });
    assert_eq!(rig.last_answer(&mut client).as_bytes(), OK.repeat(2));
}

#[test]
fn deferred_request_is_repeated_until_its_deadline() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let mut client = rig.ask();
    let mut deferrals = Vec::new();
    let begin = rig.now;
    loop {
        let request = rig.next_request(&mut worker);
        assert_eq!(request.line, "GET /a");
        deferrals.push(request.context.deferral);
        if request.context.deferral == Deferral::Over {
            worker.respond(&request, OK);
            break;
        }
        worker.defer(&request);
        rig.until("it is deferred", |event_loop| event_loop.deferred.len() == 1);
        // Another request is not delayed.
        let mut other = rig.ask();
        let request = worker.take_one();
        assert_eq!(request.context.deferral, Deferral::First);
        worker.respond(&request, OK);
        assert_eq!(rig.answer(&mut other).as_bytes(), OK);
        rig.tick_after(TICK);
    }
    assert_eq!(rig.answer(&mut client).as_bytes(), OK);
    let (first, rest) = deferrals.split_first().expect("some");
    assert_eq!(*first, Deferral::First);
    assert!(
        rest[..rest.len() - 1]
            .iter()
            .all(|deferral| *deferral == Deferral::More)
    );
    let waited = rig.now - begin;
    assert!(
        waited <= Duration::from_secs(2) && waited > Duration::from_millis(1_700),
        "{waited:?}"
    );
    assert_eq!(rig.event_loop.deferred.len(), 0);
}

/// The router defers this many requests and no more.
fn defers_at_most(mut rig: Rig, most: usize) {
    let mut worker = rig.worker();
    let mut clients = Vec::new();
    for _ in 0..most {
        clients.push(rig.ask());
        let request = worker.take_one();
        worker.defer(&request);
        let count = clients.len();
        rig.until("it is deferred", |event_loop| event_loop.deferred.len() == count);
    }
    clients.push(rig.ask());
    let request = worker.take_one();
    worker.defer(&request);
    let request = rig.next_request(&mut worker);
    assert_eq!(request.context.deferral, Deferral::Over);
}

#[test]
fn at_the_deferral_limit_requests_may_not_wait() {
    defers_at_most(rig(), MAX_DEFERRED);
}

#[test]
fn at_quarter_of_connections_defers_no_more() {
    defers_at_most(rig_with(16), 4);
}

#[test]
fn draining_router_defers_nothing() {
    let mut rig = rig();
    let mut worker = rig.worker();
    let _client = rig.ask();
    let request = worker.take_one();
    rig.event_loop.drain(rig.now);
    worker.defer(&request);
    let request = rig.next_request(&mut worker);
    assert_eq!(request.context.deferral, Deferral::Over);
}
