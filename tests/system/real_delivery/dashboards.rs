//! What dashboards show of a cluster, asked of a real Prometheus that has the rules.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Site, asking, try_apply, with_sidecar, writer};
use crate::real_prometheus::program::Program;

/// The crates whose names of metrics the rules bring together, as the exporter serves them.
const DIALECTS: [&str; 4] = ["axum", "handmade", "otel", "tonic"];
const DASHBOARDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
/// Rates are of five minutes, but two samples make one; a service is in trouble in every fourth minute.
const PATIENCE: Duration = Duration::from_secs(420);

/// A Prometheus that evaluates the rules.
fn prometheus(directory: &Path) -> Program {
    let config = format!(
        "global: {{ scrape_interval: 1h, evaluation_interval: 5s }}\nrule_files: ['{DASHBOARDS}/rules/*.yaml']\n"
    );
    Program::newer_prometheus_with(directory, &config)
}

/// A Rust service whose requests live.
fn service(dialect: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": dialect }, "annotations": { "sidelight.dev/metrics": "true" } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": "sidelight.test/exporter:1", "imagePullPolicy": "Never",
                "args": ["service", dialect],
                "ports": [{ "name": "metrics", "containerPort": 8080 }],
                "resources": { "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "cpu": "1", "memory": "128Mi" } },
            }],
        },
    })
}

/// A pod that ends by itself and is started again, and again.
fn crashing() -> Value {
    let mut pod = writer("crashing", 10, 0);
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    variables.push(json!({ "name": "THEN", "value": "exit" }));
    pod
}

/// Runs the query runner: whether every panel has data or says when it has none, and what it prints.
fn ask(prometheus: &Program) -> (bool, String) {
    let mut command = Command::new("node");
    command.arg(format!("{DASHBOARDS}/build/src/query/main.js"));
    command.args(["--prometheus", &format!("http://127.0.0.1:{}", prometheus.port)]);
    command.args(["--range", "300", "--scrape-interval", "5"]);
    if let Ok(directory) = std::env::var("SIDELIGHT_PICTURES") {
        command.args(["--pictures", &directory]);
    }
    let output = command.output().unwrap();
    let told =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    (output.status.success(), told)
}

/// Scenario: the chart with what dashboards show turned on; a Rust service of each dialect, pods with sidecars, one that crashes, one
/// that is refused.
/// Guarantee: no query of any dashboard fails, and no panel is empty but those that name the condition under which they are.
#[test]
#[ignore = "needs a cluster"]
fn every_panel_of_every_dashboard_has_data() {
    let site = Site::open_with("dashboards", prometheus);
    let _release = site.install_with(&json!({
        "agent": { "config": {
            "logs": { "events": true },
            "metrics": { "interval": "5s", "timeout": "4s", "kubelet": "all" },
        } },
        "injector": { "mode": "deny" },
    }));
    for dialect in DIALECTS {
        site.stage.run(dialect, 1, &service(dialect));
    }
    site.stage.run("web", 2, &with_sidecar("web", 1_000_000));
    site.stage.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "crashing" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "crashing" } }, "template": crashing() },
    }));
    let mut refused = asking("refused", &site.stage.namespace);
    refused["metadata"]["annotations"]["sidelight.dev/inject.logz"] = json!("/logs/*");
    let begun = Instant::now();
    loop {
        assert!(try_apply(&refused.to_string()).is_err());
        let (is_full, told) = ask(&site.prometheus);
        if is_full {
            println!("{told}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "panels are empty:\n{told}");
        std::thread::sleep(Duration::from_secs(15));
    }
}
