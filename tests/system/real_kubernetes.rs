//! The agent beside a real kubelet: Deployments, Jobs, bursts that are rotated away, deletions, restarts.
//!
//! `tests/cluster/cluster up`, then inside: `tests/cluster/cluster enter cargo test -p sidelight-agent --test system --
//! --ignored real_kubernetes --test-threads=1`.

pub(crate) mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;

use self::stage::{LOGS, Stage, kubectl, name, text, wait_for};
use crate::real_receivers::receiver::Receiver;

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cluster/cluster");
const IMAGE: &str = "sidelight.test/writer:1";

/// What a pod's only container writes.
struct Writer {
    lines: u64,
    /// Lines in a second; 0: as fast as possible.
    rate: u32,
    bytes: usize,
}

// === impl Stage ===

impl Stage {
    /// A Deployment whose pods write and then wait; gives its pods once the API knows all about them.
    fn deploy(&self, name: &str, replicas: usize, writer: &Writer) -> Vec<Value> {
        self.run(name, replicas, &writer.pod(name, "Always"))
    }

    /// A Job whose pods write and exit; gives its pods once it is complete.
    fn run_job(&self, name: &str, pods: usize, writer: &Writer) -> Vec<Value> {
        self.apply(&json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"completions": pods, "parallelism": 2, "template": writer.pod(name, "Never")},
        }));
        wait_for("the Job", || {
            kubectl(&["get", "job", name, "-n", &self.namespace, "-o", "json"])["status"]["succeeded"] == pods
        });
        self.pods(name)
    }

    /// The directory of a pod's logs.
    fn logs(&self, pod: &Value) -> PathBuf {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        Path::new(LOGS).join(format!("{}_{}_{uid}", self.namespace, name(pod)))
    }

    /// Waits until all lines of these pods are acknowledged and the account is balanced; gives how many came twice.
    fn assert_complete(&self, agent: &Agent, pods: &[Value], lines: u64) -> u64 {
        wait_for("all lines", || pods.iter().all(|pod| self.server.count(name(pod)) >= lines));
        agent.settle();
        assert_eq!(agent.metric("sidelight_log_source_bytes_dropped_total"), 0.0);
        pods.iter().map(|pod| self.server.assert_complete(name(pod), lines)).sum()
    }

    /// Checks that every record of a pod, from the first on, says whose it is; gives the last.
    fn assert_described(&self, pod: &Value, owner: (&str, &str)) -> rmpv::Value {
        let texts = [
            ("namespace_name", self.namespace.as_str()),
            ("pod_name", name(pod)),
            ("pod_id", text(&pod["metadata"]["uid"])),
            ("host", text(&pod["spec"]["nodeName"])),
            ("container_name", "app"),
            ("container_image", IMAGE),
            ("owner_kind", owner.0),
            ("owner_name", owner.1),
        ];
        let mut records: Vec<rmpv::Value> =
            self.server.received().into_iter().map(|received| received.record).collect();
        records.retain(|record| record["kubernetes"]["pod_name"].as_str() == Some(name(pod)));
        for (number, record) in records.iter().enumerate() {
            let described = &record["kubernetes"];
            assert!(record["sidelight"].is_nil(), "record {number}: {record}");
            assert_eq!(labels(described), labels_of(pod), "record {number}: {record}");
            for (key, expected) in texts {
                assert_eq!(described[key].as_str(), Some(expected), "{key} of record {number}: {record}");
            }
            for (key, expected) in told_later(pod) {
                let value = described[key].as_str();
                assert!(value.is_none_or(|value| value == expected), "{key} of record {number}: {record}");
            }
        }
        records.pop().unwrap()
    }
}

// === impl Writer ===

impl Writer {
    fn pod(&self, app: &str, restart_policy: &str) -> Value {
        let then = if restart_policy == "Never" { "exit" } else { "sleep" };
        json!({
            "metadata": {"labels": {"app": app, "tests.sidelight.dev/part-of": "real-kubernetes"}},
            "spec": {
                "restartPolicy": restart_policy,
                // The writer does not listen to SIGTERM.
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "env": [
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LINES", "value": self.lines.to_string()},
                    {"name": "RATE", "value": self.rate.to_string()},
                    {"name": "BYTES", "value": self.bytes.to_string()},
                    {"name": "THEN", "value": then},
                ]}],
            },
        })
    }
}

fn labels_of(pod: &Value) -> BTreeMap<&str, &str> {
    pod["metadata"]["labels"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.as_str(), text(value)))
        .collect()
}

fn labels(described: &rmpv::Value) -> BTreeMap<&str, &str> {
    let labels = described["labels"].as_map().map(Vec::as_slice).unwrap_or_default();
    labels.iter().map(|(key, value)| (key.as_str().unwrap(), value.as_str().unwrap())).collect()
}

/// What the kubelet tells the API only some time after a pod has begun to write.
fn told_later(pod: &Value) -> [(&'static str, &str); 3] {
    let container = &pod["status"]["containerStatuses"][0];
    let id = text(&container["containerID"]).strip_prefix("containerd://").unwrap();
    [
        ("pod_ip", text(&pod["status"]["podIP"])),
        ("container_hash", text(&container["imageID"])),
        ("docker_id", id),
    ]
}

/// Names of the log files in the directory of a pod's only container.
fn files(logs: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(logs.join("app")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Whether a pod has written its last line, as far as its uncompressed files tell.
fn has_written(logs: &Path, pod: &Value, lines: u64) -> bool {
    let last = format!("seq={}:{} ", name(pod), lines - 1);
    let read = |file: &String| std::fs::read_to_string(logs.join("app").join(file)).unwrap_or_default();
    files(logs).iter().any(|file| read(file).contains(&last))
}

/// Scenario: a Deployment of three pods writes for ten seconds, its small files rotated all the while.
/// Guarantee: every line arrives once, described from the first on; what the kubelet tells late is in the last.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn a_deployment_is_read_once_and_described_from_its_first_line() {
    let stage = Stage::new("deployment");
    let agent = stage.agent("");
    let writer = Writer { lines: 5_000, rate: 500, bytes: 200 };
    let pods = stage.deploy("web", 3, &writer);
    assert_eq!(stage.assert_complete(&agent, &pods, writer.lines), 0);
    for pod in &pods {
        let last = stage.assert_described(pod, ("Deployment", "web"));
        for (key, expected) in told_later(pod) {
            assert_eq!(last["kubernetes"][key].as_str(), Some(expected), "{key}: {last}");
        }
    }
}

/// Scenario: a Deployment writes, and the receiver is the Fluent organisation's.
/// Guarantee: that holds every line once, each with what Kubernetes says of its pod.
#[test]
#[ignore = "needs a real Kubernetes and a receiver: just cluster up, tests/receivers/build"]
fn a_deployment_arrives_whole_at_a_receiver_that_others_wrote() {
    let stage = Stage::new("fluent");
    let mut receiver = Receiver::fluent(&[]);
    let agent = stage.agent_for(receiver.port, "");
    let writer = Writer { lines: 2_000, rate: 500, bytes: 300 };
    let pods = stage.deploy("web", 2, &writer);
    wait_for("all lines", || pods.iter().all(|pod| receiver.count(name(pod)) == writer.lines));
    agent.settle();
    for pod in &pods {
        assert_eq!(receiver.assert_complete_of(name(pod), writer.lines), 0);
    }
    for arrived in &receiver.arrivals.lock().unwrap().all {
        let described = &arrived.record["kubernetes"];
        assert_eq!((text(&described["owner_kind"]), text(&described["owner_name"])), ("Deployment", "web"));
        assert_eq!(described["labels"]["app"], "web", "{}", arrived.record);
        assert!(arrived.record["sidelight"].is_null(), "{}", arrived.record);
    }
}

/// Scenario: the pods of a Job write all they have at once and exit.
/// Guarantee: every line arrives once, described from the first on; how each container ended is told.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn a_job_is_read_once_and_described_from_its_first_line() {
    let stage = Stage::new("job");
    let agent = stage.agent("");
    let writer = Writer { lines: 3_000, rate: 0, bytes: 300 };
    let pods = stage.run_job("report", 4, &writer);
    assert_eq!(pods.len(), 4);
    assert_eq!(stage.assert_complete(&agent, &pods, writer.lines), 0);
    for pod in &pods {
        stage.assert_described(pod, ("Job", "report"));
        let end = format!("pod=\"{}\",reason=\"Completed\",exit_code=\"0\"}} 1", name(pod));
        wait_for("the end of its container is told", || {
            let page = agent.get("/metrics/containers").1;
            page.lines()
                .any(|line| line.starts_with("sidelight_container_last_terminated{") && line.ends_with(&end))
        });
    }
}

/// Scenario: 10,000 lines a second, and a receiver that takes nothing until the kubelet has rotated, compressed and
/// deleted files that nobody has read.
/// Guarantee: every line arrives once.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn a_burst_that_the_kubelet_deletes_unread_arrives() {
    let stage = Stage::new("burst");
    stage.server.faults().stall.store(true, Ordering::SeqCst);
    let agent = stage.agent("      ack_timeout: 5m\n      compress: none\n");
    let writer = Writer { lines: 200_000, rate: 10_000, bytes: 150 };
    let pods = stage.deploy("burst", 1, &writer);
    let logs = stage.logs(&pods[0]);
    let mut compressed = Vec::new();
    wait_for("a compressed file", || {
        compressed = files(&logs).into_iter().filter(|file| file.ends_with(".gz")).collect();
        !compressed.is_empty()
    });
    wait_for("its deletion", || !files(&logs).contains(&compressed[0]));
    assert!(agent.metric("sidelight_log_deleted_bytes_held") > 0.0, "the receiver has taken nothing");
    assert!(!has_written(&logs, &pods[0], writer.lines), "the burst goes on");
    stage.server.faults().stall.store(false, Ordering::SeqCst);
    assert_eq!(stage.assert_complete(&agent, &pods, writer.lines), 0);
    stage.assert_described(&pods[0], ("Deployment", "burst"));
}

/// Scenario: a pod is deleted, and its log directory with it, while the receiver takes nothing.
/// Guarantee: every line arrives once, described although the API does not know the pod any more.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn a_pod_deleted_under_backlog_arrives() {
    let stage = Stage::new("deletion");
    stage.server.faults().stall.store(true, Ordering::SeqCst);
    let agent = stage.agent("      ack_timeout: 5m\n      compress: none\n");
    let writer = Writer { lines: 60_000, rate: 0, bytes: 300 };
    let pods = stage.deploy("gone", 1, &writer);
    let logs = stage.logs(&pods[0]);
    wait_for("the last line", || has_written(&logs, &pods[0], writer.lines));
    kubectl(&["delete", "deployment", "gone", "-n", &stage.namespace, "--cascade=foreground"]);
    wait_for("the end of the directory", || !logs.exists());
    assert!(stage.pods("gone").is_empty());
    wait_for("the agent to see it", || agent.metric("sidelight_log_deleted_bytes_held") > 0.0);
    stage.server.faults().stall.store(false, Ordering::SeqCst);
    assert_eq!(stage.assert_complete(&agent, &pods, writer.lines), 0);
    stage.assert_described(&pods[0], ("Deployment", "gone"));
}

/// Scenario: the API server restarts while pods write; a Job runs as soon as it is back.
/// Guarantee: every line of both arrives once; the watch is taken up again, so that the Job is described too.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn a_restart_of_the_api_server_loses_nothing() {
    let stage = Stage::new("restart");
    let agent = stage.agent("");
    let writer = Writer { lines: 10_000, rate: 500, bytes: 200 };
    let pods = stage.deploy("web", 2, &writer);
    wait_for("the first lines", || pods.iter().all(|pod| stage.server.count(name(pod)) > 500));
    assert!(Command::new(CLUSTER).arg("restart-apiserver").status().unwrap().success());
    assert!(stage.server.count(name(&pods[0])) < writer.lines, "restarted in the middle");
    assert!(agent.metric("sidelight_cluster_watch_errors_total") > 0.0, "the agent has noticed");
    let job_writer = Writer { lines: 500, rate: 100, bytes: 200 };
    let job_pods = stage.run_job("after", 1, &job_writer);
    assert_eq!(stage.assert_complete(&agent, &job_pods, job_writer.lines), 0);
    stage.assert_described(&job_pods[0], ("Job", "after"));
    assert_eq!(stage.assert_complete(&agent, &pods, writer.lines), 0);
    for pod in &pods {
        stage.assert_described(pod, ("Deployment", "web"));
    }
}

/// Scenario: the agent is killed again and again while pods write, and started at once.
/// Guarantee: every line arrives, at most some twice; descriptions are known from the first moment.
#[test]
#[ignore = "needs a real Kubernetes: just cluster up"]
fn kill_9_of_the_agent_loses_nothing() {
    let stage = Stage::new("kill");
    let mut agent = stage.agent("");
    // Slow enough that no file is deleted between two agents.
    let writer = Writer { lines: 4_000, rate: 200, bytes: 100 };
    let pods = stage.deploy("web", 2, &writer);
    for round in 1..=5 {
        wait_for("lines", || pods.iter().all(|pod| stage.server.count(name(pod)) > round * 500));
        agent.kill();
        agent = stage.agent("");
    }
    assert!(stage.server.count(name(&pods[0])) < writer.lines, "killed in the middle");
    stage.assert_complete(&agent, &pods, writer.lines);
    for pod in &pods {
        stage.assert_described(pod, ("Deployment", "web"));
    }
}
