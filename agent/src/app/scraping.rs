//! The thread that scrapes and writes samples, beside the way of the logs: neither waits for the other.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::Parts;
use crate::config::{self, Config, QUEUE_BYTES};
use crate::delivery::remote_write::{Queue, RemoteWrite};
use crate::metrics::outputs::Output;
use crate::metrics::scrape::any_certificate;
use crate::metrics::scraping::{self, Shared, States};
use crate::metrics::series::Limits;

/// The thread, and how it is told to stop.
pub(super) struct ScrapingThread {
    stop: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
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
        if config.metrics.outputs.is_empty() {
            return Ok(None);
        }
        let mut writers = Vec::new();
        let mut outputs = Vec::new();
        for output in &config.metrics.outputs {
            let queue = Arc::new(Queue::new(QUEUE_BYTES, parts.remote_write.overflowed(&output.name)));
            outputs.push(Output::new(output, queue.clone()));
            writers.push(RemoteWrite::new(&output.name, &output.remote_write, queue, &parts.remote_write)?);
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            outputs,
            states: states.clone(),
            metrics: parts.scrapes.clone(),
            tls: any_certificate()?,
            limits: Arc::new(limits(&config.metrics)),
            pages: Mutex::default(),
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
        Ok(Some(ScrapingThread { stop, thread }))
    }

    /// Ends the scrapes, and sends what there is until the deadline.
    pub(super) async fn end(self, deadline: Instant) {
        let _ = self.stop.send(Some(deadline));
        while !self.thread.is_finished() && Instant::now() < deadline + Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn limits(metrics: &config::Metrics) -> Limits {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let of_namespace = metrics.series_limit_total * metrics.series_limit_namespace / 100;
    Limits::new(count(metrics.series_limit), count(of_namespace), count(metrics.series_limit_total))
}
