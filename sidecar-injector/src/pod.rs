//! What the decision needs to see of a pod. Everything else stays in the JSON, unseen and unchanged.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sidelight_contract::quantity;

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod<'a> {
    /// Names and what belongs to them.
    #[serde(borrow)]
    pub metadata: Metadata<'a>,
    /// What is asked for.
    #[serde(borrow)]
    pub spec: Spec<'a>,
}

/// A pod's `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Empty where the API server makes one of `generateName`.
    pub name: &'a str,
    /// Where the name is yet to be made.
    pub generate_name: &'a str,
    /// Labels.
    #[serde(borrow)]
    pub labels: Option<BTreeMap<&'a str, &'a str>>,
    /// Annotations.
    #[serde(borrow)]
    pub annotations: Option<BTreeMap<&'a str, &'a str>>,
    /// What it belongs to.
    #[serde(borrow)]
    pub owner_references: Option<Vec<OwnerReference<'a>>>,
}

/// One entry of `ownerReferences`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference<'a> {
    /// `apps/v1`, …
    pub api_version: &'a str,
    /// `ReplicaSet`, …
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Whether it is the one that made the pod.
    pub controller: Option<bool>,
}

/// A pod's `spec`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec<'a> {
    /// App containers.
    #[serde(borrow)]
    pub containers: Option<Vec<Container<'a>>>,
    /// Init containers, native sidecars among them.
    #[serde(borrow)]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// Volumes.
    #[serde(borrow)]
    pub volumes: Option<Vec<Named<'a>>>,
    /// Whether it has the node's addresses.
    pub host_network: Option<bool>,
    /// Its operating system, where it says so.
    #[serde(borrow)]
    pub os: Option<Named<'a>>,
    /// Labels of nodes that it may run on.
    #[serde(borrow)]
    pub node_selector: Option<BTreeMap<&'a str, &'a str>>,
    /// For the pod as a whole.
    pub resources: Option<Resources>,
    /// Users for all its containers.
    pub security_context: Option<SecurityContext>,
    /// `Always`, `OnFailure`, `Never`.
    #[serde(borrow)]
    pub restart_policy: Option<&'a str>,
    /// Seconds from SIGTERM to SIGKILL.
    pub termination_grace_period_seconds: Option<i64>,
}

/// Anything with a name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named<'a> {
    /// The name.
    pub name: &'a str,
}

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image.
    #[serde(borrow)]
    pub image: Option<&'a str>,
    /// `Always` makes a native sidecar of an init container.
    #[serde(borrow)]
    pub restart_policy: Option<&'a str>,
    /// Ports that it declares.
    #[serde(borrow)]
    pub ports: Option<Vec<Port<'a>>>,
    /// Where it has which volume.
    #[serde(borrow)]
    pub volume_mounts: Option<Vec<VolumeMount<'a>>>,
    /// What it gets.
    pub resources: Option<Resources>,
    /// Its user.
    pub security_context: Option<SecurityContext>,
}

/// A declared port.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Option<&'a str>,
    /// Its number, good or not.
    pub container_port: i64,
    /// `TCP` unless it says otherwise.
    #[serde(borrow)]
    pub protocol: Option<&'a str>,
}

/// Where a container has a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeMount<'a> {
    /// The volume.
    pub name: &'a str,
    /// The directory in the container.
    pub mount_path: &'a str,
    /// Whether the container cannot write there.
    pub read_only: Option<bool>,
    /// A directory of the volume instead of its root.
    #[serde(borrow)]
    pub sub_path: Option<&'a str>,
    /// The same, with variables of the container in it.
    #[serde(borrow)]
    pub sub_path_expr: Option<&'a str>,
}

/// Quantities by resource; numbers are written without quotes sometimes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// At least.
    pub requests: Option<BTreeMap<String, Value>>,
    /// At most.
    pub limits: Option<BTreeMap<String, Value>>,
}

/// Which user processes run as.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityContext {
    /// User.
    pub run_as_user: Option<i64>,
    /// Group.
    pub run_as_group: Option<i64>,
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// Reads what is to be seen.
    ///
    /// # Errors
    /// Where the JSON is no pod.
    pub fn of(object: &'a Value) -> Result<Self, String> {
        Pod::deserialize(object).map_err(|error| format!("not a pod: {error}"))
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.metadata.annotations.as_ref()?.get(key).copied()
    }

    /// All annotations.
    pub fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        self.metadata.annotations.iter().flatten().map(|(key, value)| (*key, *value))
    }

    /// App containers.
    pub fn containers(&self) -> &[Container<'a>] {
        self.spec.containers.as_deref().unwrap_or_default()
    }

    /// Init containers.
    pub fn init_containers(&self) -> &[Container<'a>] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// Containers that run as long as the pod: the app's, and native sidecars.
    pub fn lasting_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        let sidecars = self.init_containers().iter().filter(|container| container.is_native_sidecar());
        self.containers().iter().chain(sidecars)
    }

    /// Every container.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        self.containers().iter().chain(self.init_containers())
    }

    /// Whether a container has this name.
    pub fn has_container(&self, name: &str) -> bool {
        self.all_containers().any(|container| container.name == name)
    }

    /// What has made it.
    pub fn controller(&self) -> Option<&OwnerReference<'a>> {
        self.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    /// Its name, or how it will begin.
    pub fn shown_name(&self) -> String {
        match (self.metadata.name, self.metadata.generate_name) {
            ("", "") => "a pod without a name".to_owned(),
            ("", prefix) => format!("{prefix}..."),
            (name, _) => name.to_owned(),
        }
    }
}

// === impl Container ===

impl Container<'_> {
    /// Whether it is an init container that keeps running.
    pub fn is_native_sidecar(&self) -> bool {
        self.restart_policy == Some("Always")
    }

    /// The TCP ports that it declares.
    pub fn tcp_ports(&self) -> impl Iterator<Item = &Port<'_>> {
        self.ports.iter().flatten().filter(|port| port.protocol.is_none_or(|protocol| protocol == "TCP"))
    }

    /// Whether it gets exactly what it asks for: CPU and memory have limits, and requests that are missing or the same.
    pub fn is_guaranteed(&self) -> bool {
        let Some(Resources { requests, limits: Some(limits) }) = &self.resources else { return false };
        ["cpu", "memory"].iter().all(|name| {
            limits.get(*name).is_some_and(|limit| {
                let request = requests.as_ref().and_then(|requests| requests.get(*name));
                request.is_none_or(|request| number(request) == number(limit))
            })
        })
    }
}

/// `1Gi` and `1073741824` are the same.
fn number(quantity: &Value) -> Option<f64> {
    quantity.as_f64().or_else(|| quantity::parse(quantity.as_str()?))
}

// === impl Resources ===

impl Resources {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        [&self.requests, &self.limits].iter().all(|part| part.as_ref().is_none_or(BTreeMap::is_empty))
    }
}
