//! What dashboards show of a cluster, asked of a real Prometheus that has the rules.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::release::{CHART, NAME, merge};
use super::reviews::{asking, create};
use super::{Site, run, with_sidecar};
use crate::real_kubernetes::stage::{kubectl, port_at};
use crate::real_prometheus::program::Program;

/// A Rust service for each dialect of metrics, one that ends now and then, and one that cannot start.
const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cluster/services.yaml");
const DASHBOARDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
/// Panics come every minute or so.
const PATIENCE: Duration = Duration::from_secs(420);

/// A Prometheus that evaluates the rules.
fn prometheus(directory: &Path) -> Program {
    let config = format!(
        "global: {{ scrape_interval: 1h, evaluation_interval: 5s }}\nrule_files: ['{DASHBOARDS}/rules/*.yaml']\n"
    );
    Program::newer_prometheus_with(directory, &config)
}

/// Runs the query runner: whether every panel has data, those too that may be empty; and what it prints.
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
    let mut summaries = told.lines().filter(|line| line.contains("panels have data")).peekable();
    let is_full = summaries.peek().is_some() && summaries.all(|line| line.ends_with(", 0 may be empty"));
    (output.status.success() && is_full, told)
}

/// A request to the injector that is no review.
fn disturb_injector() {
    let service = kubectl(&["get", "service", &format!("{NAME}-injector"), "-n", NAME, "-o", "json"]);
    let url = format!("https://{}/mutate", port_at(&service["spec"]["clusterIP"], 443));
    let output =
        Command::new("curl").args(["--insecure", "--silent", "--data", "{}", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Those of the profile; and what shortens the test, and has pods refused and limits reached.
fn values() -> Value {
    let profile = std::fs::read_to_string(format!("{CHART}/values-dashboards.yaml")).unwrap();
    let mut values = yaml_serde::from_str(&profile).unwrap();
    let of_the_test = json!({
        "agent": { "config": { "metrics": { "interval": "5s", "timeout": "4s", "series_limit": 5000 } } },
        "injector": { "mode": "deny" },
    });
    merge(&mut values, &of_the_test);
    values
}

/// Scenario: the chart with what dashboards show turned on; Rust services of each dialect, pods with sidecars, and all that goes
/// wrong: a service that ends, one that cannot start, one with more series than it may have and a sample of long ago, records that
/// are left out, a pod that is refused, one that asks for nothing, a request that is no review.
/// Guarantee: no query of any dashboard fails, and no panel is empty.
#[test]
#[ignore = "needs a cluster"]
fn every_panel_of_every_dashboard_has_data() {
    let site = Site::open_with("dashboards", prometheus);
    let _release = site.install_with(&values());
    let namespace = &site.stage.namespace;
    assert!(run(&["apply", "--namespace", namespace, "--filename", SERVICES]).0);
    site.stage.run("web", 2, &with_sidecar("web", 1_000_000));
    let mut refused = asking("refused", namespace);
    refused["metadata"]["annotations"]["sidelight.dev/inject.logz"] = json!("/logs/*");
    let mut idle = asking("idle", namespace);
    idle["metadata"]["annotations"] = json!({ "sidelight.dev/inject": "true" });
    let begun = Instant::now();
    loop {
        assert!(create(&refused).is_err() && create(&idle).is_err());
        disturb_injector();
        let (is_full, told) = ask(&site.prometheus);
        if is_full {
            eprintln!("{told}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "panels are empty:\n{told}");
        std::thread::sleep(Duration::from_secs(15));
    }
}
