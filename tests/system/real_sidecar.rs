//! Pods that ask for a sidecar, in a real Kubernetes: its API server calls the injector, its kubelet runs what comes of it, and
//! receivers that others wrote get the pods' files and pages.
//!
//! As `real_kubernetes`, after `tests/receivers/build`, `cargo build -p sidelight-injector` and, with the cluster up, `tests/delivery/image build dev && tests/delivery/image load`:
//! `tests/cluster/cluster enter cargo test -p sidelight-agent --test system -- --ignored real_sidecar --test-threads=1`.

pub(crate) mod injector;

use serde_json::{Value, json};
use sidelight_tests::relay::Relay;

use self::injector::{Injector, sidecar, try_apply, way_to};
use crate::real_kubernetes::stage::{Stage, kubectl, name, port_at, text, wait_for};
use crate::real_prometheus::program::Program;
use crate::real_receivers::receiver::Receiver;

/// A namespace for apps, the receivers of what their sidecars send, and the injector.
struct Shop {
    injector: Injector,
    fluent: Receiver,
    prometheus: Program,
    stage: Stage,
    /// Pods reach the node, not its loopback.
    _ways: [Relay; 2],
}

// === impl Shop ===

impl Shop {
    /// Where only restricted pods are let in, and only with requests and limits.
    fn open(test: &str) -> Self {
        let stage = Stage::new(test);
        let namespace = &stage.namespace;
        kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"]);
        let hard = json!({ "requests.cpu": "2", "requests.memory": "1Gi", "limits.cpu": "4", "limits.memory": "2Gi" });
        stage.apply(&json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "quota" }, "spec": { "hard": hard } }));
        let (fluent, prometheus) = (Receiver::fluent(&[]), Program::newer_prometheus(stage.directory.path()));
        let ways = [fluent.port, prometheus.port].map(way_to);
        let [logs, metrics] = [0, 1].map(|index: usize| ways[index].address());
        let injector = Injector::start(
            test,
            &format!("{{ forward: {{ upstreams: ['{logs}'], flush_interval: 50ms }} }}"),
            &format!("{{ remote_write: {{ url: 'http://{metrics}/api/v1/write', flush_interval: 200ms }} }}"),
        );
        Shop { injector, fluent, prometheus, stage, _ways: ways }
    }

    /// Events about objects of a kind.
    fn events(&self, kind: &str) -> Vec<Value> {
        let list = kubectl(&["get", "events", "-n", &self.stage.namespace, "-o", "json"]);
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|event| event["involvedObject"]["kind"] == kind).collect()
    }
}

/// A pod whose app logs into a file of its image, which it rotates, and serves its page to itself alone.
fn pod(app: &str, restart_policy: &str, lines: u64, rate: u32) -> Value {
    let then = if restart_policy == "Never" { "exit" } else { "sleep" };
    json!({
        "metadata": { "labels": { "app": app }, "annotations": {
            "sidelight.dev/inject": "true", "sidelight.dev/inject.logs": "/logs/app.log",
            "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": "8081",
        } },
        "spec": {
            "restartPolicy": restart_policy,
            "terminationGracePeriodSeconds": 20,
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app", "image": "sidelight.test/writer:1", "imagePullPolicy": "Never",
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "500m", "memory": "32Mi" } },
                "env": [
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "FILE", "value": "/logs/app.log" }, { "name": "ROTATE", "value": "20000" },
                    { "name": "LINES", "value": lines.to_string() }, { "name": "RATE", "value": rate.to_string() },
                    { "name": "PORT", "value": "8081" }, { "name": "THEN", "value": then },
                ],
            }],
        },
    })
}

/// Scenario: a Deployment whose pods ask for a sidecar, in a namespace with Pod Security "restricted" and a quota.
/// Guarantee: the kubelet runs them with it; every line of the rotated file arrives, with the pod's name, container, owner and
/// the file's path; the page that only the pod itself can ask for is in Prometheus under the pod's labels; an Event says what
/// was done.
#[test]
#[ignore = "needs a cluster"]
fn a_pod_that_asks_for_a_sidecar_has_its_file_and_its_page_delivered() {
    let mut shop = Shop::open("sidecar");
    let pods = shop.stage.run("web", 2, &pod("web", "Always", 3_000, 300));
    let namespace = shop.stage.namespace.clone();
    for pod in &pods {
        assert_eq!(pod["metadata"]["annotations"]["sidelight.dev/injected-for"], "logs,metrics");
        wait_for("all lines", || shop.fluent.count(name(pod)) == 3_000);
        let query = format!("written_lines_total{{namespace='{namespace}',pod='{}'}}", name(pod));
        wait_for("the page", || {
            shop.prometheus.query(&query).first().is_some_and(|series| series["value"][1] == "3000")
        });
        let labels = &shop.prometheus.query(&query)[0]["metric"];
        assert_eq!(
            (text(&labels["job"]), text(&labels["container"])),
            (format!("{namespace}/web").as_str(), "app")
        );
        assert_eq!(text(&labels["instance"]), port_at(&pod["status"]["podIP"], 8081).to_string());
    }
    let events = shop.events("ReplicaSet");
    assert!(events.iter().any(|event| event["reason"] == "Injected"), "{events:?}");
    let arrivals = shop.fluent.arrivals.clone();
    for pod in &pods {
        shop.fluent.assert_complete_of(name(pod), 3_000);
        let arrivals = arrivals.lock().unwrap();
        let of_pod = |record: &&Value| record["kubernetes"]["pod_name"] == *name(pod);
        let records: Vec<&Value> =
            arrivals.all.iter().map(|arrived| &arrived.record).filter(of_pod).collect();
        assert_eq!(records.len(), 3_000);
        for record in records {
            let described = &record["kubernetes"];
            assert_eq!(described["container_name"], "app", "{record}");
            assert_eq!(
                (&described["owner_kind"], &described["owner_name"]),
                (&json!("Deployment"), &json!("web"))
            );
            assert_eq!(described["labels"]["app"], "web");
            assert_eq!(record["sidelight"]["file"], "/logs/app.log");
        }
    }
}

/// Scenario: a Job that writes as fast as it can and ends at once.
/// Guarantee: the sidecar sends all of it, ends well when the app has ended, and the Job is complete.
#[test]
#[ignore = "needs a cluster"]
fn a_job_with_a_sidecar_ends_and_loses_nothing() {
    let mut shop = Shop::open("job");
    let mut template = pod("batch", "Never", 20_000, 0);
    template["spec"]["containers"][0]["env"][2]["value"] = json!("100000000");
    shop.stage.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "batch" }, "spec": { "template": template } }));
    let namespace = shop.stage.namespace.clone();
    wait_for("the Job", || {
        kubectl(&["get", "job", "batch", "-n", &namespace, "-o", "json"])["status"]["succeeded"] == 1
    });
    let pods = shop.stage.pods("batch");
    let ended = &sidecar(&pods[0])["state"]["terminated"];
    assert_eq!(ended["exitCode"], 0, "{ended}");
    shop.fluent.assert_complete_of(name(&pods[0]), 20_000);
}

/// Scenario: an injector that works, then one that is away.
/// Guarantee: `check` says so of each, with its exit code.
#[test]
#[ignore = "needs a cluster"]
fn check_tells_an_injector_that_works_from_one_that_does_not() {
    let mut shop = Shop::open("check");
    let (code, told) = shop.injector.check();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("ok") && !told.contains("FAILED"), "{told}");
    shop.injector.pause();
    let (code, told) = shop.injector.check();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("FAILED   dry run"), "{told}");
}

/// Scenario: the injector is away; pods are made that ask for a sidecar, that do not, and that ask in a namespace which has
/// opted out.
/// Guarantee: only the first are refused, and let in when it is back.
#[test]
#[ignore = "needs a cluster"]
fn without_the_injector_only_pods_that_ask_for_it_have_to_wait() {
    let mut shop = Shop::open("away");
    let of = |app: &str, namespace: &str| {
        let mut pod = pod(app, "Never", 1, 0);
        pod["metadata"]["name"] = json!(app);
        pod["metadata"]["namespace"] = json!(namespace);
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod
    };
    let namespace = shop.stage.namespace.clone();
    shop.injector.pause();
    let mut plain = of("plain", &namespace);
    plain["metadata"].as_object_mut().unwrap().remove("annotations");
    assert_eq!(try_apply(&plain.to_string()), Ok(()));
    let asking = of("asking", &namespace).to_string();
    let refused = try_apply(&asking).unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    kubectl(&["label", "namespace", &namespace, "sidelight.dev/inject=disabled"]);
    wait_for("the label counts", || try_apply(&of("opted-out", &namespace).to_string()).is_ok());
    kubectl(&["label", "namespace", &namespace, "sidelight.dev/inject-"]);
    shop.injector.resume();
    wait_for("the injector is called again", || try_apply(&asking).is_ok());
    let pods = kubectl(&["get", "pods", "-n", &namespace, "-o", "json"]);
    for pod in pods["items"].as_array().unwrap() {
        let has_sidecar = pod["spec"]["initContainers"][0]["name"] == "sidelight";
        assert_eq!(has_sidecar, name(pod) == "asking", "{pod}");
    }
}

/// Scenario: pods of every kind that a sidecar is made differently for.
/// Guarantee: the API server takes what comes of each, and lets it in with the sidecar.
#[test]
#[ignore = "needs a cluster"]
fn the_api_server_takes_what_comes_of_every_kind_of_pod() {
    let shop = Shop::open("kinds");
    let namespace = &shop.stage.namespace;
    kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce-"]);
    let profile = json!({ "apiVersion": "sidelight.dev/v1alpha1", "kind": "SidecarProfile",
        "metadata": { "name": "secret", "namespace": namespace },
        "spec": { "logs": { "outputs": [{ "forward": { "upstreams": ["127.0.0.1:1"], "shared_key": { "secret": "s", "key": "k" },
            "tls": { "enabled": true, "ca_file": { "config_map": "c", "key": "ca.crt" } } } }] } } });
    assert_eq!(try_apply(&profile.to_string()), Ok(()));
    wait_for("the profile", || {
        kubectl(&["get", "sidecarprofile", "secret", "-n", namespace, "-o", "json"])["status"]["conditions"]
            [0]["status"]
            == "True"
    });
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "subPath": "part" });
    let kinds: [(&str, &[(&str, Value)]); 8] = [
        ("plain", &[("/metadata/annotations/sidelight.dev~1inject.native", json!("false"))]),
        ("last", &[("/metadata/annotations/sidelight.dev~1inject.order", json!("last"))]),
        ("profile", &[("/metadata/annotations/sidelight.dev~1inject", json!("secret"))]),
        ("host", &[("/spec/hostNetwork", json!(true))]),
        ("whole", &[("/spec/resources", json!({ "limits": { "cpu": "1", "memory": "64Mi" } }))]),
        (
            "guaranteed",
            &[("/spec/containers/0/resources", json!({ "limits": { "cpu": "100m", "memory": "64Mi" } }))],
        ),
        (
            "mounted",
            &[
                ("/spec/volumes", json!([{ "name": "v", "emptyDir": {} }, { "name": "w", "emptyDir": {} }])),
                ("/spec/containers/0/volumeMounts", json!([mount("v", "/logs"), mount("w", "/logs/inner")])),
                ("/metadata/annotations/sidelight.dev~1inject.logs", json!("/logs/*.log,/logs/inner/*.log")),
            ],
        ),
        (
            "ports",
            &[("/spec/containers/0/ports", json!([{ "containerPort": 9614 }, { "containerPort": 9615 }]))],
        ),
    ];
    for (kind, changes) in kinds {
        let mut object = pod(kind, "Always", 1, 0);
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value.clone();
        }
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["metadata"]["name"] = json!(kind);
        object["metadata"]["namespace"] = json!(namespace);
        let file = shop.stage.directory.path().join(kind);
        std::fs::write(&file, object.to_string()).unwrap();
        let tried = kubectl(&["create", "--dry-run=server", "-o", "json", "-f", file.to_str().unwrap()]);
        let all = ["initContainers", "containers"]
            .map(|list| tried["spec"][list].as_array().cloned().unwrap_or_default());
        assert_eq!(
            all.concat().iter().filter(|one| one["name"] == "sidelight").count(),
            1,
            "{kind}: {tried}"
        );
        let class = if kind == "guaranteed" { "Guaranteed" } else { "Burstable" };
        if kind != "whole" {
            assert_eq!(tried["status"]["qosClass"], class, "{kind}");
        }
    }
}

/// Scenario: profiles that are good, that the schema refuses, that name what cannot be; pods that name them, also only to try.
/// Guarantee: each is told what is wrong where it is written; trying leaves no Event.
#[test]
#[ignore = "needs a cluster"]
fn a_profile_is_used_or_its_mistake_is_told() {
    let shop = Shop::open("profile");
    let namespace = &shop.stage.namespace;
    let profile = |name: &str, spec: Value| {
        let metadata = json!({ "name": name, "namespace": namespace });
        json!({ "apiVersion": "sidelight.dev/v1alpha1", "kind": "SidecarProfile", "metadata": metadata, "spec": spec }).to_string()
    };
    let forward = |upstream: &str| json!({ "outputs": [{ "forward": { "upstreams": [upstream] } }] });
    assert_eq!(
        try_apply(&profile("good", json!({ "labels": { "team": "a" }, "logs": forward("127.0.0.1:1") }))),
        Ok(())
    );
    assert_eq!(try_apply(&profile("bad", json!({ "logs": forward("no port") }))), Ok(()));
    let refused = try_apply(&profile("empty", json!({}))).unwrap_err();
    assert!(refused.contains("an empty profile says nothing"), "{refused}");
    let condition = |name: &str| {
        let profile = kubectl(&["get", "sidecarprofile", name, "-n", namespace, "-o", "json"]);
        profile["status"]["conditions"][0].clone()
    };
    wait_for("the conditions", || {
        condition("good")["status"] == "True" && condition("bad")["status"] == "False"
    });
    assert!(
        text(&condition("bad")["message"]).contains("logs.outputs[0].forward.upstreams"),
        "{}",
        condition("bad")
    );
    let naming = |profile: &str| {
        let mut pod = pod("web", "Never", 1, 0);
        pod["metadata"]["name"] = json!(profile);
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["annotations"]["sidelight.dev/inject"] = json!(profile);
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod.to_string()
    };
    let file = shop.stage.directory.path().join("pod.json");
    std::fs::write(&file, naming("good")).unwrap();
    let tried = kubectl(&["create", "--dry-run=server", "-o", "json", "-f", file.to_str().unwrap()]);
    assert_eq!(tried["spec"]["initContainers"][0]["name"], "sidelight");
    assert!(shop.events("Pod").is_empty());
    assert_eq!(try_apply(&naming("good")), Ok(()));
    wait_for("the Event", || !shop.events("Pod").is_empty());
    for (profile, text) in [("bad", "cannot be used"), ("missing", "there is no SidecarProfile")] {
        let refused = try_apply(&naming(profile)).unwrap_err();
        assert!(refused.contains(text), "{refused}");
    }
}
