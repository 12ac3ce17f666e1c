//! A release of the chart, installed by Helm as a user does it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::real_kubernetes::stage::{kubectl, wait_for};

/// Of the release and of its namespace.
pub(super) const NAME: &str = "sidelight";
pub(super) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/sidelight");

/// An installed release. It goes with the test, and its namespace.
pub(super) struct Release {
    values: Value,
    /// What Helm keeps of charts.
    home: TempDir,
}

// === impl Release ===

impl Release {
    /// Installs it with the addresses of two receivers, the names of the cluster's images, and what `further` says.
    pub(super) fn install(forward: &str, remote_write: &str, further: &Value) -> Self {
        static RELEASES: AtomicU32 = AtomicU32::new(0);
        let number = RELEASES.fetch_add(1, Ordering::Relaxed);
        let image = |name: &str| json!({ "repository": format!("sidelight.test/{name}"), "tag": "1", "pullPolicy": "Never" });
        let mut values = json!({
            "cluster": "test",
            "receivers": { "forward": forward, "remoteWrite": remote_write },
            "image": { "agent": image("sidelight"), "injector": image("sidelight-injector") },
            // Goes with the cluster; no positions of another test.
            "agent": { "dataDir": { "hostPath": format!("/run/sidelight-cluster/data-{}-{number}", std::process::id()) } },
        });
        merge(&mut values, further);
        let release = Release { values, home: TempDir::new().unwrap() };
        // The CustomResourceDefinition stays when a release goes, and other tests apply it with kubectl.
        release.helm_with(&["install", NAME, CHART, "--create-namespace", "--take-ownership"], &json!({}));
        release
    }

    /// Upgrades it, with further values; waits until all is ready.
    pub(super) fn upgrade(&self, values: &Value) {
        self.helm_with(&["upgrade", NAME, CHART, "--wait"], values);
        self.rolled_out();
    }

    /// Goes back to the revision before.
    pub(super) fn roll_back(&self) {
        self.helm(&["rollback", NAME, "--wait"]);
        self.rolled_out();
    }

    /// `helm test`: what it prints.
    pub(super) fn test(&self) -> String {
        self.helm(&["test", NAME])
    }

    /// The commands in the notes that Helm prints after it has installed the release.
    pub(super) fn noted_commands(&self) -> Vec<String> {
        let notes = self.helm(&["get", "notes", NAME]);
        let is_command = |line: &&str| line.starts_with("  kubectl ") || line.starts_with("  helm ");
        notes.lines().filter(is_command).map(|line| line.trim().to_owned()).collect()
    }

    /// Takes it away; pods included.
    pub(super) fn uninstall(&self) {
        self.helm(&["uninstall", NAME, "--wait"]);
        wait_for("the pods have ended", || self.pods("").is_empty());
    }

    /// The pods of a component, or of all.
    pub(super) fn pods(&self, component: &str) -> Vec<Value> {
        let mut labels = format!("app.kubernetes.io/instance={NAME}");
        if !component.is_empty() {
            labels += &format!(",app.kubernetes.io/component={component}");
        }
        let list = kubectl(&["get", "pods", "-n", NAME, "-l", &labels, "-o", "json"]);
        list["items"].as_array().unwrap().clone()
    }

    /// Waits until all is ready. Helm waits for as many pods of a DaemonSet as may not be away: of one node, none.
    pub(super) fn rolled_out(&self) {
        kubectl(&["rollout", "status", "-n", NAME, "daemonset/sidelight-agent", "--timeout=120s"]);
        kubectl(&["rollout", "status", "-n", NAME, "deployment/sidelight-injector", "--timeout=120s"]);
    }

    fn helm_with(&self, arguments: &[&str], values: &Value) -> String {
        let mut all = self.values.clone();
        merge(&mut all, values);
        let file = self.home.path().join("values.json");
        std::fs::write(&file, all.to_string()).unwrap();
        let file = file.to_str().unwrap().to_owned();
        self.helm(&[arguments, &["--values", &file]].concat())
    }

    fn helm(&self, arguments: &[&str]) -> String {
        let output = self.try_helm(arguments);
        let told =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        assert!(output.status.success(), "helm {}: {told}", arguments.join(" "));
        told
    }

    fn try_helm(&self, arguments: &[&str]) -> Output {
        self.command("helm").args(arguments).args(["--namespace", NAME]).output().unwrap()
    }

    /// `helm` or `kubectl`.
    pub(super) fn command(&self, program: &str) -> Command {
        if program != "helm" {
            return Command::new(program);
        }
        let mut command = Command::new(folder().join("helm"));
        for kind in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(kind, self.home.path());
        }
        command
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let _ = self.try_helm(&["uninstall", NAME, "--ignore-not-found"]);
        let _ = Command::new("kubectl").args(["delete", "namespace", NAME]).output();
    }
}

/// Where `tests/delivery/build` has put Helm.
fn folder() -> std::path::PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/delivery/build");
    let output = Command::new(build).args(["--where", "helm"]).output().unwrap();
    assert!(output.status.success(), "Helm is not built; run tests/delivery/build");
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// Objects over objects, all else replaces (RFC 7396, without removal).
pub(super) fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from.clone(),
    }
}
