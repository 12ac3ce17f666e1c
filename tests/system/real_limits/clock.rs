//! The clock of the whole program is set, by Debian's libfaketime between it and libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::BINARY;
use crate::metrics::{ASKS, config, series, serving};
use crate::remote_write::assert_no_gap;

const HOUR: i64 = 3_600;

/// The clock of an agent, apart from everybody else's.
struct Clock {
    /// What libfaketime reads whenever the time is asked for: seconds to add.
    offset: PathBuf,
}

// === impl Clock ===

impl Clock {
    fn new(directory: &Path) -> Self {
        let clock = Clock { offset: directory.join("clock") };
        clock.set(0);
        clock
    }

    /// From now on it is so many seconds ahead.
    fn set(&self, seconds: i64) {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, &self.offset).unwrap();
    }

    /// Only the clock that can be set is another one: not the monotonic one, and not the times of files.
    fn start(&self, directory: &Path, config: &str) -> Agent {
        let library = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
        let library =
            library.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists());
        let library = library.expect("libfaketime of Debian").display().to_string();
        let settings = [
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.offset.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ];
        let command: Vec<&str> = std::iter::once("env").chain(settings.iter().map(String::as_str)).collect();
        Agent::start_through(&command, BINARY, directory, config)
    }
}

fn now() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

/// Scenario: while lines and samples flow, the clock is set an hour ahead, two hours back and right again; and once more
/// while both receivers are away.
/// Guarantee: each line arrives once, groups of lines end, each scrape arrives once with times that rise, nothing is dropped, and
/// the program goes on as if nothing had been.
#[test]
#[ignore = "needs libfaketime"]
fn a_clock_that_is_set_loses_neither_lines_nor_samples() {
    let (node, samples, mut lines) = (Node::new(), RemoteWriteServer::start(), ForwardServer::start());
    let exporter = Exporter::start("a {scrape}\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let mut log = node.container("web");
    let stdout = "outputs: [ { stdout: {} } ]";
    let forward = format!(
        "multiline: rust, outputs: [ {{ forward: {{ upstreams: ['{}'], flush_interval: 50ms }} }} ]",
        lines.address()
    );
    let config = config(&node, &samples, "interval: 1s, timeout: 1s", "").replace(stdout, &forward);
    let clock = Clock::new(node.path());
    let fault = Fault::new("clock: set ahead, back and right; again with both receivers away");
    let agent = fault.watch(clock.start(node.path(), &config));
    let a = series("a", "web", &exporter, "");

    let mut panics = 0;
    for away in [false, true] {
        for hours in [0, 1, -1, 0] {
            clock.set(hours * HOUR);
            samples.be_away(away && hours != 0);
            if away && hours == 1 {
                lines.stop();
            } else if away && hours == 0 && !lines.is_listening() {
                lines.listen();
            }
            panics += 1;
            log.line("stderr", &format!("thread 'main' ({panics}) panicked at src/main.rs:1:1:"));
            log.line("stderr", "what went wrong");
            log.lines(100, 80);
            let scrapes = exporter.scrapes();
            eventually("scrapes go on", || exporter.scrapes() >= scrapes + 3);
        }
    }
    let is_panic = |text: &String| text.starts_with("thread 'main'") && text.ends_with("\nwhat went wrong");
    eventually("all lines", || lines.count("web") == log.next);
    eventually("all groups", || lines.texts().iter().filter(|text| is_panic(text)).count() == panics);
    let last = exporter.scrapes() as f64;
    eventually("all samples", || samples.value(&a).is_some_and(|value| value >= last));
    fault.survived(&agent, &[(&lines, "web", log.next)]);

    let received = samples.samples(&a);
    assert_eq!(received[0].value, Some(1.0));
    assert_no_gap(&received);
    let ahead = received.iter().map(|sample| sample.timestamp / 1_000 - now()).max().unwrap();
    assert!(ahead > HOUR - 300, "the clock was not set: {ahead} s ahead");
    samples.assert_clean();
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
    assert_eq!(agent.get("/livez").0, 200);
    assert_eq!(agent.stop(), 0);
}
