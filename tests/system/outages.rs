//! Receivers of remote write that are away, late, cut off or slow to recover, and the samples meanwhile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::{Answer, serve};
use sidelight_tests::kubelet::Node;
use sidelight_tests::relay::{Relay, Way};
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::BINARY;
use crate::metrics::{ASKS, config, series, serving};
use crate::remote_write::assert_no_gap;

const EVERY_SECOND: &str = "interval: 1s, timeout: 1s";
const SPOOL: &str = "sidelight_spool_bytes";
/// An agent that scrapes 2,400 series has about 4 MiB; what waits on disk after an hour are 40.
const MOST_MEMORY: u64 = 16 << 20;

/// An agent whose way to the server leads over this address.
fn start_over(node: &Node, server: &RemoteWriteServer, address: SocketAddr) -> Agent {
    let config = config(node, server, EVERY_SECOND, "");
    Agent::start(BINARY, node.path(), &config.replace(&server.address().to_string(), &address.to_string()))
}

/// Scenario: connections to the receiver break in the middle of requests, then lead nowhere, then are well.
/// Guarantee: every sample arrives once, in order; a request that nobody answers is given up and sent again.
#[test]
fn a_request_that_is_cut_or_never_answered_comes_again_whole() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a {scrape}\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let relay = Relay::start(server.address(), Way::CutAfter(300));
    let agent = start_over(&node, &server, relay.address());
    eventually("requests that are cut", || relay.connections() > 2);
    assert_eq!(server.requests(), 0);
    relay.lead(Way::Nowhere);
    let cut = relay.connections();
    eventually("one that leads nowhere", || relay.connections() > cut);
    relay.lead(Way::Open);
    let a = series("a", "web", &exporter, "");
    let scrapes = exporter.scrapes();
    eventually("all of them", || server.samples(&a).len() as u64 > scrapes);
    let samples = server.samples(&a);
    assert_eq!(samples[0].value, Some(1.0));
    assert_no_gap(&samples);
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
    server.assert_clean();
}

/// Scenario: the receiver fails several times in a row, then says how long it wants to be left alone.
/// Guarantee: pauses grow from half a second to twice that each time, and what the receiver asks for is granted.
#[test]
fn pauses_grow_and_last_as_long_as_the_receiver_asks() {
    let (node, unused) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let times = Arc::new(Mutex::new(Vec::new()));
    let noting = times.clone();
    let server = serve(move |_| {
        let mut times = noting.lock().unwrap();
        times.push(Instant::now());
        match times.len() {
            1..=4 => Answer::status(503),
            5 => Answer { headers: vec![("retry-after", "10".to_owned())], ..Answer::status(429) },
            _ => Answer::status(204),
        }
    });
    let _agent = start_over(&node, &unused, server);
    eventually("an answer that is well", || times.lock().unwrap().len() > 5);
    let times = times.lock().unwrap();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    for (pause, least) in pauses.zip([500, 1_000, 2_000, 4_000, 10_000]) {
        assert!(pause >= Duration::from_millis(least), "{pause:?} instead of {least} ms: {times:?}");
    }
}

/// Scenario: the configuration is loaded anew while the receiver is away, and while samples are on their way.
/// Guarantee: what waits is handed over; every sample arrives once, in order.
#[test]
fn a_reload_loses_nothing_that_waits() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a {scrape}\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start_over(&node, &server, server.address());
    let reload = |number: usize| {
        let metrics = format!("{EVERY_SECOND}, external_labels: {{ reload: '{number}' }}");
        agent.reconfigure(node.path(), &config(&node, &server, &metrics, ""));
        eventually("the reload", || {
            agent.log().matches("the new configuration is in force").count() == number
        });
    };
    server.be_away(true);
    let before = exporter.scrapes();
    eventually("scrapes in vain", || exporter.scrapes() >= before + 3);
    reload(1);
    let before = exporter.scrapes();
    eventually("more of them", || exporter.scrapes() >= before + 3);
    server.be_away(false);
    reload(2);
    let last = exporter.scrapes();
    let arrived = || {
        let labels = ["", ",reload=\"1\"", ",reload=\"2\""].map(|label| series("a", "web", &exporter, label));
        labels.map(|series| server.samples(&series)).concat()
    };
    eventually("all of them", || arrived().len() as u64 > last);
    let mut samples = arrived();
    samples.retain(|sample| sample.value.is_some());
    assert_eq!(samples[0].value, Some(1.0));
    assert_no_gap(&samples);
    server.assert_clean();
}

/// Scenario: scrapes of more samples than a request may have, and of fewer.
/// Guarantee: no request has more than 10,000 samples; a scrape that has no more is not torn.
#[test]
fn a_scrape_goes_whole_unless_it_is_too_long() {
    for (lines, largest) in [(12_000, 10_000), (9_000, 9_005)] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        let page: String = (0..lines).map(|n| format!("a{{n=\"{n}\"}} 1\n")).collect();
        let exporter = Exporter::start(&page);
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let metrics = "interval: 5s, timeout: 5s, containers: false";
        let _agent = Agent::start(BINARY, node.path(), &config(&node, &server, metrics, ""));
        eventually("the page", || server.named("a").len() == lines);
        assert_eq!(server.largest_request(), largest);
        server.assert_clean();
    }
}

/// Scenario: a page with times of its own: long ago, and ahead.
/// Guarantee: they are taken as they are, and hold up nothing else.
#[test]
fn times_of_a_page_are_taken_as_they_are() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 + 3_600_000;
    let exporter = Exporter::start(&format!("old 1 0\nahead 2 {ahead}\nnow 3\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let _agent = start_over(&node, &server, server.address());
    let of = |name: &str| server.samples(&series(name, "web", &exporter, ""));
    eventually("all three", || ["old", "ahead", "now"].iter().all(|name| !of(name).is_empty()));
    assert_eq!((of("old")[0].timestamp, of("ahead")[0].timestamp), (0, ahead));
    assert!(of("now")[0].timestamp < ahead);
}

/// Scenario: a receiver whose URL has a scheme that nobody knows, whose name nobody knows, or that does not listen.
/// Guarantee: the agent goes on, says so, and keeps what waits.
#[test]
fn a_receiver_that_cannot_be_reached_ends_nothing() {
    for url in ["invalid://localhost:9999", "http://no-such-host.invalid/write", "http://127.0.0.1:1/write"] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        let exporter = Exporter::start("a 1\n");
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let text = config(&node, &server, EVERY_SECOND, "").replace(&server.url(), url);
        let agent = Agent::start(BINARY, node.path(), &text);
        eventually("the reason", || agent.output("remote_write")["last_error"].is_string());
        let scrapes = exporter.scrapes();
        eventually("further scrapes", || exporter.scrapes() > scrapes);
        assert_eq!(agent.output("remote_write")["up"], false);
        assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
        assert_eq!(agent.stop(), 0);
    }
}

/// Scenario: two outputs choose pods by a label, which changes.
/// Guarantee: the series of the pod and of its containers end at the one and go on at the other.
#[test]
fn a_pod_whose_label_changes_goes_to_another_output() {
    let (node, blue, green) = (Node::new(), RemoteWriteServer::start(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    let coloured = |color: &str| {
        let mut pod = serving("web", &exporter, &[ASKS]);
        pod["metadata"]["labels"]["color"] = json!(color);
        node.write_pods(&[pod]);
    };
    coloured("blue");
    let output = |color: &str, server: &RemoteWriteServer| {
        let url = server.url();
        format!(
            "{{ name: {color}, match: {{ labels: color={color} }}, remote_write: {{ url: '{url}', flush_interval: 100ms }} }}"
        )
    };
    let text = config(&node, &blue, EVERY_SECOND, "");
    let (head, _) = text.split_once("outputs: [ { remote_write").unwrap();
    let outputs = format!("{head}outputs: [ {}, {} ] }}\n", output("blue", &blue), output("green", &green));
    let _agent = Agent::start(BINARY, node.path(), &outputs);
    let a = series("a", "web", &exporter, "");
    let restarts = "sidelight_container_restarts_total{container=\"app\",job=\"ns/web-owner\",namespace=\"ns\",node=\"node-1\",pod=\"web\"}";
    let has = |server: &RemoteWriteServer| [&*a, restarts].map(|series| server.value(series).is_some());
    eventually("blue", || has(&blue) == [true; 2]);
    coloured("green");
    eventually("green", || has(&green) == [true; 2] && has(&blue) == [false; 2]);
    blue.assert_clean();
    green.assert_clean();
}

/// Scenario: the receiver is away, for `SIDELIGHT_OUTAGE` seconds, while six pods of 400 series are scraped.
/// Guarantee: what waits is on disk and not in memory; afterwards each sample of each series arrives once, in order, and none
/// was dropped.
#[test]
fn an_outage_of_any_length_that_the_spool_lasts_for_loses_nothing() {
    let seconds = std::env::var("SIDELIGHT_OUTAGE").map_or(5, |seconds| seconds.parse().unwrap());
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let page: String = (0..400).map(|n| format!("a{{n=\"{n}\"}} {{scrape}}\n")).collect();
    let exporters: [Exporter; 6] = std::array::from_fn(|_| Exporter::start(&page));
    let pods = exporters.iter().enumerate();
    let pods: Vec<_> = pods.map(|(n, exporter)| serving(&format!("web-{n}"), exporter, &[ASKS])).collect();
    node.write_pods(&pods);
    // A busy machine may take a second for a page, and a scrape that fails would be a gap.
    let config = config(&node, &server, "interval: 2s, timeout: 2s, containers: false", "");
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("the first pages", || server.named("a").len() == 6 * 400);
    let scrapes = || exporters.each_ref().map(Exporter::scrapes);
    let all_above = |before: [u64; 6]| scrapes().iter().zip(before).all(|(now, before)| *now > before + 1);
    let before = scrapes();
    server.be_away(true);
    std::thread::sleep(Duration::from_secs(seconds));
    eventually("scrapes in vain", || all_above(before) && agent.metric(SPOOL) > 0.0);
    server.be_away(false);
    let during = scrapes();
    eventually("the receiver is asked again", || agent.output("remote_write")["up"] == true);
    while agent.metric(SPOOL) > 0.0 {
        let requests = server.requests();
        eventually("the next request", || server.requests() > requests);
    }
    eventually("new pages", || all_above(during));
    for (n, (exporter, during)) in exporters.iter().zip(during).enumerate() {
        for line in 0..400 {
            let of = series("a", &format!("web-{n}"), exporter, "");
            let samples = server.samples(&of.replace("namespace", &format!("n=\"{line}\",namespace")));
            assert!(samples.len() as u64 > during && samples[0].value == Some(1.0), "{of}: {samples:?}");
            assert_no_gap(&samples);
        }
    }
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
    let memory = agent.peak_memory();
    assert!(memory < MOST_MEMORY, "{memory} bytes of memory");
    server.assert_clean();
}
