//! Pods as nobody would write them: whatever the fields, three properties hold.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::tests::config;
use super::*;
use crate::patch::apply;

const NAMES: [&str; 4] = ["web", "db", "proxy", "cache"];
const DIRECTORIES: [&str; 6] = ["/logs", "/logs/sub", "/var/log", "/var/log/app/", "/", "/data"];

/// An object of some of these members.
fn some(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, value)| {
            proptest::option::of(value).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        })
        .collect();
    members.prop_map(|members| Value::Object(members.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}

fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    select(values).boxed()
}

fn quantities() -> BoxedStrategy<Value> {
    let quantity =
        || one_of(vec![json!("100m"), json!(1), json!(0.5), json!("1Gi"), json!("1e3"), json!("128974848")]);
    some(vec![("cpu", quantity()), ("memory", quantity()), ("vendor.example/gpu", quantity())])
}

fn resources() -> BoxedStrategy<Value> {
    some(vec![("requests", quantities()), ("limits", quantities()), ("claims", one_of(vec![json!([])]))])
}

fn mounts() -> BoxedStrategy<Value> {
    let mount = (select(vec!["v0", "v1"]), select(DIRECTORIES.to_vec()), any::<bool>(), any::<bool>());
    let mount = mount.prop_map(|(name, path, sub, future)| {
        let mut mount = json!({ "name": name, "mountPath": path });
        if sub {
            mount["subPath"] = json!("part");
        }
        if future {
            mount["recursiveReadOnly"] = json!("IfPossible");
        }
        mount
    });
    proptest::collection::vec(mount, 0..3).prop_map(Value::Array).boxed()
}

fn container(name: &'static str) -> BoxedStrategy<Value> {
    let port = one_of(vec![
        json!([]),
        json!([{ "containerPort": 9614 }, { "containerPort": 9615, "name": "x" }]),
        json!([{ "containerPort": 80, "protocol": "SCTP" }]),
    ]);
    let members = some(vec![
        ("image", one_of(vec![json!("web:1")])),
        ("ports", port),
        ("volumeMounts", mounts()),
        ("resources", resources()),
        ("restartPolicy", one_of(vec![json!("Always")])),
        (
            "securityContext",
            one_of(vec![json!({}), json!({ "runAsUser": 0 }), json!({ "runAsUser": 7, "futureField": [1] })]),
        ),
        ("env", one_of(vec![json!(null), json!([{ "name": "A~/B", "value": "$(X)" }])])),
        ("fieldOfTheFuture", one_of(vec![json!({ "deep": [null, 1.5, "\u{e9}"] })])),
    ]);
    members
        .prop_map(move |mut container| {
            container["name"] = json!(name);
            container
        })
        .boxed()
}

fn containers(least: usize) -> BoxedStrategy<Value> {
    subsequence(NAMES.to_vec(), least..=3)
        .prop_flat_map(|names| names.into_iter().map(container).collect::<Vec<_>>())
        .prop_map(Value::Array)
        .boxed()
}

fn annotations() -> BoxedStrategy<Value> {
    let ours = |name: &'static str, values: &[&'static str]| {
        let values = values.to_vec();
        proptest::option::of(select(values)).prop_map(move |value| value.map(|value| (name, value)))
    };
    let all = vec![
        ours("sidelight.dev/inject", &["true", "true", "true", "false", "profile", "?"]),
        ours(
            "sidelight.dev/inject.logs",
            &["/logs/*.log", "/logs/sub/a,/data/b", "/var/log/app/*", "x", "/etc/y"],
        ),
        ours("sidelight.dev/metrics", &["true", "maybe"]),
        ours("sidelight.dev/inject.native", &["auto", "true", "false"]),
        ours("sidelight.dev/inject.order", &["first", "last"]),
        ours("sidelight.dev/inject.memory-limit", &["64Mi", "0"]),
        ours("sidelight.dev/metrics.port", &["http"]),
        ours("kubectl.kubernetes.io/default-container", &["web"]),
        ours("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", &["", "cache"]),
        ours("kubernetes.io/config.mirror", &["x"]),
        ours("a~b/c~1d", &["kept"]),
    ];
    all.prop_map(|all| {
        all.into_iter().flatten().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    })
    .prop_map(Value::Object)
    .boxed()
}

fn pods() -> impl Strategy<Value = Value> {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true }]);
    let metadata = some(vec![
        ("annotations", annotations()),
        ("annotations", annotations()),
        ("labels", one_of(vec![json!(null), json!({ "pod-template-hash": "1" })])),
        ("ownerReferences", one_of(vec![owner])),
        ("managedFields", one_of(vec![json!([{ "manager": "m" }])])),
    ]);
    let spec = some(vec![
        ("initContainers", containers(0)),
        (
            "volumes",
            one_of(vec![
                json!(null),
                json!([]),
                json!([{ "name": "v0", "emptyDir": {} }, { "name": "v1", "image": {} }]),
            ]),
        ),
        ("hostNetwork", one_of(vec![json!(true), json!(false)])),
        ("resources", resources()),
        ("restartPolicy", one_of(vec![json!("Always"), json!("Never")])),
        (
            "securityContext",
            one_of(vec![json!({ "runAsUser": 1000 }), json!({ "supplementalGroupsPolicy": "Strict" })]),
        ),
        ("terminationGracePeriodSeconds", one_of(vec![json!(0), json!(600)])),
        ("nodeSelector", one_of(vec![json!({ "kubernetes.io/os": "windows" }), json!({})])),
        ("schedulingGates", one_of(vec![json!([{ "name": "g" }])])),
    ]);
    (metadata, spec, containers(1)).prop_map(|(metadata, mut spec, containers)| {
        spec["containers"] = containers;
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
    })
}

/// Takes out all that a sidecar brings; whatever is different then was changed without need.
fn without_sidecar(patched: &Value, original: &Value) -> Value {
    let mut pod = patched.clone();
    let is_ours = |name: &Value| {
        name.as_str().is_some_and(|name| name == "sidelight" || name.starts_with("sidelight-"))
    };
    for list in ["containers", "initContainers", "volumes"] {
        if let Some(items) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !is_ours(&item["name"]));
        }
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !is_ours(&mount["name"]));
            }
        }
    }
    for pointer in ["/spec/initContainers", "/spec/volumes", "/metadata/annotations"] {
        restore_absent(&mut pod, original, pointer);
    }
    for index in 0..4 {
        restore_absent(&mut pod, original, &format!("/spec/containers/{index}/volumeMounts"));
    }
    pod
}

/// A list or map that is empty now and was absent or null is so again; of the annotations, those of ours are taken out first.
fn restore_absent(pod: &mut Value, original: &Value, pointer: &str) {
    if pointer == "/metadata/annotations" {
        let before = original.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
        let written =
            ["sidelight.dev/injected", "sidelight.dev/injected-for", SAFE_TO_EVICT, DEFAULT_CONTAINER];
        if let Some(annotations) = pod.pointer_mut(pointer).and_then(Value::as_object_mut) {
            for key in written {
                match before.get(key) {
                    Some(value) => annotations.insert(key.to_owned(), value.clone()),
                    None => annotations.remove(key),
                };
            }
        }
    }
    let is_empty = pod.pointer(pointer).is_some_and(|now| *now == json!([]) || *now == json!({}));
    let Some((parent, name)) = pointer.rsplit_once('/').filter(|_| is_empty) else { return };
    let Some(parent) = pod.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    match original.pointer(pointer) {
        Some(before) => parent.insert(name.to_owned(), before.clone()),
        None => parent.remove(name),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_patch_applies_twice_is_once_and_nothing_else_changes(pod in pods(), native in any::<bool>(), deny in any::<bool>()) {
        let config = config(if deny { "mode: deny" } else { "" });
        let profile = |_: &str| Err(NoProfile::Missing);
        let context = Context { config: &config, kubernetes: if native { 34 } else { 31 }, profile: &profile };
        match decide(&pod, context) {
            Decision::Inject(injection) => {
                let mut patched = pod.clone();
                prop_assert_eq!(apply(&mut patched, &injection.patch).map_err(|error| error.to_string()), Ok(()));
                prop_assert_eq!(without_sidecar(&patched, &pod), pod);
                prop_assert!(matches!(decide(&patched, context), Decision::Skip(Skip::Already, _)));
                let all = patched["spec"]["containers"].as_array().into_iter().chain(patched["spec"]["initContainers"].as_array());
                prop_assert_eq!(all.flatten().filter(|one| one["name"] == "sidelight").count(), 1);
            }
            Decision::Fail(error) => prop_assert!(false, "{error}"),
            Decision::Skip(..) | Decision::Deny(_) => {}
        }
    }
}
