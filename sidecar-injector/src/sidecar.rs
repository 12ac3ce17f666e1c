//! The sidecar: its container and its volumes, for one pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sidelight_agent::cluster;
use sidelight_contract::annotations::InjectAnnotations;
use sidelight_contract::quantity;
use sidelight_contract::sidecar::{
    ANNOTATIONS_FILE, CONFIG, CONTAINER, DATA_PATH, DATA_VOLUME, LABELS_FILE, NAMESPACE, NODE, POD,
    POD_INFO_PATH, POD_INFO_VOLUME, POD_IP, POD_UID,
};

use crate::log_volumes::LogVolumes;
use crate::pod::{Container, Pod, SecurityContext};
use crate::references::{self, Resolved};
use crate::template::{Resources, Template};

/// Where probes and scrapers come; the next one that no container declares.
const FIRST_PORT: u16 = 9614;
/// The user of the image.
const USER: i64 = 65_532;
/// What a sidecar is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// It reads log files.
    pub logs: bool,
    /// It scrapes the pod's metrics.
    pub metrics: bool,
}

/// A sidecar for one pod.
#[derive(Debug)]
pub struct Sidecar {
    /// The container.
    pub container: Value,
    /// Its volumes, without those of log directories.
    pub volumes: Vec<Value>,
    /// How long its configuration is.
    pub config_bytes: usize,
}

/// Everything that one is made from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The pod.
    pub pod: &'a Pod<'a>,
    /// What the operator and a profile say.
    pub template: &'a Template,
    /// What the pod's annotations say.
    pub wishes: &'a InjectAnnotations,
    /// Whether it is to be a native one.
    pub native: bool,
    /// What it is made for.
    pub purpose: Purpose,
    /// Where the log files are.
    pub logs: &'a LogVolumes,
    /// Ports that its annotations name for metrics.
    pub scraped: Vec<u16>,
}

/// The listeners of a sidecar.
struct Ports {
    network: String,
    api: String,
    /// Where the kubelet can ask.
    probed: Option<u16>,
}

// === impl Purpose ===

impl Purpose {
    /// As the annotation `injected-for` has it.
    pub fn names(self) -> String {
        let names = [("logs", self.logs), ("metrics", self.metrics)];
        let names: Vec<&str> = names.iter().filter(|(_, is_so)| *is_so).map(|(name, _)| *name).collect();
        names.join(",")
    }

    /// Whether there is nothing to do.
    pub fn is_none(self) -> bool {
        self == Purpose::default()
    }
}

// === impl Parts ===

impl Parts<'_> {
    /// Makes the sidecar.
    pub fn render(&self) -> Sidecar {
        let ports = self.ports();
        let mut resolved = Resolved::default();
        let config = self.config(&ports, &mut resolved).to_string();
        // Kubernetes takes a negative one for 1.
        let grace = self.pod.spec.termination_grace_period_seconds.unwrap_or(30).max(1);
        let mut mounts = vec![
            json!({ "name": DATA_VOLUME, "mountPath": DATA_PATH }),
            json!({ "name": POD_INFO_VOLUME, "mountPath": POD_INFO_PATH, "readOnly": true }),
        ];
        mounts.extend(self.logs.mounts.iter().cloned());
        let mut container = json!({
            "name": CONTAINER,
            "image": self.wishes.image.as_ref().unwrap_or(&self.template.image),
            "args": ["sidecar", "--grace-period", format!("{grace}s")],
            "env": environment(&config, &resolved),
            "volumeMounts": mounts,
            "securityContext": self.security_context(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        });
        if let Some(policy) = &self.template.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if self.native {
            container["restartPolicy"] = json!("Always");
        }
        let resources = self.resources();
        if !resources.requests.is_empty() || !resources.limits.is_empty() {
            container["resources"] = json!(resources);
        }
        // No readiness probe: that of a native sidecar is the pod's, and an app is ready whether or not its logs arrive. No
        // startup probe: the app has nothing to wait for, its files keep what it writes.
        if let Some(port) = ports.probed {
            container["livenessProbe"] = json!({ "httpGet": { "path": "/livez", "port": port }, "periodSeconds": 30, "timeoutSeconds": 5 });
        }
        Sidecar { container, volumes: self.volumes(resolved.sources), config_bytes: config.len() }
    }

    /// No port is declared: Prometheus makes a target of each that is. On the node's network the ports are everybody's; there
    /// any free ones are taken, on its loopback.
    fn ports(&self) -> Ports {
        if self.pod.spec.host_network == Some(true) {
            let any = || "127.0.0.1:0".to_owned();
            return Ports { network: any(), api: any(), probed: None };
        }
        let declared =
            self.pod.lasting_containers().flat_map(Container::tcp_ports).map(|port| port.container_port);
        // A port need not be declared to be listened on; where metrics are is known all the same.
        let scraped = self.scraped.iter().map(|port| i64::from(*port));
        let taken: BTreeSet<i64> = declared.chain(scraped).collect();
        let mut free = (FIRST_PORT..=u16::MAX).filter(|port| !taken.contains(&i64::from(*port)));
        let (network, api) = (free.next().unwrap_or(0), free.next().unwrap_or(0));
        Ports { network: format!("[::]:{network}"), api: format!("127.0.0.1:{api}"), probed: Some(network) }
    }

    /// One document in the agent's schema.
    fn config(&self, ports: &Ports, resolved: &mut Resolved) -> Value {
        let (mut logs, mut metrics) = self.template.sections(self.purpose.logs, self.purpose.metrics);
        for section in [&mut logs, &mut metrics] {
            references::resolve(section, resolved);
        }
        if self.purpose.logs {
            logs["files"] = json!(self.logs.files);
        }
        json!({
            "admin": { "listen": ports.network, "api": ports.api },
            "kubernetes": { "pod": self.description() },
            "logs": logs,
            "metrics": metrics,
        })
    }

    /// What the sidecar cannot learn from the Downward API.
    fn description(&self) -> Value {
        let port = |port: &crate::pod::Port<'_>| match port.name {
            Some(name) => json!({ "name": name, "port": port.container_port }),
            None => json!({ "port": port.container_port }),
        };
        let container = |container: &Container<'_>| {
            let ports: Vec<Value> = container.tcp_ports().map(port).collect();
            json!({ "name": container.name, "image": container.image, "ports": ports })
        };
        let containers: Vec<Value> = self.pod.lasting_containers().map(container).collect();
        let label = |key: &str| self.pod.metadata.labels.as_ref()?.get(key).copied();
        let owner = self.pod.controller().map(|owner| cluster::workload(owner.kind, owner.name, label));
        json!({ "owner": owner, "containers": containers })
    }

    fn volumes(&self, mut sources: Vec<Value>) -> Vec<Value> {
        let item =
            |file: &str| json!({ "path": file, "fieldRef": { "fieldPath": format!("metadata.{file}") } });
        let pod_info = json!({ "items": [item(LABELS_FILE), item(ANNOTATIONS_FILE)] });
        let pod_info = if sources.is_empty() {
            json!({ "name": POD_INFO_VOLUME, "downwardAPI": pod_info })
        } else {
            sources.insert(0, json!({ "downwardAPI": pod_info }));
            json!({ "name": POD_INFO_VOLUME, "projected": { "sources": sources } })
        };
        let size = &self.template.data_volume_size;
        vec![json!({ "name": DATA_VOLUME, "emptyDir": { "sizeLimit": size } }), pod_info]
    }

    /// All that the Pod Security Standard "restricted" asks for. The user is the app's where that is known: its files may be
    /// for itself alone. Never root.
    fn security_context(&self) -> Value {
        let of = |context: &Option<SecurityContext>| context.unwrap_or_default();
        let of_pod = of(&self.pod.spec.security_context);
        let of_app =
            self.logs.writers.first().map(|index| of(&self.pod.containers()[*index].security_context));
        let user = of_app.and_then(|app| app.run_as_user).or(of_pod.run_as_user).filter(|user| *user > 0);
        let group = of_app.and_then(|app| app.run_as_group).or(of_pod.run_as_group);
        let mut context = json!({
            "runAsNonRoot": true,
            "runAsUser": user.unwrap_or(USER),
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        if let Some(group) = group {
            context["runAsGroup"] = json!(group);
        }
        context
    }

    /// What it gets. A pod of the class Guaranteed stays one; a pod with resources of its own divides those.
    fn resources(&self) -> Resources {
        let wish = |cpu: &Option<String>, memory: &Option<String>| {
            let wishes = [("cpu", cpu), ("memory", memory)];
            let named = |(name, wish): (&str, &Option<String>)| Some((name.to_owned(), wish.clone()?));
            wishes.into_iter().filter_map(named).collect::<BTreeMap<_, _>>()
        };
        let wishes = self.wishes;
        let (requests, limits) = (
            wish(&wishes.cpu_request, &wishes.memory_request),
            wish(&wishes.cpu_limit, &wishes.memory_limit),
        );
        let divides = self.pod.spec.resources.as_ref().is_some_and(|resources| !resources.is_empty());
        let given = if divides { Resources::default() } else { self.template.resources.clone() };
        let mut resources = given.with(&requests, &limits);
        for (name, request) in &mut resources.requests {
            let Some(limit) = resources.limits.get_mut(name) else { continue };
            if quantity::parse(request) > quantity::parse(limit) {
                // The one that the pod asks for is meant.
                if limits.contains_key(name) { request.clone_from(limit) } else { limit.clone_from(request) }
            }
        }
        let mut containers = self.pod.all_containers().peekable();
        if !divides && containers.peek().is_some() && containers.all(Container::is_guaranteed) {
            for name in ["cpu", "memory"] {
                let Resources { requests, limits } = &mut resources;
                if let Some(most) = limits.get(name).or(requests.get(name)).cloned() {
                    requests.insert(name.to_owned(), most.clone());
                    limits.insert(name.to_owned(), most);
                }
            }
        }
        resources
    }
}

fn environment(config: &str, resolved: &Resolved) -> Vec<Value> {
    let fields = [
        (NAMESPACE, "metadata.namespace"),
        (POD, "metadata.name"),
        (POD_UID, "metadata.uid"),
        (POD_IP, "status.podIP"),
        (NODE, "spec.nodeName"),
    ];
    let field = |(name, path)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut variables: Vec<Value> = fields.map(field).into();
    variables.extend(resolved.env.iter().cloned());
    // Kubernetes has `$(NAME)` for other variables, and `$$` for `$`.
    variables.push(json!({ "name": CONFIG, "value": config.replace('$', "$$") }));
    variables
}
