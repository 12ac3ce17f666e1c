//! Why a pod's logs arrive, or do not.

use serde::{Deserialize, Serialize};

use crate::admin::View;
use crate::admin::targets::{self, TargetStatus, of_pod};
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
    for container in known.iter().flat_map(|pod| &pod.containers) {
        if !logs.iter().any(|explained| explained.container == container.name) {
            logs.push(ContainerExplanation {
                container: container.name.clone(),
                collected: false,
                reason: format!(
                    "Kubernetes knows it, but there is no log directory below {}",
                    view.config.logs.root.display()
                ),
                hint: "it has not started yet, or logs.root is not the kubelet's log directory".to_owned(),
            });
        }
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
        collected,
        reason,
        hint: if settings.problems.is_empty() { hint.to_owned() } else { settings.problems.join("; ") },
    };
    if let Some(problem) = container.problem() {
        return explanation(false, problem, "make the file readable for the agent");
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
