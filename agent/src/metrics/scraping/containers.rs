//! The node's own view, passed on as if each pod had a page with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Shared;
use super::feed::Feed;
use crate::cluster::{Pod, Store};
use crate::metrics::containers;
use crate::metrics::discover::pod_labels;
use crate::metrics::series::TargetLabels;

/// Of one pod, for these outputs.
struct OfPod {
    outputs: Vec<usize>,
    feed: Feed,
}

/// Passes on, once an interval, what Kubernetes says of the pods' containers.
pub(super) async fn follow(shared: Arc<Shared>, pods: Store) {
    let interval = shared.config.metrics.interval;
    let mut ticks = interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut known: HashMap<String, OfPod> = HashMap::new();
    loop {
        ticks.tick().await;
        if !pods.synced() {
            continue;
        }
        let present = pods.present();
        let mut seen = HashSet::new();
        for pod in present.iter().filter(|pod| shared.config.metrics.namespaces.matches(&pod.namespace)) {
            let outputs = shared.outputs_of(pod);
            if outputs.is_empty() {
                continue;
            }
            seen.insert(pod.uid.as_str());
            if known.get(&pod.uid).is_none_or(|of_pod| of_pod.outputs != outputs)
                && let Some(mut other) = known.insert(pod.uid.clone(), begin(&shared, pod, outputs))
            {
                other.feed.end(&[]);
            }
            if let Some(of_pod) = known.get_mut(&pod.uid) {
                let time = of_pod.feed.next_time();
                let counts = of_pod.feed.read(containers::page(&[(pod, Vec::new())]).as_bytes()).ok();
                of_pod.feed.pass_on(time, counts, &[]);
            }
        }
        for (_, mut gone) in known.extract_if(|uid, _| !seen.contains(uid.as_str())) {
            gone.feed.end(&[]);
        }
    }
}

fn begin(shared: &Arc<Shared>, pod: &Pod, outputs: Vec<usize>) -> OfPod {
    let labels =
        TargetLabels { labels: pod_labels(pod, &shared.config), honor: false, config: shared.config.clone() };
    let origin = format!("the containers of {}/{}", pod.namespace, pod.name);
    OfPod { feed: Feed::new(shared.clone(), origin, labels, &pod.namespace, outputs.clone()), outputs }
}
