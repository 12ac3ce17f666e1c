//! Files that are renamed, compressed, truncated, replaced: read on, each line once.

use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{MAX_LINE, Node};

use crate::{BINARY, config, start};

/// Rotated many times back to back while it is read.
#[test]
fn back_to_back_rotations_lose_and_repeat_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("rotation: 30 times back to back");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    for _ in 0..30 {
        log.lines(400, 250);
        log.rotate();
    }
    log.lines(10, 250);
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: the kubelet rotates every second, keeps five files, compresses all but the newest rotated one; bursts of a
/// few MiB in between.
/// Guarantee: nothing is lost, nothing comes twice.
#[test]
fn a_rotation_every_second_with_bursts_loses_and_repeats_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("rotation: every second, with bursts, gzip and deletion");
    let config = config(&node, &server, "", "      ack_timeout: 10m\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    let mut rotated = Vec::new();
    for second in 0..10 {
        for burst in 0..4 {
            log.lines(if (second + burst) % 3 == 0 { 5_000 } else { 50 }, 300);
            std::thread::sleep(Duration::from_millis(250));
        }
        rotated.push(log.rotate());
        if let [.., older, _] = &rotated[..] {
            let compressed = log.gzip(older);
            let older = rotated.len() - 2;
            rotated[older] = compressed;
        }
        if rotated.len() > 4 {
            std::fs::remove_file(rotated.remove(0)).unwrap();
        }
    }
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// A file is renamed and compressed while the agent is down: it goes on inside the compressed file.
#[test]
fn a_file_compressed_while_the_agent_was_down_is_read_on() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("rotation: compressed while the agent is down");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    log.lines(2_000, 200);
    eventually("the first lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(agent.stop(), 0);
    log.lines(3_000, 200);
    let rotated = log.rotate();
    log.gzip(&rotated);
    log.lines(500, 200);
    log.rotate();
    log.lines(500, 200);
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// The kubelet compresses what the agent has open: nothing is read twice.
#[test]
fn a_file_compressed_while_it_is_open_is_not_read_again() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("rotation: compressed under the agent");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    for _ in 0..5 {
        log.lines(1_000, 200);
        let rotated = log.rotate();
        log.lines(10, 200);
        log.gzip(&rotated);
    }
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// copytruncate: what follows is read from the start.
#[test]
fn a_truncated_file_is_read_from_its_start() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("file: truncated, all of it delivered");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    log.lines(1_000, 200);
    eventually("the first lines", || server.count("a") == log.next);
    agent.settle();
    log.truncate();
    log.lines(300, 200);
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Partial lines of both streams interleaved, and one that goes on in the next file.
#[test]
fn partial_lines_are_joined_by_stream_and_across_rotation() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    let out = "o".repeat(MAX_LINE);
    log.piece("stdout", true, format!("seq=out:0 {out}").as_bytes());
    log.piece("stderr", true, b"seq=err:0 first ");
    log.piece("stdout", true, out.as_bytes());
    log.piece("stderr", false, b"second");
    log.rotate();
    log.piece("stdout", false, b"end");
    log.lines(1, 50);
    eventually("all records", || {
        server.count("out") == 1 && server.count("err") == 1 && server.count("a") == 1
    });
    agent.settle();
    let texts: Vec<String> = server
        .received()
        .iter()
        .map(|received| received.record["log"].as_str().unwrap().to_owned())
        .collect();
    assert!(texts.contains(&format!("seq=out:0 {out}{out}end")));
    assert!(texts.contains(&"seq=err:0 first second".to_owned()));
    assert_eq!(texts.len(), 3);
}

/// A line with a partial one open at kill -9 is whole after the restart.
#[test]
fn an_open_partial_line_survives_a_kill() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    log.lines(5, 50);
    log.piece("stdout", true, b"seq=part:0 begun ");
    let agent = start(&node, &server);
    eventually("the lines before", || server.count("a") == 5);
    eventually("the checkpoint", || node.path().join("data/checkpoints").exists());
    agent.kill();
    log.piece("stdout", false, b"and ended");
    let agent = start(&node, &server);
    eventually("the joined line", || server.count("part") == 1);
    agent.settle();
    assert!(
        server
            .received()
            .iter()
            .any(|received| received.record["log"].as_str() == Some("seq=part:0 begun and ended"))
    );
}

/// Scenario: a pod has an unread backlog when the agent is stopped, and is deleted while no agent runs.
/// Guarantee: what is lost is counted, to the byte.
#[test]
fn what_is_deleted_while_no_agent_runs_is_counted_as_lost() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("pod: deleted with an unread backlog, agent down");
    let config = config(&node, &server, "", "");
    let mut log = node.container("a");
    let agent = fault.watch(Agent::start_with_grace(BINARY, node.path(), &config, "3s"));
    log.lines(100, 100);
    eventually("the lines", || server.count("a") == 100);
    agent.settle();
    server.stop();
    log.lines(100, 100);
    eventually("they are seen", || agent.metric("sidelight_log_lag_bytes") > 0.0);
    // A checkpoint with the new size is written at the stop.
    assert_eq!(agent.stop(), 0);
    log.delete_pod();
    server.listen();
    let agent = fault.watch(start(&node, &server));
    eventually("the loss is counted", || agent.metric("sidelight_log_source_bytes_dropped_total") > 0.0);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", log.next)]);
    let missing = server.missing("a", log.next);
    assert_eq!(missing, (100..200).collect::<Vec<_>>());
    assert_eq!(row.dropped("lost_unlinked"), log.bytes_of(&missing), "{row:?}");
}

/// Scenario: a container begins and writes while its receiver is away; kill -9; its files go while no agent runs.
/// Guarantee: every byte is counted as lost, although none of it was ever acknowledged.
#[test]
fn what_was_never_acknowledged_is_counted_as_well() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("pod: never read, deleted after kill -9");
    let agent = fault.watch(start(&node, &server));
    server.stop();
    let mut log = node.container("a");
    log.lines(100, 100);
    let size = std::fs::metadata(log.path()).unwrap().len();
    eventually("its size is saved", || {
        let checkpoints = std::fs::read_to_string(node.path().join("data/checkpoints")).unwrap_or_default();
        checkpoints.contains(&format!("\"size\":{size}"))
    });
    agent.kill();
    log.delete_pod();
    server.listen();
    let agent = fault.watch(start(&node, &server));
    eventually("the loss is counted", || agent.metric("sidelight_log_source_bytes_dropped_total") > 0.0);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", log.next)]);
    assert_eq!((row.tally.delivered, row.dropped("lost_unlinked")), (0, size), "{row:?}");
}
