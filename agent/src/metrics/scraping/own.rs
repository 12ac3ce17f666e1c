//! The node's own view, passed on as if each pod, and each workload, had a page with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Shared;
use super::feed::{Clock, Feed};
use crate::cluster::{Pod, Store};
use crate::metrics::containers;
use crate::metrics::discover::{PodLabels, pod_labels, workload_labels};
use crate::metrics::series::TargetLabels;
use crate::metrics::workloads::{self, Workload};

/// Whose page it is: a pod's by its UID, or a workload's by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Pod(String),
    Workload(String, String),
}

/// How the series of a page go out.
#[derive(Clone, PartialEq)]
struct Way {
    outputs: Vec<usize>,
    labels: PodLabels,
}

/// A page, and what becomes of its series.
struct Own {
    page: String,
    /// For the log.
    origin: String,
    namespace: String,
    way: Way,
}

/// Passes on, once an interval, what is known of the node without asking anybody.
pub(super) async fn follow(shared: Arc<Shared>, pods: Store) {
    let mut ticks = interval_at(Instant::now(), shared.config.metrics.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut clock, mut known) = (Clock::default(), HashMap::<Owner, (Way, Feed)>::new());
    loop {
        ticks.tick().await;
        if pods.synced() {
            let pages = pages(&shared, &pods.present(), &known);
            pass_on(&shared, pages, &mut clock, &mut known);
        }
    }
}

/// The pages of now that an output gets. A workload whose last pod Kubernetes has forgotten may still have unread logs: its
/// series go on as before.
fn pages(shared: &Shared, pods: &[Arc<Pod>], known: &HashMap<Owner, (Way, Feed)>) -> BTreeMap<Owner, Own> {
    let config = &shared.config;
    let of_pod = |pod: &Arc<Pod>| {
        let own = Own {
            page: containers::page(&[(pod, Vec::new())]),
            origin: format!("the containers of {}/{}", pod.namespace, pod.name),
            namespace: pod.namespace.clone(),
            way: Way { outputs: shared.outputs_of(pod), labels: pod_labels(pod, config) },
        };
        (Owner::Pod(pod.uid.clone()), own)
    };
    let counted = shared.workloads.iter().flat_map(|workloads| workloads()).collect::<Vec<_>>();
    let of_workload = |workloads: &[Workload]| {
        let Workload { namespace, name, .. } = &workloads[0];
        let owner = Owner::Workload(namespace.clone(), name.clone());
        let outputs = outputs_of_workload(shared, pods, namespace, name)
            .or_else(|| known.get(&owner).map(|(way, _)| way.outputs.clone()))
            .unwrap_or_else(|| shared.outputs_of(&Pod { namespace: namespace.clone(), ..Pod::default() }));
        let own = Own {
            page: workloads::page(workloads.iter().map(|workload| (workload, Vec::new()))),
            origin: format!("the log of {namespace}/{name}"),
            way: Way { outputs, labels: workload_labels(namespace, name, config) },
            namespace: namespace.clone(),
        };
        (owner, own)
    };
    let of_pods = pods.iter().filter(|_| config.metrics.containers).map(of_pod);
    let is_same =
        |one: &Workload, other: &Workload| (&one.namespace, &one.name) == (&other.namespace, &other.name);
    let of_workloads = counted.chunk_by(is_same).map(of_workload);
    let is_wanted =
        |own: &Own| config.metrics.namespaces.matches(&own.namespace) && !own.way.outputs.is_empty();
    of_pods.chain(of_workloads).filter(|(_, own)| is_wanted(own)).collect()
}

/// Those that get the samples of any of its pods; none where Kubernetes knows none of these.
fn outputs_of_workload(
    shared: &Shared,
    pods: &[Arc<Pod>],
    namespace: &str,
    name: &str,
) -> Option<Vec<usize>> {
    let is_its = |pod: &&Arc<Pod>| pod.namespace == namespace && pod.workload() == name;
    let mut its = pods.iter().filter(is_its).map(|pod| shared.outputs_of(pod)).peekable();
    its.peek()?;
    Some(its.flatten().collect::<BTreeSet<_>>().into_iter().collect())
}

/// What ends is told first, and as of an earlier moment: the pod that comes after it may have the same labels.
fn pass_on(
    shared: &Arc<Shared>,
    pages: BTreeMap<Owner, Own>,
    clock: &mut Clock,
    known: &mut HashMap<Owner, (Way, Feed)>,
) {
    let time = clock.next();
    let is_over =
        |owner: &Owner, (way, _): &mut (Way, Feed)| pages.get(owner).is_none_or(|own| own.way != *way);
    known.extract_if(is_over).for_each(|(_, (_, mut feed))| feed.end(time, &[]));
    let time = clock.next();
    for (owner, own) in pages {
        let (_, feed) = known.entry(owner).or_insert_with(|| (own.way.clone(), begin(shared, &own)));
        let counts = feed.read(own.page.as_bytes()).ok();
        feed.pass_on(time, counts, &[]);
    }
}

fn begin(shared: &Arc<Shared>, own: &Own) -> Feed {
    let labels = TargetLabels {
        labels: own.way.labels.clone(),
        honor: false,
        pods: None,
        config: shared.config.clone(),
        symbols: shared.symbols.clone(),
    };
    Feed::new(shared.clone(), own.origin.clone(), labels, &own.namespace, own.way.outputs.clone())
}
