//! The thread that scrapes and writes samples, beside the way of the logs: neither waits for the other.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::Parts;
use crate::config::{self, Config, QUEUE_BYTES};
use crate::delivery::remote_write::{Queue, RemoteWrite};
use crate::metrics::outputs::Output;
use crate::metrics::scrape::any_certificate;
use crate::metrics::scraping::{self, Pages, Shared, States};
use crate::metrics::series::Limits;

/// The thread, and how it is told to stop.
pub(super) struct ScrapingThread {
    stop: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
    /// The queues, and where to count what is left in them at the end.
    unsent: Vec<(IntCounter, Arc<Queue>)>,
}

// === impl ScrapingThread ===

impl ScrapingThread {
    /// Starts it, if there is an output for samples.
    ///
    /// # Errors
    /// When an output cannot be made, or the system has no thread left.
    pub(super) fn start(
        config: &Arc<Config>,
        parts: &Parts,
        states: &States,
    ) -> anyhow::Result<Option<Self>> {
        let metrics = &parts.remote_write;
        let wanted = config.metrics.outputs.iter();
        let wanted = wanted.map(|output| (output.name.clone(), destination(&output.remote_write)));
        let make = |name: &str| Queue::new(QUEUE_BYTES, metrics.unsent(name, "queue_full"));
        let (queues, lost) = parts.queues.of(wanted, make);
        if lost > 0 {
            tracing::warn!(
                samples = lost,
                "an output of metrics is no more; what waited for its receiver is dropped"
            );
            metrics.unsent("", "output_removed").inc_by(lost);
        }
        if config.metrics.outputs.is_empty() {
            return Ok(None);
        }
        let (mut writers, mut outputs, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
        for (output, queue) in config.metrics.outputs.iter().zip(queues) {
            outputs.push(Output::new(output, queue.clone()));
            unsent.push((metrics.unsent(&output.name, "stopped"), queue.clone()));
            writers.push(RemoteWrite::new(&output.name, &output.remote_write, queue, metrics)?);
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            outputs,
            states: states.clone(),
            metrics: parts.scrapes.clone(),
            tls: any_certificate()?,
            limits: Arc::new(limits(&config.metrics)),
            pages: Pages::new(usize::try_from(config.metrics.body_limit).unwrap_or(usize::MAX)),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the async runtime of the scrapes")?;
        let (stop, stopped) = watch::channel(None);
        let pods = parts.pods.clone();
        let serve = async move {
            let mut deliveries = JoinSet::new();
            for writer in writers {
                deliveries.spawn(writer.run(stopped.clone()));
            }
            scraping::run(shared, pods, stopped).await;
            while deliveries.join_next().await.is_some() {}
        };
        let thread = std::thread::Builder::new()
            .name("scrapes".to_owned())
            .spawn(move || {
                runtime.block_on(serve);
                runtime.shutdown_background();
            })
            .context("cannot start the thread of the scrapes")?;
        Ok(Some(ScrapingThread { stop, thread, unsent }))
    }

    /// Ends the scrapes, and sends what there is until the deadline. What is left is dropped, and counted.
    pub(super) async fn finish(self, deadline: Instant) {
        self.end(deadline).await;
        for (counter, queue) in self.unsent {
            let samples = queue.samples();
            if samples > 0 {
                tracing::warn!(samples, "not every sample was sent in time; what is left is dropped");
                counter.inc_by(samples);
            }
        }
    }

    /// Ends at once. What is not sent stays in the queues, for the next pipeline.
    pub(super) async fn hand_over(self) {
        self.end(Instant::now()).await;
    }

    async fn end(&self, deadline: Instant) {
        let _ = self.stop.send(Some(deadline));
        while !self.thread.is_finished() && Instant::now() < deadline + Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Headers that choose a tenant: of Mimir and Cortex, and of Thanos.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "thanos-tenant"];

/// Where the samples of a queue belong: the URL, and the tenant that a header or a user's name may choose. Keys and passwords
/// may change while samples wait.
fn destination(receiver: &config::RemoteWrite) -> String {
    let tenants = receiver.headers.iter().filter(|(name, _)| TENANT_HEADERS.contains(&&*name.to_lowercase()));
    let tenants = tenants.map(|(_, value)| value.reveal());
    let user = receiver.basic_auth.iter().map(|auth| auth.username.as_str());
    std::iter::once(receiver.url.as_str()).chain(tenants).chain(user).collect::<Vec<_>>().join(" ")
}

fn limits(metrics: &config::Metrics) -> Limits {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let of_namespace = metrics.series_limit_total * metrics.series_limit_namespace / 100;
    Limits::new(count(metrics.series_limit), count(of_namespace), count(metrics.series_limit_total))
}
