//! A pod as the API serves it, but for what nobody here reads: the rest, `managedFields` above all, is not even decoded.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Container, ContainerKind, ContainerPort, Phase, Pod, Terminated, owner};

/// What `kubectl apply` puts there: the whole manifest once more, of no use to a record.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// v1 PodList, or a List of anything.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    #[serde(default)]
    pub(super) metadata: ListMetadata,
    pub(super) items: Vec<ApiPod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
}

/// v1 Pod: the fields that become a [`Pod`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPod {
    kind: Option<String>,
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    uid: String,
    namespace: String,
    name: String,
    resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    deletion_timestamp: Option<IgnoredAny>,
}

/// metav1 OwnerReference.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) controller: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    host_network: bool,
    init_containers: Vec<SpecContainer>,
    containers: Vec<SpecContainer>,
    ephemeral_containers: Vec<SpecContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecContainer {
    name: String,
    image: String,
    ports: Vec<SpecPort>,
    restart_policy: String,
    resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Option<BTreeMap<String, Quantity>>,
    limits: Option<BTreeMap<String, Quantity>>,
}

/// The API server gives texts; in a file by hand it may be a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(serde_json::Number),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecPort {
    name: Option<String>,
    container_port: u16,
    protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    phase: Phase,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: String,
    restart_count: u32,
    state: State,
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
    waiting: Option<Waiting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
}

// === impl ApiPod ===

impl ApiPod {
    /// Its resourceVersion.
    pub(super) fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// A List may hold other kinds; the items of a PodList have none.
    pub(super) fn is_pod(&self) -> bool {
        self.kind.as_ref().is_none_or(|kind| kind == "Pod")
    }

    /// Whether it has what the API always gives and a file by hand may lack.
    pub(super) fn is_complete(&self) -> bool {
        let Metadata { uid, namespace, name, .. } = &self.metadata;
        !uid.is_empty() && !namespace.is_empty() && !name.is_empty()
    }

    /// What is kept of it.
    pub(super) fn into_pod(self) -> Pod {
        let ApiPod { metadata, spec, status, .. } = self;
        let labels = metadata.labels.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.remove(LAST_APPLIED);
        let statuses: Vec<ContainerStatus> = status
            .init_container_statuses
            .into_iter()
            .chain(status.container_statuses)
            .chain(status.ephemeral_container_statuses)
            .collect();
        let kinds = [
            (spec.init_containers, ContainerKind::Init),
            (spec.containers, ContainerKind::Regular),
            (spec.ephemeral_containers, ContainerKind::Ephemeral),
        ];
        let specs =
            kinds.into_iter().flat_map(|(specs, kind)| specs.into_iter().map(move |spec| (spec, kind)));
        Pod {
            is_own: false,
            owner: owner::of(metadata.owner_references.unwrap_or_default(), &labels),
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            ips: addresses(&status.pod_ips, status.pod_ip.as_deref()),
            host_ip: status.host_ip.and_then(|ip| ip.parse().ok()),
            ip: status.pod_ip,
            phase: status.phase,
            deleting: metadata.deletion_timestamp.is_some(),
            node: spec.node_name,
            host_network: spec.host_network,
            annotations,
            labels,
            containers: specs.map(|(spec, kind)| container(spec, kind, &statuses)).collect(),
            namespace_labels: None,
        }
    }
}

/// `status.podIPs`; a pod that was written by hand may have `podIP` alone.
fn addresses(all: &[PodIp], first: Option<&str>) -> Vec<IpAddr> {
    let mut texts: Vec<&str> = all.iter().map(|address| address.ip.as_str()).collect();
    if texts.is_empty() {
        texts.extend(first);
    }
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Image and hash are taken from where Fluent Bit takes them: the status (`kube_meta.c`, `extract_container_hash`).
fn container(spec: SpecContainer, kind: ContainerKind, statuses: &[ContainerStatus]) -> Container {
    let restarts_for_ever = kind == ContainerKind::Init && spec.restart_policy == "Always";
    let kind = if restarts_for_ever { ContainerKind::Sidecar } else { kind };
    let tcp = spec.ports.into_iter().filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
    let ports = tcp.map(|port| ContainerPort { name: port.name, number: port.container_port }).collect();
    let Resources { requests, limits } = spec.resources;
    let mut container = Container {
        name: spec.name,
        image: spec.image,
        kind,
        ports,
        requests: texts(requests),
        limits: texts(limits),
        ..Container::default()
    };
    let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
        return container;
    };
    if !status.image.is_empty() {
        container.image = status.image.clone();
    }
    container.image_id = without_scheme(&status.image_id);
    container.id = without_scheme(&status.container_id);
    container.restart_count = status.restart_count;
    container.terminated = status.state.terminated.is_some();
    container.last_terminated =
        status.state.terminated.clone().or_else(|| status.last_state.terminated.clone());
    container.waiting = status.state.waiting.as_ref().map(|waiting| waiting.reason.clone());
    container
}

fn texts(quantities: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, String> {
    let text = |quantity| match quantity {
        Quantity::Text(text) => text,
        Quantity::Number(number) => number.to_string(),
    };
    quantities
        .unwrap_or_default()
        .into_iter()
        .map(|(resource, quantity)| (resource, text(quantity)))
        .collect()
}

/// `containerd://ID` is `ID`, `docker-pullable://IMAGE@DIGEST` is `IMAGE@DIGEST`.
fn without_scheme(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    (!rest.is_empty()).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_has_image_hash_and_id_where_fluent_bit_finds_them() {
        let pod: ApiPod = serde_json::from_value(json!({
            "metadata": {"annotations": {LAST_APPLIED: "{}", "a": "b"}, "managedFields": [{"fieldsV1": {}}]},
            "spec": {"containers": [{"name": "app", "image": "nginx"}, {"name": "new", "image": "busybox",
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": 1}}}]},
            "status": {"podIP": "10.1.2.3", "containerStatuses": [{"name": "app", "image": "docker.io/library/nginx:latest",
                "imageID": "docker-pullable://nginx@sha256:12", "containerID": "containerd://34", "restartCount": 5,
                "state": {"terminated": {"exitCode": 1, "reason": "Error"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
        }))
        .unwrap();
        let pod = pod.into_pod();
        let app = Container {
            name: "app".into(),
            image: "docker.io/library/nginx:latest".into(),
            image_id: Some("nginx@sha256:12".into()),
            id: Some("34".into()),
            restart_count: 5,
            terminated: true,
            last_terminated: Some(Terminated { reason: "Error".into(), exit_code: 1 }),
            ..Container::default()
        };
        let new = Container {
            name: "new".into(),
            image: "busybox".into(),
            requests: [("cpu".into(), "100m".into())].into(),
            limits: [("cpu".into(), "1".into())].into(),
            ..Container::default()
        };
        assert_eq!(pod.containers, [app, new]);
        assert_eq!(pod.ip.as_deref(), Some("10.1.2.3"));
        assert_eq!(pod.annotations.keys().collect::<Vec<_>>(), ["a"], "not the manifest once more");
        assert_eq!(pod.ips, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_pod_says_where_it_can_be_reached_and_how_long() {
        let pod: ApiPod = serde_json::from_value(json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"hostNetwork": true,
                "initContainers": [{"name": "init"}, {"name": "proxy", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "ports": [{"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                    {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]}]},
            "status": {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}], "phase": "Running"},
        }))
        .unwrap();
        let pod = pod.into_pod();
        assert!(pod.deleting && pod.host_network);
        assert_eq!(pod.phase, Phase::Running);
        assert_eq!(pod.ips, ["10.1.2.3", "fd00::3"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let kinds: Vec<_> = pod.containers.iter().map(|container| container.kind).collect();
        assert_eq!(kinds, [ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::Regular]);
        let port = |name: Option<&str>, number| ContainerPort { name: name.map(str::to_owned), number };
        assert_eq!(pod.containers[2].ports, [port(Some("metrics"), 9090), port(None, 80)]);
        let odd: ApiPod = serde_json::from_value(json!({"status": {"phase": "Odd"}})).unwrap();
        assert_eq!(odd.into_pod().phase, Phase::Unknown);
    }
}
