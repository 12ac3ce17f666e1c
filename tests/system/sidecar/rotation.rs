//! Files that are renamed, copied and truncated, deleted: read on, each line once; and what is lost is counted.

use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::app::Pod;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;

use super::{BINARY, config, start};

/// With so little memory that it is soon used up when nothing is delivered.
fn start_small(pod: &Pod, server: &ForwardServer, glob: &str) -> Agent {
    let config = config(pod, server, &[glob], "");
    let small = config.replace("      ack_timeout", "      chunk_bytes: 64KiB\n      ack_timeout");
    pod.start(BINARY, &(small + "memory_budget: 1MiB\n"))
}

/// Scenario: a file is renamed thirty times back to back while it is written; the globs mean the old names as well, or not.
/// Guarantee: nothing is lost, nothing comes twice, and the lines of a file come before those of the next.
#[test]
fn renamed_files_are_read_to_their_ends_and_once() {
    for glob in ["app.log", "app.log*"] {
        let (pod, server) = (Pod::new(), ForwardServer::start());
        let fault = Fault::new(&format!("sidecar: renamed 30 times, {glob}"));
        let mut log = pod.log("app.log", "app");
        let agent = fault.watch(start(&pod, &server, &[glob]));
        for round in 0..30 {
            // Every file begins with the same line.
            log.raw("a banner\n");
            log.lines(200, 200);
            // Unseen under its name, it could be any file.
            eventually("it is seen", || server.has("app", log.next - 200));
            for older in (1..=round).rev() {
                let path = |number: u64| pod.log_path(&format!("app.log.{number}"));
                std::fs::rename(path(older), path(older + 1)).unwrap();
            }
            log.rotate("app.log.1");
        }
        log.lines(10, 200);
        eventually("all lines", || server.count("app") == log.next);
        assert_eq!(fault.survived(&agent, &[(&server, "app", log.next)]), 0, "{glob}");
        let banners = server.texts().iter().filter(|text| *text == "a banner").count();
        assert_eq!(banners, 30, "{glob}");
        let numbers: Vec<u64> = server.texts().iter().filter_map(|text| number(text)).collect();
        assert!(numbers.is_sorted(), "{glob}");
    }
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("seq=app:")?.split(' ').next()?.parse().ok()
}

/// Scenario: an app writes for a while into the file that was renamed, since it has it open.
/// Guarantee: what it writes there is read.
#[test]
fn what_is_written_behind_a_rename_is_read() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let mut old = pod.log("app.log", "old");
    let agent = start(&pod, &server, &["app.log"]);
    old.lines(10, 100);
    eventually("the first lines", || server.count("old") == 10);
    std::fs::rename(pod.log_path("app.log"), pod.log_path("app.log.1")).unwrap();
    old.lines(10, 100);
    let mut new = pod.log("app.log", "new");
    new.lines(10, 100);
    eventually("the new lines", || server.count("old") == 20 && server.count("new") == 10);
    agent.settle();
    old.lines(10, 100);
    eventually("all lines", || server.count("old") == 30 && server.count("new") == 10);
    agent.settle();
    assert_eq!(server.assert_complete("old", 30) + server.assert_complete("new", 10), 0);
}

/// Scenario: copytruncate, again and again, all that was there before delivered; the glob means the copies as well, or not.
/// Guarantee: what follows is read from the start, copies are not read again: nothing is lost, nothing comes twice.
#[test]
fn a_truncated_file_is_read_from_its_start_and_its_copy_not_again() {
    for glob in ["app.log", "app.log*"] {
        let (pod, server) = (Pod::new(), ForwardServer::start());
        let fault = Fault::new(&format!("sidecar: copytruncate, all of it delivered, {glob}"));
        let mut log = pod.log("app.log", "app");
        let agent = fault.watch(start(&pod, &server, &[glob]));
        for round in 0..5 {
            log.lines(500, 200);
            eventually("the lines", || server.count("app") == log.next);
            log.copy(&format!("app.log-{round}"));
            log.truncate();
        }
        log.lines(10, 200);
        eventually("all lines", || server.count("app") == log.next);
        assert_eq!(fault.survived(&agent, &[(&server, "app", log.next)]), 0, "{glob}");
    }
}

/// Scenario: copytruncate while the receiver is away and nothing is delivered.
/// Guarantee: where the globs mean the copy, it is read in the file's place and nothing is lost; where they do not, what was
/// unread is counted to the byte.
#[test]
fn what_was_unread_when_a_file_was_truncated_is_read_from_its_copy_or_counted() {
    for (glob, kept) in [("app.log*", true), ("app.log", false)] {
        let (pod, mut server) = (Pod::new(), ForwardServer::start());
        let fault = Fault::new(&format!("sidecar: copytruncate with a backlog, {glob}"));
        let mut log = pod.log("app.log", "app");
        let agent = fault.watch(start_small(&pod, &server, glob));
        server.stop();
        // More than fits into memory.
        log.lines(4_000, 500);
        let size = std::fs::metadata(pod.log_path("app.log")).unwrap().len();
        eventually("it is seen", || agent.metric("sidelight_log_lag_bytes") == size as f64);
        log.copy("app.log.1");
        log.truncate();
        let before = log.next;
        log.lines(10, 500);
        eventually("it was noticed", || agent.log().contains("was truncated"));
        server.listen();
        eventually("the new lines", || server.has("app", log.next - 1));
        let row = fault.survived_with_losses(&agent, &[(&server, "app", log.next)]);
        let missing = server.missing("app", log.next);
        assert_eq!(missing.is_empty(), kept, "{glob}: {row:?}");
        assert!(missing.iter().all(|number| *number < before));
        assert_eq!(row.dropped("lost_unlinked"), missing.len() as u64 * 501, "{glob}: {row:?}");
        assert_eq!(row.tally.repeated, 0, "{glob}");
    }
}

/// Scenario: copytruncate three times while nothing is delivered; each time the file begins with the same line and grows beyond
/// what it was.
/// Guarantee: each copy is read in the place of what it is a copy of: nothing is lost, nothing comes twice.
#[test]
fn files_that_were_truncated_several_times_in_an_outage_are_read_from_their_copies() {
    let (pod, mut server) = (Pod::new(), ForwardServer::start());
    let fault = Fault::new("sidecar: copytruncate three times, receiver away");
    let mut log = pod.log("app.log", "app");
    let agent = fault.watch(start_small(&pod, &server, "app.log*"));
    log.raw("a banner\n");
    log.lines(100, 200);
    eventually("the first lines", || server.count("app") == 100);
    server.stop();
    for round in 1..=3 {
        log.lines(4_000 * round, 200);
        for older in (1..round).rev() {
            let path = |number: u64| pod.log_path(&format!("app.log.{number}"));
            std::fs::rename(path(older), path(older + 1)).unwrap();
        }
        log.copy("app.log.1");
        log.truncate();
        let noticed = || agent.log().matches("was truncated").count() as u64;
        eventually("it was noticed", || noticed() == round);
        log.raw("a banner\n");
    }
    log.lines(100, 200);
    server.listen();
    eventually("all lines", || server.count("app") == log.next);
    assert_eq!(fault.survived(&agent, &[(&server, "app", log.next)]), 0);
    assert_eq!(agent.metric("sidelight_log_source_bytes_dropped_total"), 0.0);
}

/// Scenario: a file is deleted with a backlog in it, and the app writes on into it; later there is another under its name.
/// Of another one there is no successor.
/// Guarantee: all of them arrives, and none is held for longer than it must.
#[test]
fn a_deleted_file_is_read_to_its_end() {
    let (pod, mut server) = (Pod::new(), ForwardServer::start());
    let fault = Fault::new("sidecar: deleted with a backlog");
    let mut old = pod.log("app.log", "old");
    let mut only = pod.log("only.log", "only");
    let agent = fault.watch(start(&pod, &server, &["*.log"]));
    eventually("they are open", || agent.metric("sidelight_log_files") == 2.0);
    server.stop();
    only.lines(100, 200);
    only.delete();
    old.lines(1_000, 200);
    old.delete();
    old.lines(1_000, 200);
    std::thread::sleep(Duration::from_millis(300));
    let mut new = pod.log("app.log", "new");
    new.lines(100, 200);
    server.listen();
    eventually("all lines", || server.count("old") == 2_000 && server.count("new") == 100);
    let sent = [(&server, "old", 2_000), (&server, "new", 100), (&server, "only", 100)];
    assert_eq!(fault.survived(&agent, &sent), 0);
    eventually("the deleted ones are closed", || {
        agent.get("/metrics").1.contains("sidelight_log_files{state=\"deleted\"} 0")
    });
}

/// Scenario: files of which each begins with the same line are renamed and truncated while no sidecar runs.
/// Guarantee: each is read on where it was, or from its start where it is another one.
#[test]
fn files_with_the_same_first_line_are_told_apart_over_a_restart() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let fault = Fault::new("sidecar: renamed and truncated while it is down");
    let config = config(&pod, &server, &["*.log*"], "");
    let mut logs = ["a", "b"].map(|name| pod.log(&format!("{name}.log"), name));
    let agent = fault.watch(pod.start(BINARY, &config));
    for log in &mut logs {
        log.raw("a banner\n");
        log.lines(500, 200);
    }
    eventually("the lines", || server.count("a") == 500 && server.count("b") == 500);
    agent.settle();
    assert_eq!(agent.stop(), 0);
    let [a, b] = &mut logs;
    a.lines(100, 200);
    a.rotate("a.log.1");
    b.lines(100, 200);
    b.copy("b.log.1");
    b.truncate();
    for log in [&mut *a, &mut *b] {
        log.raw("a banner\n");
        log.lines(50, 200);
    }
    let agent = fault.watch(pod.start(BINARY, &config));
    eventually("all lines", || server.count("a") == 650 && server.count("b") == 650);
    let row = fault.survived_with_losses(&agent, &[(&server, "a", 650), (&server, "b", 650)]);
    assert_eq!(row.tally.repeated, 0, "{row:?}");
}
