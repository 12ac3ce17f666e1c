//! Whether a pod gets a sidecar, and what is to be added for it. Pure: no I/O, no clock, no cluster.

use std::borrow::Cow;
use std::sync::Arc;

use json_patch::Patch;
use serde_json::{Value, json};
use sidelight_agent::logs::redact::BUILTIN;
use sidelight_contract::annotations::{
    Allow, Inject, InjectAnnotations, MetricAnnotations, Native, Order, PREFIX, Port, Problem,
    inject_annotations, metric_annotations, problems,
};
use sidelight_contract::sidecar::{CONTAINER, DATA_VOLUME, POD_INFO_VOLUME};

use crate::config::{Config, Mode};
use crate::log_volumes::{LogVolumes, log_volumes};
use crate::patch::{Additions, Place};
use crate::pod::Pod;
use crate::profile::SidecarProfileSpec;
use crate::sidecar::{Parts, Purpose, Sidecar};
use crate::template::{Template, VERSION};

/// Volumes that do not keep the cluster autoscaler from removing a node (since its version 1.27), separated by commas.
pub(crate) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// The container that kubectl means where none is named.
pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// What the kubelet puts on the image of a static pod, which it runs whatever the API server says.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Bytes of the sidecar's configuration: a variable of a process has at most 128 KiB (`MAX_ARG_STRLEN`).
const MAX_CONFIG: usize = 96 << 10;
/// Characters of an annotation's key that are told: more than a good one can have is no help.
const MAX_KEY: usize = 320;
/// The first minor version that has native sidecars.
const NATIVE: u32 = 29;
/// Kubelets may be three versions behind their API server: from this one on each of them has native sidecars.
const NATIVE_EVERYWHERE: u32 = NATIVE + 3;

/// What is known beside the pod.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The minor version of the API server.
    pub kubernetes: u32,
    /// The profile of a name in the pod's namespace.
    pub profile: &'a dyn Fn(&str) -> Result<Arc<SidecarProfileSpec>, NoProfile>,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProfile {
    /// None has that name.
    Missing,
    /// It is there and cannot be used.
    Invalid(String),
    /// What there is has not been listed yet.
    NotListed,
}

/// What becomes of a pod.
#[derive(Debug)]
pub enum Decision {
    /// It stays as it is.
    Skip(Skip, Vec<String>),
    /// It gets a sidecar.
    Inject(Injection),
    /// It is refused, with a text for its creator.
    Deny(String),
    /// There is no answer now; the webhook's `failurePolicy` says what becomes of it.
    Fail(String),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// It does not ask, or asks to be left alone.
    NotAsked,
    /// It has one.
    Already,
    /// It is a static pod's image.
    Mirror,
    /// It runs on Windows.
    Windows,
    /// Its annotations name neither logs nor metrics that a sidecar could take care of.
    NothingToDo,
    /// It is to end, and a plain container would keep it from that.
    WouldNotEnd,
    /// What it asks for cannot be read.
    BadAnnotation,
}

/// A sidecar for a pod.
#[derive(Debug)]
pub struct Injection {
    /// What is to be added.
    pub patch: Patch,
    /// For the pod's owner.
    pub warnings: Vec<String>,
    /// Whether all that the pod asks for is in it.
    pub is_as_asked: bool,
    /// What the sidecar is made for.
    pub purpose: Purpose,
    /// Whether it is a native one.
    pub native: bool,
}

/// Decides about a pod.
pub fn decide(object: &Value, context: Context<'_>) -> Decision {
    match Pod::of(object) {
        Ok(pod) => decide_about(&pod, object, context),
        Err(error) => Decision::Fail(error),
    }
}

/// The same for one that has been looked at.
pub fn decide_about(pod: &Pod<'_>, object: &Value, context: Context<'_>) -> Decision {
    if let Some(skip) = unfit(pod) {
        return Decision::Skip(skip, Vec::new());
    }
    if !object["spec"].is_object() {
        // No API server sends one; there would be nothing to add a sidecar to.
        return Decision::Fail("not a pod: it has no spec".to_owned());
    }
    let wishes = inject_annotations(pod.annotations(), &Allow::everything());
    let mut problems = found_problems(pod, &wishes, context);
    if !problems.is_empty() && context.config.mode == Mode::Deny {
        return Decision::Deny(problems.join("; "));
    }
    if wishes.otlp == Some(true) {
        problems.push(format!("{PREFIX}inject.otlp: this version's sidecar takes no OTLP; left out"));
    }
    let template = match template(&wishes, context) {
        Ok(template) => template,
        Err(no) => return no,
    };
    match &wishes.inject {
        Some(Inject::No) => Decision::Skip(Skip::NotAsked, Vec::new()),
        None => Decision::Skip(Skip::BadAnnotation, problems),
        Some(Inject::Yes | Inject::Profile(_)) => inject(object, pod, wishes, &template, problems, context),
    }
}

/// Why a pod is left alone, whatever else its annotations say.
pub(crate) fn unfit(pod: &Pod<'_>) -> Option<Skip> {
    let of_node = pod.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os").copied());
    let system = pod.spec.os.as_ref().map(|os| os.name).or(of_node);
    match pod.annotation(&format!("{PREFIX}inject")) {
        None | Some("false") => Some(Skip::NotAsked),
        Some(_) if pod.annotation(MIRROR).is_some() => Some(Skip::Mirror),
        Some(_) if system == Some("windows") => Some(Skip::Windows),
        Some(_) if pod.has_container(CONTAINER) => Some(Skip::Already),
        Some(_) => None,
    }
}

/// What is wrong with the annotations, one sentence each.
fn found_problems(pod: &Pod<'_>, wishes: &InjectAnnotations, context: Context<'_>) -> Vec<String> {
    let containers: Vec<&str> = pod.all_containers().map(|container| container.name).collect();
    // Which of the others pods may use is for the node's agent to say.
    let told = problems(pod.annotations(), &containers, &Allow::everything(), &BUILTIN.map(|(name, _)| name));
    // The API server looks at the lengths of keys only behind its webhooks.
    let tell =
        |Problem { key, message }| format!("{}: {message}", key.chars().take(MAX_KEY).collect::<String>());
    let mut told: Vec<String> = told.into_iter().map(tell).collect();
    if wishes.image.as_ref().is_some_and(|image| !context.config.image_allow.matches(image)) {
        told.push(format!(
            "{PREFIX}inject.image: the operator does not let pods name this image (image_allow)"
        ));
    }
    told
}

/// What the sidecar is made from: the operator's defaults, and the profile that the pod names.
fn template<'a>(wishes: &InjectAnnotations, context: Context<'a>) -> Result<Cow<'a, Template>, Decision> {
    let defaults = &context.config.sidecar;
    let Some(Inject::Profile(name)) = &wishes.inject else { return Ok(Cow::Borrowed(defaults)) };
    let key = format!("{PREFIX}inject");
    match (context.profile)(name) {
        Ok(profile) => Ok(Cow::Owned(defaults.with_profile(&profile))),
        Err(NoProfile::Missing) => Err(Decision::Deny(format!(
            "{key}: there is no SidecarProfile {name:?} in the pod's namespace; create it, or say true for the defaults"
        ))),
        Err(NoProfile::Invalid(mistake)) => {
            Err(Decision::Deny(format!("{key}: the SidecarProfile {name:?} cannot be used: {mistake}")))
        }
        Err(NoProfile::NotListed) => {
            Err(Decision::Fail("the SidecarProfiles have not been listed yet; try again".to_owned()))
        }
    }
}

fn inject(
    object: &Value,
    pod: &Pod<'_>,
    mut wishes: InjectAnnotations,
    template: &Template,
    mut warnings: Vec<String>,
    context: Context<'_>,
) -> Decision {
    let is_as_asked = warnings.is_empty();
    wishes.image = wishes.image.filter(|image| context.config.image_allow.matches(image));
    let metrics = wishes_for_metrics(pod, template);
    let purpose = match purpose(pod, &wishes, &metrics, template, &mut warnings) {
        Ok(purpose) => purpose,
        Err(message) => return Decision::Deny(message),
    };
    if purpose.is_none() {
        return Decision::Skip(Skip::NothingToDo, warnings);
    }
    let native = match wishes.native.unwrap_or(template.native) {
        Native::Auto => context.kubernetes >= NATIVE_EVERYWHERE,
        Native::Always if context.kubernetes < NATIVE => {
            return Decision::Deny(format!(
                "{PREFIX}inject.native: native sidecars need Kubernetes 1.{NATIVE}, and this is 1.{}",
                context.kubernetes
            ));
        }
        Native::Always => true,
        Native::Never => false,
    };
    if !native && !matches!(pod.spec.restart_policy, None | Some("Always")) {
        warnings.push("no sidecar: the pod is to end, and a plain container would keep it running; native sidecars need Kubernetes 1.29".to_owned());
        return Decision::Skip(Skip::WouldNotEnd, warnings);
    }
    let globs = if purpose.logs { wishes.logs.as_slice() } else { &[] };
    let logs = match log_volumes(pod, globs, &template.log_volume_size) {
        Ok(logs) => logs,
        Err(message) => return Decision::Deny(format!("{PREFIX}inject.logs: {message}")),
    };
    warnings.extend(logs.warnings.iter().cloned());
    let order = wishes.order.unwrap_or_default();
    let ports = metrics.into_iter().flat_map(|wishes| wishes.ports);
    let scraped =
        ports.filter_map(|port| if let Port::Number(port) = port { Some(port) } else { None }).collect();
    let parts = Parts { pod, template, wishes: &wishes, native, purpose, logs: &logs, scraped };
    let sidecar = parts.render();
    if let Some(message) = cannot_be(pod, &logs, &sidecar) {
        return Decision::Deny(message);
    }
    let patch = additions(&parts, sidecar, order).into_patch(object);
    Decision::Inject(Injection { patch, warnings, is_as_asked, purpose, native })
}

/// Why the API server or the kernel would not take it.
fn cannot_be(pod: &Pod<'_>, logs: &LogVolumes, sidecar: &Sidecar) -> Option<String> {
    let mut ours = [DATA_VOLUME, POD_INFO_VOLUME].into_iter().chain(logs.names.iter().map(String::as_str));
    let theirs: Vec<&str> = pod.spec.volumes.iter().flatten().map(|volume| volume.name).collect();
    if let Some(taken) = ours.find(|name| theirs.contains(name)) {
        return Some(format!("the pod has a volume {taken:?}, which is the sidecar's to have; rename it"));
    }
    (sidecar.config_bytes > MAX_CONFIG).then(|| {
        format!(
            "the sidecar's configuration would have {} bytes, at most {MAX_CONFIG} can be; name fewer files",
            sidecar.config_bytes
        )
    })
}

/// What there is to do for a sidecar.
fn purpose(
    pod: &Pod<'_>,
    wishes: &InjectAnnotations,
    metrics: &[MetricAnnotations],
    template: &Template,
    warnings: &mut Vec<String>,
) -> Result<Purpose, String> {
    let metrics = metrics.iter().any(|wishes| wishes.collect == Some(true));
    let mut purpose = Purpose { logs: !wishes.logs.is_empty(), metrics };
    if purpose.is_none() {
        warnings.push(format!(
            "no sidecar: there is nothing for it to do; set {PREFIX}inject.logs or {PREFIX}metrics"
        ));
    }
    if purpose.logs && !Template::has_outputs(&template.logs) {
        return Err(format!(
            "{PREFIX}inject.logs: the injector has no output for logs (sidecar.logs.outputs), and no profile names one"
        ));
    }
    // The node's agent scrapes it instead, over the node's network.
    if purpose.metrics && (pod.spec.host_network == Some(true) || !Template::has_outputs(&template.metrics)) {
        purpose.metrics = false;
        warnings.push("metrics are left to the node's agent: the pod is on the node's network, or the injector has no output for them".to_owned());
    }
    Ok(purpose)
}

/// What the annotations say about metrics: of the whole pod, and of each container.
fn wishes_for_metrics(pod: &Pod<'_>, template: &Template) -> Vec<MetricAnnotations> {
    let prometheus_io = template.metrics["prometheus_io"] != json!(false);
    let containers = pod.lasting_containers().map(|container| Some(container.name));
    let wishes =
        |container| metric_annotations(pod.annotations(), container, &Allow::everything(), prometheus_io);
    std::iter::once(None).chain(containers).map(wishes).collect()
}

fn additions(parts: &Parts<'_>, sidecar: Sidecar, order: Order) -> Additions {
    let (pod, logs) = (parts.pod, parts.logs);
    let place = if order == Order::First { Place::First } else { Place::Last };
    let list = if parts.native { "initContainers" } else { "containers" };
    let mut additions = Additions::default();
    additions.to_list(&["spec", list], place, sidecar.container);
    for volume in sidecar.volumes.iter().chain(&logs.volumes) {
        additions.to_list(&["spec", "volumes"], Place::Last, volume.clone());
    }
    for (index, mount) in &logs.app_mounts {
        let index = index.to_string();
        additions.to_list(&["spec", "containers", &index, "volumeMounts"], Place::Last, mount.clone());
    }
    let mut annotate = |key: &str, value: String| {
        additions.to_map(&["metadata", "annotations"], key, Value::String(value));
    };
    annotate(&format!("{PREFIX}injected"), format!("{VERSION}-{}", parts.template.hash()));
    annotate(&format!("{PREFIX}injected-for"), parts.purpose.names());
    annotate(SAFE_TO_EVICT, safe_to_evict(pod, logs));
    if !parts.native
        && pod.annotation(DEFAULT_CONTAINER).is_none()
        && let Some(app) = pod.containers().first()
    {
        annotate(DEFAULT_CONTAINER, app.name.to_owned());
    }
    additions
}

/// The pod's own list, and our volumes behind it.
fn safe_to_evict(pod: &Pod<'_>, logs: &LogVolumes) -> String {
    let ours = std::iter::once(DATA_VOLUME).chain(logs.names.iter().map(String::as_str));
    let mut names: Vec<&str> = pod
        .annotation(SAFE_TO_EVICT)
        .into_iter()
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .collect();
    for name in ours {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

// === impl Skip ===

impl Skip {
    /// As metrics and events name it.
    pub fn name(self) -> &'static str {
        match self {
            Skip::NotAsked => "not_asked",
            Skip::Already => "already_injected",
            Skip::Mirror => "mirror_pod",
            Skip::Windows => "windows",
            Skip::NothingToDo => "nothing_to_do",
            Skip::WouldNotEnd => "would_not_end",
            Skip::BadAnnotation => "bad_annotation",
        }
    }
}

#[cfg(test)]
mod generated;
#[cfg(test)]
pub(crate) mod tests;
