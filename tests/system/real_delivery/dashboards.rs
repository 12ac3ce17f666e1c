//! What dashboards show of a cluster, asked of a real Prometheus that has the rules.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::reviews::{asking, create};
use super::{Site, run, with_sidecar};
use crate::real_prometheus::program::Program;

/// A Rust service for each dialect of metrics, and one that cannot start.
const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cluster/services.yaml");
const DASHBOARDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
/// Panels that show what must not happen, and does not happen here: of Rust services none ends.
const EMPTY: [&str; 5] = [
    "Dropped by reason",
    "How containers have ended",
    "Requests that are no reviews",
    "Samples dropped",
    "Series above a limit",
];
/// Panics come every minute or so.
const PATIENCE: Duration = Duration::from_secs(420);

/// A Prometheus that evaluates the rules.
fn prometheus(directory: &Path) -> Program {
    let config = format!(
        "global: {{ scrape_interval: 1h, evaluation_interval: 5s }}\nrule_files: ['{DASHBOARDS}/rules/*.yaml']\n"
    );
    Program::newer_prometheus_with(directory, &config)
}

/// Runs the query runner: whether every panel has data that is to have some, and what it prints.
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
    let title = |line: &str| {
        line.trim_start().strip_prefix("no data")?.split(':').next().map(|title| title.trim().to_owned())
    };
    let mut empty = told.lines().filter_map(title);
    (output.status.success() && empty.all(|panel| EMPTY.contains(&panel.as_str())), told)
}

/// Scenario: the chart with what dashboards show turned on; Rust services of each dialect, pods with sidecars, one that cannot start,
/// one that is refused, one that asks for nothing.
/// Guarantee: no query of any dashboard fails, and no panel is empty but those of what must not happen.
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
        let (is_full, told) = ask(&site.prometheus);
        if is_full {
            eprintln!("{told}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "panels are empty:\n{told}");
        std::thread::sleep(Duration::from_secs(15));
    }
}
