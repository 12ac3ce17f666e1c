//! What a record holds: metadata, parsed fields, groups, redactions; and what pods may say about it.

use rmpv::Value;
use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};

use crate::{BINARY, config};

/// Runs an agent with `source: file` until `count` records have arrived, and gives them.
fn records(node: &Node, logs: &str, count: usize) -> Vec<Value> {
    let server = ForwardServer::start();
    let config = config(node, &server, logs, "").replace(
        "source: none",
        &format!("source: file, file: {}/pods.json, metadata_wait: 500ms", node.path().display()),
    );
    let agent = Agent::start(BINARY, node.path(), &config);
    eventually("the records", || server.received().len() >= count);
    agent.settle();
    server.assert_clean();
    let received = server.received();
    assert_eq!(received.len(), count, "{received:?}");
    received.into_iter().map(|received| received.record).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn a_record_has_the_keys_of_fluent_bits_kubernetes_filter() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    node.container("web").line("stderr", "hello");
    let record = &records(&node, "", 1)[0];
    assert_eq!((text(&record["log"]), text(&record["stream"])), ("hello", "stderr"));
    let kubernetes = &record["kubernetes"];
    for (key, expected) in [
        ("namespace_name", "ns"),
        ("pod_name", "web"),
        ("pod_id", "uid-web"),
        ("host", "node-1"),
        ("pod_ip", "10.0.0.9"),
        ("container_name", "app"),
        ("container_image", "registry.example/app:1"),
        ("container_hash", "sha256:1"),
        ("docker_id", "c0ffee"),
        ("owner_kind", "Deployment"),
        ("owner_name", "web-owner"),
    ] {
        assert_eq!(text(&kubernetes[key]), expected, "{key}");
    }
    assert_eq!(text(&kubernetes["labels"]["app"]), "web");
    assert!(record["sidelight"].is_nil());
}

#[test]
fn a_pod_that_kubernetes_does_not_know_is_sent_and_marked_as_partial() {
    let node = Node::new();
    node.write_pods(&[]);
    node.container("unknown").line("stdout", "x");
    let record = &records(&node, "", 1)[0];
    assert_eq!(text(&record["kubernetes"]["pod_name"]), "unknown");
    assert_eq!(text(&record["sidelight"]["metadata"]), "partial");
}

#[test]
fn json_is_lifted_as_it_is_and_reserved_keys_get_a_trailing_underscore() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.line("stdout", r#"{"level":"INFO","n":-3,"big":18446744073709551615,"f":1.5,"t":"a\"b\u00e9\ud83d\ude00","deep":{"x":[1,null,true]},"time":"then","log":"own"}"#);
    log.line("stdout", r#"{"broken": "#);
    let records = records(&node, "", 2);
    let record = &records[0];
    assert_eq!(text(&record["level"]), "INFO");
    assert_eq!(
        (record["n"].as_i64(), record["big"].as_u64(), record["f"].as_f64()),
        (Some(-3), Some(u64::MAX), Some(1.5))
    );
    assert_eq!(text(&record["t"]), "a\"bé😀");
    assert_eq!(record["deep"]["x"].as_array().unwrap().len(), 3);
    assert_eq!((text(&record["time_"]), text(&record["log_"])), ("then", "own"));
    assert!(record["log"].is_nil());
    assert_eq!(text(&records[1]["log"]), r#"{"broken": "#);
}

#[test]
fn the_dialects_of_tracing_give_the_same_fields() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    let span = r#""span":{"name":"request"},"spans":[{"name":"request"}]"#;
    log.line("stdout", &format!(r#"{{"timestamp":"t","level":"WARN","fields":{{"message":"slow","ms":12}},"target":"app::db",{span}}}"#));
    log.line("stdout", "2026-11-24T10:00:00.123456Z  WARN request{id=7}: app::db: slow ms=12");
    log.line("stdout", "\u{1b}[2m2026-11-24T10:00:00Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m \u{1b}[2mapp::db\u{1b}[0m: slow \u{1b}[3mms\u{1b}[0m\u{1b}[2m=\u{1b}[0m12");
    log.line("stdout", "[2026-11-24T10:00:00Z WARN  app::db] slow ms=12");
    log.line("stdout", "just text, no fields");
    let records = records(&node, "  parse: auto\n", 5);
    for record in &records[..4] {
        assert_eq!(
            (text(&record["level"]), text(&record["message"]), text(&record["target"])),
            ("warn", "slow", "app::db"),
            "{record}"
        );
        assert_eq!(record["ms"].as_i64(), Some(12), "{record}");
    }
    assert_eq!(text(&records[0]["span"]["name"]), "request");
    assert_eq!(text(&records[1]["spans"][0]["name"]), "request");
    assert_eq!(records[1]["span"]["id"].as_i64(), Some(7));
    assert_eq!(text(&records[4]["log"]), "just text, no fields");
}

#[test]
fn a_panic_with_its_backtrace_is_one_record() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    let panic = "thread 'main' (7) panicked at src/main.rs:2:5:\nboom\nstack backtrace:\n   0: main\n             at ./src/main.rs:2:5\nnote: Some details";
    panic.lines().for_each(|line| log.line("stderr", line));
    log.line("stdout", "after");
    let texts: Vec<String> =
        records(&node, "", 2).iter().map(|record| text(&record["log"]).to_owned()).collect();
    assert!(texts.contains(&panic.to_owned()), "{texts:?}");
}

#[test]
fn bytes_that_are_not_utf8_and_torn_lines_arrive_and_stop_nothing() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.piece("stdout", false, b"a\xffb\x00c");
    log.raw(b"torn line without a head\n");
    log.line("stdout", "fine");
    let texts: Vec<String> =
        records(&node, "", 3).iter().map(|record| text(&record["log"]).to_owned()).collect();
    assert_eq!(texts, ["a\u{fffd}b\u{0}c", "torn line without a head", "fine"]);
}

#[test]
fn docker_files_are_read_as_well() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.raw(b"{\"log\":\"part one, \",\"stream\":\"stdout\",\"time\":\"2026-11-24T10:00:00Z\"}\n");
    log.raw(b"{\"log\":\"part two\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-24T10:00:01Z\"}\n");
    assert_eq!(text(&records(&node, "", 1)[0]["log"]), "part one, part two");
}

#[test]
fn a_record_longer_than_the_limit_is_cut_marked_and_counted() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.line("stdout", &"x".repeat(300_000));
    log.piece("stdout", false, &vec![b'y'; 700_000]);
    log.line("stdout", "after");
    let records = records(&node, "  max_record: 64KiB\n", 3);
    for record in &records[..2] {
        assert_eq!(text(&record["log"]).len(), 64 << 10);
        assert_eq!(record["sidelight"]["truncated"].as_bool(), Some(true));
    }
    assert_eq!(text(&records[2]["log"]), "after");
}

#[test]
fn annotations_choose_parsing_redaction_and_silence() {
    let node = Node::new();
    node.write_pods(&[
        pod("raw", &json!({ "sidelight.dev/logs.parse": "none", "sidelight.dev/logs.redact": "email" })),
        pod("silent", &json!({ "sidelight.dev/logs": "false" })),
        pod("excluded", &json!({ "fluentbit.io/exclude": "true" })),
    ]);
    node.container("raw").line("stdout", r#"{"to":"a@example.org"}"#);
    node.container("silent").line("stdout", "never");
    node.container("excluded").line("stdout", "never");
    let records = records(&node, "  redact: ['secret-[0-9]+']\n", 1);
    assert_eq!(text(&records[0]["log"]), r#"{"to":"[REDACTED]"}"#);
}

#[test]
fn the_operators_rules_add_redact_and_drop() {
    let node = Node::new();
    node.write_pods(&[pod("web", &json!({}))]);
    let mut log = node.container("web");
    log.line("stdout", r#"{"level":"debug","m":1}"#);
    log.line("stdout", r#"{"level":"error","m":"secret-7"}"#);
    log.line("stdout", "GET /healthz");
    let logs = "  add: { cluster: eu-1 }\n  redact: ['secret-[0-9]+']\n  drop: [{ level: debug }, { matches: '/healthz' }]\n";
    let record = &records(&node, logs, 1)[0];
    assert_eq!((text(&record["cluster"]), text(&record["m"])), ("eu-1", "[REDACTED]"));
}

#[test]
fn every_compression_arrives_with_its_tag() {
    for compress in ["none", "gzip", "zstd"] {
        let (node, server) = (Node::new(), ForwardServer::start());
        let mut log = node.container("a.b");
        log.lines(3_000, 300);
        let forward = format!("      compress: {compress}\n      tag: 'k.{{namespace}}.{{pod}}'\n");
        let agent = Agent::start(BINARY, node.path(), &config(&node, &server, "", &forward));
        eventually("all lines", || server.count("a.b") == log.next);
        agent.settle();
        assert_eq!(server.assert_complete("a.b", log.next), 0);
        assert!(server.received().iter().all(|received| received.tag == "k.ns.a_b"));
    }
}
