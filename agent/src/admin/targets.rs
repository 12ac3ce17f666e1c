//! `targets`: what is scraped, and what is not and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admin::View;
use crate::cluster::Pod;
use crate::metrics::discover::{self, Target};
use crate::metrics::scraping::States;

/// The newest scrape has brought a page.
pub(super) const UP: &str = "up";
/// It has not.
pub(super) const DOWN: &str = "down";
/// There was none yet.
const WAITING: &str = "waiting";
/// It is not scraped.
pub(super) const SKIPPED: &str = "skipped";

/// `/api/v1/targets`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Targets {
    /// Sorted by namespace, pod and URL.
    pub targets: Vec<TargetStatus>,
}

/// One target, or a reason why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Where it is scraped; empty where nothing is.
    pub url: String,
    /// Namespace; like pod and UID empty for the kubelet.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// The API's UID.
    pub uid: String,
    /// What each of its series gets.
    pub labels: BTreeMap<String, String>,
    /// `up`, `down`, `waiting` or `skipped`.
    pub state: String,
    /// Why it is not scraped.
    pub reason: String,
    /// When it was, in milliseconds since the epoch.
    pub last_scrape: Option<i64>,
    /// Why that failed.
    pub last_error: Option<String>,
    /// Samples of the last scrape.
    pub samples: usize,
    /// Series that are alive.
    pub series: usize,
}

pub(super) fn targets(view: &View) -> Targets {
    let pods = view.pods.present();
    let mut targets: Vec<TargetStatus> = pods.iter().flat_map(|pod| of_pod(view, pod)).collect();
    let of_kubelet = discover::kubelet_targets(&pods, &view.config);
    targets.extend(of_kubelet.iter().map(|target| scraped(&view.states, target, &Pod::default(), "")));
    let key = |one: &TargetStatus| (one.namespace.clone(), one.pod.clone(), one.url.clone());
    targets.sort_by_cached_key(key);
    Targets { targets }
}

/// What there is of a pod.
pub(super) fn of_pod(view: &View, pod: &Pod) -> Vec<TargetStatus> {
    let found = discover::targets(pod, &view.config);
    let outputs = &view.config.metrics.outputs;
    let is_taken = outputs.iter().any(|output| output.matching.takes(&pod.namespace, &pod.labels));
    let out = if outputs.is_empty() {
        Some("metrics.outputs is empty")
    } else if !is_taken {
        Some("no output's match takes this pod")
    } else if pod.deleting {
        Some("the pod has been told to end")
    } else {
        None
    };
    let is_pulled = !view.config.metrics.pull.listen.is_empty();
    let scraped = found.targets.iter().map(|target| match out {
        None => scraped(&view.states, target, pod, ""),
        Some(reason) if is_pulled => {
            scraped(&view.pulled, target, pod, &format!("nobody has asked for it; not scraped: {reason}"))
        }
        Some(reason) => status(pod, target.url(), SKIPPED, reason.to_owned()),
    });
    let skipped = found.skipped.iter().map(|skipped| {
        let of = skipped
            .container
            .as_ref()
            .map(|container| format!("container {container}: "))
            .unwrap_or_default();
        status(pod, String::new(), SKIPPED, format!("{of}{}", skipped.reason))
    });
    scraped.chain(skipped).collect()
}

/// A target of which `states` tells; until it does, for the reason of `waiting`.
fn scraped(states: &States, target: &Target, pod: &Pod, waiting: &str) -> TargetStatus {
    let known = states.get(&target.key).unwrap_or_default();
    let state = match (&known.last_scrape, &known.last_error) {
        (None, _) => WAITING,
        (Some(_), None) => UP,
        (Some(_), Some(_)) => DOWN,
    };
    TargetStatus {
        labels: target.labels.iter().cloned().collect(),
        last_scrape: known.last_scrape,
        last_error: known.last_error,
        samples: known.samples,
        series: known.series,
        ..status(pod, target.url(), state, if state == WAITING { waiting.to_owned() } else { String::new() })
    }
}

fn status(pod: &Pod, url: String, state: &str, reason: String) -> TargetStatus {
    TargetStatus {
        url,
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        labels: BTreeMap::new(),
        state: state.to_owned(),
        reason,
        last_scrape: None,
        last_error: None,
        samples: 0,
        series: 0,
    }
}
