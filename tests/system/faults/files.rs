//! Files in numbers and in forms that nobody expects: limits of the kernel are reached, inodes are used again.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::{Fault, Sent};
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Log, Node};

use crate::{BINARY, config, start};

/// All lines of these logs at this server.
fn all<'a>(server: &'a ForwardServer, logs: &'a [Log]) -> Vec<Sent<'a>> {
    logs.iter().map(|log| (server, log.writer.as_str(), log.next)).collect()
}

/// Whether they have arrived.
fn have_arrived(server: &ForwardServer, logs: &[Log]) -> bool {
    let arrived = server.sequences();
    logs.iter().all(|log| arrived.get(&log.writer).map_or(0, |lines| lines.len() as u64) == log.next)
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// Scenario: 5,000 containers with their files appear at once beside a running agent.
/// Guarantee: each line arrives once.
#[test]
fn five_thousand_files_at_once_are_read() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("files: 5,000 appear at once");
    let agent = fault.watch(Agent::start(
        BINARY,
        node.path(),
        &config(&node, &server, "", "      ack_timeout: 10m\n"),
    ));
    eventually("it is ready", || agent.get("/readyz").0 == 200);
    let logs: Vec<Log> = (0..5_000)
        .map(|number| {
            let mut log = node.container(&format!("pod-{number}"));
            log.lines(3, 200);
            log
        })
        .collect();
    eventually("all lines", || have_arrived(&server, &logs));
    assert_eq!(fault.survived(&agent, &all(&server, &logs)), 0);
}

/// Scenario: files without a byte: current, rotated, compressed, of a container that was restarted; later some are
/// written to.
/// Guarantee: they hold nothing up, and what is written later arrives.
#[test]
fn empty_files_hold_nothing_up() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("files: empty ones");
    let (mut a, mut b) = (node.container("a"), node.container("b"));
    a.rotate();
    std::fs::write(a.directory.join("0.log.20260101-999999.gz"), "").unwrap();
    a.restart();
    let agent = fault.watch(start(&node, &server));
    b.lines(10, 100);
    eventually("the other pod's lines", || server.count("b") == 10);
    a.lines(10, 100);
    eventually("its first lines", || server.count("a") == 10);
    let rotated = a.rotate();
    a.rotate();
    a.gzip(&rotated);
    a.lines(10, 100);
    eventually("all lines", || server.count("a") == a.next);
    assert_eq!(agent.get("/livez").0, 200);
    assert_eq!(fault.survived(&agent, &[(&server, "a", a.next), (&server, "b", b.next)]), 0);
}

/// Scenario: while no agent runs, a file's content is replaced in its place, by more than there was: the inode is the same.
/// Guarantee: what is new is read from its first byte; what was unread is counted as lost.
#[test]
fn a_file_replaced_under_the_same_inode_while_no_agent_runs_is_read_from_its_start() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("file: replaced with the same inode number, agent down");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    log.lines(1_000, 200);
    eventually("the lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(agent.stop(), 0);
    let before = inode(&log.path());
    log.truncate();
    log.lines(2_000, 200);
    assert_eq!(inode(&log.path()), before);
    let agent = fault.watch(start(&node, &server));
    eventually("all lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: a container that never wrote is restarted; its file is closed, removed, and a restart later its inode is
/// used again, all between two looks of the agent. File systems that do not use inodes again make this an easy one.
/// Guarantee: the new file is read.
#[test]
fn an_inode_used_again_for_another_restart_is_another_file() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("file: its inode number used again, agent up");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    eventually("it is known", || {
        agent.api("/api/v1/files")["files"].as_array().is_some_and(|files| files.len() == 1)
    });
    let (first, freed) = (log.path(), inode(&log.path()));
    log.restart();
    eventually("the first file is closed", || {
        let files = agent.api("/api/v1/files")["files"].as_array().cloned().unwrap_or_default();
        files.iter().any(|file| file["state"] == "closed")
    });
    agent.signal("STOP");
    std::fs::remove_file(first).unwrap();
    // Where others are free, the file system may take those first.
    (0..200).any(|_| {
        log.restart();
        inode(&log.path()) == freed
    });
    let newest = log.path().display().to_string();
    agent.signal("CONT");
    eventually("the new file is known", || {
        let files = agent.api("/api/v1/files")["files"].as_array().cloned().unwrap_or_default();
        files.iter().any(|file| file["path"] == newest.as_str())
    });
    log.lines(100, 100);
    eventually("its lines", || server.count("a") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", log.next)]), 0);
}

/// Scenario: a file is truncated while the receiver takes nothing, and grows beyond its old size before anybody looks.
/// Guarantee: what is new is read from its first byte; what was unread is counted, to the byte, as far as it was seen.
#[test]
fn a_file_truncated_with_unread_lines_is_counted_and_read_from_its_start() {
    for (beyond, name) in [(false, "and stays short"), (true, "and outgrows what it was")] {
        let (node, server) = (Node::new(), ForwardServer::start());
        let fault = Fault::new(&format!("file: truncated with an unread backlog, {name}"));
        server.faults().stall.store(true, Ordering::SeqCst);
        let config = config(&node, &server, "", "      ack_timeout: 10m\n      compress: none\n")
            .replace("workers: 2\n", "workers: 1\nmemory_budget: 3MiB\n");
        let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
        let mut log = node.container("a");
        log.lines(20_000, 600);
        let size = std::fs::metadata(log.path()).unwrap().len();
        eventually("the agent has seen it and can read no more", || {
            let file = agent.api("/api/v1/files")["files"][0].clone();
            file["size"] == size && agent.metric("sidelight_memory_used_bytes") == f64::from(2 << 20)
        });
        log.truncate();
        log.lines(if beyond { 25_000 } else { 300 }, 600);
        server.faults().stall.store(false, Ordering::SeqCst);
        eventually("the new lines", || server.missing("a", log.next).iter().all(|number| *number < 20_000));
        let row = fault.survived_with_losses(&agent, &[(&server, "a", log.next)]);
        let missing = log.bytes_of(&server.missing("a", log.next));
        assert!(missing > 0 && row.tally.repeated == 0, "{row:?}");
        assert_eq!(row.dropped.len(), 1, "{row:?}");
        if beyond {
            // The size that was seen last may be that of the new content.
            assert!(row.dropped("lost_unlinked") >= missing, "{missing} bytes are missing: {row:?}");
        } else {
            assert_eq!(row.dropped("lost_unlinked"), missing, "{row:?}");
        }
    }
}

/// Scenario: the agent sleeps while more happens in the tree than the kernel's queue holds: pods come, files rotate.
/// Guarantee: the overflow is noticed and counted, and every line arrives once.
#[test]
fn an_overflow_of_the_inotify_queue_costs_time_and_nothing_else() {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("inotify: the queue overflows");
    let mut old = node.container("old");
    old.lines(100, 100);
    let agent = fault.watch(Agent::start(
        BINARY,
        node.path(),
        &config(&node, &server, "", "      ack_timeout: 10m\n"),
    ));
    eventually("the first lines", || server.count("old") == 100);
    agent.signal("STOP");
    // Each renaming is two events.
    let names = ["junk", "knuj"].map(|name| old.directory.join(name));
    std::fs::write(&names[0], "").unwrap();
    for number in 0..limit as usize {
        std::fs::rename(&names[number % 2], &names[(number + 1) % 2]).unwrap();
    }
    old.rotate();
    old.lines(100, 100);
    let mut new = node.container("new");
    new.lines(100, 100);
    agent.signal("CONT");
    eventually("all lines", || server.count("old") == 200 && server.count("new") == 100);
    new.lines(100, 100);
    old.rotate();
    old.lines(100, 100);
    eventually("all new lines", || server.count("old") == old.next && server.count("new") == new.next);
    assert!(agent.metric("sidelight_log_watch_failures_total") > 0.0, "there was no overflow");
    assert_eq!(fault.survived(&agent, &[(&server, "old", old.next), (&server, "new", new.next)]), 0);
}

/// Scenario: the process may have 100 open files, there are 150 containers, and the receiver goes away and comes back.
/// Guarantee: what can be opened is delivered, positions are saved, the agent answers; it says which files it cannot
/// open, and reads them as soon as others are gone.
#[test]
fn at_the_limit_of_open_files_the_rest_goes_on() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("descriptors: the limit of open files is reached");
    let mut logs: Vec<Log> = (0..150).map(|number| node.container(&format!("pod-{number}"))).collect();
    logs.iter_mut().for_each(|log| log.lines(10, 100));
    let config = config(&node, &server, "", "      ack_timeout: 10m\n");
    let limit = &["prlimit", "--nofile=100:100"];
    let agent = fault.watch(Agent::start_through(limit, BINARY, node.path(), &config));
    let arrived = |server: &ForwardServer| server.sequences().into_keys().collect::<Vec<_>>();
    eventually("what can be opened", || arrived(&server).len() >= 30);
    eventually("they are settled", || agent.metric("sidelight_log_source_bytes_in_flight") == 0.0);
    server.stop();
    eventually("the outage is seen", || agent.output("forward")["up"] == false);
    let opened = arrived(&server);
    logs.iter_mut().for_each(|log| log.lines(10, 100));
    server.listen();
    eventually("the new lines of what is open", || opened.iter().all(|pod| server.count(pod) == 20));
    eventually("the positions", || node.path().join("data/checkpoints").exists());
    let unopened = logs.iter().find(|log| server.count(&log.writer) == 0).unwrap();
    let explained = agent.explain(&format!("ns/{}", unopened.writer));
    assert!(explained["reason"].as_str().unwrap().contains("cannot open"), "{explained}");
    assert_eq!(agent.get("/livez").0, 200);
    agent.settle();
    while !have_arrived(&server, &logs) {
        let done = |log: &&Log| server.count(&log.writer) == log.next && log.directory.exists();
        let before = arrived(&server).len();
        logs.iter().filter(done).for_each(Log::delete_pod);
        eventually("others take their places", || {
            arrived(&server).len() > before || have_arrived(&server, &logs)
        });
        eventually("their lines", || arrived(&server).iter().all(|pod| server.count(pod) == 20));
    }
    assert_eq!(fault.survived(&agent, &all(&server, &logs)), 0);
}
