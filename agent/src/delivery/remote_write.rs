//! The remote write output: requests in their order, one at a time, each until the receiver has answered.
//!
//! Source: the specifications of Prometheus remote write 1.0 and 2.0: 5xx and 429 are sent again, every other 4xx is given
//! up; with 415, or a success that does not say how much was written, a receiver shows that it does not know 2.0.

mod downgrade;
mod metrics;
mod protocol;
mod queue;
mod queues;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::delivery::secret::Secret;
use crate::delivery::status::OutputState;
use crate::delivery::{deadline_passed, tls};
use crate::{config, delivery};

pub(crate) use downgrade::downgrade;
pub use metrics::{DropReason, Metrics};
pub use protocol::{Protocol, Version};
use queue::Request as WriteRequest;
pub use queue::{Lost, Queue};
pub use queues::{Queues, Wanted};

/// For one request, from connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is logged of an answer that is an error.
const MAX_ERROR: usize = 4 << 10;

/// One remote write output.
pub struct RemoteWrite {
    name: String,
    url: Uri,
    /// The operator's, `Authorization` among them.
    headers: HeaderMap,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    queue: Arc<Queue>,
    protocol: Arc<Protocol>,
    state: Arc<OutputState>,
    samples: IntCounter,
    requests: IntCounter,
    bytes: IntCounter,
    retries: IntCounter,
    fallbacks: IntCounter,
    rejected: IntCounter,
    unsupported: IntCounter,
}

/// What came of a request.
enum Outcome {
    /// All of it, or of version 2.0 so many samples, with what the receiver says of the others.
    Taken(u64, String),
    /// The receiver will never take it.
    Rejected(String),
    /// It does not know the version.
    Unknown(String),
    /// It is away; perhaps it says for how long.
    Away(String, Option<Duration>),
}

// === impl RemoteWrite ===

impl RemoteWrite {
    /// An output and its queue.
    ///
    /// # Errors
    /// When the certificates that an https URL needs cannot be used.
    pub fn new(
        output: &config::MetricOutput,
        queue: Arc<Queue>,
        protocol: Arc<Protocol>,
        state: Arc<OutputState>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let (name, config) = (output.name.as_str(), &output.remote_write);
        let url: Uri = config.url.parse().context("the URL was valid when the config was read")?;
        let builder = HttpsConnectorBuilder::new();
        let connector = if url.scheme_str() == Some("https") {
            let connector = tls::connector(&config.tls)?;
            builder.with_tls_config((**connector.config()).clone()).https_only().enable_http1().build()
        } else {
            let empty = tls::client()?.with_root_certificates(rustls::RootCertStore::empty());
            builder.with_tls_config(empty.with_no_client_auth()).https_or_http().enable_http1().build()
        };
        let of = |counters: &IntCounterVec| counters.with_label_values(&[name]);
        Ok(RemoteWrite {
            name: name.to_owned(),
            url,
            headers: headers(config)?,
            client: Client::builder(TokioExecutor::new()).build(connector),
            queue,
            protocol,
            state,
            samples: of(&metrics.samples),
            requests: of(&metrics.requests),
            bytes: of(&metrics.bytes),
            retries: of(&metrics.retries),
            fallbacks: of(&metrics.fallbacks),
            rejected: metrics.dropped(name, DropReason::Rejected),
            unsupported: metrics.dropped(name, DropReason::Unsupported),
        })
    }

    /// Sends what the queue has, until it is closed and empty, or the deadline that `stop` gives has passed.
    pub async fn run(self, mut stop: watch::Receiver<Option<Instant>>) {
        let send = async {
            while let Some(request) = self.queue.first().await {
                self.deliver(request).await;
            }
        };
        tokio::select! {
            () = send => {}
            () = deadline_passed(&mut stop) => {}
        }
    }

    /// Until the receiver has answered. No request overtakes another: samples of a series must come in their order.
    async fn deliver(&self, mut request: WriteRequest) {
        let mut pause = FIRST_PAUSE;
        let mut is_news = true;
        loop {
            if request.version == Version::V2 && self.protocol.version() == Version::V1 {
                match as_v1(&request.body) {
                    Ok((body, samples)) => {
                        self.unsupported.inc_by(request.samples - samples.min(request.samples));
                        request = WriteRequest { body, version: Version::V1, samples, ..request };
                    }
                    Err(error) => {
                        return self.give_up(&request, &format!("it cannot be read back: {error}")).await;
                    }
                }
            }
            match self.send(&request).await {
                Outcome::Taken(written, said) => return self.settle(&request, written, &said).await,
                Outcome::Rejected(error) => return self.give_up(&request, &error).await,
                Outcome::Unknown(answer) => {
                    if !self.protocol.fall_back() {
                        return self.give_up(&request, &answer).await;
                    }
                    self.fallbacks.inc();
                    tracing::info!(
                        output = self.name,
                        answer,
                        "the receiver does not know remote write 2.0; sending 1.0"
                    );
                }
                Outcome::Away(error, retry_after) => {
                    if std::mem::take(&mut is_news) {
                        tracing::warn!(output = self.name, url = %self.url, error, "the receiver is away; sending again");
                    }
                    self.state.set_up(false);
                    self.state.set_error(error);
                    self.wait(retry_after.unwrap_or(pause).min(LONGEST_PAUSE).max(pause)).await;
                    if !self.queue.holds(&request) {
                        return;
                    }
                    self.retries.inc();
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits; what comes meanwhile goes to the disk.
    async fn wait(&self, pause: Duration) {
        let spill = async {
            let mut is_news = true;
            loop {
                if let Err(error) = self.queue.spill().await
                    && std::mem::take(&mut is_news)
                {
                    tracing::error!(output = self.name, %error, "what waits cannot be written to the spool; it stays in memory");
                }
                self.queue.news().await;
            }
        };
        let _: Result<std::convert::Infallible, _> = tokio::time::timeout(pause, spill).await;
    }

    async fn settle(&self, request: &WriteRequest, written: u64, said: &str) {
        self.state.set_up(true);
        if !self.queue.done(request).await {
            return;
        }
        let written = written.min(request.samples);
        self.samples.inc_by(written);
        self.rejected.inc_by(request.samples - written);
        if written < request.samples {
            let samples = request.samples - written;
            tracing::error!(
                output = self.name,
                samples,
                said,
                "the receiver has not written all samples of a request"
            );
        }
    }

    async fn give_up(&self, request: &WriteRequest, error: &str) {
        // It answers, and says no.
        self.state.set_up(true);
        self.state.set_error(error.to_owned());
        if self.queue.done(request).await {
            self.rejected.inc_by(request.samples);
        }
        tracing::error!(
            output = self.name,
            samples = request.samples,
            error,
            "the receiver rejects a request; its samples are dropped"
        );
    }

    async fn send(&self, request: &WriteRequest) -> Outcome {
        self.requests.inc();
        self.bytes.inc_by(request.body.len() as u64);
        match tokio::time::timeout(TIMEOUT, self.post(request)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Away(format!("{error:#}"), None),
            Err(_) => Outcome::Away(format!("no answer within {} s", TIMEOUT.as_secs()), None),
        }
    }

    async fn post(&self, request: &WriteRequest) -> anyhow::Result<Outcome> {
        let mut post = Request::post(&self.url)
            .header(CONTENT_TYPE, request.version.content_type())
            .header(CONTENT_ENCODING, "snappy")
            .header(USER_AGENT, delivery::USER_AGENT)
            .header("X-Prometheus-Remote-Write-Version", request.version.header())
            .body(Full::new(request.body.clone()))?;
        post.headers_mut().extend(self.headers.clone());
        let response = self.client.request(post).await?;
        let status = response.status();
        let number =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
        let written = number("X-Prometheus-Remote-Write-Samples-Written");
        let histograms = number("X-Prometheus-Remote-Write-Histograms-Written");
        let written = written.or(histograms.map(|_| 0)).map(|written| written + histograms.unwrap_or(0));
        // Also of a success, so that the connection can be used again.
        let answer = beginning(response.into_body()).await;
        let text = || format!("{status}: {}", String::from_utf8_lossy(&answer).trim());
        let is_newer = request.version == Version::V2;
        Ok(match (status, written) {
            (_, Some(written)) if status.is_success() && is_newer => Outcome::Taken(written, text()),
            (_, None) if status.is_success() && is_newer => Outcome::Unknown(text()),
            _ if status.is_success() => Outcome::Taken(request.samples, String::new()),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, _) if is_newer => Outcome::Unknown(text()),
            (StatusCode::TOO_MANY_REQUESTS, _) => Outcome::Away(text(), retry_after),
            _ if status.is_server_error() => Outcome::Away(text(), retry_after),
            _ => Outcome::Rejected(text()),
        })
    }
}

/// A request of version 2.0 as one of 1.0, both compressed.
fn as_v1(body: &[u8]) -> anyhow::Result<(Bytes, u64)> {
    let newer = snap::raw::Decoder::new().decompress_vec(body)?;
    let (older, samples) = downgrade(&newer).map_err(|_| anyhow::anyhow!("it is malformed"))?;
    Ok((snap::raw::Encoder::new().compress_vec(&older)?.into(), samples))
}

fn headers(config: &config::RemoteWrite) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value.reveal())?);
    }
    let basic = config.basic_auth.as_ref().map(|auth| {
        let password = auth.password.as_ref().map_or("", Secret::reveal);
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{password}", auth.username)))
    });
    let bearer = config.bearer_token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
    if let Some(authorization) = basic.or(bearer) {
        headers.insert(AUTHORIZATION, HeaderValue::try_from(authorization)?);
    }
    headers.values_mut().for_each(|value| value.set_sensitive(true));
    Ok(headers)
}

/// What an answer begins with; what is behind is not read.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut begun = Vec::new();
    while begun.len() < MAX_ERROR
        && let Some(Ok(frame)) = body.frame().await
    {
        begun.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data.as_ref()));
    }
    begun.truncate(MAX_ERROR);
    begun
}
