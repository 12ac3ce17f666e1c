//! Nothing is lost: kill -9, a receiver that is away, lost acknowledgements, cut connections, deleted pods.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

use crate::{BINARY, config, start};

/// Killed again and again while two pods write: every line arrives; twice only what was not acknowledged.
#[test]
fn kill_9_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let (mut a, mut b) = (node.container("a"), node.container("b"));
    for round in 0..8 {
        let agent = start(&node, &server);
        a.lines(3_000, 200);
        b.lines(500, 2_000);
        std::thread::sleep(Duration::from_millis(37 * round));
        a.lines(1_000, 200);
        agent.kill();
    }
    let agent = start(&node, &server);
    eventually("all lines", || server.count("a") == a.next && server.count("b") == b.next);
    agent.settle();
    server.assert_complete("a", a.next);
    server.assert_complete("b", b.next);
}

/// The receiver is away at the start and again in the middle: no line is lost, and none comes twice that it took.
#[test]
fn a_receiver_that_is_away_loses_nothing() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    server.stop();
    let mut log = node.container("a");
    log.lines(2_000, 300);
    let agent = start(&node, &server);
    eventually("the output says that it is down", || {
        let output = &agent.api("/api/v1/outputs")["outputs"][0];
        output["up"] == false && output["last_error"].as_str().is_some()
    });
    log.lines(2_000, 300);
    server.listen();
    eventually("the first lines", || server.count("a") == 4_000);
    agent.settle();
    server.stop();
    log.lines(20_000, 300);
    server.listen();
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(server.assert_complete("a", log.next), 0);
}

/// Acknowledgements that are lost are waited for, then the chunk is sent again under its own id.
#[test]
fn a_lost_acknowledgement_costs_a_repeated_chunk_and_nothing_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    server.faults().lose_acks.store(2, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(5_000, 300);
    let agent = Agent::start(BINARY, node.path(), &config(&node, &server, "", "      ack_timeout: 2s\n"));
    eventually("the acknowledgements", || agent.metric("sidelight_log_records_delivered_total") >= 5_000.0);
    agent.settle();
    assert!(server.assert_complete("a", log.next) > 0, "the chunk must have come twice");
    let mut chunks = std::collections::BTreeMap::<u64, std::collections::BTreeSet<String>>::new();
    for received in server.received() {
        let text = received.record["log"].as_str().unwrap().to_owned();
        let number = text.split(['=', ':', ' ']).nth(2).unwrap().parse().unwrap();
        chunks.entry(number).or_default().insert(received.chunk);
    }
    assert!(chunks.values().all(|ids| ids.len() == 1), "a repeated chunk keeps its id");
}

/// A connection cut in the middle of a message.
#[test]
fn a_connection_cut_inside_a_message_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    for cut in [1, 1_000, 70_000] {
        server.faults().cut_after.store(cut, Ordering::SeqCst);
        log.lines(4_000, 200);
        eventually("all lines", || server.count("a") == log.next);
    }
    agent.settle();
    server.assert_complete("a", log.next);
}

/// A pod is deleted while its lines cannot be sent: its files are held until they are.
#[test]
fn a_pod_deleted_under_backlog_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    server.faults().stall.store(true, Ordering::SeqCst);
    let agent = Agent::start(
        BINARY,
        node.path(),
        &config(&node, &server, "  parse: none\n", "      ack_timeout: 60s\n      compress: none\n"),
    );
    let mut log = node.container("a");
    // More than the memory budget and the socket's buffers hold.
    log.lines(100_000, 600);
    log.rotate();
    log.lines(10_000, 600);
    eventually("both files are open", || {
        agent.api("/api/v1/files")["files"].as_array().is_some_and(|files| files.len() == 2)
    });
    log.delete_pod();
    eventually("the deletion is seen", || agent.metric("sidelight_log_deleted_bytes_held") > 0.0);
    server.faults().stall.store(false, Ordering::SeqCst);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(server.assert_complete("a", log.next), 0);
}

/// SIGTERM: read to the end, wait for acknowledgements, exit 0; the next start repeats nothing.
#[test]
fn an_orderly_stop_delivers_and_repeats_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    eventually("it is ready", || agent.get("/readyz").0 == 200);
    log.lines(30_000, 300);
    assert_eq!(agent.stop(), 0);
    assert_eq!(server.assert_complete("a", log.next), 0);
    let agent = start(&node, &server);
    log.lines(10, 300);
    eventually("the new lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(server.assert_complete("a", log.next), 0);
}

/// A damaged checkpoint costs duplicates, never lines: the one before is taken, and without it the start.
#[test]
fn a_damaged_checkpoint_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    log.lines(1_000, 100);
    for damage in [&b"{"[..], b""] {
        let agent = start(&node, &server);
        eventually("all lines", || server.count("a") == log.next);
        agent.settle();
        assert_eq!(agent.stop(), 0);
        log.lines(100, 100);
        for name in ["checkpoints", "checkpoints.previous"] {
            std::fs::write(node.path().join("data").join(name), damage).unwrap();
        }
    }
    let agent = start(&node, &server);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert!(server.assert_complete("a", log.next) > 0);
}

/// One record that the receiver refuses again and again is found, dropped and counted; all others arrive.
#[test]
fn a_poisoned_record_is_isolated() {
    let (node, server) = (Node::new(), ForwardServer::start());
    *server.faults().refuse.lock().unwrap() = Some("POISON".to_owned());
    let mut log = node.container("a");
    log.lines(50, 100);
    log.line("stdout", "POISON");
    log.lines(50, 100);
    let agent = start(&node, &server);
    // Only what is refused while others are taken is refused for what is in it.
    eventually("the record is given up", || {
        log.lines(1, 100);
        agent.metric("sidelight_log_records_dropped_total") == 1.0
    });
    eventually("all other lines", || server.count("a") == log.next);
    agent.settle();
    server.assert_complete("a", log.next);
    assert!(
        agent
            .get("/metrics")
            .1
            .contains("sidelight_log_records_dropped_total{output=\"forward\",reason=\"rejected\"} 1")
    );
}

/// A second agent on the same data_dir waits, not ready, and says who holds it; it takes over when the first ends.
#[test]
fn a_second_agent_waits_for_the_first() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let first = start(&node, &server);
    eventually("the first is ready", || first.get("/readyz").0 == 200);
    let second = start(&node, &server);
    eventually("the second says who holds the directory", || {
        let (status, body) = second.get("/readyz");
        status == 503 && body.contains("is held by process")
    });
    log.lines(500, 100);
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(first.stop(), 0);
    eventually("the second is ready", || second.get("/readyz").0 == 200);
    log.lines(500, 100);
    eventually("all lines", || server.count("a") == log.next);
    second.settle();
    assert_eq!(server.assert_complete("a", log.next), 0);
}
