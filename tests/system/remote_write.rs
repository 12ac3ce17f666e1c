//! Remote write: both versions of the protocol, and what waits for a receiver that is away.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::Answer;
use sidelight_tests::kubelet::Node;
use sidelight_tests::remote_write_server::{Exemplar, Metadata, RemoteWriteServer, Sample};

use crate::BINARY;
use crate::metrics::{ASKS, config, series, serving, start, start_with};

const EVERY_SECOND: &str = "interval: 1s, timeout: 1s, containers: false";

/// Whose newest request was in this version.
fn speaks(server: &RemoteWriteServer, version: &str) -> bool {
    server.header("x-prometheus-remote-write-version").as_deref() == Some(version)
}

/// Scenario: a page with everything that OpenMetrics knows.
/// Guarantee: kind, help and unit, exemplars, and when counters began arrive with the samples.
#[test]
fn what_a_page_says_beside_its_samples_arrives_with_them() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start(
        "# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n# HELP wait_seconds How long\\nthey wait.\n\
         wait_seconds_bucket{le=\"1.0\"} 7 # {trace_id=\"abc\"} 0.5 1700000000.25\nwait_seconds_bucket{le=\"+Inf\"} 9\n\
         wait_seconds_count 9\nwait_seconds_sum 3\nwait_seconds_created 1600000000.5\n# TYPE plain gauge\nplain 1\n# EOF\n",
    );
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let _agent = start(&node, &server);
    let of = |name: &str, own: &str| series(name, "web", &exporter, "").replace("job", &format!("{own}job"));
    let plain = of("plain", "");
    eventually("a sample", || server.value(&plain) == Some(1.0));
    assert!(speaks(&server, "2.0.0"));
    let metadata =
        |kind, help: &str, unit: &str| Metadata { kind, help: help.to_owned(), unit: unit.to_owned() };
    assert_eq!(server.metadata(&plain), metadata(2, "", ""));
    assert_eq!(server.metadata(&of("up", "")), metadata(2, "", ""));
    let [sum, bucket] = [of("wait_seconds_sum", ""), series("wait_seconds_bucket", "web", &exporter, "")];
    assert_eq!(server.metadata(&sum), metadata(3, "How long\nthey wait.", "seconds"));
    assert_eq!(server.samples(&sum)[0].start, Some(1_600_000_000_500));
    assert_eq!(server.samples(&plain)[0].start, None);
    let bucket = bucket.replace("namespace", "le=\"1.0\",namespace");
    let exemplar = Exemplar {
        labels: vec![("trace_id".to_owned(), "abc".to_owned())],
        value: 0.5,
        timestamp: 1_700_000_000_250,
    };
    assert_eq!(server.exemplar(&bucket), Some(exemplar));
    assert_eq!((server.value(&bucket), server.exemplar(&sum)), (Some(7.0), None));
}

/// `MetricFamily` of the histogram `wait` with two observations in each of two native buckets, and a gauge, each behind its
/// length (`io/prometheus/client/metrics.proto`).
fn page_in_protobuf() -> Vec<u8> {
    let double = |value: f64| value.to_le_bytes();
    let histogram = [
        &[0x08, 4, 0x11][..],
        &double(2.5),
        &[0x28, 6, 0x31],
        &double(0.001),
        // A span of two buckets, and their deltas.
        &[0x62, 4, 0x08, 0, 0x10, 2, 0x6a, 2, 4, 0],
    ]
    .concat();
    let metric = [&[0x3a, histogram.len() as u8][..], &histogram].concat();
    let family = [&b"\x0a\x04wait\x18\x04"[..], &[0x22, metric.len() as u8], &metric].concat();
    let gauge = [&b"\x0a\x01g\x18\x01\x22\x0b\x12\x09\x09"[..], &double(7.0)].concat();
    [&[family.len() as u8][..], &family, &[gauge.len() as u8], &gauge].concat()
}

/// Scenario: a page in protobuf with a native histogram, with and without a receiver that knows such.
/// Guarantee: it arrives as it is by 2.0; by 1.0 it is counted as dropped, and the rest arrives.
#[test]
fn a_native_histogram_arrives_where_the_receiver_knows_it() {
    for (refusal, is_known) in [(None, true), (Some(Answer::status(415)), false)] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        server.refuse(refusal);
        let exporter = Exporter::start("");
        let content_type =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        let headers = vec![("content-type", content_type.to_owned())];
        exporter.answer(Answer { headers, body: page_in_protobuf(), ..Answer::status(200) });
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let agent = start_with(&node, &server, &format!("{EVERY_SECOND}, native_histograms: true"));
        let [wait, gauge] = ["wait", "g"].map(|name| series(name, "web", &exporter, ""));
        eventually("a scrape", || !server.samples(&gauge).is_empty());
        assert_eq!(server.samples(&gauge)[0].value, Some(7.0));
        let dropped = || agent.output("remote_write")["dropped"]["unsupported"].as_u64();
        if is_known {
            let histogram = server.histogram(&wait).unwrap();
            assert_eq!((histogram.count, histogram.sum, histogram.positive_deltas), (4, 2.5, vec![2, 0]));
            assert_eq!((dropped(), server.value(&gauge)), (None, Some(7.0)));
        } else {
            assert_eq!((server.histogram(&wait), dropped()), (None, Some(1)));
            // Nobody asks for protobuf any more, and this exporter serves nothing else.
            let error = || agent.api("/api/v1/targets")["targets"][0]["last_error"].to_string();
            eventually("it says so", || error().contains("protobuf, which was not asked for"));
        }
    }
}

/// Scenario: a receiver of the older version: it refuses the newer one by its type, takes the request and says nothing, or
/// cannot read it.
/// Guarantee: the same samples come in the older version, none is missing, and the agent stays with it.
#[test]
fn a_receiver_that_does_not_know_the_newer_version_gets_the_older_one() {
    for refusal in [415, 204, 400] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        server.refuse([Answer::status(refusal)]);
        let exporter = Exporter::start("# TYPE a counter\na 1\n");
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let agent = start(&node, &server);
        let a = series("a", "web", &exporter, "");
        eventually("three scrapes", || server.samples(&a).len() >= 3);
        assert!(speaks(&server, "0.1.0"));
        assert_eq!(agent.metric("sidelight_remote_write_fallbacks_total"), 1.0);
        assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
        assert!(exporter.scrapes() - server.samples(&a).len() as u64 <= 1, "the first has arrived as well");
    }
}

/// Scenario: the config names a version.
/// Guarantee: it is spoken, and no other one: what a receiver does not know is rejected and counted.
#[test]
fn a_version_that_is_named_is_spoken() {
    for (version, header) in [("1.0", "0.1.0"), ("2.0", "2.0.0")] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        server.refuse([Answer::status(415)]);
        let exporter = Exporter::start("a 1\n");
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let config = config(&node, &server, EVERY_SECOND, &format!(", protocol: {version}"));
        let agent = Agent::start(BINARY, node.path(), &config);
        let a = series("a", "web", &exporter, "");
        eventually("samples", || server.samples(&a).len() >= 2);
        assert!(speaks(&server, header));
        assert!(agent.metric("sidelight_remote_write_dropped_samples_total") >= 6.0);
        assert_eq!(agent.metric("sidelight_remote_write_fallbacks_total"), 0.0);
    }
}

/// Scenario: a receiver of the newer version takes a part of a request, and says so with a success or with 400.
/// Guarantee: what it has not written is counted, with its words in the log, and not sent again.
#[test]
fn what_a_receiver_has_not_written_is_counted() {
    [200, 400].into_iter().for_each(a_part_is_not_written);
}

fn a_part_is_not_written(status: u16) {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\nb 2\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let headers = vec![("X-Prometheus-Remote-Write-Samples-Written", "5".to_owned())];
    server.refuse([Answer { headers, body: b"two are odd".to_vec(), ..Answer::status(status) }]);
    let agent = start_with(&node, &server, EVERY_SECOND);
    eventually("the next request", || server.requests() >= 2);
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 2.0);
    assert_eq!(agent.metric("sidelight_remote_write_retries_total"), 0.0);
    assert!(agent.log().contains("two are odd"));
}

/// Of a series whose value is the number of the scrape: none is missing, none came twice, and times rise.
pub(crate) fn assert_no_gap(samples: &[Sample]) {
    for pair in samples.windows(2) {
        let [before, next] = [pair[0], pair[1]];
        assert_eq!(next.value, before.value.map(|number| number + 1.0), "{pair:?}");
        assert!(next.timestamp > before.timestamp, "{pair:?}");
    }
}

/// Scenario: the receiver is away; the agent is killed, and started again; then the receiver is back.
/// Guarantee: what waited on disk arrives, in its order and before what is newer; the samples of the outage are all there.
#[test]
fn what_waits_for_a_receiver_survives_kill_9() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a {scrape}\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start(&node, &server);
    let a = series("a", "web", &exporter, "");
    eventually("a sample", || server.value(&a).is_some());
    server.be_away(true);
    let before = exporter.scrapes();
    eventually("scrapes in vain", || exporter.scrapes() >= before + 5);
    eventually("they are on disk", || agent.metric("sidelight_spool_bytes") > 0.0);
    let output = agent.output("remote_write");
    assert!(output["up"] == false && output["in_flight"].as_u64() >= Some(10), "{output}");
    assert!(agent.metric("sidelight_remote_write_lag_seconds") > 1.0);
    // A request is closed within a tenth of a second, and then goes to the disk at once.
    std::thread::sleep(Duration::from_millis(400));
    let killed = exporter.scrapes();
    agent.kill();
    let agent = start(&node, &server);
    eventually("scrapes in vain", || exporter.scrapes() >= killed + 3);
    server.be_away(false);
    eventually("all of it", || server.samples(&a).len() as u64 >= killed + 3);
    eventually("nothing waits", || agent.metric("sidelight_spool_bytes") == 0.0);
    let samples = server.samples(&a);
    assert_no_gap(&samples[..killed as usize]);
    assert_no_gap(&samples[killed as usize..]);
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
}

/// Scenario: the receiver is away until the agent has been stopped and started again.
/// Guarantee: the stop keeps what it could not send, and the next agent sends it.
#[test]
fn what_a_stop_cannot_send_is_kept_for_the_next_agent() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a {scrape}\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    server.be_away(true);
    let config = config(&node, &server, EVERY_SECOND, "");
    let agent = Agent::start_with_grace(BINARY, node.path(), &config, "3s");
    eventually("scrapes in vain", || exporter.scrapes() >= 3);
    assert_eq!(agent.stop(), 0);
    let stopped = exporter.scrapes();
    server.be_away(false);
    let a = series("a", "web", &exporter, "");
    let _agent = Agent::start(BINARY, node.path(), &config);
    eventually("all of it", || server.samples(&a).len() as u64 > stopped);
    assert_no_gap(&server.samples(&a)[..stopped as usize]);
}

/// A page of 1,100 series beside `n`, the number of the scrape: a request of it has 1,106 samples and about 20 KiB.
fn large_page() -> String {
    let lines = (0..1_100).map(|n| format!("a{{x=\"{:08x}\"}} {n}\n", n * 0x9e37_79b9_u64 % (1 << 32)));
    lines.collect::<String>() + "n {scrape}\n"
}

const DROPPED: &str = "sidelight_remote_write_dropped_samples_total";
const PER_SCRAPE: u64 = 1_106;

/// An agent that scrapes it for a spool that holds twelve such requests, and drops three of them at once.
fn start_with_little_spool(node: &Node, server: &RemoteWriteServer) -> Agent {
    Agent::start(BINARY, node.path(), &config(node, server, EVERY_SECOND, ", spool: 256KiB"))
}

/// Waits until the oldest go, since the receiver is away.
fn wait_until_full(agent: &Agent) {
    eventually("the oldest go", || {
        assert!(agent.metric("sidelight_spool_bytes") <= f64::from(256 << 10));
        agent.metric(DROPPED) > 0.0
    });
}

/// What an output has dropped for this reason, in whole scrapes.
fn dropped_scrapes(agent: &Agent, reason: &str) -> u64 {
    let samples = agent.output("remote_write")["dropped"][reason].as_u64().unwrap_or(0);
    assert_eq!(samples % PER_SCRAPE, 0, "whole requests");
    samples / PER_SCRAPE
}

/// Which scrape a sample of `n` is of.
fn number(sample: &Sample) -> u64 {
    sample.value.unwrap() as u64
}

/// Behind which scrapes the next one is not the one that arrived, and how much further that is; none came twice.
fn gaps(samples: &[Sample]) -> Vec<(u64, u64)> {
    let steps = samples.windows(2).map(|pair| (number(&pair[0]), number(&pair[1]) - number(&pair[0])));
    steps.filter(|(_, step)| *step != 1).collect()
}

/// Scenario: the receiver is away for longer than the spool lasts.
/// Guarantee: the newest samples are kept, the spool stays as large as it may be, and the others are counted.
#[test]
fn a_spool_that_is_full_drops_the_oldest_and_counts_them() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start(&large_page());
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    server.be_away(true);
    let agent = start_with_little_spool(&node, &server);
    wait_until_full(&agent);
    server.be_away(false);
    eventually("nothing waits", || agent.metric("sidelight_spool_bytes") == 0.0);
    let dropped = dropped_scrapes(&agent, "spool_full");
    assert_eq!(agent.metric(DROPPED) as u64, dropped * PER_SCRAPE);
    let arrived = server.samples(&series("n", "web", &exporter, ""));
    assert_no_gap(&arrived);
    assert!(dropped + arrived.len() as u64 + 1 >= exporter.scrapes());
}

/// Scenario: the agent is killed while the spool is full and the oldest go; the next one drops some too, then the receiver is
/// back.
/// Guarantee: what the spool held arrives once and in order, new samples follow, and what is missing before is what both
/// agents have counted.
#[test]
fn a_spool_that_is_full_survives_kill_9() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start(&large_page());
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    server.be_away(true);
    let agent = start_with_little_spool(&node, &server);
    wait_until_full(&agent);
    let before = dropped_scrapes(&agent, "spool_full");
    let killed = exporter.scrapes();
    agent.kill();
    let agent = start_with_little_spool(&node, &server);
    wait_until_full(&agent);
    server.be_away(false);
    eventually("nothing waits", || agent.metric("sidelight_spool_bytes") == 0.0);
    let last = exporter.scrapes();
    let n = series("n", "web", &exporter, "");
    eventually("new ones", || server.value(&n) > Some(last as f64));
    let arrived = server.samples(&n);
    let gaps = gaps(&arrived);
    // The scrape of that moment may not have been on disk.
    assert!(
        gaps.is_empty() || matches!(gaps[..], [(before, 2)] if before + 1 >= killed),
        "{killed}: {gaps:?}"
    );
    let missing = number(&arrived[0]) - 1;
    // A segment may have gone between the question and the kill.
    let after = dropped_scrapes(&agent, "spool_full");
    assert!((before + after..=before + after + 3).contains(&missing), "{missing}: {before} and {after}");
    assert_eq!(agent.metric(DROPPED) as u64, after * PER_SCRAPE);
}

/// Scenario: the agent is killed while the spool is full; on disk one request is damaged, and elsewhere the head of one behind
/// which two more stand in their file. Then the receiver is back.
/// Guarantee: those four are counted, all others arrive in order.
#[test]
fn damage_in_a_spool_that_is_full_costs_no_more_than_its_file_and_is_counted() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start(&large_page());
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    server.be_away(true);
    let agent = start_with_little_spool(&node, &server);
    wait_until_full(&agent);
    let killed = exporter.scrapes();
    agent.kill();
    let folder = fs::read_dir(node.path().join("data/spool")).unwrap().next().unwrap().unwrap().path();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "requests")).collect();
    files.sort();
    for (file, offset) in [(&files[1], 1_000), (&files[2], 10)] {
        fs::File::options().write(true).open(file).unwrap().write_all_at(&[0xff; 4], offset).unwrap();
    }
    server.be_away(false);
    let agent = start_with_little_spool(&node, &server);
    let n = series("n", "web", &exporter, "");
    eventually("new ones", || server.value(&n) > Some((killed + 1) as f64));
    let mut held = server.samples(&n);
    held.retain(|sample| number(sample) <= killed);
    let steps: Vec<u64> = gaps(&held).into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, [2, 4], "{held:?}");
    assert_eq!(dropped_scrapes(&agent, "damaged"), 4);
}
