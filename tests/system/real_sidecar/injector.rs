//! The injector as a process of the node, and what the API server has to know of it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sidelight_tests::relay::{Relay, Way};

use crate::BINARY;
use crate::real_kubernetes::stage::{kubectl, text, wait_for};

const MANIFESTS: &str = include_str!("../../cluster/injector.yaml");

/// A running injector in a namespace of its own. The API server forgets it when it goes.
pub(super) struct Injector {
    pub(super) namespace: String,
    config: String,
    process: Option<Child>,
    directory: tempfile::TempDir,
    admin: u16,
}

// === impl Injector ===

impl Injector {
    /// Starts it with these outputs, items of the two lists, as a service account that may do what it needs and no more.
    pub(super) fn start(test: &str, logs: &str, metrics: &str) -> Self {
        let namespace = format!("{test}-injector-{}", std::process::id());
        let [port, admin] = [(); 2].map(|()| free_port());
        kubectl(&["create", "namespace", &namespace]);
        let directory = tempfile::tempdir().unwrap();
        let manifests = MANIFESTS.replace("NAMESPACE", &namespace).replace("PORT", &port.to_string());
        let manifests = manifests
            .replace("ADDRESS", &node_address().to_string())
            .replace("FAMILY", &variable("NODE_FAMILY"));
        apply_text(&manifests);
        apply_text(&run(Command::new(binary()).arg("crd")));
        kubectl(&["wait", "--for=condition=Established", "crd/sidecarprofiles.sidelight.dev"]);
        write_kubeconfig(directory.path(), &namespace);
        let config = format!(
            "listen: '{}'\nadmin: {{ listen: '127.0.0.1:{admin}' }}\ncertificate: {{ webhook: {namespace} }}\n\
             sidecar:\n  image: sidelight.test/sidelight:1\n  image_pull_policy: Never\n  logs: {{ outputs: [{logs}] }}\n  \
             metrics: {{ interval: 1s, timeout: 1s, outputs: [{metrics}] }}\n",
            SocketAddr::from((node_address(), port))
        );
        let mut injector = Injector { namespace, config, process: None, directory, admin };
        injector.resume();
        injector
    }

    /// Starts the process, and waits until it is ready.
    pub(super) fn resume(&mut self) {
        let file = self.directory.path().join("injector.yaml");
        std::fs::write(&file, &self.config).unwrap();
        let mut command = Command::new(binary());
        command.args(["serve", "--config"]).arg(&file).stdout(Stdio::null());
        self.process =
            Some(command.env("KUBECONFIG", self.directory.path().join("kubeconfig")).spawn().unwrap());
        wait_for("the injector is ready", || {
            let url = format!("http://127.0.0.1:{}/readyz", self.admin);
            let answer = Command::new("curl").args(["-sf", &url]).stdout(Stdio::null()).status();
            answer.is_ok_and(|status| status.success())
        });
    }

    /// What `check` finds: its exit code and its lines.
    pub(super) fn check(&self) -> (Option<i32>, String) {
        let file = self.directory.path().join("injector.yaml");
        let mut command = Command::new(binary());
        command.args(["check", "--namespace", "default", "--config"]).arg(file);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Ends the process; the API server goes on calling it.
    pub(super) fn pause(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.pause();
        let name = &self.namespace;
        for kind in ["mutatingwebhookconfiguration", "clusterrole", "clusterrolebinding", "namespace"] {
            let _ = Command::new("kubectl")
                .args(["delete", kind, name, "--wait=false"])
                .stdout(Stdio::null())
                .status();
        }
    }
}

/// Beside the agent.
fn binary() -> std::path::PathBuf {
    let binary = Path::new(BINARY).with_file_name("sidelight-injector");
    assert!(binary.exists(), "{} is missing: cargo build -p sidelight-injector", binary.display());
    binary
}

fn free_port() -> u16 {
    TcpListener::bind((node_address(), 0)).unwrap().local_addr().unwrap().port()
}

/// The administrator's way to the API server, with the token of the injector's account.
fn write_kubeconfig(directory: &Path, namespace: &str) {
    let token = run(Command::new("kubectl").args(["create", "token", "sidelight-injector", "-n", namespace]));
    let raw = run(Command::new("kubectl").args(["config", "view", "--raw", "-o", "json"]));
    let mut kubeconfig: Value = serde_json::from_str(&raw).unwrap();
    kubeconfig["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    kubeconfig["contexts"][0]["context"]["namespace"] = serde_json::json!(namespace);
    std::fs::write(directory.join("kubeconfig"), kubeconfig.to_string()).unwrap();
}

/// `kubectl apply` of YAML.
pub(super) fn apply_text(manifests: &str) {
    assert!(try_apply(manifests).is_ok(), "{:?}", try_apply(manifests));
}

/// The same; what kubectl says where it fails.
pub(crate) fn try_apply(manifests: &str) -> Result<(), String> {
    use std::io::Write;
    let mut kubectl = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = kubectl.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The state of the sidecar of a pod, among its init containers or its containers.
pub(crate) fn sidecar(pod: &Value) -> &Value {
    let lists = [&pod["status"]["initContainerStatuses"], &pod["status"]["containerStatuses"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|status| text(&status["name"]) == "sidelight").unwrap_or(&Value::Null)
}

/// Where the node is for pods.
fn node_address() -> IpAddr {
    variable("NODE_ADDRESS").parse().unwrap()
}

/// What `cluster enter` says of the cluster.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: tests/cluster/cluster enter"))
}

/// A way for pods to a port of the node's loopback, which they do not reach.
pub(crate) fn way_to(port: u16) -> Relay {
    Relay::start_on(node_address(), SocketAddr::from(([127, 0, 0, 1], port)), Way::Open)
}
