//! The real injector against an API server that is strict: one module for each surface.

#![allow(clippy::unwrap_used, reason = "in a test a failure is a failed test")]

mod admin;
mod certificate;
mod limits;
mod load;
mod profiles;
mod reviews;
mod rotation;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sidelight_tests::caller::{Caller, Reply, review};
use sidelight_tests::control_plane::{ControlPlane, SERVER_NAME};
use sidelight_tests::injector::Injector;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_sidelight-injector");

/// Receivers for both kinds of data.
const SIDECAR: &str = "sidecar:\n  image: sidelight:test\n  logs: { outputs: [{ forward: { upstreams: ['fluentd:24224'] } }] }\n  \
                       metrics: { outputs: [{ remote_write: { url: 'http://prometheus/write' } }] }\n";

/// An injector that is ready, and its API server.
struct Stage {
    injector: Injector,
    plane: Arc<ControlPlane>,
    directory: TempDir,
}

// === impl Stage ===

impl Stage {
    /// With receivers, and further keys of the configuration.
    fn with(more: &str) -> Self {
        let (plane, directory) = (Arc::new(ControlPlane::new()), tempfile::tempdir().unwrap());
        let injector = start(&directory, &plane, more).ready();
        Stage { injector, plane, directory }
    }

    fn new() -> Self {
        Self::with("")
    }

    /// The API server as it calls now.
    fn caller(&self) -> Caller {
        caller(&self.injector, &self.plane)
    }

    /// The answer to the review of a pod, which has to be one.
    fn answer(&self, pod: &Value) -> Value {
        answer(&self.caller().review(&review("u-1", "shop", pod, false)).unwrap())
    }
}

/// An injector that need not be ready.
fn start(directory: &TempDir, plane: &ControlPlane, more: &str) -> Injector {
    Injector::start(BINARY, directory.path(), plane, &format!("{SIDECAR}{more}"))
}

fn caller(injector: &Injector, plane: &ControlPlane) -> Caller {
    Caller::new(injector.address(), SERVER_NAME, &plane.ca_bundle(Duration::ZERO).unwrap())
}

/// A pod of a Deployment that wants its logs and metrics taken care of, with fields that no injector knows yet.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "web-5d4f-", "labels": { "app": "web", "pod-template-hash": "5d4f" }, "futureField": [1],
            "annotations": { "sidelight.dev/inject": "true", "sidelight.dev/inject.logs": "/logs/*.log",
                "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": "9090" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "uid-web", "controller": true }] },
        "spec": {
            "containers": [{ "name": "web", "image": "web:1", "ports": [{ "containerPort": 9090 }], "futureField": { "deep": 1.5 } }],
            "futureField": "\u{e9}" },
    })
}

/// The same with other annotations of ours.
fn annotated(annotations: &[(&str, &str)]) -> Value {
    let mut pod = pod();
    for (name, value) in annotations {
        pod["metadata"]["annotations"][format!("sidelight.dev/{name}")] = json!(value);
    }
    pod
}

/// The response in an answer that the API server would take.
fn answer(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.headers["content-type"], "application/json");
    let review = reply.json();
    let head = (review["apiVersion"].as_str(), review["kind"].as_str());
    assert_eq!(head, (Some("admission.k8s.io/v1"), Some("AdmissionReview")));
    assert_eq!(review["response"]["patch"].is_null(), review["response"]["patchType"].is_null());
    review["response"].clone()
}

/// The pod as the API server goes on with it.
fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(response["allowed"], true, "{response}");
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let mut pod = pod.clone();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// The sidecar of a pod, native or not.
fn sidecar(pod: &Value) -> &Value {
    let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
    lists.into_iter().filter_map(Value::as_array).flatten().find(|one| one["name"] == "sidelight").unwrap()
}
