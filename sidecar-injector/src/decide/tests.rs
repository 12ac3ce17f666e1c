use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::patch::apply;
use crate::profile::{LogOutput, LogOutputs, ProfileResources, profile_mistake};

/// A configuration with a receiver for each kind of data.
pub(crate) fn config(more: &str) -> Config {
    let text = format!(
        "{more}\nsidecar:\n  image: sidelight:test\n  logs: {{ outputs: [{{ forward: {{ upstreams: ['fluentd:24224'], \
         shared_key: {{ secret: fluentd, key: shared }} }} }}] }}\n  metrics: {{ outputs: [{{ remote_write: {{ url: 'http://p/write' }} }}] }}"
    );
    Config::parse(&text, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn decided_by(config: &Config, native: bool, object: &Value) -> Decision {
    let looked_at = |spec: SidecarProfileSpec| match profile_mistake(&spec, config) {
        None => Ok(Arc::new(spec)),
        Some(mistake) => Err(NoProfile::Invalid(mistake)),
    };
    let profile = |name: &str| match name {
        "small" => looked_at(small()),
        "broken" => looked_at(SidecarProfileSpec { image: Some("evil".to_owned()), ..small() }),
        "unlisted" => Err(NoProfile::NotListed),
        _ => Err(NoProfile::Missing),
    };
    decide(object, Context { config, kubernetes: if native { 34 } else { 31 }, profile: &profile })
}

fn small() -> SidecarProfileSpec {
    let stdout = LogOutput { stdout: Some(serde_json::Map::new()), ..LogOutput::default() };
    SidecarProfileSpec {
        resources: Some(ProfileResources {
            limits: BTreeMap::from([("memory".to_owned(), "48Mi".to_owned())]),
            ..ProfileResources::default()
        }),
        logs: Some(LogOutputs { outputs: vec![stdout] }),
        labels: Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
        ..SidecarProfileSpec::default()
    }
}

fn decided(object: &Value) -> Decision {
    decided_by(&config(""), true, object)
}

/// A pod that wants its logs and metrics taken care of.
fn pod() -> Value {
    json!({
        "metadata": { "generateName": "web-5d4f-", "labels": { "app": "web", "pod-template-hash": "5d4f" },
            "annotations": { "sidelight.dev/inject": "true", "sidelight.dev/inject.logs": "/logs/*.log",
                "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": "9090" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u", "controller": true }] },
        "spec": { "containers": [{ "name": "web", "image": "web:1", "ports": [{ "containerPort": 9090 }] }] },
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut object = pod();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name.replace("~1", "/")] = value.clone();
    }
    object
}

fn annotated(annotations: &[(&str, &str)]) -> Value {
    let mut object = pod();
    for (name, value) in annotations {
        object["metadata"]["annotations"][format!("sidelight.dev/{name}")] = json!(value);
    }
    object
}

fn injected_by(config: &Config, native: bool, object: &Value) -> (Value, Injection) {
    match decided_by(config, native, object) {
        Decision::Inject(injection) => {
            let mut patched = object.clone();
            apply(&mut patched, &injection.patch).unwrap();
            (patched, injection)
        }
        other => panic!("{other:?}"),
    }
}

fn injected(object: &Value) -> Value {
    injected_by(&config(""), true, object).0
}

fn sidecar(pod: &Value) -> &Value {
    let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
    lists.into_iter().filter_map(Value::as_array).flatten().find(|one| one["name"] == "sidelight").unwrap()
}

fn variable<'a>(pod: &'a Value, name: &str) -> &'a Value {
    sidecar(pod)["env"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

/// The sidecar's configuration, with Kubernetes's escapes taken back.
fn document(pod: &Value) -> Value {
    let text = variable(pod, "SIDELIGHT_CONFIG")["value"].as_str().unwrap().replace("$$", "$");
    serde_json::from_str(&text).unwrap()
}

fn denial(decision: Decision) -> String {
    match decision {
        Decision::Deny(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sidecar_is_what_the_contract_says() {
    let object = pod();
    let (pod, injection) = injected_by(&config(""), true, &object);
    let sidecar = sidecar(&pod);
    assert_eq!(pod["spec"]["initContainers"][0], *sidecar);
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["image"], "sidelight:test");
    assert_eq!(sidecar["args"], json!(["sidecar", "--grace-period", "30s"]));
    for (name, field) in [
        ("SIDELIGHT_NAMESPACE", "metadata.namespace"),
        ("SIDELIGHT_POD", "metadata.name"),
        ("SIDELIGHT_POD_UID", "metadata.uid"),
        ("SIDELIGHT_POD_IP", "status.podIP"),
        ("SIDELIGHT_NODE", "spec.nodeName"),
    ] {
        assert_eq!(variable(&pod, name)["valueFrom"]["fieldRef"]["fieldPath"], field);
    }
    let names: Vec<&str> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    assert_eq!(names, ["sidelight-data", "sidelight-podinfo", "sidelight-logs-0"]);
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["sidelight.dev/injected-for"], "logs,metrics");
    let hash = config("").sidecar.hash();
    assert_eq!(annotations["sidelight.dev/injected"], format!("{VERSION}-{hash}"));
    assert_eq!(
        annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"],
        "sidelight-data,sidelight-logs-0"
    );
    assert!(injection.native && injection.warnings.len() == 1, "{:?}", injection.warnings);
    assert!(sidecar.get("ports").is_none() && sidecar.get("readinessProbe").is_none());
}

#[test]
fn the_rendered_configuration_is_one_that_the_sidecar_takes() {
    let pod = injected(&pod());
    let document = document(&pod);
    assert_eq!(document["logs"]["files"], json!(["/var/log/sidelight/web/logs/*.log"]));
    assert_eq!(document["logs"]["outputs"][0]["forward"]["shared_key"], "${SIDELIGHT_SECRET_0}");
    assert_eq!(document["kubernetes"]["pod"]["owner"], json!({ "kind": "Deployment", "name": "web" }));
    let containers = json!([{ "name": "web", "image": "web:1", "ports": [{ "port": 9090 }] }]);
    assert_eq!(document["kubernetes"]["pod"]["containers"], containers);
    let environment = |name: &str| (name == "SIDELIGHT_SECRET_0").then(|| "hush".to_owned());
    let read = sidelight_agent::config::Config::parse_sidecar(&document.to_string(), &environment);
    assert_eq!(read.map(|(_, unknown)| unknown), Ok(vec![]));
}

#[test]
fn secrets_are_references_into_the_pods_own_namespace() {
    let pod = injected(&pod());
    let from = json!({ "secretKeyRef": { "name": "fluentd", "key": "shared" } });
    assert_eq!(variable(&pod, "SIDELIGHT_SECRET_0")["valueFrom"], from);
    let files = "sidecar: { logs: { outputs: [{ forward: { upstreams: ['f:1'], shared_key_file: { secret: s, key: k } } }] } }";
    let config = Config::parse(files, &|_| None).unwrap();
    let (pod, _) = injected_by(&config, true, &annotated(&[("metrics", "false")]));
    let sources = &pod["spec"]["volumes"][1]["projected"]["sources"];
    assert_eq!(sources[0]["downwardAPI"]["items"][0]["path"], "labels");
    assert_eq!(sources[1]["secret"]["name"], "s");
}

#[test]
fn pods_that_do_not_ask_or_cannot_have_one_are_left_alone() {
    let without = json!({ "metadata": {}, "spec": { "containers": [{ "name": "web" }] } });
    let windows = json!({ "name": "windows" });
    let other = json!({ "sidelight.dev/inject": "true" });
    for (object, skip) in [
        (without, Skip::NotAsked),
        (annotated(&[("inject", "false")]), Skip::NotAsked),
        (with(&[("/spec/os", windows)]), Skip::Windows),
        (with(&[("/spec/nodeSelector", json!({ "kubernetes.io/os": "windows" }))]), Skip::Windows),
        (with(&[("/metadata/annotations/kubernetes.io~1config.mirror", json!("x"))]), Skip::Mirror),
        (with(&[("/metadata/annotations", other)]), Skip::NothingToDo),
        (injected(&pod()), Skip::Already),
        (annotated(&[("inject", "Yes!")]), Skip::BadAnnotation),
    ] {
        assert!(
            matches!(decided(&object), Decision::Skip(found, _) if found == skip),
            "{skip:?}: {:?}",
            decided(&object)
        );
    }
}

#[test]
fn a_bad_annotation_is_a_warning_or_a_refusal_as_the_operator_says() {
    let object = annotated(&[("inject.cpu-limits", "1"), ("inject.memory-limit", "much")]);
    let (_, injection) = injected_by(&config("mode: warn"), true, &object);
    let told = injection.warnings.join("\n");
    assert!(
        told.contains("did you mean sidelight.dev/inject.cpu-limit?") && told.contains("50m or 64Mi"),
        "{told}"
    );
    let message = denial(decided_by(&config("mode: deny"), true, &object));
    assert!(message.contains("sidelight.dev/inject.cpu-limits: unknown annotation"), "{message}");
}

#[test]
fn an_image_is_named_only_as_the_operator_allows() {
    let object = annotated(&[("inject.image", "mine/sidelight:2")]);
    for (more, image) in [
        ("", "sidelight:test"),
        ("image_allow: ['other/*']", "sidelight:test"),
        ("image_allow: ['mine/*']", "mine/sidelight:2"),
    ] {
        let (pod, injection) = injected_by(&config(more), true, &object);
        assert_eq!(sidecar(&pod)["image"], image, "{more}");
        assert_eq!(injection.warnings.len(), if image == "sidelight:test" { 2 } else { 1 });
    }
}

#[test]
fn a_profile_changes_what_it_says_and_nothing_else() {
    let pod = injected(&annotated(&[("inject", "small")]));
    let document = document(&pod);
    assert_eq!(document["logs"]["outputs"], json!([{ "stdout": {} }]));
    assert_eq!(document["logs"]["add"], json!({ "team": "a" }));
    assert_eq!(document["metrics"]["external_labels"], json!({ "team": "a" }));
    assert_eq!(sidecar(&pod)["resources"]["limits"], json!({ "cpu": "200m", "memory": "48Mi" }));
    assert_ne!(
        pod["metadata"]["annotations"]["sidelight.dev/injected"],
        injected(&super::tests::pod())["metadata"]["annotations"]["sidelight.dev/injected"]
    );
}

#[test]
fn a_missing_or_bad_profile_is_a_clear_refusal() {
    let message = denial(decided(&annotated(&[("inject", "smal")])));
    assert!(message.contains(r#"there is no SidecarProfile "smal" in the pod's namespace"#), "{message}");
    let message = denial(decided(&annotated(&[("inject", "broken")])));
    assert!(message.contains("spec.image") && message.contains("image_allow"), "{message}");
    assert!(matches!(decided(&annotated(&[("inject", "unlisted")])), Decision::Fail(_)));
}

#[test]
fn what_has_no_spec_is_left_to_the_policy_and_alone_if_it_does_not_ask() {
    let mut object = pod();
    object.as_object_mut().unwrap().remove("spec");
    assert!(matches!(decided(&object), Decision::Fail(_)));
    object["metadata"]["annotations"] = json!({});
    assert!(matches!(decided(&object), Decision::Skip(Skip::NotAsked, _)));
}

#[test]
fn a_log_directory_that_cannot_be_shared_is_a_refusal_whatever_the_mode() {
    let message = denial(decided(&annotated(&[("inject.logs", "/etc/*.log")])));
    assert!(message.starts_with("sidelight.dev/inject.logs: /etc cannot be shared"), "{message}");
    let config = Config::parse("mode: warn", &|_| None).unwrap();
    let message = denial(decided_by(&config, true, &pod()));
    assert!(message.contains("no output for logs"), "{message}");
}

#[test]
fn without_native_sidecars_it_is_a_plain_container_and_kubectl_still_finds_the_app() {
    let (pod, _) = injected_by(&config(""), false, &pod());
    assert_eq!(pod["spec"]["containers"][0]["name"], "sidelight");
    assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["mountPath"], "/logs");
    assert!(sidecar(&pod).get("restartPolicy").is_none());
    assert_eq!(pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "web");
    let (pod, _) =
        injected_by(&config(""), true, &annotated(&[("inject.native", "false"), ("inject.order", "last")]));
    assert_eq!(pod["spec"]["containers"][1]["name"], "sidelight");
    let job = with(&[("/spec/restartPolicy", json!("Never"))]);
    assert!(matches!(decided_by(&config(""), false, &job), Decision::Skip(Skip::WouldNotEnd, _)));
    assert!(matches!(decided_by(&config(""), true, &job), Decision::Inject(_)));
}

#[test]
fn ports_of_the_app_stay_the_apps() {
    let taken = json!([{ "name": "web", "ports": [{ "containerPort": 9614 }, { "containerPort": 9615, "protocol": "UDP" }] }]);
    let pod = injected(&with(&[("/spec/containers", taken)]));
    assert_eq!(document(&pod)["admin"], json!({ "listen": "[::]:9615", "api": "127.0.0.1:9616" }));
    assert_eq!(sidecar(&pod)["livenessProbe"]["httpGet"]["port"], 9615);
}

#[test]
fn on_the_nodes_network_it_takes_no_port_that_others_may_want() {
    let pod = injected(&with(&[("/spec/hostNetwork", json!(true))]));
    assert_eq!(document(&pod)["admin"], json!({ "listen": "127.0.0.1:0", "api": "127.0.0.1:0" }));
    assert!(sidecar(&pod).get("livenessProbe").is_none());
    assert_eq!(pod["metadata"]["annotations"]["sidelight.dev/injected-for"], "logs");
    assert_eq!(document(&pod)["metrics"], json!({ "select": "none" }));
}

#[test]
fn a_guaranteed_pod_stays_one_and_a_pod_with_resources_divides_them() {
    let same = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
    let pod = injected(&with(&[("/spec/containers/0/resources", same)]));
    let resources = &sidecar(&pod)["resources"];
    assert_eq!(resources["requests"], resources["limits"]);
    let pod = injected(&with(&[("/spec/resources", json!({ "limits": { "cpu": "1" } }))]));
    assert!(sidecar(&pod).get("resources").is_none());
    let pod = injected(&annotated(&[("inject.memory-request", "64Mi"), ("inject.cpu-limit", "5m")]));
    let resources =
        json!({ "requests": { "cpu": "5m", "memory": "64Mi" }, "limits": { "cpu": "5m", "memory": "64Mi" } });
    assert_eq!(sidecar(&pod)["resources"], resources);
}

#[test]
fn it_runs_as_the_app_where_that_is_known_and_never_as_root() {
    for (context, user) in [
        (json!({}), 65_532),
        (json!({ "runAsUser": 1000, "runAsGroup": 1000 }), 1000),
        (json!({ "runAsUser": 0 }), 65_532),
    ] {
        let pod = injected(&with(&[("/spec/containers/0/securityContext", context)]));
        let context = &sidecar(&pod)["securityContext"];
        assert_eq!(context["runAsUser"], user);
        assert_eq!(
            (&context["runAsNonRoot"], &context["allowPrivilegeEscalation"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(context["seccompProfile"], json!({ "type": "RuntimeDefault" }));
    }
}

#[test]
fn the_autoscalers_own_list_is_kept() {
    let key = "/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes";
    let pod = injected(&with(&[(key, json!("cache"))]));
    assert_eq!(
        pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"],
        "cache,sidelight-data,sidelight-logs-0"
    );
}
