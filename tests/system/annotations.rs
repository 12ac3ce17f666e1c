//! What pods may say about their logs, what operators say, and which of both holds.

use std::collections::BTreeSet;
use std::time::Duration;

use rmpv::Value;
use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};

use crate::{BINARY, config, config_of, forward_to, with_pods};

/// An agent that knows the node's pods; `top` and `logs` are further keys of the configuration, one a line.
fn agent(node: &Node, server: &ForwardServer, top: &str, logs: &str) -> Agent {
    let config = with_pods(node, &config(node, server, logs, ""));
    Agent::start(BINARY, node.path(), &format!("{top}{config}"))
}

fn numbers(server: &ForwardServer, writer: &str) -> BTreeSet<u64> {
    server.sequences().remove(writer).unwrap_or_default().into_keys().collect()
}

/// The records of a node with the one pod `web`, which has written these lines.
fn records(pod: serde_json::Value, lines: &[&str], logs: &str, count: usize) -> Vec<Value> {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[pod]);
    let mut log = node.container("web");
    lines.iter().for_each(|line| log.line("stdout", line));
    let agent = agent(&node, &server, "", logs);
    eventually("the records", || server.received().len() >= count);
    agent.settle();
    server.assert_clean();
    server.received().into_iter().map(|received| received.record).collect()
}

/// The keys of a map.
fn keys(map: &Value) -> Vec<&str> {
    map.as_map().into_iter().flatten().map(|(key, _)| key.as_str().unwrap()).collect()
}

/// Scenario: an operator's rate of 10 a second, pods that want less, more, and nothing; 100 records at once, again a
/// second later.
/// Guarantee: bursts of two seconds pass, then the rate; a pod can only lower it; what is dropped is counted as `rate`.
#[test]
fn a_pod_can_only_lower_the_rate_of_its_containers() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[
        pod("plain", &json!({})),
        pod("lower", &json!({ "sidelight.dev/logs.rate": "5" })),
        pod("higher", &json!({ "sidelight.dev/logs.rate": "1000" })),
    ]);
    let agent = agent(&node, &server, "", "  rate: { container: 10 }\n");
    for name in ["plain", "lower", "higher"] {
        let mut log = node.container(name);
        log.lines(100, 100);
        log.advance(Duration::from_secs(1));
        log.lines(100, 100);
    }
    eventually("every record is sent or dropped", || {
        let dropped = agent.metric("sidelight_log_records_dropped_total");
        dropped + agent.metric("sidelight_log_records_delivered_total") == 600.0
    });
    agent.settle();
    for (name, burst, rate) in [("plain", 20, 10), ("lower", 10, 5), ("higher", 20, 10)] {
        let expected: BTreeSet<u64> = (0..burst).chain(100..100 + rate).collect();
        assert_eq!(numbers(&server, name), expected, "{name}");
    }
    assert!(agent.output("forward")["dropped"]["rate"].as_u64() > Some(0));
}

/// Scenario: a rate for namespaces; two pods share one, a third has its own.
/// Guarantee: the rate is for all pods of a namespace together, and for each namespace apart.
#[test]
fn the_rate_of_a_namespace_is_for_all_its_pods_together() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[]);
    let agent = agent(&node, &server, "", "  rate: { namespace: 10 }\n");
    // All at the same time: a container's records go on from when it started.
    let started = [("shop", "a"), ("shop", "b"), ("other", "c")];
    let mut logs = started.map(|(namespace, name)| node.container_in(namespace, name));
    logs.iter_mut().for_each(|log| log.lines(100, 100));
    eventually("every record is sent or dropped", || {
        let dropped = agent.metric("sidelight_log_records_dropped_total");
        dropped + agent.metric("sidelight_log_records_delivered_total") == 300.0
    });
    agent.settle();
    let shop = server.count("a") + server.count("b");
    assert!((20..=22).contains(&shop), "a burst of two seconds: {shop}");
    assert_eq!(server.count("c"), 20);
}

/// Scenario: a pod asks for three tenths of its records; two outputs, and later an agent that knows nothing of the first.
/// Guarantee: about so many come; every output and every replay takes the same; the rest is counted as `sample`.
#[test]
fn a_sample_is_the_same_for_every_output_and_replay() {
    let (node, one, two) = (Node::new(), ForwardServer::start(), ForwardServer::start());
    node.write_pods(&[pod("web", &json!({ "sidelight.dev/logs.sample": "0.3" }))]);
    node.container("web").lines(2_000, 100);
    let outputs = forward_to(&one, "    name: one\n", "") + &forward_to(&two, "    name: two\n", "");
    let config = with_pods(&node, &config_of(&node, "", &outputs));
    let run = || {
        let agent = Agent::start(BINARY, node.path(), &config);
        eventually("every record is sent or dropped", || {
            let dropped = agent.metric("sidelight_log_records_dropped_total");
            dropped + agent.metric("sidelight_log_records_delivered_total") == 4_000.0
        });
        agent.settle();
        for name in ["one", "two"] {
            assert!(agent.output(name)["dropped"]["sample"].as_u64() > Some(0));
        }
        assert_eq!(agent.stop(), 0);
        [numbers(&one, "web"), numbers(&two, "web")]
    };
    let [sample, other] = run();
    assert_eq!(sample, other);
    assert!((500..700).contains(&sample.len()), "{}", sample.len());
    std::fs::remove_dir_all(node.path().join("data")).unwrap();
    assert_eq!(run(), [sample.clone(), sample]);
}

/// Scenario: pods that opted out of other agents, whole, by stream, by container; and an operator who does not honour it.
/// Guarantee: the marks mean here what they mean there; `honour_others: false` reads all.
#[test]
fn marks_for_other_agents_are_honoured_unless_the_operator_says_no() {
    let pods = || {
        let mut vector = pod("vector", &json!({}));
        vector["metadata"]["labels"]["vector.dev/exclude"] = json!("true");
        [
            vector,
            pod("vector-container", &json!({ "vector.dev/exclude-containers": "app" })),
            pod("whole", &json!({ "fluentbit.io/exclude": "true" })),
            pod("stderr", &json!({ "fluentbit.io/exclude_stderr": "true" })),
            pod("stdout", &json!({ "fluentbit.io/exclude_stdout-app": "true" })),
            pod("other-container", &json!({ "fluentbit.io/exclude-sidecar": "true" })),
            pod("not", &json!({ "fluentbit.io/exclude": "false" })),
        ]
    };
    let expected = ["not/stderr", "not/stdout", "other-container/stderr", "other-container/stdout"];
    let expected = expected.into_iter().chain(["stderr/stdout", "stdout/stderr"]);
    for (honour, count) in [(true, 6), (false, 14)] {
        let (node, server) = (Node::new(), ForwardServer::start());
        node.write_pods(&pods());
        let top = format!("annotations: {{ honour_others: {honour} }}\n");
        let agent = agent(&node, &server, &top, "");
        for pod in pods() {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let mut log = node.container(name);
            ["stdout", "stderr"].iter().for_each(|stream| log.line(stream, &format!("{name}/{stream}")));
        }
        eventually("the records", || server.received().len() >= count);
        agent.settle();
        let texts: BTreeSet<String> = server.texts().into_iter().collect();
        assert_eq!(texts.len(), count, "{texts:?}");
        assert!(!honour || texts == expected.clone().map(str::to_owned).collect(), "{texts:?}");
    }
}

/// Scenario: a pod asks for its own tag, where pods may not and where they may.
/// Guarantee: by default it is ignored and reported; where allowed it stands behind the operator's tag.
#[test]
fn a_pods_own_tag_is_used_only_where_the_operator_allows_it() {
    for (top, tag) in [("", "kube.ns"), ("annotations: { allow: ['*'] }\n", "kube.ns.own")] {
        let (node, server) = (Node::new(), ForwardServer::start());
        node.write_pods(&[pod("web", &json!({ "sidelight.dev/logs.tag": "own" }))]);
        node.container("web").lines(1, 100);
        let agent = agent(&node, &server, top, "");
        eventually("the line", || server.count("web") == 1);
        assert_eq!(server.received()[0].tag, tag);
        let explained = agent.explain("ns/web");
        let told = explained["hint"].as_str().unwrap().contains("sidelight.dev/logs.tag");
        assert_eq!(told, top.is_empty(), "{explained}");
    }
}

/// Scenario: a pod says how its records begin.
/// Guarantee: lines up to the next beginning are one record.
#[test]
fn a_pod_says_where_its_records_begin() {
    let annotated = pod("web", &json!({ "sidelight.dev/logs.multiline": r"^\[\d+\]" }));
    let records = records(annotated, &["[1] one", "  more", "", "[2] two", "[3] three", "end"], "", 3);
    let texts: Vec<&str> = records.iter().map(|record| record["log"].as_str().unwrap()).collect();
    assert_eq!(texts, ["[1] one\n  more\n", "[2] two", "[3] three\nend"]);
}

/// Scenario: a pod's redaction is no regex; later it is put right. Another pod writes on.
/// Guarantee: until then not one line of it leaves the node, and `explain` says why; then all come, redacted; the other
/// pod notices nothing.
#[test]
fn a_redaction_that_cannot_be_used_holds_the_lines() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let redacting = |pattern: &str| pod("web", &json!({ "sidelight.dev/logs.redact": pattern }));
    node.write_pods(&[redacting("pin-(["), pod("other", &json!({}))]);
    let (mut web, mut other) = (node.container("web"), node.container("other"));
    let agent = agent(&node, &server, "", "");
    web.line("stdout", "seq=web:0 pin-1234");
    other.lines(100, 100);
    eventually("the other pod's lines", || server.count("other") == 100);
    eventually("the reason", || {
        let explained = agent.explain("ns/web");
        explained["collected"] == false && explained["reason"].as_str().unwrap().contains("logs.redact")
    });
    web.line("stdout", "seq=web:1 pin-5678");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.count("web"), 0);
    node.write_pods(&[redacting("pin-[0-9]+"), pod("other", &json!({}))]);
    eventually("the held lines", || server.count("web") == 2);
    agent.settle();
    let texts = server.texts();
    assert!(texts.contains(&"seq=web:0 [REDACTED]".to_owned()), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("pin-")));
}

/// Scenario: an annotation with a slip in its name.
/// Guarantee: the lines flow, and both `explain` and the log name the right one.
#[test]
fn a_misspelled_annotation_is_reported_with_the_right_name() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[pod("web", &json!({ "sidelight.dev/log.parse": "none" }))]);
    node.container("web").lines(1, 100);
    let agent = agent(&node, &server, "", "");
    eventually("the line", || server.count("web") == 1);
    let explained = agent.explain("ns/web");
    assert_eq!(explained["collected"], true);
    assert!(explained["hint"].as_str().unwrap().contains("sidelight.dev/logs.parse"), "{explained}");
    assert!(agent.log().contains("sidelight.dev/logs.parse"));
}

/// Scenario: a namespace whose logs are mandatory, with pods that want none, fewer, or are marked for others.
/// Guarantee: all of their lines come; elsewhere the same annotations hold.
#[test]
fn where_logs_are_mandatory_no_pod_opts_out() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let opt_outs = [
        ("off", json!({ "sidelight.dev/logs": "false" })),
        ("sampled", json!({ "sidelight.dev/logs.sample": "0" })),
        ("marked", json!({ "fluentbit.io/exclude": "true" })),
    ];
    let mut pods = Vec::new();
    for (name, annotations) in &opt_outs {
        for namespace in ["audit", "ns"] {
            let name = format!("{namespace}-{name}");
            let mut pod = pod(&name, annotations);
            pod["metadata"]["namespace"] = json!(namespace);
            pods.push(pod);
            node.container_in(namespace, &name).lines(100, 100);
        }
    }
    node.write_pods(&pods);
    let agent = agent(&node, &server, "annotations: { mandatory_namespaces: [audit] }\n", "");
    eventually("the mandatory lines", || {
        opt_outs.iter().all(|(name, _)| server.count(&format!("audit-{name}")) == 100)
    });
    agent.settle();
    assert_eq!(server.sequences().len(), 3, "and no others");
}

/// Scenario: all, some and no labels; dots replaced; an annotation to copy.
/// Guarantee: records carry what the operator chose.
#[test]
fn records_carry_the_labels_and_annotations_that_the_operator_chose() {
    let labelled = || {
        let mut pod = pod("web", &json!({ "example.org/team": "checkout", "example.org/other": "x" }));
        pod["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "web", "tier": "front" });
        pod
    };
    let kubernetes = |logs: &str| records(labelled(), &["x"], logs, 1)[0]["kubernetes"].clone();
    let all = kubernetes("");
    assert_eq!(keys(&all["labels"]), ["app.kubernetes.io/name", "tier"]);
    assert!(all["annotations"].is_nil());
    assert_eq!(keys(&kubernetes("  labels: [tier]\n")["labels"]), ["tier"]);
    assert!(kubernetes("  labels: false\n")["labels"].is_nil());
    let dedotted = kubernetes("  labels_dedot: true\n  annotations: [example.org/team]\n");
    assert_eq!(keys(&dedotted["labels"]), ["app_kubernetes_io/name", "tier"]);
    assert_eq!(keys(&dedotted["annotations"]), ["example_org/team"]);
    let copied = kubernetes("  annotations: [example.org/team]\n");
    assert_eq!(copied["annotations"]["example.org/team"].as_str(), Some("checkout"));
}

/// Scenario: `parse_into` and `keep_log`.
/// Guarantee: fields stand below the key, the raw text beside it; what does not parse has only the text.
#[test]
fn parsed_fields_go_below_a_key_and_the_text_stays_if_wanted() {
    let lines = [r#"{"level":"info","stream":"x"}"#, "plain"];
    let records = records(pod("web", &json!({})), &lines, "  parse_into: fields\n  keep_log: true\n", 2);
    assert_eq!(records[0]["fields"]["level"].as_str(), Some("info"));
    assert_eq!(records[0]["stream"].as_str(), Some("stdout"));
    assert_eq!(records[0]["log"].as_str(), Some(lines[0]));
    assert!(records[0]["level"].is_nil());
    assert_eq!(records[1]["log"].as_str(), Some("plain"));
    assert!(records[1]["fields"].is_nil());
}

/// Scenario: Kubernetes tells about a pod some time after its first lines, but within `metadata_wait`.
/// Guarantee: already the first record is complete, and none is counted as partial.
#[test]
fn metadata_that_come_late_are_waited_for() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.write_pods(&[]);
    let mut log = node.container("web");
    log.lines(100, 100);
    let config = with_pods(&node, &config(&node, &server, "", ""));
    let agent = Agent::start(BINARY, node.path(), &config.replace("500ms", "60s"));
    std::thread::sleep(Duration::from_secs(1));
    log.lines(100, 100);
    assert!(server.received().is_empty(), "the lines wait");
    node.write_pods(&[pod("web", &json!({}))]);
    eventually("all lines", || server.count("web") == log.next);
    agent.settle();
    for received in server.received() {
        assert_eq!(received.record["kubernetes"]["labels"]["app"].as_str(), Some("web"));
        assert!(received.record["sidelight"].is_nil());
    }
    assert_eq!(agent.metric("sidelight_metadata_partial_total"), 0.0);
}
