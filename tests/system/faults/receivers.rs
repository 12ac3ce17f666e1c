//! Receivers that are away, stall, cut, lose or delay acknowledgements, refuse the key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::dice::Dice;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::{ForwardServer, Security};
use sidelight_tests::kubelet::Node;

use crate::{BINARY, config, config_of, forward_to, start};

/// Scenario: the receiver is away at the start and again in the middle.
/// Guarantee: no line is lost, and none comes twice that it took.
#[test]
fn a_receiver_that_is_away_loses_nothing() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: away at the start, and in the middle");
    server.stop();
    let mut log = node.container("a");
    log.lines(2_000, 300);
    let agent = fault.watch(start(&node, &server));
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
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: the receiver stalls and goes on, three times, before its chunks are late.
/// Guarantee: no line is lost, none comes twice.
#[test]
fn a_receiver_that_stalls_loses_and_repeats_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: stalls");
    let config = config(&node, &server, "", "      ack_timeout: 10m\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    for _ in 0..3 {
        log.lines(5_000, 300);
        server.faults().stall.store(true, Ordering::SeqCst);
        log.lines(20_000, 300);
        eventually("it is seen", || agent.metric("sidelight_log_source_bytes_in_flight") > 0.0);
        std::thread::sleep(Duration::from_millis(500));
        server.faults().stall.store(false, Ordering::SeqCst);
    }
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: the receiver takes chunks and loses two acknowledgements.
/// Guarantee: they are waited for, then the chunk is sent again under its own id.
#[test]
fn a_lost_acknowledgement_costs_a_repeated_chunk_and_nothing_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: loses acknowledgements");
    server.faults().lose_acks.store(2, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(5_000, 300);
    let config = config(&node, &server, "", "      ack_timeout: 2s\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    eventually("the acknowledgements", || agent.metric("sidelight_log_records_delivered_total") >= 5_000.0);
    let repeated = fault.survived(&agent, &[(&server, "a", log.next)]);
    assert!(repeated > 0, "the chunk must have come twice");
    let mut chunks = BTreeMap::<u64, BTreeSet<String>>::new();
    for received in server.received() {
        let text = received.record["log"].as_str().unwrap().to_owned();
        let number = text.split(['=', ':', ' ']).nth(2).unwrap().parse().unwrap();
        chunks.entry(number).or_default().insert(received.chunk);
    }
    assert!(chunks.values().all(|ids| ids.len() == 1), "a repeated chunk keeps its id");
}

/// Scenario: acknowledgements come, but later than `ack_timeout`; then the receiver is quick again.
/// Guarantee: chunks are sent again, under their ids, until one is acknowledged in time; nothing is lost.
#[test]
fn late_acknowledgements_cost_repeated_chunks_and_nothing_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: acknowledges too late");
    server.faults().ack_delay.store(1_500, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(5_000, 300);
    let config = config(&node, &server, "", "      ack_timeout: 500ms\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    eventually("chunks are sent again", || agent.metric("sidelight_log_records_retried_total") > 0.0);
    log.lines(5_000, 300);
    server.faults().ack_delay.store(0, Ordering::SeqCst);
    eventually("all lines", || server.count("a") == log.next);
    assert!(fault.survived(&agent, &[(&server, "a", log.next)]) > 0, "the chunk must have come twice");
}

/// Scenario: acknowledgements come late, but within `ack_timeout`.
/// Guarantee: they are waited for; nothing comes twice.
#[test]
fn slow_acknowledgements_are_waited_for() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: acknowledges slowly, but in time");
    server.faults().ack_delay.store(700, Ordering::SeqCst);
    let config = config(&node, &server, "", "      ack_timeout: 10m\n      chunk_bytes: 64KiB\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    for _ in 0..5 {
        log.lines(200, 300);
        std::thread::sleep(Duration::from_millis(300));
    }
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: connections are cut in the middle of a message: behind its first byte, in its first KiB, far behind.
/// Guarantee: no line is lost.
#[test]
fn a_connection_cut_inside_a_message_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: cuts the connection inside a message");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    for cut in [1, 1_000, 70_000] {
        server.faults().cut_after.store(cut, Ordering::SeqCst);
        log.lines(4_000, 200);
        eventually("all lines", || server.count("a") == log.next);
    }
    fault.survived(&agent, &[(&server, "a", log.next)]);
}

/// Scenario: the receiver's key changes under a running agent; after a while it is the old one again.
/// Guarantee: nothing is sent to whom does not know the key, nothing is lost, nothing comes twice.
#[test]
fn a_receiver_that_refuses_the_key_loses_nothing() {
    let (node, mut server) = (Node::new(), ForwardServer::secured(Security::new("one")));
    let fault = Fault::new("receiver: refuses the key for a while");
    let config = config(&node, &server, "", "      ack_timeout: 10m\n      shared_key: one\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    log.lines(1_000, 300);
    eventually("the first lines", || server.count("a") == log.next);
    agent.settle();
    server.set_security(Security::new("another"));
    server.stop();
    server.listen();
    log.lines(20_000, 300);
    eventually("it says so", || agent.output("forward")["up"] == false);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.count("a"), 1_000);
    server.set_security(Security::new("one"));
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: a backlog that fills the memory with compressed chunks; a record of it is refused for ever.
/// Guarantee: its chunk is unpacked and cut in the memory that `check` names; all other records arrive.
#[test]
fn refused_chunks_are_unpacked_in_the_memory_that_check_names() {
    for compression in ["gzip", "zstd"] {
        let (node, server) = (Node::new(), ForwardServer::start());
        let fault = Fault::new(&format!("receiver: refuses a record for ever, {compression}, memory full"));
        let output =
            format!("      compress: {compression}\n      chunk_bytes: 256KiB\n      ack_timeout: 1m\n");
        let config =
            config(&node, &server, "", &output).replace("workers: 2\n", "workers: 2\nmemory_budget: 4MiB\n");
        *server.faults().refuse.lock().unwrap() = Some("POISON".to_owned());
        server.faults().stall.store(true, Ordering::SeqCst);
        let (mut log, mut dice) = (node.container("a"), Dice::new(7));
        for number in 0..600 {
            log.lines(1, 100);
            // What cannot be compressed to less than the half.
            let noise: String = (0..1_000).map(|_| format!("{:016x}", dice.below(u64::MAX))).collect();
            log.line("stdout", &noise);
            if number == 50 {
                log.line("stdout", "POISON");
            }
        }
        let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
        eventually("the memory is full", || agent.metric("sidelight_memory_used_bytes") > f64::from(2 << 20));
        server.faults().stall.store(false, Ordering::SeqCst);
        // Only what is refused while others are taken is refused for what is in it.
        eventually("the record is given up", || {
            log.lines(1, 100);
            agent.metric("sidelight_log_records_dropped_total") == 1.0
        });
        eventually("all lines", || server.count("a") == log.next);
        fault.survived(&agent, &[(&server, "a", log.next)]);
        let (peak, named) = (agent.peak_memory(), check_names(&node));
        assert!(peak <= named, "{compression}: {peak} bytes, and check names {named}");
    }
}

/// The sum of the memory that `check` prints for the node's agent, in bytes.
fn check_names(node: &Node) -> u64 {
    let file = node.path().join("sidelight.yaml");
    let report = std::process::Command::new(BINARY).arg("check").arg(file).output().unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    let sum = report
        .lines()
        .last()
        .and_then(|line| line.strip_suffix("  sum"))
        .unwrap_or_else(|| panic!("{report}"));
    let (number, shift) = [("MiB", 20), ("KiB", 10), ("B", 0)]
        .into_iter()
        .find_map(|(unit, shift)| Some((sum.trim().strip_suffix(unit)?, shift)))
        .unwrap();
    number.parse::<u64>().unwrap() << shift
}

/// Scenario: two outputs; the receiver of one has each fault in turn, with more to send than it may hold in memory.
/// Guarantee: until the fault ends, the other gets every line, and gets it once.
#[test]
fn the_fault_of_one_output_never_holds_up_another() {
    type Switch = fn(&mut ForwardServer, bool);
    let faults: [(&str, Switch); 6] = [
        ("away", |server, on| if on { server.stop() } else { server.listen() }),
        ("stalls", |server, on| server.faults().stall.store(on, Ordering::SeqCst)),
        ("cuts", |server, on| server.faults().cut_after.store(if on { 1_000 } else { 0 }, Ordering::SeqCst)),
        ("loses acknowledgements", |server, on| {
            server.faults().lose_acks.store(if on { u64::MAX } else { 0 }, Ordering::SeqCst);
        }),
        ("acknowledges late", |server, on| {
            server.faults().ack_delay.store(if on { 3_000 } else { 0 }, Ordering::SeqCst);
        }),
        ("refuses everything", |server, on| {
            *server.faults().refuse.lock().unwrap() = on.then(|| "seq=".to_owned());
        }),
    ];
    for (name, switch) in faults {
        let (node, mut sick, well) = (Node::new(), ForwardServer::start(), ForwardServer::start());
        let fault =
            Fault::new(&format!("two outputs: the receiver of one {name}, the other gets all meanwhile"));
        let outputs = forward_to(&sick, "    name: sick\n", "      ack_timeout: 1s\n      compress: none\n")
            + &forward_to(&well, "    name: well\n", "      ack_timeout: 10m\n");
        let config =
            config_of(&node, "", &outputs).replace("workers: 2\n", "workers: 1\nmemory_budget: 6MiB\n");
        switch(&mut sick, true);
        let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
        let mut log = node.container("a");
        for _ in 0..5 {
            log.lines(2_000, 600);
            log.rotate();
            // The next cut: one is used up by a connection.
            if name == "cuts" {
                switch(&mut sick, true);
            }
        }
        eventually("the well output's lines", || well.count("a") == log.next);
        assert_eq!(well.assert_complete("a", log.next), 0);
        switch(&mut sick, false);
        eventually("the sick output's lines", || sick.count("a") == log.next);
        fault.survived(&agent, &[(&sick, "a", log.next), (&well, "a", log.next)]);
    }
}
