//! The agent beside a real kubelet and a real Prometheus: services in pods that count with the libraries which Rust services
//! use. What Prometheus holds is compared with every page that every pod has served.
//!
//! As `real_kubernetes`, after `tests/receivers/build`: `tests/cluster/cluster enter cargo test -p sidelight-agent --test
//! system -- --ignored real_exporters --test-threads=1`.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;

use self::page::{Labels, number, samples, series_of_target};
use crate::real_kubernetes::stage::{Stage, kubectl, name, port_at, text, wait_for};
use crate::real_prometheus::program::Program;

pub(crate) const IMAGE: &str = "sidelight.test/exporter:1";
pub(crate) const PORT: u16 = 8080;
const LIBRARIES: [&str; 4] =
    ["metrics-exporter-prometheus", "opentelemetry-prometheus", "prometheus", "prometheus-client"];
/// Milliseconds between two scrapes of a pod.
const INTERVAL: i64 = 2_000;
/// What the agent adds to a page and does not follow from it: only when it came is compared.
const MEASURED: [&str; 2] = ["scrape_duration_seconds", "scrape_series_added"];

/// Times in milliseconds since the epoch, and values.
type Samples = Vec<(i64, String)>;

/// A Deployment for each library, named by it; an agent that scrapes their pods, and a Prometheus that it writes to. The
/// Deployments end last.
struct Exporters {
    agent: Agent,
    prometheus: Program,
    stage: Stage,
    /// All pods that there ever were, by name.
    pods: BTreeMap<String, Value>,
}

// === impl Exporters ===

impl Exporters {
    /// With one pod for each library.
    fn new(test: &str) -> Self {
        let stage = Stage::new(test);
        let prometheus = Program::newer_prometheus(stage.directory.path());
        let (namespace, port) = (&stage.namespace, prometheus.port);
        let agent = stage.agent(&format!(
            "metrics: {{ namespaces: [{namespace}], interval: {INTERVAL}ms, timeout: {INTERVAL}ms, outputs: [ {{ remote_write: {{ url: \
             'http://127.0.0.1:{port}/api/v1/write', flush_interval: 200ms }} }} ] }}\n"
        ));
        let mut exporters = Exporters { agent, prometheus, stage, pods: BTreeMap::new() };
        for library in LIBRARIES {
            exporters.stage.run(library, 1, &exporters.pod(library));
        }
        exporters.meet(1);
        exporters
    }

    fn pod(&self, library: &str) -> Value {
        json!({
            "metadata": {"labels": {"app": library}, "annotations": {"sidelight.dev/metrics": "true"}},
            "spec": {
                // It does not listen to SIGTERM: so long it can be asked for its last page.
                "terminationGracePeriodSeconds": 5,
                "automountServiceAccountToken": false,
                "volumes": [{"name": "served", "hostPath": {"path": self.served(), "type": "DirectoryOrCreate"}}],
                "containers": [{
                    "name": "app", "image": IMAGE, "imagePullPolicy": "Never", "args": [library],
                    "ports": [{"containerPort": PORT}],
                    "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "volumeMounts": [{"name": "served", "mountPath": "/served"}],
                }],
            },
        })
    }

    /// Where pods put their pages: a folder for each, and a file for each page, named by its number.
    fn served(&self) -> PathBuf {
        self.stage.directory.path().join("served")
    }

    /// How many pages a pod has served.
    fn pages(&self, pod: &str) -> usize {
        std::fs::read_dir(self.served().join(pod)).map(Iterator::count).unwrap_or_default()
    }

    /// Waits until each Deployment has so many pods that are to stay, each with three pages that Prometheus holds.
    fn meet(&mut self, replicas: usize) {
        for library in LIBRARIES {
            let mut pods = Vec::new();
            wait_for("three pages of each pod", || {
                pods = self.stage.pods(library);
                pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
                let page = |pod: &Value| self.last_page(name(pod)).unwrap_or_default();
                pods.len() == replicas && pods.iter().all(|pod| page(pod) >= 3)
            });
            self.pods.extend(pods.into_iter().map(|pod| (name(&pod).to_owned(), pod)));
        }
    }

    /// The number of the last page of a pod that Prometheus holds.
    fn last_page(&self, pod: &str) -> Option<usize> {
        let pages = format!("last_over_time(pages_served_total{}[1h])", self.of_pod(pod));
        text(&self.prometheus.query(&pages).first()?["value"][1]).parse().ok()
    }

    /// Selects what was scraped from a pod.
    fn of_pod(&self, pod: &str) -> String {
        format!("{{namespace=\"{}\",pod=\"{pod}\",instance!=\"\"}}", self.stage.namespace)
    }

    /// The labels that each series of a pod must have.
    fn labels(&self, pod: &Value) -> Labels {
        let (namespace, owner) = (&self.stage.namespace, text(&pod["metadata"]["labels"]["app"]));
        let labels = [
            ("container", "app".to_owned()),
            ("instance", port_at(&pod["status"]["podIP"], PORT).to_string()),
            ("job", format!("{namespace}/{owner}")),
            ("namespace", namespace.clone()),
            ("node", text(&pod["spec"]["nodeName"]).to_owned()),
            ("pod", name(pod).to_owned()),
        ];
        labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// All that Prometheus holds of a pod. Marks of an end are no samples.
    fn held(&self, pod: &Value) -> BTreeMap<Labels, Samples> {
        let series = self.prometheus.query(&format!("{}[1h]", self.of_pod(name(pod))));
        let series = series.iter().map(|series| {
            let labels = series["metric"].as_object().unwrap().iter();
            let samples = series["values"].as_array().unwrap().iter();
            (
                labels.map(|(name, value)| (name.clone(), text(value).to_owned())).collect(),
                samples.map(|sample| (milliseconds(&sample[0]), number(text(&sample[1])))).collect(),
            )
        });
        series.collect()
    }

    /// What it must hold of a pod whose pages were asked for at these times.
    fn expected(&self, pod: &Value, times: &[i64]) -> BTreeMap<Labels, Samples> {
        let target = self.labels(pod);
        let mut expected: BTreeMap<Labels, Samples> = BTreeMap::new();
        for (page, time) in (1..).zip(times) {
            let text =
                std::fs::read_to_string(self.served().join(name(pod)).join(format!("{page}"))).unwrap();
            let mut samples = samples(&text, &target);
            let count = samples.len().to_string();
            let own = [
                ("up", "1"),
                ("scrape_samples_scraped", &count),
                ("scrape_samples_post_metric_relabeling", &count),
            ];
            let measured = MEASURED.map(|name| (name, ""));
            let own = own.iter().chain(&measured);
            samples.extend(own.map(|(name, value)| (series_of_target(name, &target), (*value).to_owned())));
            for (series, value) in samples {
                expected.entry(series).or_default().push((*time, value));
            }
        }
        expected
    }

    /// Checks that Prometheus holds the pages of a pod from the first on, each whole and once, and nothing else of it; gives
    /// how many.
    fn assert_held(&self, pod: &Value) -> usize {
        let mut held = self.held(pod);
        let pages = held.iter().find(|(labels, _)| labels["__name__"] == "pages_served_total");
        let (_, pages) = pages.unwrap_or_else(|| panic!("no page of {}", name(pod)));
        let times: Vec<i64> = pages.iter().map(|(time, _)| *time).collect();
        assert!(times.is_sorted_by(|one, next| one < next), "{pages:?}");
        let numbers = (1..=pages.len()).map(|page| page.to_string());
        assert!(numbers.eq(pages.iter().map(|(_, value)| value.clone())), "{}: {pages:?}", name(pod));
        let expected = self.expected(pod, &times);
        for (series, samples) in &mut held {
            let name = series["__name__"].as_str();
            if name == "up" || name.starts_with("scrape_") {
                // A scrape that came before the service listened has no page.
                samples.retain(|(time, _)| *time >= times[0]);
            }
            if MEASURED.contains(&name) {
                samples.iter_mut().for_each(|(_, value)| value.clear());
            }
        }
        assert!(held.keys().eq(expected.keys()), "held: {:#?}\nserved: {:#?}", held.keys(), expected.keys());
        for (series, samples) in expected {
            assert_eq!(held[&series], samples, "{series:?}");
        }
        times.len()
    }

    /// Checks that Prometheus shows nothing of a pod an interval after its last sample. By itself it would for five minutes.
    fn assert_ended(&self, pod: &Value) {
        let (last, _) = self.held(pod)[&series_of_target("up", &self.labels(pod))].last().unwrap().clone();
        let shown = |time| self.prometheus.query_at(&self.of_pod(name(pod)), time);
        assert!(!shown(last).is_empty(), "{} at {last}", name(pod));
        let ghosts = shown(last + INTERVAL);
        assert!(ghosts.is_empty(), "{} after {last}: {ghosts:?}", name(pod));
    }

    /// Has each Deployment replace all of its pods, and waits until it has.
    fn roll(&self) {
        let namespace = self.stage.namespace.as_str();
        kubectl(&["rollout", "restart", "deployment", "--namespace", namespace]);
        for library in LIBRARIES {
            kubectl(&["rollout", "status", "deployment", library, "--namespace", namespace]);
        }
    }

    /// Runs kubectl with all Deployments.
    fn deployments(&self, arguments: &[&str]) {
        kubectl(&[arguments, &["deployment", "--all", "--namespace", &self.stage.namespace]].concat());
    }
}

/// Of a time as Prometheus writes it, in seconds.
fn milliseconds(time: &Value) -> i64 {
    (time.as_f64().unwrap() * 1_000.0).round() as i64
}

/// Scenario: a pod for each library has served some pages.
/// Guarantee: Prometheus holds each series of these pages under the labels of its pod, with the values that were served.
#[test]
#[ignore = "needs a real Kubernetes and a receiver: just cluster up, tests/receivers/build"]
fn what_rust_exporters_serve_is_in_prometheus_under_their_pods_labels() {
    let exporters = Exporters::new("exporters");
    for pod in exporters.pods.values() {
        assert!(exporters.assert_held(pod) >= 3);
        let name = name(pod);
        let up = exporters.prometheus.query(&format!("up{}", exporters.of_pod(name)));
        assert_eq!((up.len(), &up[0]["value"][1]), (1, &json!("1")), "{name}");
        let held = exporters.held(pod);
        let is_bucket =
            |series: &Labels| series["__name__"].ends_with("_seconds_bucket") && series["le"] == "+Inf";
        assert_eq!(held.keys().filter(|series| is_bucket(series)).count(), 1, "{name}");
    }
    let targets = exporters.agent.api("/api/v1/targets");
    let targets = targets["targets"].as_array().unwrap();
    assert!(targets.iter().all(|target| target["state"] == "up"), "{targets:?}");
    assert_eq!(targets.len(), LIBRARIES.len(), "{targets:?}");
}

/// Scenario: Deployments are scaled up, replace all of their pods, are scaled down, and are deleted.
/// Guarantee: Prometheus holds every page that any pod has served, the last one too, once and under this pod's labels; within
/// an interval after the end of a pod it shows nothing of it any more.
#[test]
#[ignore = "needs a real Kubernetes and a receiver: just cluster up, tests/receivers/build"]
fn scaling_rolling_and_deleting_leaves_no_gap_no_double_and_no_ghost() {
    let mut exporters = Exporters::new("scaling");
    exporters.deployments(&["scale", "--replicas=3"]);
    exporters.meet(3);
    exporters.roll();
    exporters.meet(3);
    exporters.deployments(&["scale", "--replicas=1"]);
    exporters.meet(1);
    exporters.deployments(&["delete"]);
    wait_for("the end of all pods", || {
        LIBRARIES.iter().all(|library| exporters.stage.pods(library).is_empty())
    });
    let all = format!("{{namespace=\"{}\"}}", exporters.stage.namespace);
    wait_for("the end of all series", || exporters.prometheus.query(&all).is_empty());

    assert_eq!(exporters.pods.len(), LIBRARIES.len() * 6);
    let shown = exporters.prometheus.query(&format!("group by (pod) (last_over_time({all}[1h]))"));
    let shown = shown.iter().map(|series| text(&series["metric"]["pod"]));
    assert_eq!(shown.collect::<BTreeSet<_>>(), exporters.pods.keys().map(String::as_str).collect());
    for pod in exporters.pods.values() {
        assert_eq!(exporters.assert_held(pod), exporters.pages(name(pod)), "pages of {}", name(pod));
        exporters.assert_ended(pod);
    }
    let agent = &exporters.agent;
    assert_eq!(agent.metric("sidelight_series"), 0.0, "{}", agent.log());
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0, "{}", agent.log());
}
