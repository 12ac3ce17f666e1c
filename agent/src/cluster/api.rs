//! A pod as the API serves it, but for what nobody here reads.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;

use super::{Container, Pod, owner};

/// v1 Pod: the fields that become a [`Pod`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPod {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
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
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: String,
    restart_count: u32,
}

// === impl ApiPod ===

impl ApiPod {
    /// The node it was bound to.
    pub(super) fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref()
    }

    /// What is kept of it.
    pub(super) fn into_pod(self) -> Pod {
        let ApiPod { metadata, spec, status } = self;
        let labels = metadata.labels.unwrap_or_default();
        let statuses: Vec<&ContainerStatus> = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .collect();
        let container = |spec: SpecContainer| {
            let status = statuses.iter().find(|status| status.name == spec.name);
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Container {
                image_id: status.and_then(|status| given(&status.image_id)),
                // `containerd://ID`
                id: status.and_then(|status| status.container_id.rsplit_once("//")).and_then(|(_, id)| given(id)),
                restart_count: status.map_or(0, |status| status.restart_count),
                name: spec.name,
                image: spec.image,
            }
        };
        Pod {
            owner: owner::of(metadata.owner_references.unwrap_or_default(), &labels),
            uid: metadata.uid.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            ip: status.pod_ip,
            annotations: metadata.annotations.unwrap_or_default(),
            labels,
            containers: spec.init_containers.into_iter().chain(spec.containers).chain(spec.ephemeral_containers).map(container).collect(),
            namespace_labels: None,
        }
    }
}

impl Resource for ApiPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
