//! Pods that ask for a sidecar, and what has become of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sidelight_agent::cluster::workload;
use sidelight_contract::annotations::{Allow, Inject, PREFIX, inject_annotations};

use super::installation::{Labels, calls_for, injected};
use super::{Finding, Status};
use crate::config::Config;
use crate::decide::{Context, Decision, NoProfile, Skip, decide, unfit};
use crate::manifest::{misplaced, right_place};
use crate::pod::Pod;
use crate::profile::{SidecarProfile, SidecarProfileSpec, profile_mistake};
use crate::template::VERSION;

/// How many pods a line names.
const NAMED: usize = 3;
const RESTART: &str = "restart what has made them: kubectl rollout restart";

/// What is known of the cluster when a pod is looked at.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// The injector's configuration, if it was given.
    pub config: Option<&'a Config>,
    /// The minor version of the API server.
    pub kubernetes: u32,
    /// The profiles, by namespace and name.
    pub profiles: BTreeMap<(String, String), Arc<SidecarProfileSpec>>,
    /// The webhooks.
    pub webhooks: Vec<&'a MutatingWebhook>,
    /// Since when they are registered.
    pub since: Option<Timestamp>,
    /// Namespaces, if they may be listed.
    pub namespaces: BTreeMap<String, Labels>,
    /// What the injector writes on pods of its defaults, by the dry run.
    pub current: Option<String>,
}

/// What is wrong with a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    check: &'static str,
    status: Status,
    reason: String,
    hint: &'static str,
}

/// Pods with the same problem, of the same workload.
#[derive(Debug, Default)]
pub struct Problems {
    found: BTreeMap<(Problem, String), Vec<String>>,
    /// Pods that ask.
    asking: usize,
}

// === impl Cluster ===

impl Cluster<'_> {
    /// Whether a pod asks for a sidecar, and what is wrong with what it has.
    pub fn look(&self, pod: &Value) -> Option<Result<(), Problem>> {
        let seen = Pod::of(pod).ok()?;
        let is_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if is_ended || !pod["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        if !matches!(unfit(&seen), None | Some(Skip::Already)) {
            return None;
        }
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        Some(match injected(pod) {
            Some(found) => self.outdated(&seen, namespace, found).map_or(Ok(()), Err),
            // A container of the name, and not by us: for its owner to know.
            None if seen.has_container(sidelight_contract::sidecar::CONTAINER) => Ok(()),
            None => Err(self.missing(pod, namespace)),
        })
    }

    /// Why a pod that asks has no sidecar.
    fn missing(&self, pod: &Value, namespace: &str) -> Problem {
        let problem = |status, reason: &str, hint| Problem {
            check: "pods without a sidecar",
            status,
            reason: reason.to_owned(),
            hint,
        };
        if let Some(labels) = self.namespaces.get(namespace) {
            if labels.get(&format!("{PREFIX}inject")).is_some_and(|value| value == "disabled") {
                let reason = "their namespace opts out, by the label sidelight.dev/inject=disabled";
                return problem(Status::Warning, reason, "remove the label, or the annotation");
            }
            if !calls_for(&self.webhooks, labels) {
                let reason = "the webhook's namespaceSelector leaves their namespace out";
                return problem(Status::Warning, reason, "correct the selector, or remove the annotation");
            }
        }
        match self.config.map(|config| self.decided(pod, namespace, config)) {
            Some(Decision::Skip(skip, warnings)) => {
                let reason = format!("{}: {}", skip.name().replace('_', " "), warnings.join("; "));
                return problem(Status::Warning, &reason, "correct their annotations");
            }
            Some(Decision::Deny(reason) | Decision::Fail(reason)) => {
                return problem(Status::Failed, &reason, "correct their annotations");
            }
            Some(Decision::Inject(_)) | None => {}
        }
        let created =
            pod["metadata"]["creationTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        if self.since.zip(created).is_some_and(|(since, created)| created < since) {
            return problem(Status::Failed, "they were created before the webhook was registered", RESTART);
        }
        let reason = "the webhook was not reached when they were created, or not called for them";
        problem(Status::Failed, reason, RESTART)
    }

    fn decided(&self, pod: &Value, namespace: &str, config: &Config) -> Decision {
        let profile = |name: &str| {
            let found = self.profile(namespace, name).ok_or(NoProfile::Missing)?;
            profile_mistake(&found, config).map_or(Ok(found), |mistake| Err(NoProfile::Invalid(mistake)))
        };
        decide(pod, Context { config, kubernetes: self.kubernetes, profile: &profile })
    }

    fn profile(&self, namespace: &str, name: &str) -> Option<Arc<SidecarProfileSpec>> {
        self.profiles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn outdated(&self, pod: &Pod<'_>, namespace: &str, found: &str) -> Option<Problem> {
        let template = match inject_annotations(pod.annotations(), &Allow::everything()).inject? {
            Inject::No => return None,
            Inject::Yes => self.config.map(|config| config.sidecar.clone()),
            Inject::Profile(name) => {
                let profile = self.profile(namespace, &name);
                self.config.zip(profile).map(|(config, profile)| config.sidecar.with_profile(&profile))
            }
        };
        let is_default = pod.annotation(&format!("{PREFIX}inject")) == Some("true");
        let expected = template
            .map(|template| format!("{VERSION}-{}", template.hash()))
            .or_else(|| self.current.clone().filter(|_| is_default));
        let version =
            self.current.as_ref().and_then(|current| Some(current.rsplit_once('-')?.0)).unwrap_or(VERSION);
        let is_current = match &expected {
            Some(expected) => found == expected,
            // Without the injector's configuration only the version can be compared.
            None => found.rsplit_once('-').is_some_and(|(found, _)| found == version),
        };
        (!is_current).then(|| Problem {
            check: "outdated pods",
            status: Status::Warning,
            reason: format!(
                "their sidecar is {found}, new ones are {}",
                expected.unwrap_or_else(|| format!("of version {version}"))
            ),
            hint: RESTART,
        })
    }
}

// === impl Problems ===

impl Problems {
    /// Looks at a pod.
    pub fn look(&mut self, cluster: &Cluster<'_>, pod: &Value) {
        let Some(found) = cluster.look(pod) else { return };
        self.asking += 1;
        if let Err(problem) = found {
            self.found.entry((problem, owner(pod))).or_default().push(name(pod));
        }
    }

    /// All that was found, by problem and workload.
    pub fn findings(self) -> Vec<Finding> {
        if self.found.is_empty() {
            let message = format!("{} ask for a sidecar, each has a current one", self.asking);
            return vec![Finding::ok("pods", message)];
        }
        let finding = |((problem, owner), pods): ((Problem, String), Vec<String>)| {
            let mut named = pods.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if pods.len() > NAMED {
                named += &format!(" and {} more", pods.len() - NAMED);
            }
            let message = format!("{owner} ({named}): {}", problem.reason);
            Finding { pods, ..Finding::new(problem.check, problem.status, message, problem.hint) }
        };
        self.found.into_iter().map(finding).collect()
    }
}

fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"))
}

/// What a pod belongs to.
fn owner(object: &Value) -> String {
    let Ok(pod) = Pod::of(object) else { return String::new() };
    let label = |key: &str| pod.metadata.labels.as_ref()?.get(key).copied();
    let owner = pod.controller().map(|owner| workload(owner.kind, owner.name, label));
    owner.map_or_else(|| "Pod".to_owned(), |owner| format!("{} {}", owner.kind, owner.name))
}

/// Annotations of ours on an object that makes pods, where nothing reads them. What others have made has its annotations from
/// them.
pub fn misplaced_on(kind: &str, object: &Value) -> Option<Finding> {
    let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    if owners.any(|owner| owner["controller"] == true) {
        return None;
    }
    let keys = misplaced(object);
    let message = format!(
        "{kind} {}: {} on itself has no effect; it belongs in {}.annotations",
        name(object),
        keys.join(", "),
        right_place(kind)
    );
    let finding = Finding::new("misplaced annotations", Status::Warning, message, "move it to the template");
    (!keys.is_empty()).then_some(finding)
}

/// A profile by its namespace and name.
pub fn named(profile: SidecarProfile) -> Option<((String, String), Arc<SidecarProfileSpec>)> {
    Some(((profile.metadata.namespace?, profile.metadata.name?), Arc::new(profile.spec)))
}

/// Where the cluster does not know what a profile is.
pub fn no_profiles() -> Finding {
    let hint = "apply what `sidelight-injector crd` prints";
    Finding::new("profiles", Status::Warning, "the cluster has no resource of the kind SidecarProfile", hint)
}

/// Profiles that no pod may name.
pub fn profiles(all: &[SidecarProfile], config: Option<&Config>) -> Vec<Finding> {
    let mistake = |profile: &SidecarProfile| {
        let conditions = profile.status.iter().flat_map(|status| &status.conditions);
        let refused = conditions.clone().find(|one| one.type_ == "Ready" && one.status == "False");
        match config {
            Some(config) => profile_mistake(&profile.spec, config),
            None => refused.map(|condition| condition.message.clone()),
        }
    };
    let finding = |profile: &SidecarProfile| {
        let metadata = &profile.metadata;
        let name = format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        );
        let message = format!("{name} cannot be used: {}", mistake(profile)?);
        Some(Finding::new("profiles", Status::Warning, message, "pods that name it are refused; correct it"))
    };
    let found: Vec<Finding> = all.iter().filter_map(finding).collect();
    if found.is_empty() { vec![Finding::ok("profiles", format!("{} are good", all.len()))] } else { found }
}

#[cfg(test)]
mod tests;
