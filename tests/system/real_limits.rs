//! Limits of the system that only root can set, a clock that is set, and outages that take their time. Ignored: `.ci/run` runs
//! them, one at a time. What they change is put back.

mod clock;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Log, Node};

use crate::{BINARY, config, start};

/// A small file system. It is unmounted when this goes.
struct SmallDisk(PathBuf);

/// A value below `/proc/sys`. The one before is put back when this goes.
struct Sysctl {
    path: &'static str,
    before: String,
}

// === impl SmallDisk ===

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path));
        SmallDisk(path)
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let written = std::fs::write(self.0.join("fill"), vec![0; 1 << 20]);
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

// === impl Sysctl ===

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Self {
        let before = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, value).unwrap();
        Sysctl { path, before }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(self.path, &self.before);
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Whether the checkpoint has this position.
fn has_saved(data: &Path, acked: u64) -> bool {
    let checkpoint = std::fs::read_to_string(data.join("checkpoints")).unwrap_or_default();
    checkpoint.contains(&format!("\"forward\":{acked}}}"))
}

/// An agent in a user namespace in which `limit`, of `/proc/sys/user`, is low.
fn start_with(limit: &str, node: &Node, server: &ForwardServer) -> Agent {
    let script = format!("echo {limit} && exec \"$@\"");
    let through = ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"];
    Agent::start_through(&through, BINARY, node.path(), &config(node, server, "", "      ack_timeout: 10m\n"))
}

/// Pods write and rotate before and after the start, and come later: all lines arrive, each once.
fn assert_reads_all(fault: &Fault, node: &Node, server: &ForwardServer, agent: &Agent, logs: &mut Vec<Log>) {
    logs.push(node.container("late"));
    for _ in 0..3 {
        for log in logs.iter_mut() {
            log.lines(10, 100);
            log.rotate();
            log.lines(10, 100);
        }
        eventually("all lines", || logs.iter().all(|log| server.count(&log.writer) == log.next));
    }
    let sent: Vec<_> = logs.iter().map(|log| (server, log.writer.as_str(), log.next)).collect();
    assert_eq!(fault.survived(agent, &sent), 0);
}

/// Scenario: the disk with the checkpoints is full for a while, also over kill -9 and a start.
/// Guarantee: lines flow on; after the kill only what the last checkpoint did not know comes twice; as soon as there is
/// room, the positions are saved.
#[test]
#[ignore = "mounts a file system"]
fn a_full_disk_under_the_checkpoints_costs_duplicates_and_nothing_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("checkpoint: the disk is full, kill -9, there is room again");
    let disk = SmallDisk::mount(node.path().join("data"));
    let mut log = node.container("a");
    let size = |log: &Log| std::fs::metadata(log.path()).unwrap().len();
    let agent = fault.watch(start(&node, &server));
    log.lines(1_000, 100);
    eventually("the first checkpoint", || has_saved(&disk.0, size(&log)));
    disk.fill();
    log.lines(1_000, 100);
    eventually("it is said", || agent.log().contains("cannot write checkpoints"));
    eventually("lines flow", || server.count("a") == 2_000);
    agent.kill();
    let agent = fault.watch(start(&node, &server));
    log.lines(1_000, 100);
    eventually("lines flow after the kill", || server.count("a") == 3_000);
    agent.settle();
    disk.free();
    eventually("the positions are saved", || has_saved(&disk.0, size(&log)));
    agent.kill();
    let agent = fault.watch(start(&node, &server));
    log.lines(1_000, 100);
    eventually("all lines", || server.count("a") == 4_000);
    let repeated = fault.survived(&agent, &[(&server, "a", log.next)]);
    assert_eq!(repeated, 1_000, "what was acknowledged while the disk was full");
}

/// Scenario: the kernel gives the agent ten inotify watches, for forty pods.
/// Guarantee: it says so, and every line of every file arrives once.
#[test]
#[ignore = "needs a user namespace"]
fn at_the_limit_of_watches_everything_is_read() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("inotify: the limit of watches is reached");
    let mut logs: Vec<Log> = (0..40).map(|number| node.container(&format!("pod-{number}"))).collect();
    let agent = fault.watch(start_with("10 > /proc/sys/user/max_inotify_watches", &node, &server));
    assert_reads_all(&fault, &node, &server, &agent, &mut logs);
    assert!(agent.metric("sidelight_log_watch_failures_total") > 0.0);
    assert!(agent.log().contains("max_user_watches"));
}

/// Scenario: the kernel gives the agent no inotify instance at all.
/// Guarantee: it says so, and every line of every file arrives once.
#[test]
#[ignore = "needs a user namespace"]
fn without_inotify_everything_is_read() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("inotify: no instance is to be had");
    let mut logs: Vec<Log> = (0..10).map(|number| node.container(&format!("pod-{number}"))).collect();
    let agent = fault.watch(start_with("0 > /proc/sys/user/max_inotify_instances", &node, &server));
    assert_reads_all(&fault, &node, &server, &agent, &mut logs);
    assert!(agent.metric("sidelight_log_watch_failures_total") > 0.0);
}

/// Scenario: inotify queues of 16 events; 200 idle containers are all written to while the agent sleeps.
/// Guarantee: no reader sleeps through a write, and every line arrives once.
#[test]
#[ignore = "sets fs.inotify.max_queued_events"]
fn a_reader_whose_queue_overflows_wakes_all_its_containers() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("inotify: the queue of idle files overflows");
    let queue = Sysctl::set("/proc/sys/fs/inotify/max_queued_events", "16");
    let mut logs: Vec<Log> = (0..200).map(|number| node.container(&format!("pod-{number}"))).collect();
    logs.iter_mut().for_each(|log| log.lines(1, 100));
    let config = config(&node, &server, "", "      ack_timeout: 10m\n");
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    eventually("the first lines", || logs.iter().all(|log| server.count(&log.writer) == 1));
    drop(queue);
    agent.settle();
    for _ in 0..3 {
        // Idle files are armed after a sweep without anything new.
        std::thread::sleep(Duration::from_secs(1));
        agent.signal("STOP");
        logs.iter_mut().for_each(|log| log.lines(1, 100));
        agent.signal("CONT");
        let woken = Instant::now();
        eventually("all lines", || logs.iter().all(|log| server.count(&log.writer) == log.next));
        assert!(woken.elapsed() < Duration::from_secs(40), "the rescan of every minute has found them");
    }
    let sent: Vec<_> = logs.iter().map(|log| (&server, log.writer.as_str(), log.next)).collect();
    assert_eq!(fault.survived(&agent, &sent), 0);
}

/// Scenario: the receiver is away for a minute while a pod writes and rotates and another is deleted.
/// Guarantee: every line arrives once.
#[test]
#[ignore = "takes more than a minute"]
fn a_receiver_that_is_away_for_a_minute_loses_and_repeats_nothing() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("receiver: away for a minute");
    let agent = fault.watch(start(&node, &server));
    let (mut a, mut b) = (node.container("a"), node.container("b"));
    a.lines(1_000, 300);
    eventually("the first lines", || server.count("a") == a.next);
    agent.settle();
    server.stop();
    for second in 0..60 {
        a.lines(2_000, 300);
        if second % 10 == 0 {
            a.rotate();
        }
        if second < 20 {
            b.lines(1_000, 300);
        }
        if second == 30 {
            b.delete_pod();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    server.listen();
    eventually("all lines", || server.count("a") == a.next && server.count("b") == b.next);
    assert_eq!(fault.survived(&agent, &[(&server, "a", a.next), (&server, "b", b.next)]), 0);
}
