//! The pods that are known: written by the source, read by everybody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::Pod;
use crate::wake::Wake;

/// All pods of the node. A pod stays until its log files are gone as well. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pods: Mutex<Pods>,
    version: watch::Sender<u64>,
    synced: AtomicBool,
    readers: Mutex<Vec<Weak<Wake>>>,
}

#[derive(Debug, Default)]
struct Pods {
    /// By the API's UID.
    entries: HashMap<String, Entry>,
    /// The UIDs of static pods by the hash in their logs' path and by namespace and name: the annotation with the hash
    /// is for anyone to write, and must not lend him the logs of a pod in another namespace.
    static_pods: HashMap<[String; 3], String>,
    /// The last known labels of namespaces.
    namespace_labels: HashMap<String, BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// Kubernetes does not know it any more.
    deleted: bool,
}

// === impl Store ===

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes somebody whenever something changes, for as long as he is there.
    pub fn subscribe(&self, wake: &Arc<Wake>) {
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(wake));
    }

    /// Goes up with every change.
    pub fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// Whether the first list has been seen.
    pub fn synced(&self) -> bool {
        self.0.synced.load(Ordering::Acquire)
    }

    /// The pod whose logs lie under these names: `path_uid` is its UID, or a static pod's hash.
    pub fn pod(&self, namespace: &str, name: &str, path_uid: &str) -> Option<Arc<Pod>> {
        let pods = self.lock();
        let entry = match pods.entries.get(path_uid) {
            Some(entry) => entry,
            None => {
                let uid = pods.static_pods.get(&[path_uid, namespace, name].map(str::to_owned))?;
                pods.entries.get(uid)?
            }
        };
        (entry.pod.namespace == namespace && entry.pod.name == name).then(|| entry.pod.clone())
    }

    /// The pods of this name: more than one when it was created again.
    pub fn find(&self, namespace: &str, name: &str) -> Vec<Arc<Pod>> {
        let pods = self.lock();
        let same_name =
            pods.entries.values().filter(|entry| entry.pod.namespace == namespace && entry.pod.name == name);
        let mut found: Vec<Arc<Pod>> = same_name.map(|entry| entry.pod.clone()).collect();
        found.sort_by(|a, b| a.uid.cmp(&b.uid));
        found
    }

    /// Forgets the pods that Kubernetes has deleted and that have no logs left; `has_logs` is asked for a namespace, a
    /// pod's name and the UID in the path.
    pub fn retain(&self, has_logs: &dyn Fn(&str, &str, &str) -> bool) {
        let mut pods = self.lock();
        let Pods { entries, static_pods, namespace_labels } = &mut *pods;
        let before = entries.len();
        entries.retain(|uid, Entry { pod, deleted }| {
            let has_static_logs = |hash: &str| {
                static_pods.get(&static_key(hash, pod)) == Some(uid)
                    && has_logs(&pod.namespace, &pod.name, hash)
            };
            !*deleted
                || has_logs(&pod.namespace, &pod.name, uid)
                || pod.static_hash().is_some_and(has_static_logs)
        });
        let changed = entries.len() != before;
        static_pods.retain(|_, uid| entries.contains_key(uid));
        let used: HashSet<&str> = entries.values().map(|entry| entry.pod.namespace.as_str()).collect();
        namespace_labels.retain(|namespace, _| used.contains(namespace.as_str()));
        drop(pods);
        if changed {
            self.changed();
        }
    }

    /// Adds or replaces a pod; one that is the same changes nothing, and wakes nobody.
    pub(super) fn apply(&self, pod: Pod) {
        if self.lock().insert(pod) {
            self.changed();
        }
    }

    /// Kubernetes has deleted this pod; what it said last is kept.
    pub(super) fn delete(&self, pod: Pod) {
        let uid = pod.uid.clone();
        self.apply(pod);
        if let Some(entry) = self.lock().entries.get_mut(&uid) {
            entry.deleted = true;
        }
        self.changed();
    }

    /// A whole list was seen: what is not in it is deleted.
    pub(crate) fn replace(&self, listed: Vec<Pod>) {
        let present: HashSet<String> = listed.iter().map(|pod| pod.uid.clone()).collect();
        let mut pods = self.lock();
        let mut changed = false;
        for pod in listed {
            changed |= pods.insert(pod);
        }
        for (_, entry) in pods.entries.iter_mut().filter(|(uid, _)| !present.contains(*uid)) {
            changed |= !std::mem::replace(&mut entry.deleted, true);
        }
        // Before anybody can see a pod of the list.
        let is_first = !self.0.synced.swap(true, Ordering::AcqRel);
        drop(pods);
        if is_first || changed {
            self.changed();
        }
    }

    /// What an earlier run has left: true until Kubernetes says otherwise.
    pub(super) fn restore(&self, left: Vec<Pod>) {
        let mut pods = self.lock();
        for pod in left {
            if let Some(labels) = &pod.namespace_labels {
                pods.namespace_labels.insert(pod.namespace.clone(), labels.clone());
            }
            pods.insert(pod);
        }
        drop(pods);
        self.changed();
    }

    /// There is no list to wait for.
    pub(super) fn set_synced(&self) {
        self.0.synced.store(true, Ordering::Release);
        self.changed();
    }

    /// The namespaces of the pods that Kubernetes knows.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        self.lock()
            .entries
            .values()
            .filter(|entry| !entry.deleted)
            .map(|entry| entry.pod.namespace.clone())
            .collect()
    }

    /// These are the labels of a namespace now.
    pub(super) fn label_namespace(&self, namespace: &str, labels: BTreeMap<String, String>) {
        let mut pods = self.lock();
        if pods.namespace_labels.get(namespace) == Some(&labels) {
            return;
        }
        for entry in pods.entries.values_mut().filter(|entry| entry.pod.namespace == namespace) {
            Arc::make_mut(&mut entry.pod).namespace_labels = Some(labels.clone());
        }
        pods.namespace_labels.insert(namespace.to_owned(), labels);
        drop(pods);
        self.changed();
    }

    /// The pods that Kubernetes knows now.
    pub fn present(&self) -> Vec<Arc<Pod>> {
        let pods = self.lock();
        pods.entries.values().filter(|entry| !entry.deleted).map(|entry| entry.pod.clone()).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().entries.values().map(|entry| entry.pod.clone()).collect()
    }

    /// Changes from now on, for those who wait in a task.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    fn changed(&self) {
        self.0.version.send_modify(|version| *version += 1);
        let readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().filter_map(Weak::upgrade).for_each(|reader| reader.wake());
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pods ===

impl Pods {
    /// Whether that changes anything.
    fn insert(&mut self, mut pod: Pod) -> bool {
        pod.namespace_labels = self.namespace_labels.get(&pod.namespace).cloned();
        if let Some(hash) = pod.static_hash() {
            self.static_pods.insert(static_key(hash, &pod), pod.uid.clone());
        }
        match self.entries.get_mut(&pod.uid) {
            Some(entry) if *entry.pod == pod => {
                entry.deleted = false;
                false
            }
            _ => {
                self.entries.insert(pod.uid.clone(), Entry { pod: Arc::new(pod), deleted: false });
                true
            }
        }
    }
}

fn static_key(hash: &str, pod: &Pod) -> [String; 3] {
    [hash, &pod.namespace, &pod.name].map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, label: &str) -> Pod {
        Pod {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            labels: BTreeMap::from([("l".to_owned(), label.to_owned())]),
            ..Pod::default()
        }
    }

    fn with_hash(mut pod: Pod, hash: &str) -> Pod {
        pod.annotations.insert("kubernetes.io/config.hash".to_owned(), hash.to_owned());
        pod
    }

    #[test]
    fn a_pod_stays_until_it_is_deleted_and_its_logs_are_gone() {
        let store = Store::new();
        store.replace(vec![pod("a", "1"), pod("b", "1")]);
        store.retain(&|_, _, _| false);
        assert!(store.pod("shop", "web", "a").is_some(), "Kubernetes has it");
        store.delete(pod("a", "2"));
        store.replace(vec![]);
        store.retain(&|_, _, uid| uid == "a");
        assert_eq!(store.pod("shop", "web", "a").unwrap().labels["l"], "2", "as it was at its end");
        assert_eq!(store.pod("shop", "web", "b"), None);
    }

    #[test]
    fn a_change_wakes_readers_and_the_same_again_does_not() {
        let store = Store::new();
        let wake = Arc::new(Wake::new().unwrap());
        store.subscribe(&wake);
        store.apply(pod("a", "1"));
        assert!(wake.take());
        store.apply(pod("a", "1"));
        assert!(!wake.take());
        store.apply(pod("a", "2"));
        assert!(wake.take());
        store.label_namespace("shop", BTreeMap::new());
        assert!(wake.take());
        store.label_namespace("shop", BTreeMap::new());
        store.replace(vec![pod("a", "2")]);
        assert!(wake.take(), "the first list");
        store.replace(vec![pod("a", "2")]);
        assert!(!wake.take());
    }

    #[test]
    fn a_static_pod_is_found_by_the_hash_in_its_log_path() {
        let store = Store::new();
        store.apply(with_hash(pod("api-uid", "1"), "hash"));
        assert_eq!(store.pod("shop", "web", "hash").unwrap().uid, "api-uid");
        assert_eq!(store.pod("shop", "web", "api-uid").unwrap().uid, "api-uid");
        store.delete(with_hash(pod("api-uid", "1"), "hash"));
        store.retain(&|_, _, uid| uid == "hash");
        assert!(store.pod("shop", "web", "hash").is_some());
        store.apply(with_hash(pod("created-again", "1"), "hash"));
        store.retain(&|_, _, uid| uid == "hash");
        assert_eq!(store.pod("shop", "web", "hash").unwrap().uid, "created-again");
        assert_eq!(store.pod("shop", "web", "api-uid"), None, "the logs are its successor's");
    }

    #[test]
    fn nobody_gets_at_the_logs_of_another_pod_by_an_annotation() {
        let store = Store::new();
        store.apply(pod("victim", "right"));
        store.apply(with_hash(
            Pod { namespace: "kube-system".into(), name: "etcd".into(), ..pod("mirror", "right") },
            "hash",
        ));
        for claimed in ["victim", "hash", "not-yet-known"] {
            store.apply(with_hash(Pod { namespace: "evil".into(), ..pod("evil", "wrong") }, claimed));
        }
        assert_eq!(store.pod("shop", "web", "victim").unwrap().labels["l"], "right");
        assert_eq!(store.pod("kube-system", "etcd", "hash").unwrap().labels["l"], "right");
        assert_eq!(store.pod("shop", "other", "not-yet-known"), None);
    }

    #[test]
    fn a_pod_that_comes_later_has_the_labels_that_are_known_of_its_namespace() {
        let store = Store::new();
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        store.apply(pod("a", "1"));
        store.label_namespace("shop", labels.clone());
        store.apply(pod("b", "1"));
        for uid in ["a", "b"] {
            assert_eq!(store.pod("shop", "web", uid).unwrap().namespace_labels.as_ref(), Some(&labels));
        }
        let restarted = Store::new();
        restarted.restore(store.all().iter().map(|pod| Pod::clone(pod)).collect());
        restarted.apply(pod("c", "1"));
        assert_eq!(restarted.pod("shop", "web", "c").unwrap().namespace_labels.as_ref(), Some(&labels));
    }
}
