//! The targets of the node, each scraped by a task of its own, on one thread.
//!
//! What there is to scrape follows from what Kubernetes says: with every change the list is made anew, and tasks are begun
//! and ended by the difference.

mod feed;
mod own;
mod page;
mod pages;
mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cluster::{Pod, Store};
use crate::config::Config;
use crate::metrics::discover::{Target, TargetKey, kubelet_targets, targets};
use crate::metrics::outputs::Output;
pub(super) use crate::metrics::scraping::feed::now;
use crate::metrics::scraping::page::Scraper;
pub use crate::metrics::scraping::pages::Pages;
pub use crate::metrics::scraping::state::{ScrapeMetrics, State, States};
use crate::metrics::series::Limits;
use crate::metrics::symbols::Symbols;
use crate::metrics::workloads::Workloads;

/// What every task needs.
pub struct Shared {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Where samples go.
    pub outputs: Vec<Output>,
    /// What is known of each target that is scraped.
    pub states: States,
    /// What is known of each that others have asked for.
    pub pulled: States,
    /// Counters.
    pub metrics: ScrapeMetrics,
    /// The texts of labels.
    pub symbols: Symbols,
    /// How many series there may be.
    pub limits: Arc<Limits>,
    /// For https.
    pub tls: Arc<rustls::ClientConfig>,
    /// Buffers for pages.
    pub pages: Pages,
    /// Metrics from logs, where they are wanted.
    pub workloads: Option<Workloads>,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// The pod has been told to end: what it counted until now is asked for once more.
    Final,
    /// The target is gone, or is another one now.
    Gone,
}

/// A target that is to be scraped.
#[derive(Clone)]
struct Wanted {
    target: Target,
    /// Indices of those that get its samples.
    outputs: Vec<usize>,
    /// Whose share of memory and series it takes.
    namespace: String,
    /// Where it is the kubelet's, whose page has series of many pods.
    pods_of_kubelet: Option<Store>,
}

struct Running {
    target: Target,
    outputs: Vec<usize>,
    end: watch::Sender<End>,
    /// Closed when the task is over.
    over: oneshot::Receiver<()>,
}

/// The tasks.
#[derive(Default)]
struct Tasks {
    set: JoinSet<()>,
    running: HashMap<TargetKey, Running>,
    /// Those that have been told to end: the next task of the same target waits for it, so that its samples come later.
    ending: HashMap<TargetKey, oneshot::Receiver<()>>,
}

/// Scrapes until `stop` has a deadline. No series is marked as ended then: another agent goes on with them.
pub async fn run(shared: Arc<Shared>, pods: Store, mut stop: watch::Receiver<Option<Instant>>) {
    let mut changes = pods.changes();
    let mut tasks = Tasks::default();
    for index in 0..shared.outputs.len() {
        tasks.set.spawn(flush(shared.clone(), index));
    }
    if shared.config.metrics.containers || shared.workloads.is_some() {
        tasks.set.spawn(own::follow(shared.clone(), pods.clone()));
    }
    loop {
        changes.borrow_and_update();
        // What an earlier run knew of pods is no reason to ask anybody: their addresses may be others' now.
        if pods.synced() {
            tasks.follow(&shared, &pods);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = stopped(&mut stop) => break,
            Some(_) = tasks.set.join_next() => {}
        }
    }
    tasks.set.shutdown().await;
    shared.outputs.iter().for_each(Output::close);
}

/// Waits for a deadline: it is time to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

async fn flush(shared: Arc<Shared>, index: usize) {
    let output = &shared.outputs[index];
    loop {
        tokio::time::sleep(output.flush_interval).await;
        output.flush();
    }
}

// === impl Tasks ===

impl Tasks {
    /// Begins and ends tasks by what Kubernetes says now.
    fn follow(&mut self, shared: &Arc<Shared>, pods: &Store) {
        let (mut wanted, mut last) = (BTreeMap::new(), HashSet::new());
        let present = pods.present();
        for pod in &present {
            let outputs = shared.outputs_of(pod);
            for target in targets(pod, &shared.config).targets {
                if pod.deleting {
                    last.insert(target.key);
                } else if !outputs.is_empty() {
                    let (outputs, namespace) = (outputs.clone(), pod.namespace.clone());
                    let key = target.key.clone();
                    wanted.insert(key, Wanted { target, outputs, namespace, pods_of_kubelet: None });
                }
            }
        }
        for target in kubelet_targets(&present, &shared.config) {
            let (outputs, key) = ((0..shared.outputs.len()).collect(), target.key.clone());
            let pods_of_kubelet = Some(pods.clone());
            wanted.insert(key, Wanted { target, outputs, namespace: String::new(), pods_of_kubelet });
        }
        self.ending.retain(|_, over| matches!(over.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        let is_over = |key: &TargetKey, running: &mut Running| {
            !wanted
                .get(key)
                .is_some_and(|wanted| wanted.target == running.target && wanted.outputs == running.outputs)
        };
        for (key, running) in self.running.extract_if(is_over) {
            let end = if last.contains(&key) { End::Final } else { End::Gone };
            let _ = running.end.send(end);
            self.ending.insert(key, running.over);
        }
        for (key, wanted) in wanted {
            if !self.running.contains_key(&key) {
                let before = self.ending.remove(&key);
                let (target, outputs) = (wanted.target.clone(), wanted.outputs.clone());
                let scraper = Scraper::new(shared.clone(), wanted);
                let ((end, told), (ends, over)) = (watch::channel(End::NotYet), oneshot::channel());
                self.set.spawn(follow(scraper, told, before, ends));
                self.running.insert(key, Running { target, outputs, end, over });
            }
        }
    }
}

/// Scrapes one target, each time at the same place of its interval, until it is told to end. `before` is another task of the
/// same target, and `_ends` tells the next.
async fn follow(
    mut scraper: Scraper,
    mut end: watch::Receiver<End>,
    before: Option<oneshot::Receiver<()>>,
    _ends: oneshot::Sender<()>,
) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let interval = scraper.target().interval;
    let mut ticks = interval_at(Instant::now() + until_turn(&scraper.target().key, interval), interval);
    // A scrape that is late is not made up for: its samples would be of the same moment.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = loop {
        tokio::select! {
            _ = ticks.tick() => scraper.scrape().await,
            told = ended(&mut end) => match told {
                Some(told) => break told,
                None => return,
            },
        }
    };
    if end == End::Final {
        scraper.scrape().await;
    }
    scraper.end();
}

/// How the task is to end; none when everything ends.
async fn ended(end: &mut watch::Receiver<End>) -> Option<End> {
    end.wait_for(|end| *end != End::NotYet).await.ok().map(|end| *end)
}

/// How long until a target's turn: the targets of a node are spread over the interval, and each keeps its place over
/// restarts of the agent.
fn until_turn(key: &TargetKey, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let now = u64::try_from(now % u128::from(interval)).unwrap_or(0);
    let turn = hasher.finish() % interval;
    Duration::from_nanos(if turn >= now { turn - now } else { interval - now + turn })
}

// === impl Shared ===

impl Shared {
    /// The outputs that get the samples of a pod.
    fn outputs_of(&self, pod: &Pod) -> Vec<usize> {
        (0..self.outputs.len()).filter(|index| self.outputs[*index].takes(pod)).collect()
    }
}
