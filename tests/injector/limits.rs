//! Clients that send too much, too slowly, nothing at all, and too many of them; and the injector's own end.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidelight_tests::caller::{Reply, review};
use sidelight_tests::eventually;

use crate::load::Load;
use crate::{Stage, answer, patched, pod, sidecar};

const MAX_BODY: usize = 8 << 20;

/// A review of so many bytes: annotations of others fill it.
fn review_of(bytes: usize) -> (Value, Vec<u8>) {
    let fill = |bytes: usize| {
        let mut pod = pod();
        pod["metadata"]["annotations"]["example.com/fill"] = json!("x".repeat(bytes));
        pod
    };
    let rest = review("u", "shop", &fill(0), true).len();
    let pod = fill(bytes - rest);
    let body = review("u", "shop", &pod, true);
    assert_eq!(body.len(), bytes);
    (pod, body)
}

/// Sends a body in chunks; the server may answer before it has all of it.
fn send_chunked(stage: &Stage, body: &[u8]) -> Reply {
    let mut line = stage.caller().connect().unwrap();
    let head = "POST /mutate HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sent = line.write(head.as_bytes());
    for chunk in body.chunks(1 << 20) {
        let head = format!("{:x}\r\n", chunk.len());
        sent = sent.and_then(|()| line.write(&[head.as_bytes(), chunk, b"\r\n"].concat()));
    }
    let _ = sent.and_then(|()| line.write(b"0\r\n\r\n"));
    line.reply().unwrap()
}

/// Scenario: reviews of exactly the longest size, and of one byte more, with their length said before and without.
/// Guarantee: the first are answered like any other, the others with 413.
#[test]
fn the_longest_review_is_answered_and_a_longer_one_refused() {
    let stage = Stage::new();
    let (pod, longest) = review_of(MAX_BODY);
    let response = answer(&stage.caller().review(&longest).unwrap());
    sidecar(&patched(&pod, &response));
    answer(&send_chunked(&stage, &longest));
    let (_, longer) = review_of(MAX_BODY + 1);
    assert_eq!(send_chunked(&stage, &longer).status, 413);
    let mut line = stage.caller().connect().unwrap();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        longer.len()
    );
    // It is refused for its head: the body need not come.
    line.write(head.as_bytes()).unwrap();
    assert_eq!(line.reply().unwrap().status, 413);
    assert_eq!(stage.injector.metric("sidelight_injector_rejected_total{status=\"413\"}"), 2.0);
}

/// Scenario: a body that comes a byte at a time, for ever; others ask meanwhile.
/// Guarantee: it ends with 408 at its deadline of five seconds, and others are answered all the while.
#[test]
fn a_body_that_drips_ends_at_its_deadline_and_holds_up_nobody() {
    let stage = Stage::new();
    let caller = stage.caller();
    let dripping = std::thread::spawn(move || {
        let mut line = caller.connect().unwrap();
        let head = "POST /mutate HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
        let begun = Instant::now();
        line.write(head.as_bytes()).unwrap();
        while line.write(b" ").is_ok() && begun.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(100));
        }
        (line.reply().unwrap(), begun.elapsed())
    });
    let mut answered = 0;
    while !dripping.is_finished() {
        stage.answer(&pod());
        answered += 1;
    }
    let (reply, lasted) = dripping.join().unwrap();
    assert_eq!((reply.status, reply.is_last()), (408, true));
    assert_eq!(String::from_utf8(reply.body).unwrap(), "the review took longer than 5s to arrive\n");
    assert!(lasted >= Duration::from_secs(5) && answered > 10, "{lasted:?}, {answered} others");
}

/// Scenario: 600 connections that shake hands and say nothing, and 100 that do not even that.
/// Guarantee: a new connection is served; one that was being used is, too.
#[test]
fn idle_connections_keep_nobody_out() {
    let stage = Stage::new();
    let caller = stage.caller();
    let mut used = caller.connect().unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(stage.injector.address()).unwrap());
    }
    let mut idle = Vec::new();
    for number in 0..600 {
        idle.push(caller.connect().unwrap());
        if number % 50 == 0 {
            answer(&used.review(&review("u", "shop", &pod(), true)).unwrap());
        }
    }
    answer(&used.review(&review("u", "shop", &pod(), true)).unwrap());
    stage.answer(&pod());
    assert!(stage.injector.is_ready());
}

/// Scenario: SIGTERM while API servers ask; they go on for three seconds, until they know that the replica is leaving.
/// Guarantee: it says at once that it is not ready, no request fails, and it ends with 0.
#[test]
fn a_replica_that_is_told_to_go_fails_no_request() {
    let mut stage = Stage::new();
    let load = Load::start(&stage.plane, &[stage.injector.address()], Duration::ZERO);
    eventually("the load is there", || load.answered() > 50);
    stage.injector.signal("TERM");
    eventually("it is not ready", || stage.injector.get("/readyz") == (503, "stopping\n".to_owned()));
    let answered = load.answered();
    std::thread::sleep(Duration::from_secs(3));
    assert!(load.answered() > answered, "it answers for as long as it is asked");
    load.finish();
    assert_eq!(stage.injector.wait(), 0);
}

/// Scenario: SIGTERM while a connection is idle and another one has not shaken hands.
/// Guarantee: an answer says that the connection ends; what is idle does not keep the injector.
#[test]
fn connections_end_with_the_answer_once_it_is_told_to_go() {
    let mut stage = Stage::new();
    let (mut line, _idle) = (stage.caller().connect().unwrap(), stage.caller().connect().unwrap());
    let _silent = TcpStream::connect(stage.injector.address()).unwrap();
    assert!(!line.review(&review("u", "shop", &pod(), true)).unwrap().is_last());
    stage.injector.signal("TERM");
    eventually("it is not ready", || !stage.injector.is_ready());
    assert!(line.review(&review("u", "shop", &pod(), true)).unwrap().is_last());
    assert_eq!(stage.injector.wait(), 0);
}
