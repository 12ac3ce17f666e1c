//! A pod as the API serves it, but for what nobody here reads: the rest, `managedFields` above all, is not even decoded.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Container, Pod, owner};

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
    init_containers: Vec<SpecContainer>,
    containers: Vec<SpecContainer>,
    ephemeral_containers: Vec<SpecContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SpecContainer {
    name: String,
    image: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<IgnoredAny>,
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
        let specs = spec.init_containers.into_iter().chain(spec.containers).chain(spec.ephemeral_containers);
        Pod {
            owner: owner::of(metadata.owner_references.unwrap_or_default(), &labels),
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            ip: status.pod_ip,
            annotations,
            labels,
            containers: specs.map(|spec| container(spec, &statuses)).collect(),
            namespace_labels: None,
        }
    }
}

/// Image and hash are taken from where Fluent Bit takes them: the status (`kube_meta.c`, `extract_container_hash`).
fn container(spec: SpecContainer, statuses: &[ContainerStatus]) -> Container {
    let Some(status) = statuses.iter().find(|status| status.name == spec.name) else {
        return Container { name: spec.name, image: spec.image, ..Container::default() };
    };
    Container {
        image: if status.image.is_empty() { spec.image } else { status.image.clone() },
        image_id: without_scheme(&status.image_id),
        id: without_scheme(&status.container_id),
        restart_count: status.restart_count,
        terminated: status.state.terminated.is_some(),
        name: spec.name,
    }
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
            "spec": {"containers": [{"name": "app", "image": "nginx"}, {"name": "new", "image": "busybox"}]},
            "status": {"podIP": "10.1.2.3", "containerStatuses": [{"name": "app", "image": "docker.io/library/nginx:latest",
                "imageID": "docker-pullable://nginx@sha256:12", "containerID": "containerd://34", "restartCount": 5,
                "state": {"terminated": {"exitCode": 1}}}]},
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
        };
        let new = Container { name: "new".into(), image: "busybox".into(), ..Container::default() };
        assert_eq!(pod.containers, [app, new]);
        assert_eq!(pod.ip.as_deref(), Some("10.1.2.3"));
        assert_eq!(pod.annotations.keys().collect::<Vec<_>>(), ["a"], "not the manifest once more");
    }
}
