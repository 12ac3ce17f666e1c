//! `SidecarProfile`: what a team wants of its sidecars, named by `sidelight.dev/inject: NAME`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;

/// Bytes of a profile, and of all regexes in it together: every replica reads all profiles, and compiles what they hold.
const MAX_PROFILE: usize = 16 << 10;
const MAX_PROFILE_REGEXES: usize = 512;

/// What is different for the sidecars of this namespace that name this profile. What it does not say is as the operator of
/// the injector has it.
#[derive(Clone, Debug, Default, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "sidelight.dev",
    version = "v1alpha1",
    kind = "SidecarProfile",
    namespaced,
    status = "SidecarProfileStatus",
    shortname = "slp",
    category = "sidelight",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) || has(self.resources) || has(self.logs) || has(self.metrics) || has(self.labels)").message("an empty profile says nothing"))]
pub struct SidecarProfileSpec {
    /// The sidecar's image; only one that the injector's `image_allow` lets pods name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits, over those of the injector, one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ProfileResources>,
    /// Where logs go, instead of where the injector sends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogOutputs>,
    /// Where metrics go, instead of where the injector sends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricOutputs>,
    /// Put on every record as a field, and on every sample as a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.size() <= 16").message("at most 16 labels"))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Quantities by resource.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct ProfileResources {
    /// At least.
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    /// At most.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

/// Outputs of logs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct LogOutputs {
    /// As in the agent's configuration; a secret is `{ secret: NAME, key: KEY }`.
    #[schemars(length(min = 1, max = 4))]
    pub outputs: Vec<LogOutput>,
}

/// Outputs of metrics.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct MetricOutputs {
    /// As in the agent's configuration; a secret is `{ secret: NAME, key: KEY }`.
    #[schemars(length(min = 1, max = 4))]
    pub outputs: Vec<MetricOutput>,
}

/// One output of logs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.forward) != has(self.stdout)").message("an output has one of forward and stdout"))]
pub struct LogOutput {
    /// Unique; the kind unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A Fluentd Forward receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings")]
    pub forward: Option<Map<String, Value>>,
    /// The sidecar's own standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings")]
    pub stdout: Option<Map<String, Value>>,
}

/// One output of metrics.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.remote_write)").message("an output has remote_write"))]
pub struct MetricOutput {
    /// Unique; the kind unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A receiver of Prometheus's remote write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings")]
    pub remote_write: Option<Map<String, Value>>,
}

/// What the injector has found.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarProfileStatus {
    /// `Ready`: whether pods may name it.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// An object of the agent's schema: the injector validates it, and says so in the status.
fn settings(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// What keeps a profile from being used.
pub fn profile_mistake(profile: &SidecarProfileSpec, config: &Config) -> Option<String> {
    if let Some(image) = profile.image.as_ref().filter(|image| !config.image_allow.matches(image)) {
        return Some(format!("spec.image: the operator does not let profiles name {image:?} (image_allow)"));
    }
    let document = serde_json::to_value(profile).unwrap_or_default();
    if let Some(mistake) = too_costly(&document) {
        return Some(mistake);
    }
    let mistakes = config.sidecar.with_profile(profile).mistakes();
    (!mistakes.is_empty()).then(|| mistakes.join("; "))
}

/// Whether a profile would cost those who read it too much.
fn too_costly(profile: &Value) -> Option<String> {
    fn regexes(value: &Value) -> String {
        match value {
            Value::Object(entries) => entries
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) if name == "regex" => text.clone(),
                    value => regexes(value),
                })
                .collect(),
            Value::Array(items) => items.iter().map(regexes).collect(),
            _ => String::new(),
        }
    }
    let (bytes, regexes) = (profile.to_string().len(), regexes(profile));
    if bytes > MAX_PROFILE {
        return Some(format!("the profile has {bytes} bytes, at most {MAX_PROFILE} may be"));
    }
    // Repetition is what makes a short regex large.
    (regexes.len() > MAX_PROFILE_REGEXES || regexes.contains('{')).then(|| {
        format!("its regexes have {} bytes together; at most {MAX_PROFILE_REGEXES} may be, and no repetition by {{n}}", regexes.len())
    })
}
