//! Outputs: what each gets, where it begins, and that none hinders another.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};

use crate::{BINARY, config, config_of, forward_to, start, with_pods};

fn numbers(server: &ForwardServer, writer: &str) -> BTreeSet<u64> {
    server.sequences().remove(writer).unwrap_or_default().into_keys().collect()
}

fn until_ready(agent: &Agent) {
    eventually("it is ready", || agent.get("/readyz").0 == 200);
}

/// Scenario: the only output is standard output.
/// Guarantee: each record is one line of JSON with the keys of the contract and the time of its line.
#[test]
fn stdout_gets_one_json_object_a_line() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.line("stderr", "hello \"world\"");
    let first = log.time();
    log.advance(Duration::from_secs(1));
    log.line("stdout", r#"{"level":"info","n":3}"#);
    let agent =
        Agent::start(BINARY, node.path(), &with_pods(&node, &config_of(&node, "", "  - stdout: {}\n")));
    eventually("both records", || agent.stdout().lines().count() == 2);
    let kubernetes = json!({
        "namespace_name": "ns", "pod_name": "web", "pod_id": "uid-web", "host": "node-1", "pod_ip": "10.0.0.9",
        "container_name": "app", "container_image": "registry.example/app:1", "container_hash": "sha256:1", "docker_id": "c0ffee",
        "owner_kind": "Deployment", "owner_name": "web-owner",
        "labels": { "app": "web", "pod-template-hash": "abc12" },
    });
    let stdout = agent.stdout();
    let mut records = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let expected = [
        (first, json!({ "stream": "stderr", "log": "hello \"world\"", "kubernetes": kubernetes })),
        (log.time(), json!({ "stream": "stdout", "level": "info", "n": 3, "kubernetes": kubernetes })),
    ];
    for (time, mut expected) in expected {
        let mut record = records.next().unwrap();
        // RFC 3339 leaves the number of decimals open.
        let instant = |text: &str| text.trim_end_matches('Z').trim_end_matches('0').to_owned();
        assert_eq!(instant(record["time"].take().as_str().unwrap()), instant(&time));
        expected["time"] = Value::Null;
        assert_eq!(record, expected);
    }
    agent.settle();
}

/// Scenario: two outputs, one for a namespace, one for labels; the first's receiver stalls for a long time.
/// Guarantee: each gets what it matches and nothing else; the stall does not hold up the other, and later loses nothing.
#[test]
fn outputs_with_their_own_match_do_not_slow_each_other() {
    let (node, shop, web) = (Node::new(), ForwardServer::start(), ForwardServer::start());
    let mut pods = Vec::new();
    let mut logs = Vec::new();
    for (namespace, app) in [("shop", "web"), ("shop", "db"), ("other", "web"), ("other", "db")] {
        let name = format!("{namespace}-{app}");
        let mut pod = pod(&name, &json!({}));
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["labels"]["app"] = json!(app);
        pods.push(pod);
        logs.push(node.container_in(namespace, &name));
    }
    node.write_pods(&pods);
    // What is acknowledged later than this comes twice, and it may take long on a busy machine.
    let patience = "      ack_timeout: 10m\n";
    let outputs = forward_to(&shop, "    name: shop\n    match: { namespaces: [shop] }\n", patience)
        + &forward_to(&web, "    name: web\n    match: { labels: 'app in (web)' }\n", patience);
    shop.faults().stall.store(true, Ordering::SeqCst);
    let agent = Agent::start(BINARY, node.path(), &with_pods(&node, &config_of(&node, "", &outputs)));
    // More than the stalled output may hold in memory.
    for log in &mut logs {
        for _ in 0..5 {
            log.lines(5_000, 600);
            log.rotate();
        }
    }
    eventually("all lines of the web", || {
        ["shop-web", "other-web"].iter().all(|pod| web.count(pod) == 25_000)
    });
    assert!(shop.received().is_empty());
    shop.faults().stall.store(false, Ordering::SeqCst);
    eventually("all lines of the shop", || {
        ["shop-web", "shop-db"].iter().all(|pod| shop.count(pod) == 25_000)
    });
    agent.settle();
    for (server, pods) in [(&shop, ["shop-web", "shop-db"]), (&web, ["shop-web", "other-web"])] {
        pods.iter().for_each(|pod| assert_eq!(server.assert_complete(pod, 25_000), 0));
        assert_eq!(server.sequences().len(), 2, "only what it matches");
    }
    assert!(["shop", "web"].iter().all(|name| agent.output(name)["up"] == true));
}

/// Scenario: a reload adds an output while another has been running.
/// Guarantee: the new one begins where `read_from` says for files that are there; the old one repeats nothing.
#[test]
fn an_output_added_by_a_reload_begins_as_read_from_says() {
    for (read_from, first) in [("beginning", 0), ("end", 500)] {
        let (node, old, new) = (Node::new(), ForwardServer::start(), ForwardServer::start());
        let logs = format!("  read_from: {read_from}\n");
        let both = forward_to(&old, "    name: old\n", "");
        let agent = Agent::start(BINARY, node.path(), &config_of(&node, &logs, &both));
        until_ready(&agent);
        let mut log = node.container("a");
        log.lines(500, 100);
        eventually("the old output's lines", || old.count("a") == 500);
        let both = both + &forward_to(&new, "    name: new\n", "");
        agent.reconfigure(node.path(), &config_of(&node, &logs, &both));
        eventually("the new output", || agent.output("new").is_object());
        log.lines(100, 100);
        eventually("the new lines", || numbers(&new, "a").contains(&599) && old.count("a") == 600);
        agent.settle();
        assert_eq!(old.assert_complete("a", 600), 0);
        assert_eq!(numbers(&new, "a"), (first..600).collect(), "read_from: {read_from}");
    }
}

/// Scenario: at the first start there are records of an hour and of five minutes ago, in two files.
/// Guarantee: `10m` begins with the younger ones, `end` with what is written later; a later start goes on where the first
/// has ended.
#[test]
fn read_from_chooses_among_what_is_there_at_the_first_start() {
    for (read_from, first) in [("beginning", 0), ("10m", 150), ("end", 200)] {
        let (node, server) = (Node::new(), ForwardServer::start());
        let config = config(&node, &server, &format!("  read_from: {read_from}\n"), "");
        let mut log = node.container("a");
        log.go_back(Duration::from_secs(3_600));
        log.lines(100, 100);
        log.rotate();
        log.lines(50, 100);
        log.advance(Duration::from_secs(3_300));
        log.lines(50, 100);
        let agent = Agent::start(BINARY, node.path(), &config);
        until_ready(&agent);
        log.lines(10, 100);
        eventually("the new lines", || numbers(&server, "a").contains(&209));
        agent.settle();
        assert_eq!(agent.stop(), 0);
        log.lines(10, 100);
        let agent = Agent::start(BINARY, node.path(), &config);
        eventually("the lines written meanwhile", || numbers(&server, "a").contains(&219));
        agent.settle();
        assert_eq!(numbers(&server, "a"), (first..220).collect(), "read_from: {read_from}");
    }
}

/// Scenario: `read_from: end`, and a pod that starts later with old records; its files appear with content.
/// Guarantee: `read_from` is for what exists at the first start; later files are read from their first byte.
#[test]
fn a_file_that_appears_after_the_start_is_read_from_its_beginning() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.container("before").lines(100, 100);
    let agent = Agent::start(BINARY, node.path(), &config(&node, &server, "  read_from: end\n", ""));
    until_ready(&agent);
    // Prepared elsewhere, so that the directory appears with everything in it.
    let elsewhere = Node::new();
    let mut log = elsewhere.container("after");
    log.go_back(Duration::from_secs(3_600));
    log.lines(100, 100);
    log.rotate();
    log.lines(100, 100);
    let pod = log.directory.parent().unwrap();
    let target = node.path().join("pods").join(pod.file_name().unwrap());
    std::fs::rename(pod, target).unwrap();
    eventually("all lines", || server.count("after") == 200);
    agent.settle();
    assert_eq!(server.assert_complete("after", 200), 0);
    assert_eq!(server.count("before"), 0);
}

/// Scenario: `select: annotated` with pods that say yes, no, nothing, and one that Kubernetes does not know.
/// Guarantee: only the first is read, and `explain` says of the others what is missing.
#[test]
fn only_annotated_pods_are_read_where_the_operator_says_so() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[
        pod("yes", &json!({ "sidelight.dev/logs": "true" })),
        pod("no", &json!({ "sidelight.dev/logs": "false" })),
        pod("silent", &json!({})),
    ]);
    for name in ["yes", "no", "silent", "unknown"] {
        node.container(name).lines(100, 100);
    }
    let config = with_pods(&node, &config(&node, &server, "  select: annotated\n", ""));
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("the annotated pod's lines", || server.count("yes") == 100);
    for (name, reason) in [("no", "sidelight.dev/logs"), ("silent", "logs.select"), ("unknown", "metadata")] {
        eventually(&format!("why {name} is not read"), || {
            let explained = agent.explain(&format!("ns/{name}"));
            explained["collected"] == false && explained["reason"].as_str().unwrap().contains(reason)
        });
    }
    // Longer than metadata_wait: the unknown one is still unread.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.sequences().keys().collect::<Vec<_>>(), ["yes"]);
}

/// Scenario: `logs.namespaces` leaves one namespace out.
/// Guarantee: its pods are not read, and `explain` names the key.
#[test]
fn namespaces_that_are_left_out_are_not_read() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.container_in("kube-system", "proxy").lines(100, 100);
    node.container_in("shop", "web").lines(100, 100);
    let config = config(&node, &server, "  namespaces: ['*', '!kube-system']\n", "");
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("the shop's lines", || server.count("web") == 100);
    agent.settle();
    assert_eq!(server.sequences().len(), 1);
    let explained = agent.explain("kube-system/proxy");
    assert!(explained["reason"].as_str().unwrap().contains("logs.namespaces"), "{explained}");
}

/// Scenario: SIGHUP while the configuration file is missing, and when it is back and another.
/// Guarantee: the first leaves the old one in force and is told in a metric, the second takes the new one.
#[test]
fn sighup_reloads() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    until_ready(&agent);
    std::fs::remove_file(node.path().join("sidelight.yaml")).unwrap();
    agent.signal("HUP");
    eventually("the failure", || agent.metric("sidelight_config_last_reload_successful") == 0.0);
    log.lines(100, 100);
    eventually("lines still flow", || server.count("a") == 100);
    agent.reconfigure(node.path(), &config(&node, &server, "", "      tag: changed\n"));
    agent.signal("HUP");
    eventually("the new one is taken", || agent.metric("sidelight_config_last_reload_successful") == 1.0);
    log.lines(100, 100);
    eventually("lines with the new tag", || {
        server.received().iter().filter(|received| received.tag == "changed").count() == 100
    });
    agent.settle();
    assert_eq!(server.assert_complete("a", 200), 0);
}

/// Scenario: the configuration changes while a receiver has taken nothing for a while and chunks are under way.
/// Guarantee: everything arrives, and every byte is in one counter afterwards.
#[test]
fn a_reload_under_a_stalled_receiver_loses_nothing_and_balances() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    log.lines(1_000, 300);
    eventually("the first lines", || server.count("a") == log.next);
    server.faults().stall.store(true, Ordering::SeqCst);
    log.lines(20_000, 300);
    eventually("chunks are under way", || agent.metric("sidelight_log_source_bytes_in_flight") > 0.0);
    agent.reconfigure(node.path(), &config(&node, &server, "", "      tag: changed\n"));
    // Longer than a look at the file and than the reload may wait for acknowledgements.
    std::thread::sleep(Duration::from_secs(13));
    server.faults().stall.store(false, Ordering::SeqCst);
    log.lines(1_000, 300);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    server.assert_complete("a", log.next);
    assert!(server.received().iter().any(|received| received.tag == "changed"));
}
