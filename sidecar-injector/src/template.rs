//! What a sidecar is made from, before a pod adds its own wishes: the operator's defaults, and a profile's over them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sidelight_agent::config::Config as AgentConfig;
use sidelight_contract::annotations::Native;
use sidelight_contract::quantity;

use crate::profile::SidecarProfileSpec;
use crate::references;

/// The version of injector and sidecar.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes of the data volume for all but spools.
const CHECKPOINTS: f64 = 16.0 * 1024.0 * 1024.0;

/// What a sidecar is made from.
#[derive(Clone, Debug, Serialize)]
pub struct Template {
    /// The image; its entry point is the `sidelight` binary.
    pub image: String,
    /// `imagePullPolicy`, where it is not to be Kubernetes's default.
    pub image_pull_policy: Option<String>,
    /// Whether it is a native sidecar.
    #[serde(serialize_with = "native")]
    pub native: Native,
    /// What it gets.
    pub resources: Resources,
    /// `sizeLimit` of a log directory that the app does not mount.
    pub log_volume_size: String,
    /// `sizeLimit` of the directory for checkpoints and spool.
    pub data_volume_size: String,
    /// `logs` of the agent's schema, without what to read.
    pub logs: Value,
    /// `metrics` of the agent's schema.
    pub metrics: Value,
    /// Put on every record and every sample.
    pub labels: BTreeMap<String, String>,
}

/// Quantities by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// At least.
    pub requests: BTreeMap<String, String>,
    /// At most.
    pub limits: BTreeMap<String, String>,
}

// === impl Template ===

impl Default for Template {
    fn default() -> Self {
        let quantities = |cpu: &str| BTreeMap::from([("cpu", cpu), ("memory", "32Mi")].map(owned));
        Template {
            image: format!("sidelight:{VERSION}"),
            image_pull_policy: None,
            native: Native::Auto,
            // Both, and of both resources: a ResourceQuota refuses pods in which one is missing, and an autoscaler cannot
            // reckon with a pod of which one container has no CPU request. No ephemeral storage: a limit of one container
            // becomes that of the whole pod, its app's logs included.
            resources: Resources { requests: quantities("10m"), limits: quantities("200m") },
            log_volume_size: "256Mi".to_owned(),
            data_volume_size: "512Mi".to_owned(),
            logs: json!({}),
            metrics: json!({}),
            labels: BTreeMap::new(),
        }
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Template {
    /// The same with what a profile says.
    #[must_use]
    pub fn with_profile(&self, profile: &SidecarProfileSpec) -> Self {
        let mut template = self.clone();
        if let Some(image) = &profile.image {
            template.image.clone_from(image);
        }
        if let Some(resources) = &profile.resources {
            template.resources = template.resources.with(&resources.requests, &resources.limits);
        }
        if let Some(logs) = &profile.logs {
            template.logs["outputs"] = json!(logs.outputs);
        }
        if let Some(metrics) = &profile.metrics {
            template.metrics["outputs"] = json!(metrics.outputs);
        }
        template.labels.extend(profile.labels.clone().unwrap_or_default());
        template
    }

    /// Whether there is a place for what `section`, `logs` or `metrics`, is about.
    pub fn has_outputs(section: &Value) -> bool {
        section["outputs"].as_array().is_some_and(|outputs| !outputs.is_empty())
    }

    /// A short name for all of the above: pods that were injected with another one are outdated.
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(serde_json::to_vec(self).unwrap_or_default());
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The agent's sections, with labels in them, as a sidecar that is to do `logs` or `metrics` or both reads them.
    pub fn sections(&self, logs: bool, metrics: bool) -> (Value, Value) {
        let labelled = |section: &Value, key: &str| {
            let mut section = section.clone();
            if !self.labels.is_empty() {
                let mut labels = json!(self.labels);
                if let (Some(labels), Some(own)) = (labels.as_object_mut(), section[key].as_object()) {
                    labels.extend(own.clone());
                }
                section[key] = labels;
            }
            section
        };
        let logs = if logs { labelled(&self.logs, "add") } else { json!({}) };
        let metrics =
            if metrics { labelled(&self.metrics, "external_labels") } else { json!({ "select": "none" }) };
        (logs, metrics)
    }

    /// What the API server or the sidecar would find wrong: asked here, so that no pod has to fail to tell it.
    pub fn mistakes(&self) -> Vec<String> {
        if let Some((name, _)) = [("logs", &self.logs), ("metrics", &self.metrics)]
            .iter()
            .find(|(_, section)| !section.is_object())
        {
            return vec![format!("{name}: expected a mapping of keys")];
        }
        let (mut logs, mut metrics) =
            self.sections(Self::has_outputs(&self.logs), Self::has_outputs(&self.metrics));
        let mut mistakes = self.resources.mistakes();
        for (name, section) in [("logs", &mut logs), ("metrics", &mut metrics)] {
            let of_section = references::mistakes(section);
            mistakes.extend(of_section.into_iter().map(|mistake| format!("{name}.{mistake}")));
            references::pretend(section);
        }
        if logs.get("files").is_some() || logs.get("root").is_some() {
            mistakes.push(
                "logs: `files` and `root` are the pod's to say, by sidelight.dev/inject.logs".to_owned(),
            );
        }
        let is_idle = !Self::has_outputs(&logs) && !Self::has_outputs(&metrics);
        if is_idle || !mistakes.is_empty() {
            return mistakes;
        }
        if Self::has_outputs(&logs) {
            logs["files"] = json!(["/var/log/sidelight/app/logs/*.log"]);
        }
        let document = json!({ "node": "node", "logs": logs, "metrics": metrics }).to_string();
        match AgentConfig::parse_sidecar(&document, &|_| None) {
            Ok((config, unknown)) => unknown.into_iter().chain(self.spool_mistake(&config)).collect(),
            Err(mistakes) => mistakes,
        }
    }

    /// The kubelet evicts a pod whose volume is fuller than its limit.
    fn spool_mistake(&self, config: &AgentConfig) -> Option<String> {
        let spools: u64 = config.metrics.outputs.iter().map(|output| output.remote_write.spool).sum();
        let room = quantity::parse(&self.data_volume_size)?;
        (spools as f64 + CHECKPOINTS > room).then(|| {
            format!(
                "metrics.outputs: the spools have {spools} bytes together, and their volume {} (data_volume_size); make them smaller, or the \
                 volume larger",
                self.data_volume_size
            )
        })
    }
}

// === impl Resources ===

impl Resources {
    /// The same with these over them, one by one. A request that is not among them goes down to its limit.
    #[must_use]
    pub fn with(&self, requests: &BTreeMap<String, String>, limits: &BTreeMap<String, String>) -> Self {
        let mut with = self.clone();
        with.requests.extend(requests.clone());
        with.limits.extend(limits.clone());
        for (name, limit) in limits {
            let is_above = |request: &&mut String| {
                quantity::parse(limit).is_some_and(|limit| quantity::parse(request) > Some(limit))
            };
            if let Some(request) = with.requests.get_mut(name).filter(is_above)
                && !requests.contains_key(name)
            {
                request.clone_from(limit);
            }
        }
        with
    }

    /// What is no resource or no quantity of one.
    fn mistakes(&self) -> Vec<String> {
        let all = [("requests", &self.requests), ("limits", &self.limits)];
        let each = all.iter().flat_map(|(part, entries)| entries.iter().map(move |entry| (part, entry)));
        let wrong = each.filter_map(|(part, (name, value))| {
            let is_resource =
                ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.contains('/');
            let is_quantity = quantity::is_positive(value);
            let what = if is_resource {
                "no quantity above 0 such as 50m or 64Mi"
            } else {
                "of no resource that containers have"
            };
            (!is_resource || !is_quantity).then(|| format!("resources.{part}.{name}: {value:?} is {what}"))
        });
        wrong.collect()
    }
}

fn native<S: serde::Serializer>(native: &Native, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(native)
}
