//! Which pages of a pod are to be scraped, and why the others are not.
//!
//! Pure: a pod as Kubernetes describes it and the operator's settings in, targets and reasons out. A pod is known by its
//! UID, since its name and its address may be another's tomorrow.

mod kubelet;
mod ports;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sidelight_contract::annotations::{MetricAnnotations, Port, Scheme, metric_annotations, sidecar_scrapes};
use sidelight_contract::sidecar;

use crate::cluster::{Container, ContainerKind, Phase, Pod};
use crate::config::{Config, MetricSelect};
pub use crate::metrics::discover::kubelet::kubelet_targets;
use crate::metrics::discover::ports::{Chosen, NoPort, choose};

/// What an annotated interval is kept within: below, scraping costs more than it tells; above, a series would be stale
/// between two scrapes.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(300);

/// A page to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pod, the port and the path: what makes it the same target in another look at the pod.
    pub key: TargetKey,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// One of the pod's own addresses, never a name; in a sidecar, the loopback address.
    pub address: SocketAddr,
    /// How often.
    pub interval: Duration,
    /// Whether its own labels win over those below.
    pub honor_labels: bool,
    /// `job`, `instance`, `namespace`, `pod`, `container`, `node`, and the pod's that are wanted: sorted by name, none empty.
    pub labels: Vec<(String, String)>,
}

/// What makes a target the same as before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// The pod's UID; empty for the kubelet.
    pub uid: String,
    /// TCP port.
    pub port: u16,
    /// Origin-form.
    pub path: String,
}

/// What a pod has to scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its targets.
    pub targets: Vec<Target>,
    /// What is not scraped, and why.
    pub skipped: Vec<Skipped>,
}

/// A reason not to scrape; of a container, or of the whole pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The container, where the reason is one container's.
    pub container: Option<String>,
    /// For the pod's owner.
    pub reason: String,
}

/// What a pod has to scrape by its annotations and the operator's `metrics`.
pub fn targets(pod: &Pod, config: &Config) -> Found {
    if let Some(reason) = unfit(pod, config) {
        return Found { targets: Vec::new(), skipped: vec![Skipped { container: None, reason }] };
    }
    let annotations = || pod.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let (allow, prometheus_io) = (&config.annotations.allow, config.metrics.prometheus_io);
    let wishes = |container: Option<&str>| metric_annotations(annotations(), container, allow, prometheus_io);
    let of_pod = wishes(None);
    let mut found = Found::default();
    // Containers that speak for themselves, each with what it does not say taken from the pod.
    let mut others = Vec::new();
    for container in pod.containers.iter().filter(|container| serves(container)) {
        let own = wishes(Some(&container.name));
        let speaks = own.collect.is_some() || !own.ports.is_empty();
        match own.collect.or(of_pod.collect) {
            Some(true) if speaks => {
                let chosen = choose(&own.ports, &[container], pod.host_network);
                found.add(pod, config, &own.or(&of_pod), chosen, Some(&container.name));
            }
            Some(false) if speaks => found.skip(Some(&container.name), "metrics is false for this container"),
            _ => others.push(container),
        }
    }
    match of_pod.collect {
        // Where a sidecar does not know the containers, they may be any.
        Some(true) if others.is_empty() && !pod.containers.is_empty() => {}
        Some(true) => {
            let chosen = choose(&of_pod.ports, &others, pod.host_network);
            found.add(pod, config, &of_pod, chosen, None);
        }
        Some(false) => found.skip(None, "the pod's annotation says metrics: false"),
        None if found.targets.is_empty() && found.skipped.is_empty() => {
            found.skip(None, "no annotation asks for it: set sidelight.dev/metrics to \"true\"");
        }
        None => {}
    }
    found
}

/// Why nothing of a pod can be scraped, whatever its annotations say.
fn unfit(pod: &Pod, config: &Config) -> Option<String> {
    if config.metrics.select == MetricSelect::None {
        return Some("the operator has set metrics.select to none".to_owned());
    }
    if !config.metrics.namespaces.matches(&pod.namespace) {
        return Some(format!("metrics.namespaces leaves {} out", pod.namespace));
    }
    match pod.phase {
        Phase::Succeeded | Phase::Failed => Some("the pod has ended".to_owned()),
        _ if is_scraped_by_sidecar(pod) => Some("the pod's sidecar scrapes it".to_owned()),
        _ if pod.ips.is_empty() && !pod.is_own => Some("the pod has no address yet".to_owned()),
        _ => None,
    }
}

/// The annotation alone is not enough: a pod may have lost its sidecar in a template that was copied.
fn is_scraped_by_sidecar(pod: &Pod) -> bool {
    let annotations = pod.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    sidecar_scrapes(annotations)
        && pod.containers.iter().any(|container| container.name == sidecar::CONTAINER)
}

/// Init containers end before anybody scrapes them.
fn serves(container: &Container) -> bool {
    matches!(container.kind, ContainerKind::Regular | ContainerKind::Sidecar) && !container.terminated
}

// === impl Target ===

impl Target {
    /// Where it is scraped.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.address, self.key.path)
    }
}

// === impl Found ===

impl Found {
    fn skip(&mut self, container: Option<&str>, reason: impl Into<String>) {
        self.skipped.push(Skipped { container: container.map(str::to_owned), reason: reason.into() });
    }

    fn add(
        &mut self,
        pod: &Pod,
        config: &Config,
        wishes: &MetricAnnotations,
        chosen: Vec<Result<Chosen<'_>, NoPort>>,
        container: Option<&str>,
    ) {
        for chosen in chosen {
            match chosen {
                Ok(chosen) => {
                    let target = target(pod, config, wishes, &chosen);
                    if !self.targets.iter().any(|other| other.key == target.key) {
                        self.targets.push(target);
                    }
                }
                Err(reason) => self.skip(container, reason.to_string()),
            }
        }
    }
}

fn target(pod: &Pod, config: &Config, wishes: &MetricAnnotations, chosen: &Chosen<'_>) -> Target {
    let metrics = &config.metrics;
    let path = wishes.path.clone().unwrap_or_else(|| "/metrics".to_owned());
    let interval =
        wishes.interval.map_or(metrics.interval, |asked| asked.clamp(*INTERVALS.start(), *INTERVALS.end()));
    // The first is the family that the cluster prefers.
    let of_pod = pod.ips.first().map(|ip| SocketAddr::new(*ip, chosen.port));
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), chosen.port);
    // `unfit` has seen that there is one, else.
    let address = of_pod.filter(|_| !pod.is_own).unwrap_or(loopback);
    let instance =
        of_pod.map_or_else(|| format!("{}:{}", pod.name, chosen.port), |of_pod| of_pod.to_string());
    let mut labels = pod_labels(pod, config);
    labels.extend(chosen.container.map(|container| ("container".to_owned(), container.to_owned())));
    labels.push(("instance".to_owned(), instance));
    labels.sort_unstable();
    Target {
        key: TargetKey { uid: pod.uid.clone(), port: chosen.port, path },
        scheme: wishes.scheme.unwrap_or_default(),
        address,
        interval,
        honor_labels: wishes.honor_labels == Some(true)
            && metrics.honor_labels_namespaces.matches(&pod.namespace),
        labels,
    }
}

/// Names and values, sorted by name.
pub type PodLabels = Vec<(String, String)>;

/// The labels that say which pod a series is of.
pub fn pod_labels(pod: &Pod, config: &Config) -> PodLabels {
    let mut labels = labels_of(&pod.namespace, pod.workload(), config, ("pod", &pod.name));
    for name in &config.metrics.labels {
        let value = pod.labels.get(name).filter(|value| !value.is_empty());
        labels.extend(value.map(|value| (label_name(name), value.clone())));
    }
    labels.sort_unstable();
    labels
}

/// What Prometheus makes of the name of a label of Kubernetes.
pub(crate) fn label_name(name: &str) -> String {
    name.replace(|character: char| !character.is_ascii_alphanumeric(), "_")
}

/// The labels that say which workload, on this node, a series is of.
pub fn workload_labels(namespace: &str, name: &str, config: &Config) -> PodLabels {
    labels_of(namespace, name, config, ("workload", name))
}

/// `last` is the label that comes last by name.
fn labels_of(namespace: &str, owner: &str, config: &Config, last: (&str, &str)) -> PodLabels {
    let job = config.metrics.job.replace("{namespace}", namespace).replace("{owner}", owner);
    let labels = [("job", job.as_str()), ("namespace", namespace), ("node", &config.node), last];
    let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
