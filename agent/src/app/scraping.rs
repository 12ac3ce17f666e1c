//! The threads that scrape and write samples, beside the way of the logs: none waits for another.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::SampleOutputView;
use crate::app::Parts;
use crate::config::{self, Config};
use crate::delivery::remote_write::{DropReason, Pipeline, Protocol, Queue, RemoteWrite, Wanted};
use crate::delivery::status::OutputState;
use crate::logs::events::{self, EventCounts, Events};
use crate::metrics::outputs::Output;
use crate::metrics::pull;
use crate::metrics::scrape::any_certificate;
use crate::metrics::scraping::{self, Pages, Shared, States};
use crate::metrics::series::Limits;
use crate::metrics::symbols::Symbols;
use crate::metrics::workloads::{Workload, Workloads};

/// For what is left in memory at the end. The grace period has two seconds more than the deadline.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// For what is on its way at a reload: the receiver may have it already, and would get it twice.
const HAND_OVER: Duration = Duration::from_secs(1);

/// The threads of scrapes and outputs, and how they are told to stop.
pub(super) struct ScrapingThreads {
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    /// Where samples go, for the admin server.
    pub(super) outputs: Vec<SampleOutputView>,
}

// === impl ScrapingThreads ===

impl ScrapingThreads {
    /// Starts it, if there is an output for samples, or others may scrape; `states` and `pulled` tell of the targets of either.
    ///
    /// # Errors
    /// When an output cannot be made, or the system has no thread left.
    pub(super) fn start(
        config: &Arc<Config>,
        parts: &Parts,
        [states, pulled]: [&States; 2],
    ) -> anyhow::Result<Option<Self>> {
        let queues = queues(config, parts);
        let pull = !config.metrics.pull.listen.is_empty();
        if config.metrics.outputs.is_empty() && !pull {
            return Ok(None);
        }
        let symbols = Symbols::default();
        let (mut writers, mut outputs, mut views) = (Vec::new(), Vec::new(), Vec::new());
        for (output, queue) in config.metrics.outputs.iter().zip(queues) {
            let protocol = Arc::new(Protocol::new(output.remote_write.protocol));
            let state = Arc::<OutputState>::default();
            outputs.push(Output::new(output, queue.clone(), protocol.clone(), symbols.clone()));
            views.push(SampleOutputView {
                name: output.name.clone(),
                state: state.clone(),
                queue: queue.0.clone(),
                metrics: parts.remote_write.clone(),
            });
            writers.push(RemoteWrite::new(output, queue, protocol, state, &parts.remote_write)?);
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            outputs,
            symbols,
            states: states.clone(),
            pulled: pulled.clone(),
            metrics: parts.scrapes.clone(),
            tls: any_certificate()?,
            limits: Arc::new(Limits::of(&config.metrics)),
            pages: Pages::new(usize::try_from(config.metrics.body_limit).unwrap_or(usize::MAX)),
            workloads: config.logs.events.then(|| workloads(&parts.events, Events::last_counts)),
        });
        let (stop, stopped) = watch::channel(None);
        let mut threads = Vec::new();
        if pull {
            let serve = pull::run(shared.clone(), parts.pods.clone(), stopped.clone());
            threads.push(thread("pull", serve)?);
        }
        if !config.metrics.outputs.is_empty() {
            threads.push(thread("scrapes", scraping::run(shared, parts.pods.clone(), stopped.clone()))?);
        }
        for writer in writers {
            threads.push(thread("remote-write", writer.run(stopped.clone()))?);
        }
        Ok(Some(ScrapingThreads { stop, threads, outputs: views }))
    }

    /// Ends the scrapes, and sends what there is until the deadline. What is left goes to the disk; without a spool it is
    /// dropped, and counted.
    pub(super) async fn finish(self, deadline: Instant) {
        self.end(deadline).await;
        for SampleOutputView { name, queue, metrics, .. } in self.outputs {
            let samples = queue.samples_in_memory();
            if samples > 0 {
                tracing::warn!(
                    output = name,
                    samples,
                    "not every sample was sent or kept in time; what is left is dropped"
                );
                metrics.dropped(&name, DropReason::Stopped).inc_by(samples);
            }
        }
    }

    /// Ends soon. What is not sent stays in the queues, for the next pipeline.
    pub(super) async fn hand_over(self) {
        self.outputs.iter().for_each(|output| output.queue.hand_over());
        self.end(Instant::now() + HAND_OVER).await;
    }

    async fn end(&self, deadline: Instant) {
        let _ = self.stop.send(Some(deadline));
        let is_over = || self.threads.iter().all(JoinHandle::is_finished);
        while !is_over() && Instant::now() < deadline + LAST_WRITE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

type Counted = (events::Workload, Arc<EventCounts>);

/// What the way of the logs has counted, for that of samples.
pub(super) fn workloads(events: &Events, counts: fn(&Events) -> Vec<Counted>) -> Workloads {
    let events = events.clone();
    let workload = |(of, counts): Counted| Workload {
        namespace: of.namespace,
        name: of.name,
        container: of.container,
        levels: counts.levels(),
        panics: counts.panics(),
    };
    Arc::new(move || counts(&events).into_iter().map(workload).collect())
}

/// A thread that does this, with a runtime of its own.
fn thread(name: &str, work: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the async runtime of {name}"))?;
    let work = move || {
        runtime.block_on(work);
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.with_context(|| format!("cannot start the thread of {name}"))
}

/// The queues of the outputs, in their order.
fn queues(config: &Config, parts: &Parts) -> Vec<(Arc<Queue>, Pipeline)> {
    let wanted = config.metrics.outputs.iter().map(|output| Wanted {
        name: output.name.clone(),
        destination: destination(&output.remote_write),
        spool: output.remote_write.spool,
    });
    let metrics = &parts.remote_write;
    let make = |name: &str, folder| Queue::new(config.queue_bytes(), folder, metrics.lost(name));
    let (queues, lost) = parts.queues.of(&config.data_dir, &wanted.collect::<Vec<_>>(), make);
    if lost > 0 {
        tracing::warn!(
            samples = lost,
            "an output of metrics is no more; what waited for its receiver is dropped"
        );
        metrics.dropped("", DropReason::OutputRemoved).inc_by(lost);
    }
    queues
}

/// Headers that choose a tenant: of Mimir and Cortex, and of Thanos.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "thanos-tenant"];

/// Where the samples of a queue belong: the URL, and the tenant that a header or a user's name may choose. Keys and passwords
/// may change while samples wait.
fn destination(receiver: &config::RemoteWrite) -> String {
    let tenants = receiver.headers.iter().filter(|(name, _)| TENANT_HEADERS.contains(&&*name.to_lowercase()));
    let tenants = tenants.map(|(_, value)| value.reveal());
    let user = receiver.basic_auth.iter().map(|auth| auth.username.as_str());
    let client = receiver.oauth2.iter().map(|auth| auth.client_id.as_str());
    std::iter::once(receiver.url.as_str())
        .chain(tenants)
        .chain(user)
        .chain(client)
        .collect::<Vec<_>>()
        .join(" ")
}
