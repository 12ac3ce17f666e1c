//! One watch of the pods on this node.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils::Backoff};
use kube::{Api, Client, Config};

use super::api::ApiPod;
use super::{Metrics, Pod, Store};

/// While the API server is away, one line in the log for each such window.
const LOG_WINDOW: Duration = Duration::from_secs(60);
/// Namespaces' labels are asked for again when older.
const NAMESPACE_AGE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Watches for ever; every failure is taken up again after a pause.
pub(super) async fn run(node: &str, namespace_labels: bool, store: &Store, metrics: &Metrics) {
    let mut complaints = Complaints::default();
    let mut pause = Pause::default();
    loop {
        match client().await {
            Ok(client) => watch(client, node, namespace_labels, store, metrics, &mut complaints).await,
            Err(error) => {
                metrics.errors.inc();
                complaints.say(&error);
            }
        }
        if let Some(pause) = pause.next() {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn client() -> Result<Client, String> {
    let config = Config::infer().await.map_err(|error| format!("no way to the API server: {error}"))?;
    Client::try_from(config).map_err(|error| error.to_string())
}

async fn watch(
    client: Client,
    node: &str,
    namespace_labels: bool,
    store: &Store,
    metrics: &Metrics,
    complaints: &mut Complaints,
) {
    let mut namespaces = namespace_labels.then(|| Namespaces { api: Api::all(client.clone()), known: HashMap::new() });
    // `resourceVersion=0`: any state will do, so that the server answers from its memory and not from etcd.
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).any_semantic();
    let mut events = pin!(watcher(Api::<ApiPod>::all(client), config).backoff(Pause::default()));
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                metrics.errors.inc();
                complaints.say(&error.to_string());
                continue;
            }
        };
        metrics.event();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => listed.push(labelled(pod, &mut namespaces).await),
            Event::InitDone => {
                complaints.end();
                store.replace(std::mem::take(&mut listed));
            }
            Event::Apply(pod) if pod.node().is_some_and(|bound| bound == node) => store.apply(labelled(pod, &mut namespaces).await),
            Event::Apply(_) => {}
            Event::Delete(pod) => store.delete(&pod.into_pod().uid),
        }
    }
}

async fn labelled(pod: ApiPod, namespaces: &mut Option<Namespaces>) -> Pod {
    let mut pod = pod.into_pod();
    if let Some(namespaces) = namespaces {
        pod.namespace_labels = namespaces.labels(&pod.namespace).await;
    }
    pod
}

/// Labels of the namespaces that are present on this node.
struct Namespaces {
    api: Api<Namespace>,
    known: HashMap<String, (Instant, Option<BTreeMap<String, String>>)>,
}

// === impl Namespaces ===

impl Namespaces {
    /// The labels of a namespace; when it cannot be asked for, or is gone, those last known.
    async fn labels(&mut self, name: &str) -> Option<BTreeMap<String, String>> {
        let known = self.known.get(name);
        if let Some((asked, labels)) = known
            && asked.elapsed() < NAMESPACE_AGE
        {
            return labels.clone();
        }
        let labels = match self.api.get_opt(name).await {
            Ok(Some(namespace)) => Some(namespace.metadata.labels.unwrap_or_default()),
            _ => known.and_then(|(_, labels)| labels.clone()),
        };
        self.known.insert(name.to_owned(), (Instant::now(), labels.clone()));
        labels
    }
}

/// Pauses between attempts: doubled up to the longest, each with half of it at random.
struct Pause {
    next: Duration,
}

// === impl Pause ===

impl Default for Pause {
    fn default() -> Self {
        Pause { next: FIRST_PAUSE }
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let mut random = [0];
        let _ = getrandom::fill(&mut random);
        let pause = self.next / 2 + self.next.mul_f64(f64::from(random[0]) / 510.0);
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        *self = Pause::default();
    }
}

/// Says that the API server is away, and that it is back, without a line for every attempt.
#[derive(Default)]
struct Complaints {
    said: Option<Instant>,
    unsaid: u64,
}

// === impl Complaints ===

impl Complaints {
    fn say(&mut self, error: &str) {
        self.unsaid += 1;
        if self.said.is_none_or(|said| said.elapsed() >= LOG_WINDOW) {
            tracing::warn!(error, failures = self.unsaid, "no word from the API server; pods known before keep their metadata, new ones wait");
            self.said = Some(Instant::now());
            self.unsaid = 0;
        }
    }

    fn end(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("the API server answers again");
        }
    }
}
