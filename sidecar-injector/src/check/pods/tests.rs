use serde_json::json;

use super::*;
use crate::check::installation::of_service;
use crate::decide::tests::config;
use crate::profile::ProfileResources;

const SINCE: &str = "2026-01-01T00:00:00Z";

fn registered() -> k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration {
    serde_json::from_value(json!({ "metadata": {}, "webhooks": [{ "name": "pod.sidelight.dev", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": { "service": { "name": "injector", "namespace": "sidelight" } },
        "namespaceSelector": { "matchExpressions": [{ "key": "system", "operator": "DoesNotExist" }] } }] }))
    .unwrap()
}

fn pod(namespace: &str, annotations: &[(&str, &str)]) -> Value {
    let mut pod = json!({
        "metadata": { "namespace": namespace, "name": "web-5d4f-a", "creationTimestamp": "2026-02-01T00:00:00Z",
            "labels": { "pod-template-hash": "5d4f" }, "annotations": { "sidelight.dev/inject": "true", "sidelight.dev/metrics": "true" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u", "controller": true }] },
        "spec": { "containers": [{ "name": "web" }] },
        "status": { "phase": "Running" },
    });
    for (key, value) in annotations {
        pod["metadata"]["annotations"][format!("sidelight.dev/{key}")] = json!(value);
    }
    pod
}

fn with_sidecar(version: &str, annotations: &[(&str, &str)]) -> Value {
    let mut pod = pod("shop", annotations);
    pod["spec"]["initContainers"] = json!([{ "name": "sidelight" }]);
    pod["metadata"]["annotations"]["sidelight.dev/injected"] = json!(version);
    pod
}

/// The lines about one pod, with the injector's configuration or without.
fn told(pod: &Value, config: Option<&Config>) -> Vec<String> {
    let registered = registered();
    let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let small = SidecarProfileSpec {
        resources: Some(ProfileResources {
            limits: BTreeMap::from([("memory".to_owned(), "48Mi".to_owned())]),
            ..ProfileResources::default()
        }),
        ..SidecarProfileSpec::default()
    };
    let cluster = Cluster {
        config,
        kubernetes: 34,
        profiles: BTreeMap::from([(("shop".to_owned(), "small".to_owned()), Arc::new(small))]),
        webhooks: of_service(&registered, "injector"),
        since: SINCE.parse().ok(),
        namespaces: BTreeMap::from([
            ("shop".to_owned(), Labels::new()),
            ("out".to_owned(), label("sidelight.dev/inject", "disabled")),
            ("system".to_owned(), label("system", "")),
        ]),
        current: Some("0.9.0-abc".to_owned()),
    };
    let mut problems = Problems::default();
    problems.look(&cluster, pod);
    problems.findings().iter().map(Finding::line).collect()
}

#[test]
fn a_pod_that_asks_and_has_no_sidecar_is_named_with_the_reason() {
    let mut old = pod("shop", &[]);
    old["metadata"]["creationTimestamp"] = json!("2025-12-31T23:59:59Z");
    let begin = "pods without a sidecar: Deployment web";
    for (pod, namespace, status, reason) in [
        (old, "shop", "FAILED ", "they were created before the webhook was registered; restart"),
        (pod("shop", &[]), "shop", "FAILED ", "the webhook was not reached when they were created"),
        // The annotation alone, copied from another pod, is no sidecar.
        (pod("shop", &[("injected", "0.9.0-abc")]), "shop", "FAILED ", "the webhook was not reached"),
        (
            pod("out", &[]),
            "out",
            "warning",
            "their namespace opts out, by the label sidelight.dev/inject=disabled; remove",
        ),
        (
            pod("system", &[]),
            "system",
            "warning",
            "the webhook's namespaceSelector leaves their namespace out; correct",
        ),
    ] {
        let told = told(&pod, None);
        assert!(
            told[0].starts_with(&format!("{status}  {begin} ({namespace}/web-5d4f-a): {reason}")),
            "{told:?}"
        );
    }
}

#[test]
fn with_the_configuration_the_decision_itself_says_why() {
    let config = config("");
    let told = |annotations: &[(&str, &str)]| told(&pod("shop", annotations), Some(&config)).join("\n");
    assert!(
        told(&[("metrics", "false")]).contains("nothing to do: no sidecar: there is nothing for it to do")
    );
    assert!(told(&[("inject", "smal")]).contains("there is no SidecarProfile \"smal\""));
    assert!(told(&[]).contains("the webhook was not reached"));
}

#[test]
fn a_sidecar_of_another_version_template_or_profile_is_outdated() {
    let config = config("");
    let current = |template: &crate::template::Template| format!("{VERSION}-{}", template.hash());
    let defaults = current(&config.sidecar);
    let fine = ["ok       pods: 1 ask for a sidecar, each has a current one"];
    assert_eq!(told(&with_sidecar(&defaults, &[]), Some(&config)), fine);
    let changed = told(&with_sidecar("0.1.0-00000000", &[]), Some(&config));
    let reason = format!("their sidecar is 0.1.0-00000000, new ones are {defaults}; restart");
    assert!(
        changed[0].starts_with("warning  outdated pods: Deployment web") && changed[0].contains(&reason),
        "{changed:?}"
    );
    let small = with_sidecar(&defaults, &[("inject", "small")]);
    assert!(told(&small, Some(&config))[0].contains("outdated"));
    // Without the configuration, by what the dry run has shown.
    assert_eq!(told(&with_sidecar("0.9.0-abc", &[]), None), fine);
    assert!(told(&with_sidecar("0.9.0-def", &[]), None)[0].contains("new ones are 0.9.0-abc"));
    assert_eq!(told(&with_sidecar("0.9.0-def", &[("inject", "small")]), None), fine);
    assert!(told(&with_sidecar("0.8.0-def", &[("inject", "small")]), None)[0].contains("of version 0.9.0"));
}

#[test]
fn pods_that_do_not_ask_have_ended_or_are_ending_are_not_counted() {
    let mut ended = pod("shop", &[]);
    ended["status"]["phase"] = json!("Succeeded");
    let mut ending = pod("shop", &[]);
    ending["metadata"]["deletionTimestamp"] = json!(SINCE);
    let mut own = pod("shop", &[]);
    own["spec"]["containers"][0]["name"] = json!("sidelight");
    let mut windows = pod("shop", &[]);
    windows["spec"]["os"] = json!({ "name": "windows" });
    for (pod, count) in
        [(ended, 0), (windows, 0), (ending, 0), (pod("shop", &[("inject", "false")]), 0), (own, 1)]
    {
        assert!(told(&pod, None)[0].starts_with(&format!("ok       pods: {count} ask")), "{pod}");
    }
}

#[test]
fn many_pods_of_one_workload_are_one_line() {
    let registered = registered();
    let cluster = Cluster {
        config: None,
        kubernetes: 34,
        profiles: BTreeMap::new(),
        webhooks: of_service(&registered, "injector"),
        since: None,
        namespaces: BTreeMap::new(),
        current: None,
    };
    let mut problems = Problems::default();
    for index in 0..10 {
        let mut pod = pod("shop", &[]);
        pod["metadata"]["name"] = json!(format!("web-{index}"));
        problems.look(&cluster, &pod);
    }
    let findings = problems.findings();
    assert_eq!((findings.len(), findings[0].pods.len()), (1, 10));
    assert!(findings[0].message.contains("(shop/web-0, shop/web-1, shop/web-2 and 7 more)"));
}

#[test]
fn annotations_on_the_workload_are_told_unless_they_come_from_its_owner() {
    let annotations = json!({ "sidelight.dev/inject": "true", "other": "x" });
    let mut job = json!({ "metadata": { "namespace": "shop", "name": "j", "annotations": annotations } });
    let line = misplaced_on("Job", &job).unwrap().line();
    assert!(line.contains("Job shop/j: sidelight.dev/inject on itself has no effect; it belongs in spec.template.metadata.annotations"));
    job["metadata"]["ownerReferences"] = json!([{ "kind": "CronJob", "controller": true }]);
    assert_eq!(misplaced_on("Job", &job), None);
    assert_eq!(misplaced_on("Deployment", &json!({ "metadata": { "annotations": { "other": "x" } } })), None);
}

#[test]
fn a_profile_that_cannot_be_used_is_named() {
    let profile = |spec: Value, status: &str| -> SidecarProfile {
        let condition = json!({ "type": "Ready", "status": status, "reason": "r", "message": "bad output", "lastTransitionTime": SINCE });
        serde_json::from_value(json!({ "apiVersion": "sidelight.dev/v1alpha1", "kind": "SidecarProfile",
            "metadata": { "namespace": "shop", "name": "p" }, "spec": spec, "status": { "conditions": [condition] } }))
        .unwrap()
    };
    let refused = profile(json!({ "image": "evil" }), "False");
    assert!(
        profiles(std::slice::from_ref(&refused), None)[0]
            .message
            .ends_with("shop/p cannot be used: bad output")
    );
    assert!(profiles(&[refused], Some(&config("")))[0].message.contains("image_allow"));
    assert_eq!(profiles(&[profile(json!({ "labels": {} }), "True")], None)[0].status, Status::Ok);
}
