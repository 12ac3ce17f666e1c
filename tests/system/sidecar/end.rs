//! How a sidecar ends: its files go with it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sidelight_tests::app::Pod;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;

use super::{BINARY, config, start};

/// Scenario: the app of a Job writes its last lines, a panic and half a line among them, into known and new files, one in a new directory, and ends;
/// the kubelet tells the native sidecar to end at once.
/// Guarantee: everything has arrived when it has ended, with 0.
#[test]
fn everything_a_job_has_written_arrives_before_the_sidecar_ends() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let mut log = pod.log("app.log", "app");
    log.lines(1_000, 200);
    let agent = start(&pod, &server, &["*.log*", "late/*.log"]);
    eventually("the first lines", || server.count("app") == 1_000);
    log.lines(10_000, 200);
    log.rotate("app.log.1");
    log.lines(1_000, 200);
    log.raw("thread 'main' (7) panicked at src/main.rs:2:5: seq=panic:0\nstack backtrace:\n");
    let mut last = pod.log("last.log", "last");
    last.lines(100, 200);
    let unfinished = last.numbered(100);
    last.raw(&unfinished);
    // It is looked for once a second.
    std::fs::create_dir(pod.log_path("late")).unwrap();
    pod.log("late/half.log", "half").raw("a line without its end");
    assert_eq!(agent.stop(), 0);
    assert_eq!(server.assert_complete("app", 12_000) + server.assert_complete("last", 101), 0);
    let texts = server.texts();
    for text in [
        "thread 'main' (7) panicked at src/main.rs:2:5: seq=panic:0\nstack backtrace:",
        "a line without its end",
    ] {
        assert!(texts.iter().any(|arrived| arrived == text), "{text}");
    }
}

/// Scenario: SIGTERM while the receiver takes nothing.
/// Guarantee: exit 0 within the grace period.
#[test]
fn it_ends_in_time_when_the_receiver_is_away() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    server.faults().stall.store(true, Ordering::SeqCst);
    let mut log = pod.log("app.log", "app");
    log.lines(4_000, 500);
    let agent = pod.start_with_grace(BINARY, &config(&pod, &server, &["*.log"], ""), "5s");
    eventually("chunks are under way", || agent.metric("sidelight_log_source_bytes_in_flight") > 0.0);
    let told = Instant::now();
    assert_eq!(agent.stop(), 0);
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?}", told.elapsed());
}

/// Scenario: the container is killed while the app writes, and the kubelet starts it again.
/// Guarantee: nothing is lost; what was acknowledged and saved does not come again.
#[test]
fn a_restart_of_the_container_loses_nothing() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let fault = Fault::new("sidecar: kill -9");
    let mut log = pod.log("app.log", "app");
    let agent = fault.watch(start(&pod, &server, &["app.log*"]));
    log.lines(5_000, 200);
    eventually("the first lines", || server.count("app") == 5_000);
    log.rotate("app.log.1");
    log.lines(1_000, 200);
    eventually("all so far", || server.count("app") == 6_000);
    agent.settle();
    let saved = || std::fs::read_to_string(pod.path().join("data/checkpoints")).unwrap_or_default();
    let sizes: Vec<u64> =
        ["app.log.1", "app.log"].map(|name| std::fs::metadata(pod.log_path(name)).unwrap().len()).to_vec();
    eventually("it is saved", || {
        sizes.iter().all(|size| saved().contains(&format!("\"outputs\":{{\"forward\":{size}}}")))
    });
    agent.kill();
    log.lines(5_000, 200);
    let agent = fault.watch(start(&pod, &server, &["app.log*"]));
    log.lines(500, 200);
    eventually("all lines", || server.count("app") == 11_500);
    assert_eq!(fault.survived(&agent, &[(&server, "app", 11_500)]), 0);
}
