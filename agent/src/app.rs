//! Puts the parts together. The only file that knows every part.

mod pipeline;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use sidelight_runtime::exit;
use sidelight_runtime::signals::{Signal, Signals};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{Admin, Health};
use crate::app::pipeline::Pipeline;
use crate::app::watched::WatchedFiles;
use crate::checkpoint::account::Accounts;
use crate::checkpoint::store::{DataDir, DataDirError, Saved};
use crate::cluster;
use crate::config::{Config, MetadataSource};
use crate::logs::metrics::LogMetrics;

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
    pub(crate) pods: cluster::Store,
    pub(crate) health: Arc<Health>,
}

/// How an agent is started.
#[derive(Debug)]
pub struct Start {
    /// The config file; none for a config that was made in memory and is never reloaded.
    pub config_file: Option<PathBuf>,
    /// The valid configuration.
    pub config: Config,
    /// From SIGTERM to SIGKILL.
    pub grace_period: Duration,
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
    let parts = Parts::new()?;
    let admin = Admin::start(&start.config.admin, &parts.registry, parts.health.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let orders = orders(&runtime)?;
    let code = runtime.block_on(serve(start, &parts, orders));
    drop(admin);
    code
}

async fn serve(start: Start, parts: &Parts, mut orders: Orders<'_>) -> anyhow::Result<u8> {
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
    let (stop_cluster, cluster) = start_cluster(&start.config, parts, data_dir.path())?;
    let grace_period = start.grace_period;
    let mut saver = Saver::new(data_dir);
    let (pipeline, stopped_at) = run_pipelines(start, parts, &mut orders, &mut saver).await?;
    parts.health.set_stopping();
    let deadline = stopped_at + grace_period.saturating_sub(MARGIN);
    let ended = pipeline.finish(deadline).await;
    saver.save(&ended.generations(), &ended.outputs);
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
) -> anyhow::Result<(Pipeline, Instant)> {
    let mut config = Arc::new(start.config);
    let mut pipeline = Pipeline::start(config.clone(), parts, saver.load(), Vec::new())?;
    let mut watched = WatchedFiles::new(start.config_file.as_deref(), &config);
    let mut tick = tokio::time::interval(TICK);
    loop {
        let reload = tokio::select! {
            order = orders.next() => match order {
                Signal::Stop => return Ok((pipeline, Instant::now())),
                Signal::Reload => true,
            },
            _ = tick.tick() => {
                pipeline.check(&parts.health);
                if pipeline.has_moved() {
                    saver.save(&pipeline.generations(), pipeline.output_names());
                }
                watched.have_changed()
            }
        };
        let Some(file) = start.config_file.as_deref().filter(|_| reload) else { continue };
        let Some(new) = reload_config(file, &config, &parts.health) else { continue };
        watched = WatchedFiles::new(Some(file), &new);
        config = Arc::new(new);
        let ended = pipeline.hand_over(Instant::now() + RELOAD_WAIT).await;
        saver.save(&ended.generations(), &ended.outputs);
        pipeline = Pipeline::start(config.clone(), parts, saver.load(), ended.containers)?;
        parts.health.set_reloaded(true);
        tracing::info!("the new configuration is in force");
    }
}

/// A config that is wrong, or that changes what only a restart can change, leaves the old one in force.
fn reload_config(file: &Path, old: &Config, health: &Health) -> Option<Config> {
    match Config::load(file, &|name| std::env::var(name).ok()) {
        Ok(new) => {
            for (key, changed) in [
                ("data_dir", new.data_dir != old.data_dir),
                ("admin", new.admin.listen != old.admin.listen || new.admin.api != old.admin.api),
                ("kubernetes.source", new.kubernetes.source != old.kubernetes.source),
                ("node", new.node != old.node),
            ] {
                if changed {
                    tracing::warn!(key, "this key takes effect only after a restart");
                }
            }
            let mut new = new;
            new.data_dir.clone_from(&old.data_dir);
            Some(new)
        }
        Err(mistakes) => {
            health.set_reloaded(false);
            tracing::error!(file = %file.display(), mistakes = mistakes.join("; "), "the new configuration is wrong; the old one stays in force");
            None
        }
    }
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
    config: &Config,
    parts: &Parts,
    data_dir: &Path,
) -> anyhow::Result<(watch::Sender<bool>, tokio::task::JoinHandle<()>)> {
    let source = match config.kubernetes.source {
        MetadataSource::Cluster => {
            let namespace_labels = config.logs.namespace_labels;
            cluster::Source::Cluster { node: config.node.clone(), namespace_labels, kubeconfig: None }
        }
        MetadataSource::File => {
            cluster::Source::File { path: config.kubernetes.file.clone().unwrap_or_default() }
        }
        MetadataSource::None => cluster::Source::None,
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

/// Writes checkpoints and reads them back.
struct Saver {
    data_dir: DataDir,
    earlier_outputs: Vec<String>,
    failing: bool,
}

// === impl Saver ===

impl Saver {
    fn new(data_dir: DataDir) -> Self {
        Saver { data_dir, earlier_outputs: Vec::new(), failing: false }
    }

    fn load(&mut self) -> Saved {
        let saved = self.data_dir.load();
        self.earlier_outputs = saved.outputs().to_vec();
        saved
    }

    /// Writes the file. A full disk costs duplicates after a crash, nothing else: the next second tries again.
    fn save(&mut self, generations: &[Arc<crate::logs::generation::Generation>], outputs: &[String]) {
        let bytes = crate::checkpoint::store::render(
            generations.iter().map(Arc::as_ref),
            outputs,
            &self.earlier_outputs,
        );
        match self.data_dir.save(&bytes) {
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
