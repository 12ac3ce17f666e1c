//! Puts the parts together. The only file that knows every part.

mod pipeline;
mod scraping;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use sidelight_contract::sidecar;
use sidelight_runtime::exit;
use sidelight_runtime::signals::{Signal, Signals};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{Admin, Health};
use crate::app::pipeline::{Ended, Pipeline};
use crate::app::watched::WatchedFiles;
use crate::checkpoint::account::Accounts;
use crate::checkpoint::store::{DataDir, DataDirError, Saved};
use crate::cluster::{self, PodInfo};
use crate::config::{Config, MetadataSource};
use crate::delivery::remote_write;
use crate::logs::events::Events;
use crate::logs::metrics::LogMetrics;
use crate::metrics::scraping::ScrapeMetrics;

/// How long before the end of the grace period waiting for acknowledgements ends.
const MARGIN: Duration = Duration::from_secs(2);
/// How long a reload waits for acknowledgements; what is late is sent again.
const RELOAD_WAIT: Duration = Duration::from_secs(10);
/// Checkpoints are written at most this often, and watched files are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What stays the same over reloads.
pub struct Parts {
    pub(crate) registry: Registry,
    pub(crate) accounts: Accounts,
    pub(crate) metrics: LogMetrics,
    pub(crate) events: Events,
    pub(crate) scrapes: ScrapeMetrics,
    pub(crate) remote_write: remote_write::Metrics,
    pub(crate) queues: remote_write::Queues,
    pub(crate) pods: cluster::Store,
    pub(crate) health: Arc<Health>,
}

/// How an agent is started.
#[derive(Debug)]
pub struct Start {
    /// Where the configuration is from.
    pub origin: Origin,
    /// The valid configuration.
    pub config: Config,
    /// From SIGTERM to SIGKILL.
    pub grace_period: Duration,
}

/// Where a configuration is from, to be read again.
#[derive(Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The environment of a sidecar; the files that it names may change.
    Injector {
        /// What the injector says.
        environment: sidecar::Environment,
        /// Where the Downward API writes what it says of the pod.
        pod_info: PathBuf,
    },
    /// It was made in memory, and is never read again.
    Memory,
}

// === impl Parts ===

impl Parts {
    /// Registers every metric.
    ///
    /// # Errors
    /// When a metric's name is taken: a defect.
    pub fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(sidelight_runtime::process::ProcessCollector::new()))?;
        Ok(Parts {
            accounts: Accounts::register(&registry)?,
            metrics: LogMetrics::register(&registry)?,
            events: Events::default(),
            scrapes: ScrapeMetrics::register(&registry)?,
            remote_write: remote_write::Metrics::register(&registry)?,
            queues: remote_write::Queues::default(),
            pods: cluster::Store::new(),
            health: Health::new(&registry)?,
            registry,
        })
    }
}

/// Who says when to stop and when to reload.
enum Orders<'a> {
    Signals(Signals),
    Flag(&'a AtomicBool),
}

// === impl Orders ===

impl Orders<'_> {
    async fn next(&mut self) -> Signal {
        match self {
            Orders::Signals(signals) => signals.next().await,
            Orders::Flag(stop) => {
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Signal::Stop
            }
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start. The exit code is that of the contract.
pub fn run(start: Start) -> anyhow::Result<u8> {
    run_with(start, |runtime| {
        let _entered = runtime.enter();
        Ok(Orders::Signals(Signals::new().context("cannot listen for signals")?))
    })
}

/// Runs the agent until `stop` is set.
///
/// # Errors
/// When it cannot start.
pub fn run_until(start: Start, stop: &AtomicBool) -> anyhow::Result<u8> {
    run_with(start, |_| Ok(Orders::Flag(stop)))
}

fn run_with<'a>(
    start: Start,
    orders: impl FnOnce(&Runtime) -> anyhow::Result<Orders<'a>>,
) -> anyhow::Result<u8> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    // Before anybody can see that it is up, and tell it to end.
    let orders = orders(&runtime)?;
    let parts = Parts::new()?;
    let admin = Admin::start(&start.config.admin, &parts.registry, parts.health.clone())?;
    let code = runtime.block_on(serve(start, &parts, orders));
    // A task that blocks, in a write that nobody reads or in a name server's silence, must not hold up the end.
    runtime.shutdown_background();
    drop(admin);
    code
}

async fn serve(start: Start, parts: &Parts, mut orders: Orders<'_>) -> anyhow::Result<u8> {
    // Looked at before anything is waited for, so that no change in between is missed.
    let watched = WatchedFiles::new(&start.origin, &start.config);
    let data_dir = tokio::select! {
        data_dir = lock_data_dir(&start.config, &parts.health) => data_dir,
        () = stopped(&mut orders) => return Ok(exit::SUCCESS),
    };
    let data_dir = match data_dir {
        Ok(data_dir) => data_dir,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return Ok(exit::DATA_DIR);
        }
    };
    let (stop_cluster, cluster) = start_cluster(&start, parts, data_dir.path())?;
    let grace_period = start.grace_period;
    let mut saver = Saver { data_dir: Arc::new(data_dir), failing: false };
    let (pipeline, stopped_at) = run_pipelines(start, parts, &mut orders, &mut saver, watched).await?;
    parts.health.set_stopping();
    let deadline = stopped_at + grace_period.saturating_sub(MARGIN);
    let ended = pipeline.finish(deadline).await;
    saver.save(ended.checkpoint).await;
    let _ = stop_cluster.send(true);
    let _ = tokio::time::timeout_at(deadline + MARGIN / 2, cluster).await;
    Ok(exit::SUCCESS)
}

/// Runs one pipeline after the other, a new one for each valid reload; gives the last one when it is time to stop.
async fn run_pipelines(
    start: Start,
    parts: &Parts,
    orders: &mut Orders<'_>,
    saver: &mut Saver,
    mut watched: WatchedFiles,
) -> anyhow::Result<(Pipeline, Instant)> {
    let mut config = Arc::new(start.config);
    let mut pipeline = Pipeline::start(config.clone(), parts, saver.data_dir.load(), Vec::new())?;
    let mut tick = tokio::time::interval(TICK);
    // Two looks in a row would take for a state that stays what is only a moment.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let reload = tokio::select! {
            order = orders.next() => match order {
                Signal::Stop => return Ok((pipeline, Instant::now())),
                Signal::Reload => true,
            },
            () = pipeline.first_scan() => {
                saver.save_what_moved(&mut pipeline).await;
                false
            }
            _ = tick.tick() => {
                pipeline.check(&parts.health);
                saver.save_what_moved(&mut pipeline).await;
                watched.have_changed()
            }
        };
        if !reload {
            continue;
        }
        let Some(new) = reload_config(&start.origin, &config, &parts.health) else { continue };
        watched = WatchedFiles::new(&start.origin, &new);
        config = Arc::new(new);
        let (ended, stopped_at) = hand_over(pipeline, orders).await;
        // From memory: the file may be older, if the disk is full.
        let saved = Saved::parse(&ended.checkpoint).unwrap_or_default();
        saver.save(ended.checkpoint).await;
        pipeline = Pipeline::start(config.clone(), parts, saved, ended.containers)?;
        parts.health.set_reloaded(true);
        tracing::info!("the new configuration is in force");
        if let Some(stopped_at) = stopped_at {
            return Ok((pipeline, stopped_at));
        }
    }
}

/// Ends a pipeline for the next one. A signal to stop is heard meanwhile: the grace period runs from then.
async fn hand_over(pipeline: Pipeline, orders: &mut Orders<'_>) -> (Ended, Option<Instant>) {
    let mut ending = std::pin::pin!(pipeline.hand_over(Instant::now() + RELOAD_WAIT));
    let mut stopped_at = None;
    loop {
        tokio::select! {
            ended = &mut ending => return (ended, stopped_at),
            order = orders.next(), if stopped_at.is_none() => if order == Signal::Stop {
                stopped_at = Some(Instant::now());
            }
        }
    }
}

/// A config that is wrong, or that changes what only a restart can change, leaves the old one in force.
fn reload_config(origin: &Origin, old: &Config, health: &Health) -> Option<Config> {
    let variable = |name: &str| std::env::var(name).ok();
    let read = match origin {
        Origin::File(file) => Config::load(file, &variable),
        Origin::Injector { environment, .. } => {
            Config::load_sidecar(&environment.config, &variable).map(|(config, _)| config)
        }
        Origin::Memory => return None,
    };
    match read {
        Ok(new) => Some(keep_until_restart(new, old)),
        Err(mistakes) => {
            health.set_reloaded(false);
            tracing::error!(
                mistakes = mistakes.join("; "),
                "the new configuration is wrong; the old one stays in force"
            );
            None
        }
    }
}

/// Puts back what takes effect only at a start, and says so.
fn keep_until_restart(mut new: Config, old: &Config) -> Config {
    fn keep<T: PartialEq + Clone>(key: &str, new: &mut T, old: &T) {
        if new != old {
            tracing::warn!(key, "this key takes effect only after a restart");
            new.clone_from(old);
        }
    }
    keep("node", &mut new.node, &old.node);
    keep("data_dir", &mut new.data_dir, &old.data_dir);
    keep("admin", &mut new.admin, &old.admin);
    keep("kubernetes.source", &mut new.kubernetes.source, &old.kubernetes.source);
    keep("kubernetes.file", &mut new.kubernetes.file, &old.kubernetes.file);
    keep("logs.namespace_labels", &mut new.logs.namespace_labels, &old.logs.namespace_labels);
    new
}

async fn stopped(orders: &mut Orders<'_>) {
    while orders.next().await != Signal::Stop {}
}

/// Waits for a data_dir that another agent holds.
async fn lock_data_dir(config: &Config, health: &Health) -> Result<DataDir, DataDirError> {
    let holder = format!("process {} on {}", std::process::id(), config.node);
    let mut said = String::new();
    loop {
        match DataDir::lock(&config.data_dir, &holder) {
            Err(error @ DataDirError::Held { .. }) => {
                let text = error.to_string();
                if said != text {
                    tracing::warn!("{text}");
                    health.set_waiting(Some(text.clone()));
                    said = text;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => {
                health.set_waiting(None);
                return other;
            }
        }
    }
}

fn start_cluster(
    start: &Start,
    parts: &Parts,
    data_dir: &Path,
) -> anyhow::Result<(watch::Sender<bool>, tokio::task::JoinHandle<()>)> {
    let config = &start.config;
    let source = match config.kubernetes.source {
        MetadataSource::Cluster => {
            let namespace_labels = config.logs.namespace_labels;
            cluster::Source::Cluster { node: config.node.clone(), namespace_labels, kubeconfig: None }
        }
        MetadataSource::File => {
            cluster::Source::File { path: config.kubernetes.file.clone().unwrap_or_default() }
        }
        MetadataSource::None => match &start.origin {
            Origin::Injector { environment, pod_info } => {
                let info = PodInfo::new(environment, config.kubernetes.pod.as_ref(), pod_info);
                // Before anything is read for it.
                info.tell(&parts.pods);
                cluster::Source::Own(Box::new(info))
            }
            Origin::File(_) | Origin::Memory => cluster::Source::None,
        },
    };
    let metrics = cluster::Metrics::register(&parts.registry)?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(cluster::run(source, parts.pods.clone(), data_dir.to_owned(), metrics, stopped));
    Ok((stop, task))
}

/// Every log file needs a descriptor: as many as the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        tracing::warn!(limit = limit.current, "cannot raise the limit of open files");
    }
}

/// Writes checkpoints.
struct Saver {
    data_dir: Arc<DataDir>,
    failing: bool,
}

// === impl Saver ===

impl Saver {
    /// Writes the file if positions have moved since it was written, or if it could not be.
    async fn save_what_moved(&mut self, pipeline: &mut Pipeline) {
        if pipeline.has_moved() || self.failing {
            self.save(pipeline.checkpoint()).await;
        }
    }

    /// Writes the file, not on the runtime's thread: a sync takes as long as the disk likes. A full disk costs
    /// duplicates after a crash, nothing else: the next second tries again.
    async fn save(&mut self, checkpoint: Vec<u8>) {
        let data_dir = self.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || data_dir.save(&checkpoint)).await;
        match written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(data_dir = %self.data_dir.path().display(), %error,
                        "cannot write checkpoints, trying again every second; free space or make data_dir writable");
                }
            }
        }
    }
}
