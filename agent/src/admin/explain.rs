//! Why a pod's logs arrive, or do not.

use serde::{Deserialize, Serialize};
use sidelight_contract::sidecar::container_of;

use crate::admin::View;
use crate::admin::targets::{self, TargetStatus, of_pod};
use crate::config::FileGlob;
use crate::logs::container::Container;
use crate::logs::settings::Takes;

/// `/api/v1/explain`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `NAMESPACE/NAME`.
    pub pod: String,
    /// `collected`, `partly collected`, `not collected` or `unknown pod`.
    pub verdict: String,
    /// One for each container.
    pub logs: Vec<ContainerExplanation>,
    /// One for each target, and for what is not one.
    pub metrics: Vec<TargetExplanation>,
}

/// One container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerExplanation {
    /// Its name.
    pub container: String,
    /// In a sidecar, the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether its lines are sent to at least one output.
    pub collected: bool,
    /// Why, or why not.
    pub reason: String,
    /// What to do; empty when all is well.
    pub hint: String,
}

/// One target, or a reason why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetExplanation {
    /// Where it is scraped; empty where nothing is.
    pub url: String,
    /// Whether its newest scrape has arrived here.
    pub collected: bool,
    /// Why, or why not.
    pub reason: String,
    /// What to do; empty when all is well.
    pub hint: String,
}

pub(super) fn explain(view: &View, namespace: &str, name: &str) -> Explanation {
    let containers = view.inventory.containers();
    let mut logs: Vec<ContainerExplanation> = containers
        .iter()
        .filter(|container| container.path.namespace == namespace && container.path.pod == name)
        .map(|container| explain_container(view, container))
        .collect();
    let known = view.pods.find(namespace, name);
    if view.config.sidecar {
        logs.extend(known.iter().flat_map(|_| explain_globs(view)));
    } else {
        let all = known.iter().flat_map(|pod| &pod.containers);
        let unseen: Vec<_> =
            all.filter(|one| !logs.iter().any(|explained| explained.container == one.name)).collect();
        logs.extend(unseen.into_iter().map(|container| explain_unseen(view, &container.name)));
    }
    let collected = logs.iter().filter(|container| container.collected).count();
    let verdict = match (logs.len(), collected) {
        (0, _) => "unknown pod",
        (all, some) if all == some => "collected",
        (_, 0) => "not collected",
        _ => "partly collected",
    };
    let present = view.pods.present();
    let known = present.iter().filter(|pod| pod.namespace == namespace && pod.name == name);
    let metrics = known.flat_map(|pod| of_pod(view, pod)).map(explain_target).collect();
    Explanation { pod: format!("{namespace}/{name}"), verdict: verdict.to_owned(), logs, metrics }
}

fn explain_unseen(view: &View, container: &str) -> ContainerExplanation {
    ContainerExplanation {
        container: container.to_owned(),
        file: None,
        collected: false,
        reason: format!(
            "Kubernetes knows it, but there is no log directory below {}",
            view.config.logs.root.display()
        ),
        hint: "it has not started yet, or logs.root is not the kubelet's log directory".to_owned(),
    }
}

/// The globs of a sidecar that mean no file.
fn explain_globs(view: &View) -> Vec<ContainerExplanation> {
    let streams = view.inventory.containers();
    let is_meant = |glob: &&FileGlob| {
        streams.iter().any(|stream| {
            let file = stream.path.file_name();
            stream.directory == glob.directory() && file.is_some_and(|name| glob.matches(name))
        })
    };
    let without = view.config.logs.files.iter().filter(|glob| !is_meant(glob));
    without
        .map(|glob| {
            let path = glob.to_string();
            let (container, file) = container_of(&path).unwrap_or(("", &path));
            let problem = view.inventory.unlisted(glob.directory());
            ContainerExplanation {
                container: container.to_owned(),
                file: Some(file.to_owned()),
                collected: false,
                reason: problem.unwrap_or_else(|| "there is no such file yet".to_owned()),
                hint: "see whether the app writes there: into the volume that both containers mount"
                    .to_owned(),
            }
        })
        .collect()
}

fn explain_target(target: TargetStatus) -> TargetExplanation {
    let collected = target.state == targets::UP;
    let hint = match target.state.as_str() {
        targets::DOWN => {
            "see whether the container serves this page; sidelight.dev/metrics.port and metrics.path say which"
        }
        targets::SKIPPED | targets::UP => "",
        _ if target.reason.is_empty() => "it is scraped within its interval",
        _ => "it is scraped through metrics.pull, by whoever has this agent in his list",
    };
    let error = target.last_error.unwrap_or_default();
    let reason = match target.state.as_str() {
        targets::UP => format!("{} samples, {} series", target.samples, target.series),
        targets::DOWN => error,
        _ => target.reason,
    };
    TargetExplanation { url: target.url, collected, reason, hint: hint.to_owned() }
}

fn explain_container(view: &View, container: &Container) -> ContainerExplanation {
    let settings = container.settings();
    let explanation = |collected: bool, reason: String, hint: &str| ContainerExplanation {
        container: container.path.container.clone(),
        file: container.path.file.clone(),
        collected,
        reason,
        hint: if settings.problems.is_empty() { hint.to_owned() } else { settings.problems.join("; ") },
    };
    if let Some(problem) = container.problem() {
        return explanation(false, problem, "make it a regular file that this process may read");
    }
    match &settings.collect {
        Takes::No(reason) => {
            return explanation(
                false,
                reason.clone(),
                "change logs.select, logs.namespaces or the pod's annotations",
            );
        }
        Takes::Wait(reason) => {
            return explanation(
                false,
                reason.clone(),
                "see whether the API server can be reached, or correct the annotation",
            );
        }
        Takes::Yes => {}
    }
    let mut taken = Vec::new();
    let mut refused = Vec::new();
    for (index, (takes, tag)) in settings.outputs.iter().enumerate() {
        let output = &view.outputs[index];
        match takes {
            Takes::Yes => {
                let lag: u64 = container.generations().iter().map(|generation| generation.lag(index)).sum();
                let state = if output.status.state.is_up() { "up" } else { "down" };
                let tag = if tag.is_empty() { String::new() } else { format!(", tag {tag}") };
                let error = output.status.state.last_error().filter(|_| !output.status.state.is_up());
                let error = error.map(|error| format!(", last error: {error}")).unwrap_or_default();
                taken.push(format!("{} ({state}{tag}, {lag} bytes behind{error})", output.name));
            }
            Takes::No(reason) | Takes::Wait(reason) => refused.push(format!("{}: {reason}", output.name)),
        }
    }
    if taken.is_empty() {
        return explanation(false, refused.join("; "), "change the outputs' match");
    }
    if container.generations().is_empty() {
        return explanation(true, format!("no log file yet; will be sent to {}", taken.join(", ")), "");
    }
    let mut reason = format!("sent to {}", taken.join(", "));
    if !refused.is_empty() {
        reason.push_str(&format!("; not to {}", refused.join("; ")));
    }
    explanation(true, reason, "")
}
