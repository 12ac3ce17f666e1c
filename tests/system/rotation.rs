//! Files that are renamed, compressed, truncated, replaced: read on, each line once.

use std::sync::atomic::Ordering;
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

/// Scenario: a group of lines is open on standard error; on standard output a line goes on in the next file, and others
/// follow. kill -9, when all that is saved.
/// Guarantee: what is read again for the group's sake joins nothing else on the other stream, and repeats none of it.
#[test]
fn a_record_open_on_one_stream_repeats_and_damages_nothing_of_the_other() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault =
        Fault::new("rotation: a group open on one stream, lines of the other over two files, kill -9");
    let mut log = node.container("a");
    let agent = fault.watch(start(&node, &server));
    log.line("stderr", "thread 'main' (7) panicked at src/main.rs:2:5: seq=panic:0");
    log.line("stderr", "stack backtrace:");
    log.piece("stdout", true, b"seq=out:0 begun ");
    log.rotate();
    log.piece("stdout", false, b"and ended");
    log.lines(20, 100);
    eventually("the second file is saved as read", || {
        // The group grows, so that it stays open.
        log.line("stderr", "   0: app::main");
        node.saved_files().iter().any(|file| file["outputs"]["forward"] != 0)
    });
    agent.kill();
    log.lines(20, 100);
    let agent = fault.watch(start(&node, &server));

    eventually("all records", || server.count("a") == log.next && server.count("panic") == 1);
    let repeated = fault.survived(&agent, &[(&server, "a", log.next), (&server, "panic", 1)]);
    assert_eq!(repeated, 0);
    let received = server.received();
    let texts = received.iter().filter_map(|received| received.record["log"].as_str());
    let outs: Vec<&str> = texts.filter(|text| text.contains("begun") || text.contains("ended")).collect();
    assert_eq!(outs, ["seq=out:0 begun and ended"]);
}

/// Scenario: a container is started again, and begins a line in its new file; the old one is still open.
/// Guarantee: the line stays open until it is ended.
#[test]
fn a_line_open_in_a_restarted_container_is_joined() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    log.lines(1, 100);
    eventually("it is read", || server.count("a") == 1);
    log.restart();
    log.piece("stdout", true, b"begun ");
    for passes in 0..5 {
        log.line("stderr", &format!("seq=pass:{passes}"));
        eventually("the other stream is read", || server.count("pass") == passes + 1);
    }
    log.piece("stdout", false, b"and ended");
    log.lines(1, 100);
    eventually("the newest line", || server.count("a") == 2);
    agent.settle();
    let received = server.received();
    let mut texts = received.iter().filter_map(|received| received.record["log"].as_str());
    assert!(texts.any(|text| text == "begun and ended"));
}

/// Scenario: a line is begun at the end of a file; while the agent is frozen, the file that has its rest comes and goes.
/// Guarantee: what was begun is sent and marked as cut, and joins nothing.
#[test]
fn a_line_of_which_the_rest_was_never_seen_joins_nothing() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    log.lines(1, 100);
    log.piece("stdout", true, b"begun ");
    eventually("it is read", || server.count("a") == 1);
    agent.signal("STOP");
    let oldest = log.rotate();
    log.piece("stdout", false, b"and ended");
    let unseen = log.rotate();
    [oldest, unseen].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    log.lines(1, 100);
    agent.signal("CONT");
    eventually("the newest line", || server.count("a") == 2);
    agent.settle();
    let received = server.received();
    let begun = received.iter().find(|received| received.record["log"].as_str() == Some("begun "));
    assert_eq!(begun.map(|received| received.record["sidelight"]["truncated"].as_bool()), Some(Some(true)));
    assert_eq!(received.len(), 3);
}

/// Scenario: a pod has an unread backlog when the agent is stopped, and is deleted while no agent runs. The agent that
/// finds out is killed.
/// Guarantee: what is lost is counted, to the byte, and once.
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
    eventually("and saved", || node.saved_files().is_empty());
    fault.look(&agent);
    agent.kill();
    let agent = fault.watch(start(&node, &server));
    eventually("it is ready", || agent.get("/readyz").0 == 200);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", log.next)]);
    let missing = server.missing("a", log.next);
    assert_eq!(missing, (100..200).collect::<Vec<_>>());
    assert_eq!(row.dropped("lost_unlinked"), log.bytes_of(&missing), "{row:?}");
}

/// Scenario: two pods lose their logs while no agent runs. In one there is now a FIFO with the name of a log, in the
/// other a link that leads nowhere; later that is gone.
/// Guarantee: the loss is counted where everything there is was seen, and in the other pod once everything was. Each is
/// saved, so that no further start counts it again.
#[test]
fn what_cannot_be_opened_in_one_pod_hides_no_loss_of_another() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let config = config(&node, &server, "", "");
    server.stop();
    let mut logs = [node.container("a"), node.container("b")];
    let agent = Agent::start_with_grace(BINARY, node.path(), &config, "1s");
    logs.iter_mut().for_each(|log| log.lines(100, 100));
    let sizes = [0, 1].map(|pod: usize| std::fs::metadata(logs[pod].path()).unwrap().len());
    eventually("they are seen", || agent.metric("sidelight_log_lag_bytes") == (sizes[0] + sizes[1]) as f64);
    assert_eq!(agent.stop(), 0);
    assert_eq!(node.saved_files().len(), 2, "{:?} of {sizes:?}", node.saved_files());
    logs.iter().for_each(|log| std::fs::remove_file(log.path()).unwrap());
    let fifo = logs[0].directory.join("1.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let link = logs[1].directory.join("1.log");
    std::os::unix::fs::symlink("/var/lib/docker/containers/none/none.log", &link).unwrap();
    let agent = Agent::start(BINARY, node.path(), &config);
    let lost = || agent.metric("sidelight_log_source_bytes_dropped_total");
    eventually("the loss in one pod", || lost() == sizes[0] as f64);
    eventually("it is saved", || node.saved_files().len() == 1);
    std::fs::remove_file(&link).unwrap();
    eventually("that in the other, with the next rescan", || lost() == (sizes[0] + sizes[1]) as f64);
    eventually("it is saved as well", || node.saved_files().is_empty());
}

/// Scenario: a log cannot be opened, so that its loss is held back; `logs.root` goes away and comes back, as a mount does;
/// then the log can be opened.
/// Guarantee: nothing is counted as lost, and nothing is.
#[test]
fn what_is_held_back_is_not_lost_while_the_root_is_away() {
    let (node, mut server) = (Node::new(), ForwardServer::start());
    let config = config(&node, &server, "", "");
    server.stop();
    let mut log = node.container("a");
    log.lines(100, 100);
    let agent = Agent::start_with_grace(BINARY, node.path(), &config, "1s");
    eventually("it is seen", || agent.metric("sidelight_log_lag_bytes") > 0.0);
    assert_eq!(agent.stop(), 0);
    let (root, away, aside) = (node.path().join("pods"), node.path().join("away"), node.path().join("aside"));
    std::fs::rename(log.path(), &aside).unwrap();
    std::os::unix::fs::symlink("/var/lib/docker/containers/none/none.log", log.path()).unwrap();
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("everything is listed", || agent.get("/readyz").0 == 200);
    std::fs::rename(&root, &away).unwrap();
    eventually("it is missed", || agent.log().contains("cannot open logs.root"));
    // It lists what there is once a second.
    std::thread::sleep(Duration::from_secs(3));
    std::fs::rename(&away, &root).unwrap();
    std::fs::rename(&aside, log.path()).unwrap();
    server.listen();
    eventually("every line", || server.count("a") == log.next);
    assert_eq!(agent.metric("sidelight_log_source_bytes_dropped_total"), 0.0);
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
    eventually("its size is saved", || node.saved_files().iter().any(|file| file["size"] == size));
    agent.kill();
    log.delete_pod();
    server.listen();
    let agent = fault.watch(start(&node, &server));
    eventually("the loss is counted", || agent.metric("sidelight_log_source_bytes_dropped_total") > 0.0);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", log.next)]);
    assert_eq!((row.tally.delivered, row.dropped("lost_unlinked")), (0, size), "{row:?}");
}

/// Scenario: the receiver stalls, and the memory is full; then another container begins to write.
/// Guarantee: how much it has written is saved, although no reader has come to it yet: it could be lost any time.
#[test]
fn a_file_that_no_reader_has_come_to_is_in_the_checkpoints() {
    let (node, server) = (Node::new(), ForwardServer::start());
    server.faults().stall.store(true, Ordering::SeqCst);
    let config = config(
        &node,
        &server,
        "",
        "      ack_timeout: 10m\n      chunk_bytes: 64KiB\n      compress: none\n",
    )
    .replace("workers: 2\n", "workers: 1\nmemory_budget: 1MiB\n");
    let agent = Agent::start(BINARY, node.path(), &config);
    node.container("full").lines(20_000, 500);
    eventually("the memory is full", || agent.metric("sidelight_memory_used_bytes") > 900_000.0);
    let mut log = node.container("new");
    eventually("the empty file is open", || agent.api("/api/v1/files").to_string().contains("\"new\""));
    log.lines(10, 100);
    let size = std::fs::metadata(log.path()).unwrap().len();
    eventually("its size is saved", || node.saved_files().iter().any(|file| file["size"] == size));
}
