//! The targets of the node, each scraped by a task of its own, on one thread.
//!
//! What there is to scrape follows from what Kubernetes says: with every change the list is made anew, and tasks are begun
//! and ended by the difference.

mod page;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cluster::Store;
use crate::config::Config;
use crate::metrics::discover::{Target, TargetKey, targets};
use crate::metrics::outputs::Output;
use crate::metrics::scraping::page::Scraper;
pub use crate::metrics::scraping::state::{ScrapeMetrics, State, States};
use crate::metrics::series::Limits;

/// What every task needs.
pub struct Shared {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Where samples go.
    pub outputs: Vec<Output>,
    /// What is known of each target.
    pub states: States,
    /// Counters.
    pub metrics: ScrapeMetrics,
    /// How many series there may be.
    pub limits: Arc<Limits>,
    /// For https.
    pub tls: Arc<rustls::ClientConfig>,
    /// Buffers for pages; only a scrape that is under way has one.
    pub pages: Mutex<Vec<Vec<u8>>>,
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

struct Running {
    target: Target,
    end: watch::Sender<End>,
}

/// Scrapes until `stop` has a deadline. No series is marked as ended then: another agent goes on with them.
pub async fn run(shared: Arc<Shared>, pods: Store, mut stop: watch::Receiver<Option<Instant>>) {
    let mut changes = pods.changes();
    let mut running: HashMap<TargetKey, Running> = HashMap::new();
    let mut tasks = JoinSet::new();
    for index in 0..shared.outputs.len() {
        tasks.spawn(flush(shared.clone(), index));
    }
    loop {
        changes.borrow_and_update();
        follow_pods(&shared, &pods, &mut running, &mut tasks);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
    shared.outputs.iter().for_each(Output::close);
}

async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

async fn flush(shared: Arc<Shared>, index: usize) {
    let output = &shared.outputs[index];
    loop {
        tokio::time::sleep(output.flush_interval).await;
        output.flush();
    }
}

/// Begins and ends tasks by what Kubernetes says now.
fn follow_pods(
    shared: &Arc<Shared>,
    pods: &Store,
    running: &mut HashMap<TargetKey, Running>,
    tasks: &mut JoinSet<()>,
) {
    let mut wanted = BTreeMap::new();
    let mut ending = Vec::new();
    for pod in pods.present() {
        for target in targets(&pod, &shared.config).targets {
            if pod.deleting {
                ending.push(target.key);
            } else {
                wanted.insert(target.key.clone(), (target, pod.clone()));
            }
        }
    }
    running.retain(|key, running| {
        let stays = wanted.get(key).is_some_and(|(target, _)| *target == running.target);
        if !stays {
            let end = if ending.contains(key) { End::Final } else { End::Gone };
            let _ = running.end.send(end);
        }
        stays
    });
    for (key, (target, pod)) in wanted {
        if running.contains_key(&key) {
            continue;
        }
        let outputs = (0..shared.outputs.len()).filter(|index| shared.outputs[*index].takes(&pod)).collect();
        let (end, told) = watch::channel(End::NotYet);
        tasks.spawn(follow(Scraper::new(shared.clone(), target.clone(), &pod.namespace, outputs), told));
        running.insert(key, Running { target, end });
    }
}

/// Scrapes one target, each time at the same place of its interval, until it is told to end.
async fn follow(mut scraper: Scraper, mut end: watch::Receiver<End>) {
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
    fn take_page(&self) -> Vec<u8> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_page(&self, page: Vec<u8>) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).push(page);
    }
}
