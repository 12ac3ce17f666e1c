//! Manifests: the pods and templates of pods in a stream of YAML documents, and the profiles that they may name.

use std::sync::Arc;

use jsonptr::PointerBuf;
use serde_json::{Value, json};
use sidelight_contract::annotations::PREFIX;

use crate::decide::NoProfile;
use crate::profile::SidecarProfileSpec;
use crate::yaml;

/// Where what makes pods has their template, by API group, version and kind.
const TEMPLATES: [(&str, &str, &[&str]); 7] = [
    ("v1", "Pod", &[]),
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("apps/v1", "ReplicaSet", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    ("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// A stream of documents.
#[derive(Debug)]
pub struct Manifest {
    /// The documents; null where JSON has no words for one.
    pub documents: Vec<Value>,
    /// What makes pods, in the order of the text.
    pub workloads: Vec<Workload>,
    profiles: Vec<Profile>,
}

/// A pod, or what makes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its document.
    pub document: usize,
    /// The pod or the template of pods in that document.
    pub template: PointerBuf,
    /// `Deployment`, …
    pub kind: String,
    /// Its namespace, where it says one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Annotations of ours that stand on itself, where none looks for them, instead of on its template.
    pub misplaced: Vec<String>,
}

#[derive(Debug)]
struct Profile {
    namespace: Option<String>,
    name: String,
    spec: Result<Arc<SidecarProfileSpec>, String>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads a stream.
    ///
    /// # Errors
    /// What is wrong with the YAML.
    pub fn read(text: &str) -> Result<Self, String> {
        let documents = yaml::values(text)?.into_iter().map(Result::unwrap_or_default).collect();
        let mut manifest = Manifest { documents, workloads: Vec::new(), profiles: Vec::new() };
        for index in 0..manifest.documents.len() {
            let document = manifest.documents[index].clone();
            manifest.add(index, &document, &[]);
        }
        Ok(manifest)
    }

    fn add(&mut self, document: usize, object: &Value, path: &[&str]) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let (version, kind) = (text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default());
        let name = text("/metadata/name").or(text("/metadata/generateName")).unwrap_or_default().to_owned();
        let namespace = text("/metadata/namespace").map(str::to_owned);
        if (version, kind) == ("v1", "List") {
            for (index, item) in object["items"].as_array().into_iter().flatten().enumerate() {
                self.add(document, item, &[path, &["items", &index.to_string()]].concat());
            }
        } else if kind == "SidecarProfile" && version.starts_with(PREFIX) {
            let spec = serde_json::from_value(object["spec"].clone());
            let spec = spec.map(Arc::new).map_err(|error| format!("spec: {error}"));
            self.profiles.push(Profile { namespace, name, spec });
        } else if let Some(below) = template_of(version, kind) {
            let template = PointerBuf::from_tokens(path.iter().chain(below).copied());
            let misplaced = if below.is_empty() { Vec::new() } else { misplaced(object) };
            let kind = kind.to_owned();
            self.workloads.push(Workload { document, template, kind, namespace, name, misplaced });
        }
    }

    /// The profile of a name in the namespace of a workload; `default` is the namespace of what says none.
    ///
    /// # Errors
    /// Why there is none.
    pub fn profile(
        &self,
        workload: &Workload,
        name: &str,
        default: &str,
    ) -> Result<Arc<SidecarProfileSpec>, NoProfile> {
        let place = |namespace: &Option<String>| namespace.clone().unwrap_or_else(|| default.to_owned());
        let is_it = |profile: &&Profile| {
            profile.name == name && place(&profile.namespace) == place(&workload.namespace)
        };
        let found = self.profiles.iter().find(is_it).ok_or(NoProfile::Missing)?;
        found.spec.clone().map_err(NoProfile::Invalid)
    }

    /// The pod or template as it stands.
    pub fn template(&self, workload: &Workload) -> &Value {
        self.documents[workload.document].pointer(workload.template.as_str()).unwrap_or(&Value::Null)
    }

    /// The pod as the webhook would find it: one of a workload names that as its controller.
    pub fn pod(&self, workload: &Workload) -> Value {
        let mut pod = self.template(workload).clone();
        if workload.kind != "Pod"
            && let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut)
        {
            let owner = json!([{ "kind": workload.kind, "name": workload.name, "controller": true }]);
            metadata.insert("ownerReferences".to_owned(), owner);
        }
        pod
    }
}

/// The way from what makes pods to their template; none: it makes no pods.
pub fn template_of(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let found = TEMPLATES.iter().find(|(version, known, _)| (*version, *known) == (api_version, kind));
    found.map(|(_, _, below)| *below)
}

/// The annotations of ours on an object itself.
pub fn misplaced(object: &Value) -> Vec<String> {
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let keys = annotations.into_iter().flat_map(serde_json::Map::keys);
    keys.filter(|key| key.starts_with(PREFIX)).cloned().collect()
}

/// Where annotations that are misplaced belong.
pub fn right_place(kind: &str) -> &'static str {
    if kind == "CronJob" { "spec.jobTemplate.spec.template.metadata" } else { "spec.template.metadata" }
}

// === impl Workload ===

impl std::fmt::Display for Workload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "(no name)" } else { &self.name };
        match &self.namespace {
            Some(namespace) => write!(formatter, "{} {namespace}/{name}", self.kind),
            None => write!(formatter, "{} {name}", self.kind),
        }
    }
}
