//! The Forward output against receivers that others wrote: the Fluent organisation's server for Node.js, and the
//! OpenTelemetry Collector's receiver, which passes on what it got as OTLP. `tests/receivers/build` builds both.
//!
//! What they cannot do is no fault of what we send; the tests know it:
//!
//! - The Fluent server makes JavaScript numbers of integers, exact up to 2^53, and refuses a message with a key
//!   `__proto__` anywhere in it (`@msgpack/msgpack` 2.8, `Decoder.ts`). It knows no zstd (`protocol.ts`, `Option`).
//! - The Collector's receiver has neither shared key nor zstd (`conversion.go`, `parseEntries`); `log` and `message`
//!   both become the body, the later one wins; an integer above `i64::MAX` becomes a text.

pub(crate) mod receiver;

use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::kubelet::{Log, MAX_LINE, Node, pod};

use crate::BINARY;
use receiver::{Arrived, Kind, Receiver, sequence};

/// 2026-11-24T10:00:00Z.
const TEN_O_CLOCK: u64 = 1_795_514_400;

/// A configuration with one Forward output to the receiver; `forward` are its further keys, on one line.
fn config(node: &Node, receiver: &Receiver, forward: &str) -> String {
    let (directory, port) = (node.path().display(), receiver.port);
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs:\n  root: {directory}/pods\n  outputs:\n  - forward: {{ upstreams: ['127.0.0.1:{port}'], \
         tag: 'kube.{{namespace}}.{{pod}}', flush_interval: 50ms, chunk_bytes: 64KiB, {forward} }}\n"
    )
}

/// A node with the pods `web` and `bulk`, which Kubernetes knows.
fn node() -> (Node, Log, Log) {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({})), pod("bulk", &json!({}))]);
    let (web, bulk) = (node.container("web"), node.container("bulk"));
    (node, web, bulk)
}

/// Text of all lengths in UTF-8, longer than containerd's lines and cut inside a character.
fn long_text() -> String {
    format!("seq=web:2 {}", "aé漢😀\u{0}\u{1b}[0m\t\"\\".repeat(3_000))
}

/// Writes the lines whose records `assert_content` knows.
fn write_content(web: &mut Log) {
    let json = r#"{"message":"seq=web:1 ","level":"INFO","n":-3,"exact":9007199254740991,"big":18446744073709551615,"f":1.5,"yes":true,"nothing":null,"none":[],"deep":{"x":[1,null,{"y":"z"}]},"text":"a\"b\\\u00e9\ud83d\ude00","stream":"own"}"#;
    web.raw(b"2026-11-24T10:00:00.000000001Z stderr F seq=web:0 \xffplain\n");
    web.raw(format!("2026-11-24T10:00:00.999999999Z stdout F {json}\n").as_bytes());
    let text = long_text();
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(MAX_LINE).collect();
    assert!(pieces.iter().any(|piece| str::from_utf8(piece).is_err()), "no character is cut");
    for (n, piece) in pieces.iter().enumerate() {
        let tag = if n + 1 < pieces.len() { 'P' } else { 'F' };
        web.raw(format!("2026-11-24T10:00:01.12345678{n}Z stdout {tag} ").as_bytes());
        web.raw(piece);
        web.raw(b"\n");
    }
    web.raw(b"2026-11-24T10:00:02Z stdout F seq=web:3 \n");
    web.next = 4;
}

/// Checks every key, value and time of what `write_content` has written.
fn assert_content(receiver: &Receiver) {
    let (message, big) = match receiver.kind {
        Kind::Fluent => ("message", json!(u64::MAX as f64)),
        Kind::Collector => ("log", json!(u64::MAX.to_string())),
    };
    let kubernetes = json!({
        "namespace_name": "ns", "pod_name": "web", "pod_id": "uid-web", "host": "node-1", "pod_ip": "10.0.0.9",
        "container_name": "app", "container_image": "registry.example/app:1", "container_hash": "sha256:1",
        "docker_id": "c0ffee", "owner_kind": "Deployment", "owner_name": "web-owner",
        "labels": { "app": "web", "pod-template-hash": "abc12" },
    });
    let expected = [
        ((0, 1), json!({ "log": "seq=web:0 \u{fffd}plain", "stream": "stderr" })),
        (
            (0, 999_999_999),
            json!({
                message: "seq=web:1 ", "level": "INFO", "n": -3, "exact": 9_007_199_254_740_991_u64, "big": big,
                "f": 1.5, "yes": true, "nothing": null, "none": [], "deep": { "x": [1, null, { "y": "z" }] },
                "text": "a\"b\\é😀", "stream": "stdout", "stream_": "own",
            }),
        ),
        ((1, 123_456_780), json!({ "log": long_text(), "stream": "stdout" })),
        ((2, 0), json!({ "log": "seq=web:3 ", "stream": "stdout" })),
    ];
    let arrivals = receiver.arrivals.lock().unwrap();
    for (number, ((second, nanos), mut record)) in (0..).zip(expected) {
        let of_web = |arrived: &&Arrived| sequence(&arrived.record) == Some(("web".to_owned(), number));
        let found = arrivals.all.iter().find(of_web).unwrap();
        record["kubernetes"] = kubernetes.clone();
        assert_eq!(found.record, record);
        assert_eq!((found.tag.as_str(), found.time), ("kube.ns.web", (TEN_O_CLOCK + second, nanos)));
    }
}

/// Lines before the start and after it, and the lines of `write_content`: all arrive, once, with all that they hold.
fn delivers_everything_once(mut receiver: Receiver, forward: &str) {
    let (node, mut web, mut bulk) = node();
    write_content(&mut web);
    bulk.lines(5_000, 300);
    let agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, forward));
    bulk.lines(5_000, 300);
    receiver.wait_for(&bulk);
    receiver.wait_for(&web);
    agent.settle();
    assert_eq!(receiver.assert_complete(&bulk), 0, "lines came twice\n{}", agent.log());
    assert_eq!(receiver.assert_complete(&web), 0, "lines came twice\n{}", agent.log());
    assert_content(&receiver);
}

/// The receiver is killed under load, twice, and comes back on the same port: all lines arrive.
fn loses_nothing_to_a_killed_receiver(mut receiver: Receiver) {
    let (node, _web, mut bulk) = node();
    bulk.lines(30_000, 300);
    let agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, "compress: gzip"));
    for taken in [1_000, 15_000] {
        eventually("some lines", || receiver.count("bulk") >= taken);
        receiver.kill();
        assert!(receiver.count("bulk") < bulk.next, "all lines were out before the kill");
        bulk.lines(5_000, 300);
        eventually("the output says that it is down", || agent.output("forward")["up"] == false);
        receiver.listen();
    }
    receiver.wait_for(&bulk);
    agent.settle();
    receiver.assert_complete(&bulk);
}

/// The output is down and its error says all of `parts`; no line has gone out.
fn assert_refused(agent: &mut Agent, receiver: &Receiver, parts: &[&str]) {
    eventually("the output says what to do", || {
        let output = agent.output("forward");
        let error = output["last_error"].as_str().unwrap_or_default();
        output["up"] == false && parts.iter().all(|part| error.contains(part))
    });
    assert!(agent.is_running());
    assert!(receiver.arrivals.lock().unwrap().all.is_empty());
}

/// No key on either side.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn the_fluent_server_takes_every_line_once() {
    for compress in ["none", "gzip"] {
        delivers_everything_once(Receiver::fluent(&[]), &format!("compress: {compress}"));
    }
}

/// The handshake with the right key, and with a user's name and password too: the receiver's digests are the protocol's.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn the_fluent_server_takes_every_line_once_from_who_knows_its_key() {
    for compress in ["none", "gzip"] {
        let keys = format!("compress: {compress}, shared_key: right");
        delivers_everything_once(Receiver::fluent(&[("SHARED_KEY", "right")]), &keys);
        let secrets = [("SHARED_KEY", "right"), ("USERNAME", "sidelight"), ("PASSWORD", "pässword")];
        let keys = format!("{keys}, username: sidelight, password: pässword");
        delivers_everything_once(Receiver::fluent(&secrets), &keys);
    }
}

/// Wrong secrets, or none: the output is down and says what to set. With the right ones in the config file, which is
/// watched, all lines arrive.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn wrong_secrets_are_reported_and_cost_nothing_once_they_are_right() {
    let secrets = [("SHARED_KEY", "right"), ("USERNAME", "sidelight"), ("PASSWORD", "secret")];
    let right = "shared_key: right, username: sidelight, password: secret";
    for (wrong, parts) in [
        ("compress: gzip", &["wants a shared key", "set shared_key"][..]),
        (
            "shared_key: wrong, username: sidelight, password: secret",
            &["shared key mismatch", "check shared_key"][..],
        ),
        (
            "shared_key: right, username: sidelight, password: wrong",
            &["username/password mismatch", "check"][..],
        ),
    ] {
        let mut receiver = Receiver::fluent(&secrets);
        let (node, _web, mut bulk) = node();
        bulk.lines(1_000, 300);
        let mut agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, wrong));
        assert_refused(&mut agent, &receiver, parts);
        std::fs::write(node.path().join("sidelight.yaml"), config(&node, &receiver, right)).unwrap();
        receiver.wait_for(&bulk);
        agent.settle();
        assert_eq!(receiver.assert_complete(&bulk), 0);
    }
}

/// A key for a receiver that has no security section: it never says HELO, and the output says so.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn a_key_for_a_receiver_without_one_is_reported() {
    for receiver in [Receiver::fluent(&[]), Receiver::collector()] {
        let (node, _web, mut bulk) = node();
        bulk.lines(10, 300);
        let mut agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, "shared_key: unknown"));
        assert_refused(&mut agent, &receiver, &["HELO", "<security> section"]);
    }
}

/// kill -9 of the Fluent server under load.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn a_fluent_server_killed_in_the_middle_costs_no_line() {
    loses_nothing_to_a_killed_receiver(Receiver::fluent(&[]));
}

/// A record that the Fluent server really refuses, among others that it goes on taking: it is found and dropped, and all
/// others arrive.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn a_record_that_the_fluent_server_refuses_is_isolated() {
    let mut receiver = Receiver::fluent(&[]);
    let (node, _web, mut bulk) = node();
    bulk.lines(500, 300);
    bulk.line("stdout", r#"{"__proto__":{}}"#);
    bulk.lines(500, 300);
    let agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, "compress: gzip"));
    eventually("the refused chunk is cut", || {
        bulk.lines(1, 300);
        agent.log().contains("looking for the record")
    });
    eventually("the record is given up", || {
        bulk.lines(1, 300);
        agent.metric("sidelight_log_records_dropped_total") > 0.0
    });
    receiver.wait_for(&bulk);
    agent.settle();
    assert_eq!(agent.metric("sidelight_log_records_dropped_total"), 1.0);
    receiver.assert_complete(&bulk);
}

/// The Collector's receiver; what it passes on is what was sent.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn the_collector_takes_every_line_once() {
    for compress in ["none", "gzip"] {
        delivers_everything_once(Receiver::collector(), &format!("compress: {compress}"));
    }
}

/// kill -9 of the Collector under load.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn a_collector_killed_in_the_middle_costs_no_line() {
    loses_nothing_to_a_killed_receiver(Receiver::collector());
}

/// A receiver that cannot unpack zstd closes the connection at every chunk: nothing is given up, and with another
/// compression in the config file all lines arrive.
#[test]
#[ignore = "needs the receivers: tests/receivers/build"]
fn zstd_to_a_receiver_that_cannot_unpack_it_costs_no_line() {
    for mut receiver in [Receiver::collector(), Receiver::fluent(&[])] {
        let (node, mut web, mut bulk) = node();
        web.lines(1, 100);
        bulk.lines(1_000, 300);
        let agent = Agent::start(BINARY, node.path(), &config(&node, &receiver, "compress: zstd"));
        eventually("some attempts", || agent.metric("sidelight_log_records_retried_total") > 300.0);
        assert!(agent.output("forward")["last_error"].is_string());
        assert_eq!(agent.metric("sidelight_log_records_dropped_total"), 0.0);
        std::fs::write(node.path().join("sidelight.yaml"), config(&node, &receiver, "compress: gzip"))
            .unwrap();
        receiver.wait_for(&bulk);
        receiver.wait_for(&web);
        agent.settle();
        assert_eq!(receiver.assert_complete(&bulk), 0);
        assert_eq!(receiver.assert_complete(&web), 0);
    }
}
