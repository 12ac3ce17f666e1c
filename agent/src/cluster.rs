//! What Kubernetes says about the pods of this node: one writer, any number of readers of the latest value.

mod api;
mod file;
mod owner;
mod persist;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, Registry};
use serde::{Deserialize, Serialize};

use crate::wake::Wake;

/// What is kept is written to disk at most this often.
const PERSIST_INTERVAL: Duration = Duration::from_secs(5);

/// Annotations that give the UID under which the kubelet keeps a static pod's logs (`pkg/kubelet/types/pod_update.go`).
const STATIC_POD_HASHES: [&str; 2] = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];

/// What records need to know of a pod, and nothing else.
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

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, `CronJob`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image as the pod asks for it.
    pub image: String,
    /// Image as it runs, with its digest.
    pub image_id: Option<String>,
    /// Id at the runtime, without the runtime's name.
    pub id: Option<String>,
    /// How often it was restarted.
    pub restart_count: u32,
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
    },
    /// A v1 List, read again when it changes.
    File {
        /// JSON or YAML.
        path: PathBuf,
    },
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

/// All pods of the node, by the UID in their log path. A pod stays until its log files are gone as well. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pods: Mutex<HashMap<String, Entry>>,
    version: AtomicU64,
    synced: AtomicBool,
    readers: Mutex<Vec<Arc<Wake>>>,
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// Kubernetes does not know it any more.
    deleted: bool,
}

// === impl Pod ===

impl Pod {
    /// The UIDs under which its logs may lie: its own, and a static pod's hash.
    fn path_uids(&self) -> Vec<String> {
        let hashes = STATIC_POD_HASHES.iter().filter_map(|name| self.annotations.get(*name));
        let mut uids: Vec<String> = hashes.chain([&self.uid]).cloned().collect();
        uids.sort();
        uids.dedup();
        uids
    }
}

// === impl Store ===

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes somebody whenever something changes.
    pub fn subscribe(&self, wake: Arc<Wake>) {
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Goes up with every change.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Whether the first list has been seen.
    pub fn synced(&self) -> bool {
        self.0.synced.load(Ordering::Acquire)
    }

    /// The pod whose logs lie under this UID.
    pub fn pod(&self, path_uid: &str) -> Option<Arc<Pod>> {
        self.lock().get(path_uid).map(|entry| entry.pod.clone())
    }

    /// The pods of this name: more than one when it was created again.
    pub fn find(&self, namespace: &str, name: &str) -> Vec<Arc<Pod>> {
        let pods = self.lock();
        let mut found: Vec<Arc<Pod>> =
            pods.values().map(|entry| &entry.pod).filter(|pod| pod.namespace == namespace && pod.name == name).cloned().collect();
        found.sort_by(|a, b| a.uid.cmp(&b.uid));
        found.dedup_by(|a, b| a.uid == b.uid);
        found
    }

    /// Forgets the pods that Kubernetes has deleted and that have no logs left.
    pub fn retain(&self, has_logs: &dyn Fn(&str) -> bool) {
        let mut pods = self.lock();
        let before = pods.len();
        pods.retain(|uid, entry| !entry.deleted || has_logs(uid));
        let changed = pods.len() != before;
        drop(pods);
        if changed {
            self.0.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Adds or replaces a pod; one that is the same changes nothing, and wakes nobody.
    fn apply(&self, pod: Pod) {
        let pod = Arc::new(pod);
        let mut changed = false;
        let mut pods = self.lock();
        for uid in pod.path_uids() {
            match pods.get_mut(&uid) {
                Some(entry) if entry.pod == pod => entry.deleted = false,
                _ => {
                    pods.insert(uid, Entry { pod: pod.clone(), deleted: false });
                    changed = true;
                }
            }
        }
        drop(pods);
        if changed {
            self.changed();
        }
    }

    fn delete(&self, uid: &str) {
        for entry in self.lock().values_mut().filter(|entry| entry.pod.uid == uid) {
            entry.deleted = true;
        }
    }

    /// A whole list was seen: what is not in it is deleted.
    fn replace(&self, pods: Vec<Pod>) {
        let present: Vec<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        pods.into_iter().for_each(|pod| self.apply(pod));
        for entry in self.lock().values_mut().filter(|entry| !present.contains(&entry.pod.uid)) {
            entry.deleted = true;
        }
        if !self.0.synced.swap(true, Ordering::AcqRel) {
            self.changed();
        }
    }

    /// What an earlier run has left: true until Kubernetes says otherwise.
    fn restore(&self, pods: Vec<Pod>) {
        pods.into_iter().for_each(|pod| self.apply(pod));
    }

    fn all(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<Arc<Pod>> = self.lock().values().map(|entry| entry.pod.clone()).collect();
        pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        pods.dedup_by(|a, b| a.uid == b.uid);
        pods
    }

    fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::Release);
        self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|reader| reader.wake());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
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
            events: IntCounter::new("sidelight_cluster_watch_events_total", "Pods that the API server, or the file, has told about.")?,
            errors: IntCounter::new("sidelight_cluster_watch_errors_total", "Failures of the watch; it is taken up again each time.")?,
            last_event: Gauge::new("sidelight_cluster_last_event_timestamp_seconds", "When the API server, or the file, last told something.")?,
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
    if matches!(source, Source::None) {
        store.0.synced.store(true, Ordering::Release);
        return;
    }
    let mut persisted = persist::Persisted::open(&data_dir);
    store.restore(persisted.load());
    let keep = async {
        loop {
            tokio::time::sleep(PERSIST_INTERVAL).await;
            persisted.save_if_changed(&store);
        }
    };
    let update = async {
        match source {
            Source::Cluster { node, namespace_labels } => watch::run(&node, namespace_labels, &store, &metrics).await,
            Source::File { path } => file::run(&path, &store, &metrics).await,
            Source::None => {}
        }
    };
    tokio::select! {
        () = update => {}
        () = keep => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    persisted.save_if_changed(&store);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, label: &str) -> Pod {
        Pod { uid: uid.to_owned(), labels: BTreeMap::from([("l".to_owned(), label.to_owned())]), ..Pod::default() }
    }

    #[test]
    fn a_pod_stays_until_it_is_deleted_and_its_logs_are_gone() {
        let store = Store::new();
        store.replace(vec![pod("a", "1"), pod("b", "1")]);
        store.retain(&|_| false);
        assert!(store.pod("a").is_some(), "Kubernetes has it");
        store.delete("a");
        store.replace(vec![]);
        store.retain(&|uid| uid == "a");
        assert!(store.pod("a").is_some() && store.pod("b").is_none());
    }

    #[test]
    fn a_change_wakes_readers_and_the_same_again_does_not() {
        let store = Store::new();
        let wake = Arc::new(Wake::new().unwrap());
        store.subscribe(wake.clone());
        store.apply(pod("a", "1"));
        assert!(wake.take());
        store.apply(pod("a", "1"));
        assert!(!wake.take());
        store.apply(pod("a", "2"));
        assert!(wake.take());
    }

    #[test]
    fn a_static_pod_is_found_by_the_hash_in_its_log_path() {
        let store = Store::new();
        let mut mirror = pod("api-uid", "1");
        mirror.annotations.insert("kubernetes.io/config.hash".to_owned(), "hash".to_owned());
        store.apply(mirror);
        assert_eq!(store.pod("hash").unwrap().uid, "api-uid");
        store.delete("api-uid");
        store.retain(&|uid| uid == "hash");
        assert!(store.pod("hash").is_some());
    }
}
