//! One run of discovery, readers and deliveries with one configuration.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::{Health, OutputView, View};
use crate::app::Parts;
use crate::app::scraping::{ScrapingThreads, workloads};
use crate::checkpoint::store::{self, Saved};
use crate::config::{Config, Output, OutputKind};
use crate::delivery::memory::Share;
use crate::delivery::status::OutputStatus;
use crate::delivery::{forward, stdout};
use crate::logs::container::{Container, Inventory};
use crate::logs::discover::Discovery;
use crate::logs::events::Events;
use crate::logs::generation::Generation;
use crate::logs::lane::Lane;
use crate::logs::reader::{Order, Reader};
use crate::logs::record::NamespaceLimits;
use crate::metrics::scraping::States;
use crate::wake::Wake;

/// Chunks that wait for a delivery of one output, at most: enough that it never waits for a reader. What is read further
/// ahead only takes memory, and has left the processor's cache when it is sent.
const WAITING_CHUNKS: usize = 2;

/// What says which pod this process runs in: the Downward API's variables, else the host name, which is the pod's.
const OWN_POD: [&str; 3] = ["POD_UID", "POD_NAME", "HOSTNAME"];

/// Sizes of files that are not acknowledged are looked at this often.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(5);

/// A running pipeline.
pub(super) struct Pipeline {
    view: Arc<View>,
    output_names: Vec<String>,
    order: Arc<Order>,
    readers: Vec<JoinHandle<()>>,
    discovery: Option<DiscoveryThread>,
    scraping: Option<ScrapingThreads>,
    deliveries: JoinSet<()>,
    stop_deliveries: watch::Sender<Option<Instant>>,
    /// Slots committed, and saved generations that nobody has claimed, when last looked at.
    settled: Option<(u64, usize)>,
    /// Generations with an identity and the sum of their sizes when last looked at, while something was not acknowledged.
    backlog: (usize, u64),
    backlog_seen: Instant,
    unaccounted: HashMap<usize, (u64, i64, u64, u64)>,
    saved: Arc<Mutex<Saved>>,
    scanned: Arc<FirstScan>,
}

/// Whether everything that existed at the start is known.
#[derive(Default)]
struct FirstScan {
    is_done: AtomicBool,
    news: Notify,
}

/// The thread that finds files, and how it is told to stop.
struct DiscoveryThread {
    stop: Arc<AtomicBool>,
    wake: Arc<Wake>,
    thread: JoinHandle<()>,
}

/// What is left of a pipeline: the files, still open, and how far they were acknowledged.
pub(super) struct Ended {
    /// The containers.
    pub containers: Vec<Arc<Container>>,
    /// The checkpoint file's bytes.
    pub checkpoint: Vec<u8>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Starts everything, last stage first.
    ///
    /// # Errors
    /// When the system has no thread or descriptor left.
    pub(super) fn start(
        config: Arc<Config>,
        parts: &Parts,
        saved: Saved,
        containers: Vec<Arc<Container>>,
    ) -> anyhow::Result<Self> {
        let wakes = (0..config.workers).map(|_| Wake::new().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let (stop_deliveries, stopped) = watch::channel(None);
        let mut deliveries = JoinSet::new();
        let mut outputs = Vec::new();
        // By reader, then by output.
        let mut lanes: Vec<Vec<Lane>> = (0..config.workers).map(|_| Vec::new()).collect();
        for output in &config.logs.outputs {
            outputs.push(start_output(output, &config, parts, &wakes, &stopped, &mut deliveries, &mut lanes));
        }
        let inventory = Arc::new(Inventory::new(wakes));
        let order = Arc::new(Order::default());
        let readers = start_readers(&config, parts, &inventory, &order, lanes)?;
        let (saved, scanned) = (Arc::new(Mutex::new(saved)), Arc::<FirstScan>::default());
        let (states, pulled) = (States::default(), States::default());
        let scraping = ScrapingThreads::start(&config, parts, [&states, &pulled])?;
        let sample_outputs = scraping.iter().flat_map(|scraping| scraping.outputs.clone()).collect();
        // Where nobody sends them, who pulls is the one who has seen the last counts of a workload.
        let sends = !config.metrics.outputs.is_empty();
        let counts = if sends { Events::counts } else { Events::last_counts };
        let view = Arc::new(View {
            config: config.clone(),
            inventory,
            pods: parts.pods.clone(),
            outputs,
            sample_outputs,
            states,
            pulled,
            workloads: workloads(&parts.events, counts),
        });
        let discovery = DiscoveryThread::start(parts, &view, saved.clone(), containers, scanned.clone())?;
        Ok(Pipeline {
            output_names: config.logs.outputs.iter().map(|output| output.name.clone()).collect(),
            discovery: Some(discovery),
            scraping,
            view,
            order,
            readers,
            deliveries,
            stop_deliveries,
            settled: None,
            backlog: (0, 0),
            backlog_seen: Instant::now(),
            unaccounted: HashMap::new(),
            saved,
            scanned,
        })
    }

    /// The checkpoint file's bytes: how far every file was acknowledged.
    pub(super) fn checkpoint(&self) -> Vec<u8> {
        let generations = self.generations();
        // Newest first: a line that was joined across files is committed in the oldest of them first, so no newer file is
        // saved as read beyond the end of a line that an older one still has to begin.
        let generations = generations.iter().rev();
        let unclaimed = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        store::render(generations.map(Arc::as_ref), &self.output_names, &unclaimed)
    }

    fn generations(&self) -> Vec<Arc<Generation>> {
        self.view.inventory.containers().iter().flat_map(|container| container.generations()).collect()
    }

    /// Waits until the first listing is done. What was deleted while no agent ran is counted then: as long as that is not
    /// saved, another start would count it again.
    pub(super) async fn first_scan(&self) {
        self.scanned.news.notified().await;
    }

    /// Whether there is something to save since the last call: a position was committed, a backlog has grown, a loss was
    /// counted, or the first listing is done, which settles where new outputs begin.
    pub(super) fn has_moved(&mut self) -> bool {
        if !self.scanned.is_done.load(Ordering::Acquire) {
            return false;
        }
        let commits =
            self.view.outputs.iter().flat_map(|output| &output.lanes).map(|lane| lane.commits()).sum();
        let unclaimed = self.saved.lock().unwrap_or_else(PoisonError::into_inner).unclaimed();
        let has_settled = self.settled.replace((commits, unclaimed)) != Some((commits, unclaimed));
        has_settled | self.backlog_has_grown()
    }

    /// Whether files have come or grown that a receiver has not acknowledged.
    fn backlog_has_grown(&mut self) -> bool {
        if self.backlog_seen.elapsed() < BACKLOG_INTERVAL {
            return false;
        }
        self.backlog_seen = Instant::now();
        let generations = self.generations();
        if generations.iter().all(|generation| generation.is_acknowledged()) {
            return false;
        }
        look_at(&generations);
        let identified = generations.iter().filter(|generation| generation.identity().is_some());
        let backlog = identified.fold((0, 0), |(count, sum), one| (count + 1, sum + one.size()));
        std::mem::replace(&mut self.backlog, backlog) != backlog
    }

    /// Checks that every byte read is in one counter. Counters move while they are read: only a difference that stays
    /// the same while nothing moves is one.
    pub(super) fn check(&mut self, health: &Health) {
        health.look(&self.view);
        for (index, output) in self.view.outputs.iter().enumerate() {
            let account = output.status.account();
            let counted = account.bytes_in_flight();
            let known: u64 = output.lanes.iter().map(|lane| lane.bytes_in_flight()).sum();
            let difference = counted.abs_diff(i64::try_from(known).unwrap_or(i64::MAX));
            let state = (account.bytes_read(), counted, known, difference);
            let stays = self.unaccounted.insert(index, state) == Some(state);
            if stays && difference > 0 {
                tracing::error!(
                    output = output.name,
                    counted,
                    known,
                    read = account.bytes_read(),
                    "bytes are in no counter, or in two; please report this"
                );
            }
            health.set_unaccounted(&output.name, if stays { difference } else { 0 });
        }
    }

    /// Reads on to where the files end now, waits for acknowledgements until the deadline, and ends.
    pub(super) async fn finish(mut self, deadline: Instant) -> Ended {
        let scraping = self.scraping.take();
        let scraping = async {
            if let Some(scraping) = scraping {
                scraping.finish(deadline).await;
            }
        };
        tokio::join!(self.end(deadline, Order::finish), scraping).0
    }

    /// Ends at once, but for the acknowledgements of what was sent.
    pub(super) async fn hand_over(mut self, deadline: Instant) -> Ended {
        let scraping = self.scraping.take();
        let ended = self.end(deadline, Order::stop).await;
        // Last: it waits for nobody, and so the gap between two scrapes is short.
        if let Some(scraping) = scraping {
            scraping.hand_over().await;
        }
        ended
    }

    async fn end(mut self, deadline: Instant, last_order: fn(&Order)) -> Ended {
        self.end_discovery().await;
        last_order(&self.order);
        self.end_readers(deadline).await;
        self.end_deliveries(deadline).await
    }

    async fn end_discovery(&mut self) {
        if let Some(discovery) = self.discovery.take() {
            discovery.stop.store(true, Ordering::Relaxed);
            discovery.wake.wake();
            joined(discovery.thread, "discovery").await;
        }
    }

    async fn end_readers(&mut self, deadline: Instant) {
        for index in 0..self.readers.len() {
            self.view.inventory.wake(index).wake();
        }
        while self.readers.iter().any(|reader| !reader.is_finished()) {
            if Instant::now() >= deadline {
                self.order.stop();
                (0..self.readers.len()).for_each(|index| self.view.inventory.wake(index).wake());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for reader in std::mem::take(&mut self.readers) {
            joined(reader, "reader").await;
        }
    }

    /// The readers have dropped their ends of the channels: a delivery ends when all is acknowledged.
    async fn end_deliveries(mut self, deadline: Instant) -> Ended {
        let _ = self.stop_deliveries.send(Some(deadline));
        let all = async { while self.deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline + Duration::from_millis(500), all).await.is_err() {
            tracing::warn!("not everything was acknowledged in time; it is sent again after the start");
        }
        look_at(&self.generations());
        Ended { checkpoint: self.checkpoint(), containers: self.view.inventory.containers() }
    }
}

/// Looks at files to which a reader may not have come yet. If they are deleted while no agent runs, what is lost is
/// counted by the size that was saved, and without an identity none is.
fn look_at(generations: &[Arc<Generation>]) {
    for generation in generations {
        generation.identify_by_file();
        generation.refresh();
    }
}

// === impl DiscoveryThread ===

impl DiscoveryThread {
    /// Starts it; once the first listing is done, the admin server shows `view`.
    fn start(
        parts: &Parts,
        view: &Arc<View>,
        saved: Arc<Mutex<Saved>>,
        containers: Vec<Arc<Container>>,
        scanned: Arc<FirstScan>,
    ) -> anyhow::Result<Self> {
        let (stop, wake) = (Arc::new(AtomicBool::new(false)), Arc::new(Wake::new()?));
        parts.pods.subscribe(&wake);
        let discovery = Discovery {
            config: view.config.clone(),
            inventory: view.inventory.clone(),
            pods: parts.pods.clone(),
            saved,
            accounts: parts.accounts.clone(),
            metrics: parts.metrics.clone(),
            events: parts.events.clone(),
            wake: wake.clone(),
            stop: stop.clone(),
            heartbeat: parts.health.heartbeats().register("discovery"),
            own_pod: OWN_POD.iter().filter_map(|name| std::env::var(name).ok()).collect(),
        };
        let (health, view) = (parts.health.clone(), view.clone());
        let thread = std::thread::Builder::new()
            .name("discovery".to_owned())
            .spawn(move || {
                discovery.run(containers, move || {
                    scanned.is_done.store(true, Ordering::Release);
                    scanned.news.notify_one();
                    health.set_view(view);
                });
            })
            .context("cannot start the discovery thread")?;
        Ok(DiscoveryThread { stop, wake, thread })
    }
}

/// Starts the delivery of one output and gives every reader its lane.
fn start_output(
    output: &Output,
    config: &Config,
    parts: &Parts,
    wakes: &[Arc<Wake>],
    stop: &watch::Receiver<Option<Instant>>,
    deliveries: &mut JoinSet<()>,
    lanes: &mut [Vec<Lane>],
) -> OutputView {
    let account = parts.accounts.output(&output.name);
    account.begin();
    let limit = usize::try_from(config.share()).unwrap_or(usize::MAX);
    let share = Share::new(limit, output.chunk_bytes(), wakes.to_vec());
    let (chunks, receiver) = mpsc::channel(WAITING_CHUNKS);
    let mut ledgers = Vec::new();
    for lanes in lanes {
        let (index, compression) = (lanes.len(), output.compression());
        let lane = Lane::new(index, compression, chunks.clone(), share.clone(), account.clone());
        ledgers.push(lane.ledger().clone());
        lanes.push(lane);
    }
    let status = OutputStatus::new(account);
    match &output.kind {
        OutputKind::Forward(forward) => {
            let config = forward::Config::new(&output.name, &config.node, forward);
            deliveries.spawn(forward::run(config, receiver, status.clone(), stop.clone()));
        }
        OutputKind::Stdout(_) => {
            deliveries.spawn(stdout::run(receiver, status.clone(), stop.clone()));
        }
    }
    OutputView { name: output.name.clone(), kind: output.kind_name(), status, share, lanes: ledgers }
}

fn start_readers(
    config: &Arc<Config>,
    parts: &Parts,
    inventory: &Arc<Inventory>,
    order: &Arc<Order>,
    lanes: Vec<Vec<Lane>>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let namespaces = NamespaceLimits::default();
    let spawn = |(index, lanes)| {
        let reader = Reader {
            index,
            config: config.clone(),
            inventory: inventory.clone(),
            order: order.clone(),
            lanes,
            namespaces: namespaces.clone(),
            metrics: parts.metrics.clone(),
            heartbeat: parts.health.heartbeats().register(format!("reader-{index}")),
        };
        std::thread::Builder::new()
            .name(format!("reader-{index}"))
            .spawn(move || reader.run())
            .context("cannot start a reader thread")
    };
    lanes.into_iter().enumerate().map(spawn).collect()
}

/// Waits for a thread without holding up the runtime.
async fn joined(thread: JoinHandle<()>, name: &str) {
    if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
        tracing::error!(name, "a thread ended with a panic");
    }
}
