//! The API server is slow, gone, or answers 410 or 500, and pods arrive late: their lines flow.

use std::time::Duration;

use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::api_server::{ApiServer, Mood, WatchFault};
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Log, Node, pod};

use crate::{BINARY, config};

/// An agent that asks this API server.
fn start(node: &Node, server: &ForwardServer, api: &ApiServer, metadata_wait: &str) -> Agent {
    let config = config(node, server, "", "      ack_timeout: 10m\n")
        .replace("source: none", &format!("source: cluster, metadata_wait: {metadata_wait}"));
    let kubeconfig = format!("KUBECONFIG={}", api.kubeconfig(node.path()).display());
    Agent::start_through(&["env", &kubeconfig], BINARY, node.path(), &config)
}

/// How many of a pod's records that have arrived carry its labels, and how many are marked as partial.
fn described(server: &ForwardServer, pod: &str) -> (usize, usize) {
    let received = server.received();
    let of_pod = || received.iter().filter(|one| one.record["kubernetes"]["pod_name"].as_str() == Some(pod));
    let labelled = of_pod().filter(|one| one.record["kubernetes"]["labels"]["app"].as_str() == Some(pod));
    let partial = of_pod().filter(|one| one.record["sidelight"]["metadata"].as_str() == Some("partial"));
    (labelled.count(), partial.count())
}

/// The next lines of a pod arrive, with its labels.
fn until_described(server: &ForwardServer, log: &mut Log, pod: &str) {
    eventually("the pod's new lines have its labels", || {
        let before = described(server, pod).0;
        log.lines(10, 100);
        eventually("all lines", || server.count(pod) == log.next);
        std::thread::sleep(Duration::from_millis(200));
        described(server, pod).0 > before
    });
}

/// Scenario: a pod's log is there ten seconds before the API server knows the pod; the wait is shorter.
/// Guarantee: its lines are not held up longer than the wait, and marked; later ones have its labels.
#[test]
fn a_pod_that_arrives_ten_seconds_after_its_log_costs_labels_and_nothing_else() {
    let (node, server, api) = (Node::new(), ForwardServer::start(), ApiServer::start("node-1", Mood::Serves));
    let fault = Fault::new("API server: the pod arrives 10 s after its log, metadata_wait 5 s");
    let agent = fault.watch(start(&node, &server, &api, "5s"));
    let mut log = node.container("web");
    log.lines(100, 100);
    std::thread::sleep(Duration::from_secs(10));
    eventually("the lines do not wait any longer", || server.count("web") == 100);
    assert_eq!(described(&server, "web"), (0, 100));
    api.apply(pod("web", &json!({})));
    until_described(&server, &mut log, "web");
    assert_eq!(fault.survived(&agent, &[(&server, "web", log.next)]), 0);
}

/// Scenario: the same with a wait that is longer.
/// Guarantee: already the first line has the labels.
#[test]
fn a_pod_that_arrives_ten_seconds_after_its_log_is_waited_for() {
    let (node, server, api) = (Node::new(), ForwardServer::start(), ApiServer::start("node-1", Mood::Serves));
    let fault = Fault::new("API server: the pod arrives 10 s after its log, metadata_wait 60 s");
    let agent = fault.watch(start(&node, &server, &api, "60s"));
    let mut log = node.container("web");
    log.lines(100, 100);
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(server.count("web"), 0);
    api.apply(pod("web", &json!({})));
    eventually("the lines", || server.count("web") == 100);
    assert_eq!(described(&server, "web"), (100, 0));
    assert_eq!(fault.survived(&agent, &[(&server, "web", log.next)]), 0);
}

/// Scenario: the API server is slow, gone, answers 500, 429 and 410, cuts its answers; pods write all the while.
/// Guarantee: lines of known pods keep their labels; those of an unknown one are marked, and have them when it is well.
#[test]
fn an_api_server_in_trouble_stops_no_line() {
    let (node, server, api) = (Node::new(), ForwardServer::start(), ApiServer::start("node-1", Mood::Serves));
    let fault = Fault::new("API server: slow, gone, 500, 429, 410, cuts");
    api.apply(pod("known", &json!({})));
    let mut known = node.container("known");
    known.lines(10, 100);
    let agent = fault.watch(start(&node, &server, &api, "1s"));
    eventually("the first lines", || server.count("known") == 10);
    let moods = [
        Mood::Slow(Duration::from_secs(3)),
        Mood::Away,
        Mood::Fails(500),
        Mood::Fails(429),
        Mood::Fails(410),
    ];
    let mut late = Vec::new();
    for (number, mood) in moods.into_iter().enumerate() {
        let name = format!("late-{number}");
        api.set_mood(mood);
        let mut log = node.container(&name);
        log.lines(10, 100);
        known.lines(10, 100);
        eventually("both pods' lines", || server.count(&name) == 10 && server.count("known") == known.next);
        api.apply(pod(&name, &json!({})));
        if let Mood::Slow(_) = mood {
            until_described(&server, &mut log, &name);
        }
        api.set_mood(Mood::Serves);
        api.end_watches(&[
            WatchFault::GoneEvent,
            WatchFault::Cut,
            WatchFault::GoneStatus,
            WatchFault::EndsAtOnce,
        ]);
        until_described(&server, &mut log, &name);
        late.push((name, log.next));
    }
    let late = late.iter().map(|(name, lines)| (&server, name.as_str(), *lines));
    let sent: Vec<_> = late.chain([(&server, "known", known.next)]).collect();
    assert_eq!(fault.survived(&agent, &sent), 0);
    assert_eq!(described(&server, "known"), (known.next as usize, 0));
}
