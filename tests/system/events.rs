//! Metrics from logs.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::BINARY;

/// Two outputs for records, one for samples.
fn config(node: &Node, servers: [&ForwardServer; 2], samples: &RemoteWriteServer, further: &str) -> String {
    let (directory, url) = (node.path().display(), samples.url());
    let outputs = servers.map(|server| {
        let address = server.address();
        format!("{{ name: '{address}', forward: {{ upstreams: ['{address}'], flush_interval: 50ms }} }}")
    });
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs: {{ root: {directory}/pods, events: true, drop: [ {{ level: debug }} ]{further}, outputs: [ {} ] }}\n\
         metrics: {{ containers: false, interval: 1s, timeout: 1s, outputs: [ {{ remote_write: {{ url: '{url}', flush_interval: 100ms }} }} ] }}\n",
        outputs.join(", ")
    )
}

fn labels(behind: &str) -> String {
    format!(
        "{{container=\"app\",job=\"ns/shop\"{behind},namespace=\"ns\",node=\"node-1\",workload=\"shop\"}}"
    )
}

fn of_level(level: &str) -> String {
    format!("sidelight_log_events_total{}", labels(&format!(",level=\"{level}\"")))
}

/// A pod of the Deployment `shop`.
fn of_shop(name: &str) -> Value {
    let mut pod = pod(name, &json!({}));
    pod["metadata"]["ownerReferences"] = json!([{"kind": "StatefulSet", "name": "shop", "controller": true}]);
    pod
}

/// Scenario: two pods of a workload write records of several levels and a panic, for two outputs; the configuration is
/// loaded anew, one pod goes, the agent is started again.
/// Guarantee: each record counts once, dropped or not, under its workload; for the receiver and for whoever pulls, and not
/// among the agent's own.
#[test]
fn records_and_panics_are_counted_by_workload() {
    let (node, samples) = (Node::new(), RemoteWriteServer::start());
    let [server, other] = [ForwardServer::start(), ForwardServer::start()];
    node.write_pods(&["shop-0", "shop-1"].map(of_shop));
    let mut logs = ["shop-0", "shop-1"].map(|pod| node.container(pod));
    let write = |logs: &mut [sidelight_tests::kubelet::Log]| {
        for log in logs {
            for level in ["debug", "INFO", "warn", "error", "fatal", "strange"] {
                log.line("stdout", &format!("{{\"level\":\"{level}\",\"m\":1}}"));
            }
            log.line("stderr", "thread 'main' (7) panicked at src/main.rs:1:2:");
            log.line("stderr", "boom");
        }
    };
    write(&mut logs);
    let text = config(&node, [&server, &other], &samples, "");
    let agent = Agent::start(BINARY, node.path(), &text);
    let panics = format!("sidelight_log_panics_total{}", labels(""));
    let expected = |times: u32| {
        let each = f64::from(2 * times);
        let levels = [("debug", each), ("info", each), ("warn", each), ("error", 2.0 * each), ("trace", 0.0)];
        let mut all: Vec<_> = levels.iter().map(|(level, count)| (of_level(level), *count)).collect();
        all.extend([(of_level("unknown"), 2.0 * each), (panics.clone(), each)]);
        all
    };
    let counted =
        |times: u32| expected(times).iter().all(|(series, count)| samples.value(series) == Some(*count));
    eventually("the first ones", || counted(1));

    agent.reconfigure(
        node.path(),
        &config(&node, [&server, &other], &samples, ", rate: { container: 1000000 }"),
    );
    eventually("the reload", || agent.log().contains("the new configuration is in force"));
    write(&mut logs);
    eventually("those behind the reload", || counted(2));
    agent.settle();
    let page = agent.get("/metrics/containers").1;
    assert!(
        page.contains("level=\"warn\"} 4\n") && page.contains("# TYPE sidelight_log_panics_total counter"),
        "{page}"
    );
    assert!(page.contains("workload=\"shop\"") && !agent.get("/metrics").1.contains("log_events"), "{page}");

    logs[0].delete_pod();
    node.write_pods(&[of_shop("shop-1")]);
    write(&mut logs[1..]);
    let warnings = of_level("warn");
    eventually("the pod that is left", || samples.value(&warnings) == Some(5.0));
    agent.settle();
    assert_eq!(agent.stop(), 0);

    let _agent = Agent::start(BINARY, node.path(), &text);
    write(&mut logs[1..]);
    eventually("what is new to the next agent", || samples.value(&warnings) == Some(1.0));
    samples.assert_clean();
}

/// Scenario: the receivers of both outputs have taken records and acknowledged none when the configuration is loaded anew.
/// Guarantee: they are read and sent once more, and not counted once more; what is new counts.
#[test]
fn what_is_read_again_after_a_reload_is_not_counted_again() {
    let (node, samples) = (Node::new(), RemoteWriteServer::start());
    let servers = [ForwardServer::start(), ForwardServer::start()];
    let set_lost = |acks| {
        for server in &servers {
            server.faults().lose_acks.store(acks, Ordering::SeqCst);
        }
    };
    let have = |count: usize| servers.iter().all(|server| server.received().len() >= count);
    set_lost(u64::MAX);
    node.write_pods(&[of_shop("shop-0")]);
    let mut log = node.container("shop-0");
    let mut write = |warnings: usize| {
        for _ in 0..warnings {
            log.line("stdout", "{\"level\":\"warn\",\"m\":1}");
        }
        log.line("stderr", "thread 'main' (7) panicked at src/main.rs:1:2:");
        log.line("stderr", "boom");
    };
    write(5);
    let of = |further| config(&node, servers.each_ref(), &samples, further);
    let agent = Agent::start(BINARY, node.path(), &of(""));
    let panics = format!("sidelight_log_panics_total{}", labels(""));
    let counted = || (samples.value(&of_level("warn")), samples.value(&panics));
    eventually("the first ones", || counted() == (Some(5.0), Some(1.0)) && have(6));
    // Those that are lost by now are lost for good.
    set_lost(0);
    agent.reconfigure(node.path(), &of(", rate: { container: 1000000 }"));
    eventually("the reload", || agent.log().contains("the new configuration is in force"));
    write(1);
    eventually("the new ones, and the others again", || have(6 + 6 + 2));
    agent.settle();
    let scrapes = samples.samples(&panics).len();
    eventually("another sample", || samples.samples(&panics).len() > scrapes);
    assert_eq!(counted(), (Some(6.0), Some(2.0)));
}
