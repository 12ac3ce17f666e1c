//! Reviews as the API server asks for them: objects that are created as dry runs.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::with_sidecar;

/// Creates pods that ask for a sidecar, as dry runs, one after the other.
pub(super) struct Asking {
    created: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

// === impl Asking ===

impl Asking {
    pub(super) fn start(namespace: &str) -> Self {
        let (created, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let pod = asking("asking", namespace);
        let (counting, stopping) = (created.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut refused = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                match create(&pod) {
                    Ok(()) => _ = counting.fetch_add(1, Ordering::Relaxed),
                    Err(why) => refused.push(why),
                }
            }
            refused
        });
        Asking { created, stop, thread }
    }

    pub(super) fn created(&self) -> usize {
        self.created.load(Ordering::Relaxed)
    }

    /// How many came back with a sidecar; all must have.
    pub(super) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.join().unwrap(), Vec::<String>::new());
        self.created.load(Ordering::Relaxed)
    }
}

/// A pod by itself that asks for a sidecar.
pub(super) fn asking(name: &str, namespace: &str) -> Value {
    let mut pod = with_sidecar(name, 1);
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

/// Creates it, as a dry run, and looks whether it comes back with a sidecar.
pub(super) fn create(pod: &Value) -> Result<(), String> {
    let output = dry_run(pod);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let pod: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_injected = pod["spec"]["initContainers"][0]["name"] == "sidelight";
    is_injected.then_some(()).ok_or_else(|| format!("without a sidecar: {}", pod["spec"]))
}

/// What the API server warns of when this is created.
pub(super) fn warnings(object: &Value) -> String {
    let output = dry_run(object);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

fn dry_run(object: &Value) -> Output {
    let mut kubectl = Command::new("kubectl")
        .args(["create", "--dry-run=server", "-o", "json", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    kubectl.wait_with_output().unwrap()
}
