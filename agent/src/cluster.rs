//! What Kubernetes says about the pods of this node: one writer, any number of readers of the latest value.

mod api;
mod credentials;
mod file;
mod namespaces;
mod owner;
mod persist;
mod podinfo;
mod retry;
mod review;
mod store;
mod watch;

pub use credentials::token;
pub use owner::workload;
pub use podinfo::PodInfo;
pub use review::{Reviews, Verdict};
pub use store::Store;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, Registry};
use serde::{Deserialize, Serialize};

/// Annotations that give the UID under which the kubelet keeps a static pod's logs (`pkg/kubelet/types/pod_update.go`).
const STATIC_POD_HASHES: [&str; 2] = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];

/// What records and targets need to know of a pod, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// The API's UID.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// IP address, once it has one.
    pub ip: Option<String>,
    /// All its addresses, of which that is the first: one of each family.
    pub ips: Vec<IpAddr>,
    /// Its node.
    pub node: String,
    /// Its node's address.
    pub host_ip: Option<IpAddr>,
    /// Where it is in its life.
    pub phase: Phase,
    /// It has been told to end.
    pub deleting: bool,
    /// Its addresses are the node's, and so are its ports.
    pub host_network: bool,
    /// This process runs in it: its ports are at the loopback address as well.
    pub is_own: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it belongs to in the end: the Deployment, not the ReplicaSet.
    pub owner: Option<Owner>,
    /// Its containers, init containers among them.
    pub containers: Vec<Container>,
    /// Labels of its namespace, if asked for and known.
    pub namespace_labels: Option<BTreeMap<String, String>>,
}

impl Pod {
    /// The name of what it belongs to, else its own.
    pub fn workload(&self) -> &str {
        self.owner.as_ref().map_or(&self.name, |owner| &owner.name)
    }
}

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, `CronJob`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A pod's `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not all of its containers have begun.
    Pending,
    /// At least one container runs, or is about to.
    Running,
    /// All have ended well.
    Succeeded,
    /// All have ended, and not all of them well.
    Failed,
    /// The node has not been heard of.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image as the runtime calls it; before it runs, as the pod asks for it.
    pub image: String,
    /// Image as it runs, with its digest: Fluent Bit's `container_hash`.
    pub image_id: Option<String>,
    /// Id at the runtime, without the runtime's name.
    pub id: Option<String>,
    /// How often it was restarted.
    pub restart_count: u32,
    /// Whether this run of it is over.
    pub terminated: bool,
    /// How it has ended last, this time or before.
    pub last_terminated: Option<Terminated>,
    /// Why it does not run yet: `ImagePullBackOff`, `CrashLoopBackOff`, …
    pub waiting: Option<String>,
    /// Quantities that it requests, by resource.
    pub requests: BTreeMap<String, String>,
    /// Quantities that it is limited to, by resource.
    pub limits: BTreeMap<String, String>,
    /// What it is in its pod.
    pub kind: ContainerKind,
    /// The TCP ports that it declares.
    pub ports: Vec<ContainerPort>,
}

/// How a container has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// Of its first process.
    pub exit_code: i32,
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerKind {
    /// One of `containers`.
    #[default]
    Regular,
    /// One of `initContainers` that is restarted for ever: it runs beside the others.
    Sidecar,
    /// One of `initContainers`: it ends before the others begin.
    Init,
    /// Added for debugging.
    Ephemeral,
}

/// A TCP port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub number: u16,
}

/// Where pods come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The API server.
    Cluster {
        /// This node's name.
        node: String,
        /// Whether namespaces' labels are asked for.
        namespace_labels: bool,
        /// How to reach it; without one `KUBECONFIG`, `~/.kube/config` or the pod's service account say.
        kubeconfig: Option<PathBuf>,
    },
    /// A v1 List, read again when it changes.
    File {
        /// JSON or YAML.
        path: PathBuf,
    },
    /// The pod that this process runs in.
    Own(Box<PodInfo>),
    /// Nobody is asked.
    None,
}

/// Counters of the watch.
#[derive(Clone, Debug)]
pub struct Metrics {
    events: IntCounter,
    errors: IntCounter,
    last_event: Gauge,
}

// === impl Pod ===

impl Pod {
    /// The UID in its logs' path, if that is not its own.
    fn static_hash(&self) -> Option<&str> {
        STATIC_POD_HASHES.iter().find_map(|name| self.annotations.get(*name)).map(String::as_str)
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            events: IntCounter::new(
                "sidelight_cluster_watch_events_total",
                "Pods that the API server, or the file, has told about.",
            )?,
            errors: IntCounter::new(
                "sidelight_cluster_watch_errors_total",
                "Failures of the watch; it is taken up again each time.",
            )?,
            last_event: Gauge::new(
                "sidelight_cluster_last_event_timestamp_seconds",
                "When the API server, or the file, last told something.",
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.last_event.clone()))?;
        Ok(metrics)
    }

    fn event(&self) {
        self.events.inc();
        self.last_event.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}

/// Keeps the store up to date until `stop` is true. What it knows is kept in `data_dir`, so that an agent that starts
/// while the API server is away still knows its pods.
pub async fn run(
    source: Source,
    store: Store,
    data_dir: PathBuf,
    metrics: Metrics,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    match source {
        Source::None => return store.set_synced(),
        Source::Own(info) => tokio::select! {
            () = podinfo::run(&info, &store, &metrics) => return,
            _ = stop.wait_for(|stop| *stop) => return,
        },
        Source::Cluster { .. } | Source::File { .. } => {}
    }
    let persisted = persist::Persisted::open(&data_dir);
    store.restore(persisted.load());
    let update = async {
        match source {
            Source::Cluster { node, namespace_labels, kubeconfig } => {
                watch::run(kubeconfig.as_deref(), &node, namespace_labels, &store, &metrics).await;
            }
            Source::File { path } => file::run(&path, &store, &metrics).await,
            Source::Own(_) | Source::None => {}
        }
    };
    tokio::select! {
        () = update => {}
        () = persisted.keep(&store, stop) => {}
    }
}
