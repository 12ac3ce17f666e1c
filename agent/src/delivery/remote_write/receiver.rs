//! The receiver: one request to it, and what its answer means.

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
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Protocol, Version};
use crate::delivery::secret::Secret;
use crate::delivery::tls;
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
    /// The operator's, `Authorization` among them.
    headers: HeaderMap,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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
    /// When the certificates that an https URL needs cannot be used.
    pub(super) fn new(config: &config::RemoteWrite, protocol: Arc<Protocol>) -> anyhow::Result<Self> {
        let url: Uri = config.url.parse().context("the URL was valid when the config was read")?;
        let builder = HttpsConnectorBuilder::new();
        let connector = if url.scheme_str() == Some("https") {
            let connector = tls::connector(&config.tls)?;
            builder.with_tls_config((**connector.config()).clone()).https_only().enable_http1().build()
        } else {
            let empty = tls::client()?.with_root_certificates(rustls::RootCertStore::empty());
            builder.with_tls_config(empty.with_no_client_auth()).https_or_http().enable_http1().build()
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Receiver { url, headers: headers(config)?, client, protocol })
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
        let mut post = Request::post(&self.url)
            .header(CONTENT_TYPE, version.content_type())
            .header(CONTENT_ENCODING, "snappy")
            .header(USER_AGENT, delivery::USER_AGENT)
            .header("X-Prometheus-Remote-Write-Version", version.header())
            .body(Full::new(body))?;
        post.headers_mut().extend(self.headers.clone());
        Ok(self.client.request(post).await?)
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
