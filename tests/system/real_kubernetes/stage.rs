//! A test's part of the cluster, and what it asks of it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::forward_server::ForwardServer;
use tempfile::TempDir;

use crate::BINARY;

pub(super) const LOGS: &str = "/var/log/pods";
/// The kubelet removes the directories of deleted pods once a minute, and all this may be slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// One test: a namespace of the cluster, a receiver, a directory for the agent. It goes with all its pods.
pub(crate) struct Stage {
    pub(crate) namespace: String,
    pub(crate) server: ForwardServer,
    pub(crate) directory: TempDir,
}

// === impl Stage ===

impl Stage {
    pub(crate) fn new(test: &str) -> Self {
        let namespace = format!("{test}-{}", std::process::id());
        kubectl(&["create", "namespace", &namespace]);
        Stage { namespace, server: ForwardServer::start(), directory: TempDir::new().unwrap() }
    }

    /// Starts an agent for this namespace; `further` is what follows in its configuration, behind the keys of its output.
    pub(crate) fn agent(&self, further: &str) -> Agent {
        self.agent_for(self.server.address().port(), further)
    }

    /// The same for another receiver on this machine.
    pub(crate) fn agent_for(&self, port: u16, further: &str) -> Agent {
        let (data, namespace) = (self.directory.path().display(), &self.namespace);
        let config = format!(
            "node: ${{NODE_NAME}}\ndata_dir: {data}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\nworkers: 2\n\
             kubernetes: {{ source: cluster }}\nlogs:\n  root: {LOGS}\n  namespaces: [{namespace}]\n  outputs:\n  - forward:\n      \
             upstreams: ['127.0.0.1:{port}']\n      flush_interval: 50ms\n{further}"
        );
        Agent::start(BINARY, self.directory.path(), &config)
    }

    pub(crate) fn apply(&self, object: &Value) {
        let mut kubectl = Command::new("kubectl")
            .args(["apply", "--namespace", &self.namespace, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        kubectl.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
        assert!(kubectl.wait().unwrap().success(), "{object}");
    }

    /// A Deployment of such pods; gives them once the API knows all about them.
    pub(crate) fn run(&self, name: &str, replicas: usize, template: &Value) -> Vec<Value> {
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
        }));
        let has_begun = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].is_string();
        wait_for("the Deployment's pods", || {
            self.pods(name).iter().filter(|pod| has_begun(pod)).count() == replicas
        });
        self.pods(name)
    }

    pub(crate) fn pods(&self, app: &str) -> Vec<Value> {
        let list =
            kubectl(&["get", "pods", "-n", &self.namespace, "-l", &format!("app={app}"), "-o", "json"]);
        list["items"].as_array().unwrap().clone()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = Command::new("kubectl")
            .args(["delete", "namespace", &self.namespace, "--wait=false"])
            .stdout(Stdio::null())
            .status();
    }
}

pub(crate) fn kubectl(arguments: &[&str]) -> Value {
    let output = Command::new("kubectl").args(arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "kubectl {}", arguments.join(" "));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub(crate) fn name(pod: &Value) -> &str {
    text(&pod["metadata"]["name"])
}

/// A port at an address of either family.
pub(crate) fn port_at(ip: &Value, port: u16) -> SocketAddr {
    SocketAddr::new(text(ip).parse().unwrap(), port)
}
