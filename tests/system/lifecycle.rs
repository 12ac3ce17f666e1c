//! How the agent starts and ends, and files that are not what they should be.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

use crate::{BINARY, config, start};

/// Scenario: SIGTERM while the receiver takes nothing.
/// Guarantee: exit 0 within the grace period, and what was not acknowledged comes after the next start.
#[test]
fn a_stop_under_a_stalled_receiver_keeps_its_time_and_loses_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("agent: SIGTERM under a stalled receiver");
    let config = config(&node, &server, "", "      ack_timeout: 2s\n      compress: none\n")
        .replace("workers: 2\n", "workers: 2\nmemory_budget: 4MiB\n");
    let mut log = node.container("a");
    log.lines(1_000, 300);
    let agent = fault.watch(Agent::start_with_grace(BINARY, node.path(), &config, "10s"));
    eventually("the first lines", || server.count("a") == log.next);
    server.faults().stall.store(true, Ordering::SeqCst);
    // More than fits into memory: some of it is read only after the restart.
    log.lines(20_000, 600);
    eventually("chunks are under way", || agent.metric("sidelight_log_source_bytes_in_flight") > 0.0);
    let told = Instant::now();
    assert_eq!(agent.stop(), 0);
    assert!(told.elapsed() < Duration::from_secs(10), "it took {:?}", told.elapsed());
    server.faults().stall.store(false, Ordering::SeqCst);
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    eventually("all lines", || server.count("a") == log.next);
    fault.survived(&agent, &[(&server, "a", log.next)]);
}

/// Scenario: a file lies where the data directory is to be.
/// Guarantee: the agent ends with 73 and names it.
#[test]
fn a_data_dir_that_cannot_be_used_ends_with_73() {
    let (node, server) = (Node::new(), ForwardServer::start());
    std::fs::write(node.path().join("data"), "x").unwrap();
    let (code, log) = Agent::run(BINARY, node.path(), &config(&node, &server, "", ""));
    assert_eq!(code, 73, "{log}");
    assert!(log.contains(&node.path().join("data").display().to_string()), "{log}");
}

/// Scenario: the configuration has two mistakes.
/// Guarantee: the agent ends with 64 and names both.
#[test]
fn a_wrong_configuration_ends_with_64() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let config = config(&node, &server, "  parse: jsno\n  colour: red\n", "");
    let (code, log) = Agent::run(BINARY, node.path(), &config);
    assert_eq!(code, 64, "{log}");
    assert!(log.contains("logs.parse") && log.contains("logs.colour"), "{log}");
}

/// Scenario: the log directory does not exist when the agent starts, and appears later.
/// Guarantee: it is waited for, and read.
#[test]
fn a_log_directory_that_comes_later_is_read() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    log.lines(100, 100);
    let late = node.path().join("late");
    let config = config(&node, &server, "", "")
        .replace(&format!("root: {}/pods", node.path().display()), &format!("root: {}", late.display()));
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("that it is missing is told", || agent.log().contains(&late.display().to_string()));
    std::fs::rename(node.path().join("pods"), &late).unwrap();
    eventually("the lines", || server.count("a") == 100);
    log.lines(100, 100);
    eventually("the new lines", || server.count("a") == 200);
    agent.settle();
    assert_eq!(server.assert_complete("a", 200), 0);
}

/// Scenario: tenants put a symbolic link, a FIFO and a directory where the log file is to be.
/// Guarantee: none is read or waited for, `explain` says why, other pods go on; the right file later is read.
#[test]
fn what_is_no_regular_file_is_refused_and_stops_nobody() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("tenant: a link, a FIFO, a directory in place of a log file");
    let secret = node.path().join("secret");
    std::fs::write(&secret, "2026-01-01T00:00:00Z stdout F the secret\n").unwrap();
    let kinds = ["link", "fifo", "directory"];
    for kind in kinds {
        let path = node.container(kind).path();
        std::fs::remove_file(&path).unwrap();
        match kind {
            "link" => std::os::unix::fs::symlink(&secret, &path).unwrap(),
            "fifo" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
            _ => std::fs::create_dir(&path).unwrap(),
        }
    }
    let mut log = node.container("good");
    log.lines(100, 100);
    let agent = fault.watch(start(&node, &server));
    eventually("the good lines", || server.count("good") == 100);
    for kind in kinds {
        eventually("the reason", || {
            let explained = agent.explain(&format!("ns/{kind}"));
            explained["collected"] == false && explained["reason"].as_str().unwrap().contains("0.log")
        });
    }
    std::fs::remove_file(node.path().join("pods/ns_link_uid-link/app/0.log")).unwrap();
    node.container("link").lines(100, 100);
    log.lines(100, 100);
    eventually("the lines of the file in the link's place", || server.count("link") == 100);
    eventually("the new good lines", || server.count("good") == 200);
    assert_eq!(fault.survived(&agent, &[(&server, "good", 200), (&server, "link", 100)]), 0);
    assert_eq!(server.received().len(), 300, "nothing else was read");
}

/// Scenario: a file is removed and another takes its name, while the agent runs and while it does not.
/// Guarantee: each is read from its first byte, and no line comes twice.
#[test]
fn a_file_in_anothers_place_is_read_from_its_start() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("file: another in its place, agent up and down");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    for _ in 0..3 {
        log.lines(1_000, 200);
        // Either file may be the first that is seen: what nobody has opened before it went is lost, so wait.
        eventually("the lines", || server.count("a") == log.next);
        log.replace();
    }
    log.lines(1_000, 200);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(agent.stop(), 0);
    log.replace();
    log.lines(3_000, 200);
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: a compressed generation is cut off in the middle.
/// Guarantee: the container's other files are read all the same, the agent stays healthy, the account is balanced.
#[test]
fn a_damaged_compressed_file_does_not_stop_the_others() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("rotation: a compressed file is damaged");
    let mut log = node.container("a");
    log.writer = "damaged".to_owned();
    log.lines(2_000, 200);
    let rotated = log.rotate();
    let compressed = log.gzip(&rotated);
    let bytes = std::fs::read(&compressed).unwrap();
    std::fs::write(&compressed, &bytes[..bytes.len() / 2]).unwrap();
    (log.writer, log.next) = ("between".to_owned(), 0);
    log.lines(500, 200);
    log.rotate();
    (log.writer, log.next) = ("current".to_owned(), 0);
    log.lines(500, 200);
    let agent = fault.watch(start(&node, &server));
    eventually("the other files' lines", || server.count("between") == 500 && server.count("current") == 500);
    log.lines(100, 200);
    eventually("the new lines", || server.count("current") == 600);
    assert_eq!(agent.get("/livez").0, 200);
    assert_eq!(fault.survived(&agent, &[(&server, "between", 500), (&server, "current", 600)]), 0);
}

/// Scenario: 300 containers, each with its own tag and a few lines, while the receiver is away and comes back, twice.
/// Guarantee: all lines come within seconds, long before the rescan of every minute: no reader sleeps through its wake-up.
#[test]
fn many_small_containers_recover_within_seconds() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let mut logs: Vec<_> = (0..300).map(|n| node.container(&format!("pod-{n}"))).collect();
    let agent = Agent::start(BINARY, node.path(), &config(&node, &server, "", "      tag: 'kube.{pod}'\n"));
    for _ in 0..2 {
        server.stop();
        logs.iter_mut().for_each(|log| log.lines(3, 200));
        eventually("the outage is seen", || agent.output("forward")["up"] == false);
        std::thread::sleep(Duration::from_secs(1));
        server.listen();
        let back = Instant::now();
        eventually("all lines", || {
            let arrived = server.sequences();
            logs.iter()
                .all(|log| arrived.get(&log.writer).is_some_and(|lines| lines.len() as u64 == log.next))
        });
        assert!(back.elapsed() < Duration::from_secs(40), "it took {:?}", back.elapsed());
    }
    agent.settle();
    logs.iter().for_each(|log| assert_eq!(server.assert_complete(&log.writer, log.next), 0));
    assert!(server.received().iter().all(|received| received.tag.starts_with("kube.pod-")));
}

/// Scenario: a pod is deleted under a stalled receiver, and its files hold more than `held_deleted`.
/// Guarantee: the oldest is given up and counted as `held_deleted`, the newest arrives, every byte is in one counter.
#[test]
fn deleted_files_beyond_the_budget_are_dropped_oldest_first_and_counted() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("pod: deleted with more than held_deleted");
    server.faults().stall.store(true, Ordering::SeqCst);
    let forward = "      ack_timeout: 60s\n      compress: none\n      chunk_bytes: 256KiB\n";
    let config = config(&node, &server, "  held_deleted: 8MiB\n", forward)
        .replace("workers: 2\n", "workers: 1\nmemory_budget: 1MiB\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut log = node.container("a");
    log.writer = "oldest".to_owned();
    log.lines(25_000, 600);
    log.rotate();
    (log.writer, log.next) = ("newest".to_owned(), 0);
    log.lines(5_000, 600);
    let files = || agent.api("/api/v1/files")["files"].as_array().cloned().unwrap_or_default();
    eventually("both files are open", || files().len() == 2);
    let directory = std::fs::read_dir(&log.directory).unwrap();
    let written: u64 = directory.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    log.delete_pod();
    eventually("the oldest is given up", || agent.log().contains("held_deleted"));
    server.faults().stall.store(false, Ordering::SeqCst);
    eventually("the newest file's lines", || server.count("newest") == 5_000);
    let row = fault.survived_with_losses(&agent, &[(&server, "oldest", 25_000), (&server, "newest", 5_000)]);
    let missing = server.missing("oldest", 25_000);
    assert!(!missing.is_empty() && row.tally.repeated == 0, "{row:?}");
    assert_eq!(row.dropped("held_deleted"), log.bytes_of(&missing), "{row:?}");
    server.assert_complete("newest", 5_000);
    assert_eq!(agent.metric("sidelight_log_source_bytes_read_total"), written as f64);
}

/// Scenario: the receiver takes nothing while a container writes on.
/// Guarantee: the metrics say that lines are late, and how long until the kubelet deletes what is unread; when all is
/// delivered, neither is the case.
#[test]
fn the_metrics_say_how_long_until_unread_lines_are_deleted() {
    let (node, server) = (Node::new(), ForwardServer::start());
    server.faults().stall.store(true, Ordering::SeqCst);
    let kubelet = "  kubelet: { max_size: 10MiB, max_files: 2 }\n";
    let agent =
        Agent::start(BINARY, node.path(), &config(&node, &server, kubelet, "      ack_timeout: 10m\n"));
    let mut log = node.container("a");
    eventually("the end is in sight", || {
        // About 100 kB a second, so that 20 MiB last for some minutes.
        log.lines(2, 1_000);
        (1.0..3_600.0).contains(&agent.metric("sidelight_log_retention_left_seconds"))
    });
    assert!(agent.metric("sidelight_log_oldest_unread_seconds") > 0.0);
    server.faults().stall.store(false, Ordering::SeqCst);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(agent.metric("sidelight_log_retention_left_seconds"), f64::INFINITY);
    assert_eq!(agent.metric("sidelight_log_oldest_unread_seconds"), 0.0);
}
