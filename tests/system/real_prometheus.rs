//! The remote write output against receivers that others wrote, and a page of theirs: Prometheus, VictoriaMetrics and the
//! node exporter, as Debian has them, and a newer Prometheus.
//!
//! Ignored: `.ci/run` installs and runs them. They listen on the loopback interface only.

pub(crate) mod program;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::kubelet::{Node, pod};

use self::program::Program;
use crate::BINARY;

/// The agent scrapes what listens on this port, as the pod `node-exporter`, with these rules, and writes to the receiver.
fn start(node: &Node, exporter: u16, receiver: &Program, rules: &str) -> Agent {
    start_with(node, exporter, receiver, &format!("relabel: {rules}"))
}

/// The same with these keys of `metrics`.
fn start_with(node: &Node, exporter: u16, receiver: &Program, metrics: &str) -> Agent {
    let mut pod = pod("node-exporter", &json!({"prometheus.io/scrape": "true"}));
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": exporter}]);
    pod["status"] = json!({"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]});
    node.write_pods(&[pod]);
    let (directory, port) = (node.path().display(), receiver.port);
    let config = format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs: {{ root: {directory}/pods, outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ interval: 2s, timeout: 2s, {metrics}, outputs: [ {{ remote_write: {{ url: 'http://127.0.0.1:{port}/api/v1/write', flush_interval: 200ms }} }} ] }}\n"
    );
    Agent::start(BINARY, node.path(), &config)
}

/// Names of the series of a page; those of the exporter's own Go process come and go.
fn names(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let names = lines.filter_map(|line| line.split(['{', ' ']).next());
    names.filter(|name| name.starts_with("node_")).map(str::to_owned).collect()
}

/// Scenario: the node exporter is scraped, then its pod is gone.
/// Guarantee: the receiver has every series of its page under the pod's labels; none of them is there any more at once
/// when the pod is gone.
fn holds_what_was_served_until_it_is_gone(receiver: impl Fn(&Path) -> Program) {
    let (node, exporter) = (Node::new(), Program::node_exporter());
    let receiver = receiver(node.path());
    let agent = start(&node, exporter.port, &receiver, "[]");
    let of_pod = "{job=\"ns/node-exporter-owner\"}";
    eventually("up is 1", || {
        receiver.query(&format!("up{of_pod}")).first().is_some_and(|up| up["value"][1] == "1")
    });
    eventually("three scrapes", || {
        let scrapes = receiver.query(&format!("count_over_time(up{of_pod}[1m])"));
        scrapes
            .first()
            .is_some_and(|count| count["value"][1].as_str().unwrap().parse::<f64>().unwrap() >= 3.0)
    });
    let held = receiver.query(of_pod);
    let held_names: BTreeSet<String> =
        held.iter().filter_map(|series| Some(series["metric"]["__name__"].as_str()?.to_owned())).collect();
    let missing: Vec<_> =
        names(&exporter.get("/metrics")).into_iter().filter(|name| !held_names.contains(name)).collect();
    assert!(missing.is_empty() && held.len() > 100, "{missing:?} of {} series", held.len());
    for series in &held {
        for (label, value) in
            [("namespace", "ns"), ("pod", "node-exporter"), ("container", "app"), ("node", "node-1")]
        {
            assert_eq!(series["metric"][label], value, "{series}");
        }
    }
    let scraped = receiver.query(&format!("scrape_samples_scraped{of_pod}"));
    let samples = agent.api("/api/v1/targets")["targets"][0]["samples"].as_u64().unwrap();
    assert_eq!(scraped[0]["value"][1], samples.to_string());
    node.write_pods(&[]);
    eventually("no series is there any more", || receiver.query(of_pod).is_empty());
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0, "{}", agent.log());
    assert_eq!(agent.metric("sidelight_series"), 0.0);
}

#[test]
#[ignore = "needs Debian's prometheus and prometheus-node-exporter"]
fn prometheus_holds_what_was_served_until_it_is_gone() {
    holds_what_was_served_until_it_is_gone(Program::prometheus);
}

#[test]
#[ignore = "needs Debian's victoria-metrics and prometheus-node-exporter"]
fn victoria_metrics_holds_what_was_served_until_it_is_gone() {
    holds_what_was_served_until_it_is_gone(Program::victoria_metrics);
}

#[test]
#[ignore = "needs what tests/receivers/build builds, and Debian's prometheus-node-exporter"]
fn a_newer_prometheus_holds_what_was_served_until_it_is_gone() {
    holds_what_was_served_until_it_is_gone(Program::newer_prometheus);
}

/// Scenario: a page of OpenMetrics with an exemplar, and a counter that says when it began.
/// Guarantee: Prometheus gets both, by remote write 2.0: it has the exemplar, and a zero where the counter began.
#[test]
#[ignore = "needs what tests/receivers/build builds"]
fn a_newer_prometheus_has_exemplars_and_starts() {
    let node = Node::new();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 60;
    let exporter = Exporter::start(&format!(
        "# TYPE a counter\na_total 5 # {{trace_id=\"abc\"}} 0.5\na_created {began}\n# EOF\n"
    ));
    let prometheus = Program::newer_prometheus(node.path());
    let agent = start(&node, exporter.port(), &prometheus, "[]");
    eventually("the counter", || !prometheus.query("a_total").is_empty());
    assert_eq!(agent.metric("sidelight_remote_write_fallbacks_total"), 0.0);
    let zero = &prometheus.query(&format!("a_total @ {}", began + 1))[0];
    assert_eq!(zero["value"][1], "0", "{zero}");
    let found =
        prometheus.get(&format!("/api/v1/query_exemplars?query=a_total&start={began}&end={}", began + 3600));
    let found: Value = serde_json::from_str(&found).unwrap();
    let exemplar = &found["data"][0]["exemplars"][0];
    assert_eq!(
        (&exemplar["labels"]["trace_id"], &exemplar["value"]),
        (&json!("abc"), &json!("0.5")),
        "{found}"
    );
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0, "{}", agent.log());
}

/// Scenario: Prometheus's own page, which has native histograms for whoever takes protobuf.
/// Guarantee: a newer Prometheus holds them, and counts in them what the classic ones count.
#[test]
#[ignore = "needs what tests/receivers/build builds"]
fn a_newer_prometheus_has_native_histograms() {
    let node = Node::new();
    let prometheus = Program::newer_prometheus(node.path());
    let agent = start_with(&node, prometheus.port, &prometheus, "relabel: [], native_histograms: true");
    let requests = "prometheus_http_request_duration_seconds";
    let total = |query: &str| {
        let found = prometheus.query(query);
        found.first().map(|sum| sum["value"][1].as_str().unwrap().to_owned())
    };
    eventually("both count the same", || {
        let native = total(&format!("sum(histogram_count({requests}))"));
        native.is_some_and(|native| native != "0" && Some(native) == total(&format!("sum({requests}_count)")))
    });
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0, "{}", agent.log());
}

/// What the agent says of itself and of the node's containers, for whoever pulls.
#[test]
#[ignore = "needs Debian's prometheus and prometheus-node-exporter"]
fn promtool_finds_nothing_wrong_with_the_agents_own_pages() {
    let (node, exporter) = (Node::new(), Program::node_exporter());
    let prometheus = Program::prometheus(node.path());
    let agent = start(&node, exporter.port, &prometheus, "[]");
    eventually("the pod is there", || agent.get("/metrics/containers").1.contains("restarts_total"));
    for path in ["/metrics", "/metrics/containers"] {
        let mut promtool = Command::new("promtool");
        promtool
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = promtool.spawn().unwrap();
        child.stdin.take().unwrap().write_all(agent.get(path).1.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// As `metric_relabel_configs` and as `metrics.relabel`.
const RULES: &str = "[ { action: keep, source_labels: [__name__], regex: 'node_(cpu|scrape|memory_Mem|load).*' }, \
    { action: drop, source_labels: [__name__, mode], regex: 'node_cpu_seconds_total;(irq|steal)' }, \
    { source_labels: [__name__], regex: 'node_load(.+)', target_label: minutes }, \
    { source_labels: [__name__], regex: 'node_load.+', target_label: __name__, replacement: load }, \
    { action: labelmap, regex: '(c)p(u)', replacement: '${1}o${2}re' }, \
    { action: labeldrop, regex: cpu }, \
    { source_labels: [mode], regex: '(u).*', target_label: 'is_$1', replacement: 'yes' }, \
    { action: uppercase, source_labels: [mode], target_label: mode }, \
    { action: keepequal, source_labels: [nothing], target_label: nothing_else }, \
    { action: replace, source_labels: [collector, mode], separator: '-', target_label: joined } ]";

/// Scenario: a Prometheus scrapes the node exporter itself, and gets it from the agent as well, with the same rules.
/// Guarantee: both have the same series, but for the labels that say where they come from.
#[test]
#[ignore = "needs Debian's prometheus and prometheus-node-exporter"]
fn rules_make_the_same_series_as_in_prometheus() {
    let (node, exporter) = (Node::new(), Program::node_exporter());
    let config = format!(
        "scrape_configs: [ {{ job_name: its own, scrape_interval: 2s, scrape_timeout: 2s, static_configs: [ {{ targets: \
         ['127.0.0.1:{}'] }} ], metric_relabel_configs: {RULES} }} ]\n",
        exporter.port
    );
    let prometheus = Program::prometheus_with(node.path(), &config);
    let agent = start(&node, exporter.port, &prometheus, RULES);
    let series = |job: &str| -> BTreeSet<String> {
        let mut found = prometheus.query(&format!("{{job=\"{job}\", __name__!~\"up|scrape_.*\"}}"));
        for series in &mut found {
            let labels = series["metric"].as_object_mut().unwrap();
            for name in ["job", "instance", "namespace", "pod", "container", "node"] {
                labels.remove(name);
            }
        }
        found.iter().map(|series| series["metric"].to_string()).collect()
    };
    eventually("the same series", || {
        let (own, ours) = (series("its own"), series("ns/node-exporter-owner"));
        own == ours && own.len() > 30 && own.iter().any(|series| series.contains("\"is_u\":\"yes\""))
    });
    let own = |name: &str| prometheus.query(&format!("{name}{{job=\"ns/node-exporter-owner\"}}"));
    let kept = own("scrape_samples_post_metric_relabeling")[0]["value"][1].clone();
    assert_eq!(kept, series("ns/node-exporter-owner").len().to_string(), "{}", agent.log());
}
