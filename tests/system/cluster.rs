//! Cluster metadata against an API server that is late, forgetful, rude or away.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use prometheus::Registry;
use serde_json::{Value, json};
use sidelight_agent::cluster::{self, Metrics, Source, Store};
use sidelight_tests::api_server::{ApiServer, Mood, WatchFault};
use sidelight_tests::eventually;
use tempfile::TempDir;

/// The part under test, on a single-threaded runtime of its own. It is stopped when this goes.
struct Cluster {
    store: Store,
    registry: Registry,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    fn start(source: Source, data_dir: &Path) -> Self {
        let (store, registry) = (Store::new(), Registry::new());
        let metrics = Metrics::register(&registry).unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (writer, data_dir) = (store.clone(), data_dir.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(cluster::run(source, writer, data_dir, metrics, stopped));
        });
        Cluster { store, registry, stop, thread: Some(thread) }
    }

    fn watching(server: &ApiServer, directory: &TempDir, namespace_labels: bool) -> Self {
        let kubeconfig = Some(server.kubeconfig(directory.path()));
        Self::start(
            Source::Cluster { node: "node-1".to_owned(), namespace_labels, kubeconfig },
            directory.path(),
        )
    }

    fn reading(file: &Path, directory: &TempDir) -> Self {
        Self::start(Source::File { path: file.to_owned() }, directory.path())
    }

    fn label(&self, uid: &str) -> Option<String> {
        self.store.pod("shop", "web-5d4f-x1", uid).and_then(|pod| pod.labels.get("version").cloned())
    }

    fn wait_for(&self, uid: &str, label: &str) {
        eventually("the pod's label", || self.label(uid).as_deref() == Some(label));
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    fn errors(&self) -> f64 {
        self.metric("sidelight_cluster_watch_errors_total")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking());
    }
}

fn pod(uid: &str, version: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "uid": uid, "namespace": "shop", "name": "web-5d4f-x1",
            "labels": {"version": version, "pod-template-hash": "5d4f"},
            "annotations": {"sidelight.dev/logs": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "r", "controller": true}],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "web:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [
            {"name": "app", "image": "docker.io/library/web:1", "imageID": "docker.io/library/web@sha256:ab", "containerID": "containerd://cd", "restartCount": 3},
        ]},
    })
}

fn count(server: &ApiServer, what: &str) -> usize {
    server.requests().iter().filter(|request| request.split(' ').next() == Some(what)).count()
}

/// Scenario: a pod is there at the start, another comes, the first changes and goes.
/// Guarantee: each is known as the API tells it; one list and one watch do it all; a deleted pod stays for its logs.
#[test]
fn pods_are_known_from_one_list_and_one_watch_until_their_logs_are_gone() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, false);
    cluster.wait_for("a", "1");
    assert!(cluster.store.synced());
    let known = cluster.store.pod("shop", "web-5d4f-x1", "a").unwrap();
    let owner = known.owner.as_ref().unwrap();
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Deployment", "web"));
    let app = &known.containers[0];
    assert_eq!(
        (app.image_id.as_deref(), app.id.as_deref(), app.restart_count),
        (Some("docker.io/library/web@sha256:ab"), Some("cd"), 3)
    );
    assert_eq!(
        (known.ip.as_deref(), known.annotations["sidelight.dev/logs"].as_str()),
        (Some("10.0.0.7"), "true")
    );

    server.apply(pod("b", "1"));
    cluster.wait_for("b", "1");
    server.apply(pod("a", "2"));
    cluster.wait_for("a", "2");
    // Start, list, one pod more, one changed.
    eventually("four changes", || cluster.store.version() == 4);
    server.apply(pod("a", "2"));
    server.delete("a");
    server.apply(pod("b", "2"));
    cluster.wait_for("b", "2");
    // The deletion, and the other pod.
    eventually("two changes", || cluster.store.version() >= 6);
    assert_eq!(cluster.store.version(), 6, "a heartbeat changes nothing for readers");
    cluster.store.retain(&|_, _, uid| uid == "a");
    assert_eq!(cluster.label("a").as_deref(), Some("2"), "its logs are there");
    cluster.store.retain(&|_, _, _| false);
    assert_eq!((cluster.label("a"), cluster.label("b").as_deref()), (None, Some("2")));
    assert_eq!((count(&server, "list"), count(&server, "watch")), (1, 1));
    assert_eq!(cluster.errors(), 0.0);
    assert!(cluster.metric("sidelight_cluster_watch_events_total") >= 5.0);
    assert!(cluster.metric("sidelight_cluster_last_event_timestamp_seconds") > 1.0e9);
}

/// Scenario: the watch's version is too old, told as an HTTP status and as an event, with changes missed meanwhile.
/// Guarantee: the pods are listed again, and what was missed is known.
#[test]
fn a_version_that_is_too_old_leads_to_a_new_list() {
    for gone in [WatchFault::GoneStatus, WatchFault::GoneEvent] {
        let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
        server.apply(pod("a", "1"));
        server.apply(pod("b", "1"));
        let cluster = Cluster::watching(&server, &directory, false);
        cluster.wait_for("a", "1");
        eventually("the watch", || count(&server, "watch") == 1);
        server.end_watches(&[gone, gone]);
        server.delete("b");
        server.apply(pod("c", "1"));
        server.end_watches(&[]);
        cluster.wait_for("c", "1");
        eventually("a list", || count(&server, "list") >= 2);
        server.apply(pod("c", "2"));
        cluster.wait_for("c", "2");
        cluster.store.retain(&|_, _, _| false);
        assert_eq!(cluster.label("b"), None, "{gone:?}: that it was deleted was learnt from the list");
    }
}

/// Scenario: the connection ends, in order and in the middle of an event.
/// Guarantee: the watch is taken up where it was, without another list, and no event is lost.
#[test]
fn a_watch_that_ends_is_taken_up_where_it_was() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, false);
    cluster.wait_for("a", "1");
    eventually("the watch", || count(&server, "watch") == 1);
    server.bookmark();
    server.end_watches(&[WatchFault::Cut]);
    eventually("another watch", || count(&server, "watch") >= 2);
    server.apply(pod("a", "2"));
    cluster.wait_for("a", "2");
    assert_eq!(count(&server, "list"), 1, "{:?}", server.requests());
}

/// Scenario: something in between answers every watch with an empty 200.
/// Guarantee: that is a failure like any other, with pauses, and not a loop.
#[test]
fn a_watch_that_ends_at_once_is_not_opened_again_at_once() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.end_watches(&[WatchFault::EndsAtOnce; 3]);
    let cluster = Cluster::watching(&server, &directory, false);
    eventually("a watch that stands", || count(&server, "watch") == 4);
    assert!(cluster.errors() >= 3.0, "each was counted, and followed by a pause");
    server.apply(pod("a", "1"));
    cluster.wait_for("a", "1");
}

/// Scenario: the API server is away, then fails, when the agent starts.
/// Guarantee: the pods are known as soon as it serves; being away is no sign of life.
#[test]
fn an_api_server_that_comes_late_is_waited_for() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Away), TempDir::new().unwrap());
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, false);
    eventually("a failure", || cluster.errors() >= 1.0);
    server.set_mood(Mood::Fails(500));
    eventually("another", || server.requests().iter().any(|request| request == "refused"));
    assert!(!cluster.store.synced());
    assert_eq!(cluster.metric("sidelight_cluster_last_event_timestamp_seconds"), 0.0);
    server.set_mood(Mood::Serves);
    cluster.wait_for("a", "1");
}

/// Scenario: the API server fails for a while.
/// Guarantee: the agent asks less and less often, and says nothing through the client's own retries.
#[test]
fn an_api_server_in_trouble_is_asked_less_and_less_often() {
    for code in [429, 500, 503] {
        let (server, directory) = (ApiServer::start("node-1", Mood::Fails(code)), TempDir::new().unwrap());
        let cluster = Cluster::watching(&server, &directory, false);
        eventually("three failures", || cluster.errors() >= 3.0);
        assert_eq!(
            server.requests().len(),
            cluster.errors() as usize,
            "status {code}: every request is one that is counted"
        );
        server.set_mood(Mood::Serves);
        eventually("a list", || cluster.store.synced());
    }
}

/// Scenario: the watch is refused for a moment while nothing is missed.
/// Guarantee: it goes on from its version; a server in trouble gets no list on top.
#[test]
fn an_outage_in_between_costs_no_list() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, false);
    eventually("the watch", || count(&server, "watch") == 1);
    for mood in [Mood::Fails(503), Mood::Away] {
        let errors = cluster.errors();
        server.set_mood(mood);
        eventually("a failure", || cluster.errors() > errors);
    }
    server.apply(pod("a", "2"));
    server.set_mood(Mood::Serves);
    cluster.wait_for("a", "2");
    assert_eq!(count(&server, "list"), 1);
}

/// Scenario: the agent is stopped and started again while the API server is away; meanwhile a pod is deleted.
/// Guarantee: all pods are known at once; the deleted one goes when the API has told and its logs are gone.
#[test]
fn pods_are_known_after_a_restart_while_the_api_server_is_away() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.label_namespace("shop", json!({"team": "checkout"}));
    server.apply(pod("a", "1"));
    server.apply(pod("b", "1"));
    let cluster = Cluster::watching(&server, &directory, true);
    eventually("the namespace's labels", || {
        cluster.store.pod("shop", "web-5d4f-x1", "b").is_some_and(|pod| pod.namespace_labels.is_some())
    });
    drop(cluster);
    server.set_mood(Mood::Away);
    server.delete("b");

    let cluster = Cluster::watching(&server, &directory, true);
    cluster.wait_for("a", "1");
    cluster.wait_for("b", "1");
    assert!(!cluster.store.synced());
    let labels = cluster.store.pod("shop", "web-5d4f-x1", "a").unwrap().namespace_labels.clone();
    assert_eq!(labels, Some(BTreeMap::from([("team".to_owned(), "checkout".to_owned())])));
    cluster.store.retain(&|_, _, _| false);
    assert!(cluster.label("b").is_some(), "nobody has said that it is deleted");
    server.set_mood(Mood::Serves);
    eventually("the list", || cluster.store.synced());
    cluster.store.retain(&|_, _, _| false);
    assert_eq!((cluster.label("a").as_deref(), cluster.label("b")), (Some("1"), None));
    let kept = std::fs::read_to_string(directory.path().join("pods.json")).unwrap();
    assert!(!kept.contains("hunter2") && !kept.contains("managedFields"));
}

/// Scenario: `pods.json` is damaged.
/// Guarantee: the agent starts, and the API tells again.
#[test]
fn a_damaged_memory_of_pods_is_no_obstacle() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    std::fs::write(directory.path().join("pods.json"), "[{\"uid\": \"a\", \"lab").unwrap();
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, false);
    cluster.wait_for("a", "1");
    drop(cluster);
    let kept: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("pods.json")).unwrap()).unwrap();
    assert_eq!(kept[0]["uid"], "a");
}

/// Scenario: pods of two namespaces; one namespace cannot be found.
/// Guarantee: each namespace is asked for once, by name; one without an answer holds nothing up.
#[test]
fn namespaces_are_asked_for_by_name_and_once() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    server.label_namespace("shop", json!({"team": "checkout"}));
    let mut lost = pod("lost", "1");
    lost["metadata"]["namespace"] = json!("gone");
    server.apply(lost);
    server.apply(pod("a", "1"));
    let cluster = Cluster::watching(&server, &directory, true);
    let labelled = |uid: &str| {
        cluster.store.pod("shop", "web-5d4f-x1", uid).is_some_and(|pod| pod.namespace_labels.is_some())
    };
    eventually("labels", || labelled("a"));
    server.apply(pod("b", "1"));
    cluster.wait_for("b", "1");
    assert!(labelled("b"), "known before the pod");
    let lost = cluster.store.pod("gone", "web-5d4f-x1", "lost").unwrap();
    assert_eq!(lost.namespace_labels, None);
    assert_eq!(count(&server, "namespace"), 2);
}

/// Scenario: a static pod, whose logs lie under its manifest's hash.
/// Guarantee: it is found by the hash and by the UID of its mirror in the API.
#[test]
fn a_static_pod_is_found_by_both_its_uids() {
    let (server, directory) = (ApiServer::start("node-1", Mood::Serves), TempDir::new().unwrap());
    let mut mirror = pod("mirror", "1");
    mirror["metadata"]["annotations"] =
        json!({"kubernetes.io/config.hash": "hash", "kubernetes.io/config.mirror": "hash"});
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "n", "controller": true}]);
    server.apply(mirror);
    let cluster = Cluster::watching(&server, &directory, false);
    cluster.wait_for("hash", "1");
    cluster.wait_for("mirror", "1");
    let owner = cluster.store.pod("shop", "web-5d4f-x1", "hash").unwrap().owner.clone().unwrap();
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "node-1"));
}

/// Scenario: the pods come from a file, which changes, breaks, and is put right as YAML.
/// Guarantee: the last good one holds.
#[test]
fn a_file_that_breaks_leaves_the_pods_as_they_are() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("list");
    let replace = |text: &str| {
        std::fs::write(directory.path().join("new"), text).unwrap();
        std::fs::rename(directory.path().join("new"), &file).unwrap();
    };
    let service = json!({"kind": "Service", "metadata": {"uid": "s", "name": "web", "namespace": "shop"}});
    let cluster = Cluster::reading(&file, &directory);
    eventually("that it is missing", || cluster.errors() == 1.0);
    assert!(!cluster.store.synced());
    replace(&json!({"kind": "List", "apiVersion": "v1", "items": [pod("a", "1"), service]}).to_string());
    cluster.wait_for("a", "1");
    assert!(cluster.store.synced() && cluster.store.find("shop", "web").is_empty());
    let half = json!({"items": [pod("a", "9"), {"kind": "Pod", "metadata": {"name": "no-uid"}}]}).to_string();
    for (nth, bad) in ["{\"items\": [", &half, "- not: a list"].into_iter().enumerate() {
        replace(bad);
        eventually("that it is bad", || cluster.errors() == nth as f64 + 2.0);
        assert_eq!(cluster.label("a").as_deref(), Some("1"));
    }
    replace(
        "kind: List\nitems:\n- metadata: { uid: b, namespace: shop, name: web-5d4f-x1, labels: { version: yaml } }\n",
    );
    cluster.wait_for("b", "yaml");
    cluster.store.retain(&|_, _, _| false);
    assert_eq!(cluster.label("a"), None, "it is not in the list any more");
}

/// Scenario: nobody is to be asked.
/// Guarantee: there is nothing to wait for, and nothing is written.
#[test]
fn without_a_source_there_is_nothing_to_wait_for() {
    let directory = TempDir::new().unwrap();
    let cluster = Cluster::start(Source::None, directory.path());
    eventually("nothing", || cluster.store.synced());
    drop(cluster);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
