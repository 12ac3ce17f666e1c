//! The remote write output, version 1.0: requests in their order, one at a time, each until the receiver has answered.
//!
//! Source: the specification of Prometheus remote write 1.0: 5xx and 429 are sent again, every other 4xx is given up.

mod queue;

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
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::delivery::secret::Secret;
use crate::delivery::{deadline_passed, tls};
use crate::{config, delivery};

use queue::Request as WriteRequest;
pub use queue::{Queue, Queues};

/// For one request, from connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is logged of an answer that is an error.
const MAX_ERROR: usize = 4 << 10;

/// Counters of the remote write outputs.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: IntCounterVec,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    retries: IntCounterVec,
    dropped: IntCounterVec,
}

/// One remote write output.
pub struct RemoteWrite {
    name: String,
    url: Uri,
    /// The operator's, `Authorization` among them.
    headers: HeaderMap,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    queue: Arc<Queue>,
    samples: IntCounter,
    requests: IntCounter,
    bytes: IntCounter,
    retries: IntCounter,
    rejected: IntCounter,
}

/// What came of a request.
enum Outcome {
    Taken,
    /// The receiver will never take it.
    Rejected(String),
    /// It is away; perhaps it says for how long.
    Away(String, Option<Duration>),
}

// === impl Metrics ===

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str,
                        help: &str,
                        labels: &[&str]|
         -> Result<IntCounterVec, prometheus::Error> {
            let vec =
                IntCounterVec::new(Opts::new(format!("sidelight_remote_write_{name}_total"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        Ok(Metrics {
            samples: counters("samples", "Samples that the receiver has taken.", &["output"])?,
            requests: counters("requests", "Requests that were sent, however they ended.", &["output"])?,
            bytes: counters("bytes", "Bytes of requests that were sent, compressed.", &["output"])?,
            retries: counters("retries", "Requests that were sent again.", &["output"])?,
            dropped: counters(
                "dropped_samples",
                "Samples that were given up, by reason.",
                &["output", "reason"],
            )?,
        })
    }

    /// Samples of an output that were never answered, for this reason.
    pub fn unsent(&self, output: &str, reason: &str) -> IntCounter {
        self.dropped.with_label_values(&[output, reason])
    }
}

// === impl RemoteWrite ===

impl RemoteWrite {
    /// An output and its queue.
    ///
    /// # Errors
    /// When the certificates that an https URL needs cannot be used.
    pub fn new(
        name: &str,
        config: &config::RemoteWrite,
        queue: Arc<Queue>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
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
            samples: of(&metrics.samples),
            requests: of(&metrics.requests),
            bytes: of(&metrics.bytes),
            retries: of(&metrics.retries),
            rejected: metrics.dropped.with_label_values(&[name, "rejected"]),
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
    async fn deliver(&self, request: WriteRequest) {
        let mut pause = FIRST_PAUSE;
        let mut is_news = true;
        loop {
            match self.send(&request).await {
                Outcome::Taken => {
                    if self.queue.done(&request) {
                        self.samples.inc_by(request.samples);
                    }
                    return;
                }
                Outcome::Rejected(error) => {
                    if self.queue.done(&request) {
                        self.rejected.inc_by(request.samples);
                    }
                    tracing::error!(
                        output = self.name,
                        samples = request.samples,
                        error,
                        "the receiver rejects a request; its samples are dropped"
                    );
                    return;
                }
                Outcome::Away(error, retry_after) => {
                    if std::mem::take(&mut is_news) {
                        tracing::warn!(output = self.name, url = %self.url, error, "the receiver is away; sending again");
                    }
                    self.retries.inc();
                    tokio::time::sleep(retry_after.unwrap_or(pause).min(LONGEST_PAUSE).max(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn send(&self, request: &WriteRequest) -> Outcome {
        self.requests.inc();
        self.bytes.inc_by(request.body.len() as u64);
        match tokio::time::timeout(TIMEOUT, self.post(request.body.clone())).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Away(format!("{error:#}"), None),
            Err(_) => Outcome::Away(format!("no answer within {} s", TIMEOUT.as_secs()), None),
        }
    }

    async fn post(&self, body: Bytes) -> anyhow::Result<Outcome> {
        let mut request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header(USER_AGENT, delivery::USER_AGENT)
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(Full::new(body))?;
        request.headers_mut().extend(self.headers.clone());
        let response = self.client.request(request).await?;
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        // Also of a success, so that the connection can be used again.
        let answer = beginning(response.into_body()).await;
        let text = || format!("{status}: {}", String::from_utf8_lossy(&answer).trim());
        Ok(match status {
            _ if status.is_success() => Outcome::Taken,
            StatusCode::TOO_MANY_REQUESTS => Outcome::Away(text(), retry_after),
            _ if status.is_server_error() => Outcome::Away(text(), retry_after),
            _ => Outcome::Rejected(text()),
        })
    }
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
