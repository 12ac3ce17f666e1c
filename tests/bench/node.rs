//! The directory of a node's logs as the kubelet lays it out, and what Kubernetes knows about the pods.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

const CONTAINER_ID: &str = "3f1c9a7e5d2b4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7";

/// A temporary directory with `pods/`, the links of `containers/`, and `pods.json`.
pub(crate) struct Node {
    directory: TempDir,
    /// How many pods there are.
    pub(crate) pods: u64,
    /// How many containers each pod has.
    pub(crate) containers: u64,
}

// === impl Node ===

impl Node {
    /// Pods without a log file yet.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(pods: u64, containers: u64) -> io::Result<Self> {
        // Fluent Bit makes one dot of two in its tags: a hidden directory would not be found in them.
        let directory = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let node = Node { directory, pods, containers };
        let links = node.path().join("containers");
        fs::create_dir(&links)?;
        for (pod, container) in node.all() {
            let log = node.log(pod, container);
            fs::create_dir_all(log.parent().unwrap())?;
            let link = format!("{}_shop_{}-{CONTAINER_ID}.log", pod_name(pod), container_name(container));
            symlink(log, links.join(link))?;
        }
        fs::write(node.path().join("pods.json"), node.pod_list().to_string())?;
        Ok(node)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Every container, as the numbers of its pod and of itself.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let containers = self.containers;
        (0..self.pods).flat_map(move |pod| (0..containers).map(move |container| (pod, container)))
    }

    /// The file that a container writes to.
    pub(crate) fn log(&self, pod: u64, container: u64) -> PathBuf {
        let pod = format!("shop_{}_{}", pod_name(pod), uid(pod));
        self.path().join("pods").join(pod).join(container_name(container)).join("0.log")
    }

    /// The v1 List of all pods.
    pub(crate) fn pod_list(&self) -> Value {
        let items: Vec<_> = (0..self.pods).map(|number| pod(number, self.containers)).collect();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
    }
}

/// What the records of a pod carry.
pub(crate) fn pod_name(pod: u64) -> String {
    format!("checkout-7c9d5b6f4-x{pod}k2p")
}

fn uid(pod: u64) -> String {
    format!("6f1d2c3b-8a7e-4c5d-9b0a-{pod:012}")
}

fn container_name(container: u64) -> String {
    if container == 0 { "app".to_owned() } else { format!("app{container}") }
}

/// A pod whose metadata take about 600 bytes in a record.
pub(crate) fn pod(pod: u64, containers: u64) -> Value {
    let image = "registry.example/shop/checkout:1.4.2";
    let names = || (0..containers).map(container_name);
    json!({
        "metadata": {
            "name": pod_name(pod), "namespace": "shop", "uid": uid(pod), "resourceVersion": "1",
            "labels": {
                "app.kubernetes.io/name": "checkout", "app.kubernetes.io/instance": "checkout-eu-1",
                "app.kubernetes.io/version": "1.4.2", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7c9d5b6f4",
            },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "checkout-7c9d5b6f4", "controller": true }],
        },
        "spec": {
            "nodeName": "bench",
            "containers": names().map(|name| json!({ "name": name, "image": image })).collect::<Vec<_>>(),
        },
        "status": {
            "podIP": "10.1.2.3",
            "containerStatuses": names().map(|name| json!({
                "name": name, "restartCount": 0, "image": image,
                "containerID": format!("containerd://{CONTAINER_ID}"),
                "imageID": "registry.example/shop/checkout@sha256:9a7e5d2b4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819",
            })).collect::<Vec<_>>(),
        },
    })
}
