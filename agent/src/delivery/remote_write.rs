//! The remote write output: requests in their order, one at a time, each until the receiver has answered.
//!
//! Source: the specifications of Prometheus remote write 1.0 and 2.0: 5xx and 429 are sent again, every other 4xx is given
//! up; with 415, with 400, or with a success that does not say how much was written, a receiver shows that it does not know
//! 2.0.

mod authorization;
mod downgrade;
mod metrics;
mod protocol;
mod queue;
mod queues;
mod receiver;
mod spool;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config;
use crate::delivery::deadline_passed;
use crate::delivery::status::OutputState;

pub(crate) use downgrade::downgrade;
pub use metrics::{DropReason, Metrics};
pub use protocol::{Protocol, Version};
pub use queue::{Lost, Pipeline, Queue};
use queue::{Next, Request};
pub use queues::{Queues, Wanted};
use receiver::{Outcome, Receiver};
use spool::Spool;

/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a receiver may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// A request that has no answer for so long may have none for a while.
const LATE: Duration = Duration::from_secs(1);

/// One remote write output. It runs on a thread of its own: what waits for the disk there holds up nobody else.
pub struct RemoteWrite {
    name: String,
    receiver: Receiver,
    queue: Arc<Queue>,
    pipeline: Pipeline,
    protocol: Arc<Protocol>,
    state: Arc<OutputState>,
    samples: IntCounter,
    requests: IntCounter,
    bytes: IntCounter,
    retries: IntCounter,
    fallbacks: IntCounter,
    rejected: IntCounter,
}

/// How the receiver and the disk fare, over requests.
struct Standing {
    pause: Duration,
    /// The log knows that the receiver is away; that the spool cannot be written.
    is_away: bool,
    is_unwritable: bool,
}

/// A request as it is sent: in the version that the receiver knows.
struct Attempt {
    body: Bytes,
    version: Version,
    /// In it; native histograms have no place in 1.0.
    samples: u64,
}

// === impl RemoteWrite ===

impl RemoteWrite {
    /// An output of this pipeline and its queue.
    ///
    /// # Errors
    /// When certificates, the proxy or a secret cannot be used.
    pub fn new(
        output: &config::MetricOutput,
        (queue, pipeline): (Arc<Queue>, Pipeline),
        protocol: Arc<Protocol>,
        state: Arc<OutputState>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let name = output.name.as_str();
        let of = |counters: &IntCounterVec| counters.with_label_values(&[name]);
        Ok(RemoteWrite {
            name: name.to_owned(),
            receiver: Receiver::new(&output.remote_write, protocol.clone())?,
            queue,
            pipeline,
            protocol,
            state,
            samples: of(&metrics.samples),
            requests: of(&metrics.requests),
            bytes: of(&metrics.bytes),
            retries: of(&metrics.retries),
            fallbacks: of(&metrics.fallbacks),
            rejected: metrics.dropped(name, DropReason::Rejected),
        })
    }

    /// Sends what the queue has, until the pipeline has closed it and it is empty, or the deadline that `stop` gives has
    /// passed. What is left in memory then goes to the disk.
    pub async fn run(self, mut stop: watch::Receiver<Option<Instant>>) {
        let mut over = pin!(deadline_passed(&mut stop));
        // Another pipeline's output may not be over yet: two would send the same.
        let mut spool = tokio::select! {
            spool = self.queue.spool() => spool,
            () = &mut over => return,
        };
        self.queue.open_spool(&self.name, &mut spool);
        let mut standing = Standing { pause: FIRST_PAUSE, is_away: false, is_unwritable: false };
        tokio::select! {
            () = self.serve(&mut spool, &mut standing) => {}
            () = &mut over => {}
        }
        self.spill(&mut spool, &mut standing);
    }

    async fn serve(&self, spool: &mut Option<Spool>, standing: &mut Standing) {
        while !self.queue.is_handed_over(self.pipeline) {
            if self.queue.spooled().bytes > 0 {
                // What is in memory is newer than all that is on disk.
                self.spill(spool, standing);
                if let Some(oldest) = self.queue.first_on_disk(spool) {
                    self.deliver(oldest, spool, standing).await;
                    continue;
                }
            }
            match self.queue.first(self.pipeline) {
                Next::Request(oldest) => self.deliver(oldest, spool, standing).await,
                Next::Nothing => self.queue.news().await,
                Next::Closed => return,
            }
        }
    }

    /// Until the receiver has answered. No request overtakes another: samples of a series must come in their order.
    async fn deliver(&self, request: Request, spool: &mut Option<Spool>, standing: &mut Standing) {
        loop {
            let attempt = match self.attempt(&request) {
                Ok(attempt) => attempt,
                Err(error) => {
                    tracing::error!(output = self.name, samples = request.samples, %error, "a request cannot be read back");
                    if self.queue.done(&request, spool) {
                        self.queue.lost().damaged.inc_by(request.samples);
                    }
                    return;
                }
            };
            self.requests.inc();
            self.bytes.inc_by(attempt.body.len() as u64);
            let sent = self.receiver.send(attempt.body.clone(), attempt.version, attempt.samples);
            match self.beside(spool, standing, sent).await {
                Outcome::Taken(written, said) => {
                    return self.settle(&request, &attempt, written, &said, spool, standing);
                }
                Outcome::Rejected(said) => return self.settle(&request, &attempt, 0, &said, spool, standing),
                Outcome::Unknown(said) => {
                    if !self.protocol.fall_back() {
                        return self.settle(&request, &attempt, 0, &said, spool, standing);
                    }
                    self.fallbacks.inc();
                    tracing::info!(
                        output = self.name,
                        said,
                        "the receiver does not know remote write 2.0; sending 1.0"
                    );
                }
                Outcome::Away(error, retry_after) => {
                    if !std::mem::replace(&mut standing.is_away, true) {
                        let url = &self.receiver.url;
                        tracing::warn!(output = self.name, %url, error, "the receiver is away; sending again");
                    }
                    self.state.set_up(false);
                    self.state.set_error(error);
                    let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                    let pause = tokio::time::sleep(asked.max(standing.pause));
                    standing.pause = (standing.pause * 2).min(LONGEST_PAUSE);
                    self.beside(spool, standing, pause).await;
                    if !self.queue.holds(&request) {
                        return;
                    }
                    self.retries.inc();
                }
            }
        }
    }

    /// A request in the version that is spoken now.
    fn attempt(&self, request: &Request) -> anyhow::Result<Attempt> {
        let Request { body, version, samples, .. } = request;
        if (*version, self.protocol.version()) != (Version::V2, Version::V1) {
            return Ok(Attempt { body: body.clone(), version: *version, samples: *samples });
        }
        let newer = snap::raw::Decoder::new().decompress_vec(body)?;
        let (older, samples) = downgrade(&newer).map_err(|_| anyhow::anyhow!("it is malformed"))?;
        let body = snap::raw::Encoder::new().compress_vec(&older)?.into();
        Ok(Attempt { body, version: Version::V1, samples })
    }

    /// Waits for something. What comes meanwhile goes to the disk where the receiver is away, or slow, or memory is half full: a
    /// process can be killed at any time, and memory is small.
    async fn beside<T>(
        &self,
        spool: &mut Option<Spool>,
        standing: &mut Standing,
        work: impl Future<Output = T>,
    ) -> T {
        let (mut work, mut late) = (pin!(work), pin!(tokio::time::sleep(LATE)));
        let mut is_late = false;
        loop {
            if standing.is_away || is_late || self.queue.is_half_full() {
                self.spill(spool, standing);
            }
            tokio::select! {
                done = &mut work => return done,
                () = self.queue.news() => {}
                () = &mut late, if !is_late => is_late = true,
            }
        }
    }

    fn spill(&self, spool: &mut Option<Spool>, standing: &mut Standing) {
        let result = self.queue.spill(spool);
        if let Err(error) = &result
            && !standing.is_unwritable
        {
            tracing::error!(output = self.name, %error, "what waits cannot be written to the spool; it stays in memory");
        }
        standing.is_unwritable = result.is_err();
    }

    /// The receiver has answered, and taken so many samples.
    fn settle(
        &self,
        request: &Request,
        attempt: &Attempt,
        written: u64,
        said: &str,
        spool: &mut Option<Spool>,
        standing: &mut Standing,
    ) {
        (standing.pause, standing.is_away) = (FIRST_PAUSE, false);
        self.state.set_up(true);
        let rejected = attempt.samples - written.min(attempt.samples);
        if rejected > 0 {
            self.state.set_error(said.to_owned());
            tracing::error!(
                output = self.name,
                samples = rejected,
                said,
                "the receiver does not take samples of a request; they are dropped"
            );
        }
        if self.queue.done(request, spool) {
            self.samples.inc_by(attempt.samples - rejected);
            self.rejected.inc_by(rejected);
            self.queue.lost().unsupported.inc_by(request.samples.saturating_sub(attempt.samples));
        }
    }
}
