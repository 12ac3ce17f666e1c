//! The node's own view, passed on as if each pod had a page with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Shared;
use super::feed::{Clock, Feed};
use crate::cluster::{Pod, Store};
use crate::metrics::containers;
use crate::metrics::discover::{PodLabels, pod_labels};
use crate::metrics::series::TargetLabels;

/// How the series of a pod go out.
#[derive(Clone, PartialEq)]
struct Way {
    outputs: Vec<usize>,
    labels: PodLabels,
}

/// Passes on, once an interval, what Kubernetes says of the pods' containers.
pub(super) async fn follow(shared: Arc<Shared>, pods: Store) {
    let mut ticks = interval_at(Instant::now(), shared.config.metrics.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut clock, mut known) = (Clock::default(), HashMap::new());
    loop {
        ticks.tick().await;
        if pods.synced() {
            pass_on(&shared, &pods, &mut clock, &mut known);
        }
    }
}

/// What ends is told first, and as of an earlier moment: the pod that comes after it may have the same labels.
fn pass_on(shared: &Arc<Shared>, pods: &Store, clock: &mut Clock, known: &mut HashMap<String, (Way, Feed)>) {
    let present = pods.present();
    let wanted: BTreeMap<&str, (&Pod, Way)> = present
        .iter()
        .filter(|pod| shared.config.metrics.namespaces.matches(&pod.namespace))
        .map(|pod| {
            let way = Way { outputs: shared.outputs_of(pod), labels: pod_labels(pod, &shared.config) };
            (pod.uid.as_str(), (&**pod, way))
        })
        .filter(|(_, (_, way))| !way.outputs.is_empty())
        .collect();
    let time = clock.next();
    let is_over =
        |uid: &String, (way, _): &mut (Way, Feed)| wanted.get(uid.as_str()).is_none_or(|(_, new)| new != way);
    known.extract_if(is_over).for_each(|(_, (_, mut feed))| feed.end(time, &[]));
    let time = clock.next();
    for (uid, (pod, way)) in wanted {
        let (_, feed) = known.entry(uid.to_owned()).or_insert_with(|| {
            let feed = begin(shared, pod, &way);
            (way, feed)
        });
        let counts = feed.read(containers::page(&[(pod, Vec::new())]).as_bytes()).ok();
        feed.pass_on(time, counts, &[]);
    }
}

fn begin(shared: &Arc<Shared>, pod: &Pod, way: &Way) -> Feed {
    let labels = TargetLabels {
        labels: way.labels.clone(),
        honor: false,
        pods: None,
        config: shared.config.clone(),
        symbols: shared.symbols.clone(),
    };
    let origin = format!("the containers of {}/{}", pod.namespace, pod.name);
    Feed::new(shared.clone(), origin, labels, &pod.namespace, way.outputs.clone())
}
