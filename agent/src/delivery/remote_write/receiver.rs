//! The receiver: one request to it, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Uri};

use super::authorization::Authorization;
use super::{Protocol, Version};
use crate::delivery::http::{HttpClient, Proxy};
use crate::{config, delivery};

/// For one request, from connecting to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the rest of the answer, which changes nothing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What is logged of an answer that is an error.
const MAX_ERROR: usize = 4 << 10;

/// Where requests go.
pub(super) struct Receiver {
    pub(super) url: Uri,
    /// The operator's.
    headers: HeaderMap,
    authorization: Authorization,
    client: HttpClient,
    protocol: Arc<Protocol>,
}

/// What came of a request.
pub(super) enum Outcome {
    /// So many samples are taken, perhaps not all; what the receiver says.
    Taken(u64, String),
    /// It will never take the request.
    Rejected(String),
    /// It does not know the version.
    Unknown(String),
    /// It is away; perhaps it says for how long.
    Away(String, Option<Duration>),
}

// === impl Receiver ===

impl Receiver {
    /// As the config has it.
    ///
    /// # Errors
    /// When certificates, the proxy or a secret cannot be used.
    pub(super) fn new(config: &config::RemoteWrite, protocol: Arc<Protocol>) -> anyhow::Result<Self> {
        let url: Uri = config.url.parse().context("the URL was valid when the config was read")?;
        let client = HttpClient::new(&url, &config.tls, Proxy::of(config.proxy_url.as_ref())?)?;
        let (headers, authorization) = (headers(config)?, Authorization::new(config)?);
        Ok(Receiver { url, headers, authorization, client, protocol })
    }

    /// Sends a body of so many samples, once.
    pub(super) async fn send(&self, body: Bytes, version: Version, samples: u64) -> Outcome {
        match tokio::time::timeout(TIMEOUT, self.post(body, version)).await {
            Ok(Ok(response)) => self.outcome(response, version, samples).await,
            Ok(Err(error)) => Outcome::Away(format!("{error:#}"), None),
            Err(_) => Outcome::Away(format!("no answer within {} s", TIMEOUT.as_secs()), None),
        }
    }

    async fn post(&self, body: Bytes, version: Version) -> anyhow::Result<Response<Incoming>> {
        let answer = self.post_once(body.clone(), version).await?;
        // A token may end before its time, and a key be replaced.
        if self.authorization.renew(answer.status()) {
            return self.post_once(body, version).await;
        }
        Ok(answer)
    }

    async fn post_once(&self, body: Bytes, version: Version) -> anyhow::Result<Response<Incoming>> {
        let post = Request::post(&self.url)
            .header(CONTENT_TYPE, version.content_type())
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", version.header());
        let (mut head, ()) = post.body(())?.into_parts();
        head.headers.extend(self.headers.clone());
        self.authorization.add(&mut head, &body).await?;
        head.headers.insert(USER_AGENT, HeaderValue::from_static(delivery::USER_AGENT));
        self.client.send(Request::from_parts(head, Full::new(body))).await
    }

    async fn outcome(&self, response: Response<Incoming>, version: Version, samples: u64) -> Outcome {
        let status = response.status();
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        let retry_after = number(RETRY_AFTER.as_str()).map(Duration::from_secs);
        let written = number("X-Prometheus-Remote-Write-Samples-Written");
        let histograms = number("X-Prometheus-Remote-Write-Histograms-Written");
        let written = match (written, histograms) {
            (None, None) => None,
            (samples, histograms) => Some(samples.unwrap_or(0).saturating_add(histograms.unwrap_or(0))),
        };
        // Also of a success, so that the connection can be used again.
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, beginning(response.into_body())).await;
        let text = format!("{status}: {}", String::from_utf8_lossy(&answer.unwrap_or_default()).trim());
        let is_newer = version == Version::V2;
        match (status, written) {
            // The receiver has not seen it: the proxy wants another password.
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, _) => Outcome::Away(text, None),
            (StatusCode::TOO_MANY_REQUESTS, _) => Outcome::Away(text, retry_after),
            _ if status.is_server_error() => Outcome::Away(text, retry_after),
            _ if status.is_success() && !is_newer => Outcome::Taken(samples, text),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, _) if is_newer => Outcome::Unknown(text),
            // A part of a request is taken with 400, and this header.
            (_, Some(written)) if is_newer && (status.is_success() || status == StatusCode::BAD_REQUEST) => {
                self.protocol.prove();
                Outcome::Taken(written.min(samples), text)
            }
            (_, None) if is_newer && status.is_success() => Outcome::Unknown(text),
            // Some receivers of 1.0 refuse what they cannot read so.
            (StatusCode::BAD_REQUEST, None) if is_newer && !self.protocol.is_proven() => {
                Outcome::Unknown(text)
            }
            _ => Outcome::Rejected(text),
        }
    }
}

fn headers(config: &config::RemoteWrite) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value.reveal())?);
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
