//! Nothing is lost: the agent is killed or stopped, checkpoints are damaged, pods are deleted. Each test of a fault adds
//! a row to the table of faults.

mod files;
mod lines;
mod metadata;
mod receivers;
mod tenants;

use std::sync::atomic::Ordering;
use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::dice::Dice;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

use crate::{BINARY, config, start};

/// Scenario: SIGKILL at 50 random moments, some of them before the agent is up, while two pods write and one rotates.
/// Guarantee: every line arrives; again only what was in no checkpoint at a kill.
#[test]
fn kill_9_fifty_times_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("agent: kill -9 at random moments, 50 times");
    let config = config(&node, &server, "", "      ack_timeout: 10s\n");
    let (mut a, mut b) = (node.container("a"), node.container("b"));
    let mut dice = Dice::from_environment();
    let mut in_no_checkpoint = 0;
    for _ in 0..50 {
        let agent = fault.watch(Agent::launch(BINARY, node.path(), &config));
        for _ in 0..dice.below(8) {
            a.lines(dice.below(300), 200);
            b.lines(dice.below(30), 2_000);
            std::thread::sleep(Duration::from_millis(dice.below(120)));
            if dice.one_in(8) {
                b.rotate();
            }
        }
        agent.kill();
        in_no_checkpoint +=
            [&a, &b].map(|log| log.lines_from(saved_bytes(&node, &log.writer))).iter().sum::<u64>();
    }
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == a.next && server.count("b") == b.next);
    let repeated = fault.survived(&agent, &[(&server, "a", a.next), (&server, "b", b.next)]);
    assert!(
        repeated <= in_no_checkpoint,
        "{repeated} lines came again, {in_no_checkpoint} were in no checkpoint"
    );
}

/// Bytes of a container that are acknowledged by what an agent has left on the disk, in all its files.
fn saved_bytes(node: &Node, container: &str) -> u64 {
    let files = node.saved_files();
    let of_container = files.iter().filter(|file| file["pod"] == container);
    of_container.filter_map(|file| file["outputs"]["forward"].as_u64()).sum()
}

/// Scenario: a pod is deleted while its lines cannot be sent.
/// Guarantee: its files are held until they are; nothing comes twice.
#[test]
fn a_pod_deleted_under_backlog_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("pod: deleted with an unread backlog");
    server.faults().stall.store(true, Ordering::SeqCst);
    let agent = fault.watch(Agent::start(
        BINARY,
        node.path(),
        &config(&node, &server, "  parse: none\n", "      ack_timeout: 10m\n      compress: none\n"),
    ));
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
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: SIGTERM under load, a well receiver.
/// Guarantee: read to the end, wait for acknowledgements, exit 0; the next start repeats nothing.
#[test]
fn an_orderly_stop_delivers_and_repeats_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("agent: SIGTERM");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    eventually("it is ready", || agent.get("/readyz").0 == 200);
    log.lines(30_000, 300);
    assert_eq!(agent.stop(), 0);
    assert_eq!(server.assert_complete("a", log.next), 0);
    let agent = fault.watch(start(&node, &server));
    log.lines(10, 300);
    eventually("the new lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: SIGTERM with a backlog that no grace period would be long enough for, and a grace period of 1 s and of 3 s.
/// Guarantee: exit 0, and the rest comes after the next start.
#[test]
fn a_stop_with_a_backlog_and_a_short_grace_period_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("agent: SIGTERM with a backlog, grace periods of 1 s and 3 s");
    let config = config(&node, &server, "", "      ack_timeout: 10s\n      compress: none\n");
    server.faults().ack_delay.store(300, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(60_000, 600);
    for grace_period in ["1s", "3s"] {
        let agent = fault.watch(Agent::start_with_grace(BINARY, node.path(), &config, grace_period));
        eventually("lines are under way", || agent.metric("sidelight_log_source_bytes_in_flight") > 0.0);
        assert_eq!(agent.stop(), 0);
        assert!(server.count("a") < log.next, "there is a backlog");
    }
    server.faults().ack_delay.store(0, Ordering::SeqCst);
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    eventually("all lines", || server.count("a") == log.next);
    fault.survived(&agent, &[(&server, "a", log.next)]);
}

/// What becomes of a file.
type Damage = fn(&[u8]) -> Vec<u8>;

/// Scenario: the newest checkpoint is empty, cut short, half overwritten, or has one bit wrong; then both are.
/// Guarantee: the one before is taken, and without it the start: that costs duplicates, never lines.
#[test]
fn a_damaged_checkpoint_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("checkpoint: corrupted, half written, empty; one and both");
    let mut log = node.container("a");
    log.lines(1_000, 100);
    let broken: [Damage; 5] = [
        |_| Vec::new(),
        |whole| whole[..whole.len() / 2].to_vec(),
        |whole| whole[..whole.len() - 1].to_vec(),
        |whole| [&whole[..whole.len() / 2], &vec![0; whole.len() / 2]].concat(),
        |whole| {
            [&whole[..whole.len() / 2], &[whole[whole.len() / 2] ^ 1], &whole[whole.len() / 2 + 1..]].concat()
        },
    ];
    for names in [&["checkpoints"][..], &["checkpoints", "checkpoints.previous"]] {
        for damage in broken {
            let agent = fault.watch(start(&node, &server));
            log.lines(100, 100);
            eventually("all lines", || server.count("a") == log.next);
            agent.settle();
            assert_eq!(agent.stop(), 0);
            log.lines(100, 100);
            for name in names {
                let path = node.path().join("data").join(name);
                let whole = std::fs::read(&path).unwrap();
                std::fs::write(&path, damage(&whole)).unwrap();
            }
        }
    }
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    assert!(fault.survived(&agent, &[(&server, "a", log.next)]) > 0);
}

/// Scenario: the agent was killed between writing a checkpoint and giving it its name: a half-written temporary file is
/// left, and only the checkpoint before.
/// Guarantee: it starts, nothing is lost, and what that checkpoint knows does not come twice.
#[test]
fn a_kill_while_a_checkpoint_is_written_loses_and_repeats_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("checkpoint: killed while it was written");
    let mut log = node.container("a");
    log.lines(1_000, 100);
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(agent.stop(), 0);
    let data = node.path().join("data");
    let whole = std::fs::read(data.join("checkpoints")).unwrap();
    std::fs::write(data.join("checkpoints.tmp"), &whole[..whole.len() / 2]).unwrap();
    std::fs::rename(data.join("checkpoints"), data.join("checkpoints.previous")).unwrap();
    log.lines(1_000, 100);
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: for a while no checkpoint can be written; then it can, and nothing else happens.
/// Guarantee: it is said, lines flow; the positions are saved as soon as they can be, and kill -9 costs no duplicates.
#[test]
fn positions_that_could_not_be_saved_are_saved_when_they_can_be() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("checkpoint: cannot be written for a while");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    let obstacle = node.path().join("data/checkpoints.tmp");
    eventually("its directory", || std::fs::create_dir(&obstacle).is_ok());
    log.lines(1_000, 100);
    eventually("it is said", || agent.log().contains("cannot write checkpoints"));
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    std::fs::remove_dir(&obstacle).unwrap();
    let acked = format!("\"forward\":{}}}", std::fs::metadata(log.path()).unwrap().len());
    eventually("the positions", || {
        std::fs::read_to_string(node.path().join("data/checkpoints")).is_ok_and(|text| text.contains(&acked))
    });
    agent.kill();
    log.lines(1_000, 100);
    let agent = fault.watch(start(&node, &server));
    eventually("the new lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: two records that the receiver refuses again and again, each in a chunk with others.
/// Guarantee: they are found, dropped and counted; all others arrive.
#[test]
fn poisoned_records_are_isolated() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: refuses two records for ever");
    *server.faults().refuse.lock().unwrap() = Some("POISON".to_owned());
    let mut log = node.container("a");
    log.lines(50, 100);
    log.line("stdout", "POISON");
    log.lines(50, 100);
    let agent = fault.watch(start(&node, &server));
    eventually("the first chunk is refused", || agent.log().contains("a receiver is away"));
    log.line("stdout", "POISON");
    // Only what is refused while others are taken is refused for what is in it.
    eventually("the records are given up", || {
        log.lines(1, 100);
        agent.metric("sidelight_log_records_dropped_total") == 2.0
    });
    eventually("all other lines", || server.count("a") == log.next);
    fault.survived(&agent, &[(&server, "a", log.next)]);
    let rejected = "sidelight_log_records_dropped_total{output=\"forward\",reason=\"rejected\"} 2";
    assert!(agent.get("/metrics").1.contains(rejected));
}

/// Scenario: a second agent on the same data_dir, as in a rolling update.
/// Guarantee: it waits, not ready, and says who holds it; it takes over when the first ends.
#[test]
fn a_second_agent_waits_for_the_first() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("agent: a second one beside it");
    let mut log = node.container("a");
    let first = fault.watch(start(&node, &server));
    eventually("the first is ready", || first.get("/readyz").0 == 200);
    let second = fault.watch(start(&node, &server));
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
    assert_eq!(fault.survived(&second, &[(&server, "a", log.next)]), 0);
}
