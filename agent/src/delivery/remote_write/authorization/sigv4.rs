//! AWS Signature Version 4, for Amazon's Prometheus. The key is the config's, else what AWS's own programs find: the
//! environment, a profile, the service account's web identity, the container's or the machine's role.

use std::fmt;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner,
    StaticCredentialProvider,
};
use reqsign_core::{Context, Error, FileRead, HttpSend, OsEnv, Result, Signer};
use sha2::{Digest, Sha256};

use crate::config::{self, Tls};
use crate::delivery::http::{HttpClient, Proxy};
use crate::delivery::secret::Secret;

/// What Amazon's Prometheus is called in a signature.
const SERVICE: &str = "aps";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// Of an answer with a key.
const MAX_ANSWER: usize = 1 << 20;

/// Who signs.
pub(in crate::delivery::remote_write) struct SigV4(Signer<Credential>);

/// Reads files of the system, for keys that are in files.
#[derive(Debug)]
struct Files;

/// Asks the servers of AWS for keys that last an hour.
struct Servers {
    proxy: Option<Proxy>,
}

// === impl SigV4 ===

impl SigV4 {
    pub(super) fn new(config: &config::SigV4, proxy_url: Option<&Secret>) -> anyhow::Result<Self> {
        let proxy =
            proxy_url.map(|url| Proxy::parse(url.reveal())).transpose().map_err(anyhow::Error::msg)?;
        let context = Context::new().with_file_read(Files).with_http_send(Servers { proxy }).with_env(OsEnv);
        let mut keys = match config.profile.as_str() {
            "" => DefaultCredentialProvider::new(),
            profile => DefaultCredentialProvider::builder().with_profile(profile).build(),
        };
        if let Some(key) = &config.secret_key {
            keys = keys.push_front(StaticCredentialProvider::new(&config.access_key, key.reveal()));
        }
        let signer = RequestSigner::new(SERVICE, &config.region);
        if config.role_arn.is_empty() {
            return Ok(SigV4(Signer::new(context, keys, signer)));
        }
        let of_role = RequestSigner::new("sts", &config.region);
        let of_role = Signer::new(context.clone(), keys, of_role);
        let keys = AssumeRoleCredentialProvider::new(config.role_arn.clone(), of_role);
        let keys = keys.with_region(config.region.clone()).with_regional_sts_endpoint();
        Ok(SigV4(Signer::new(context, keys, signer)))
    }

    /// Signs a request with the headers that it has. What a proxy may change is better added later.
    pub(super) async fn sign(&self, head: &mut Parts, body: &Bytes) -> anyhow::Result<()> {
        let digest = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        head.headers.insert(CONTENT_SHA256, HeaderValue::try_from(digest)?);
        Ok(self.0.sign(head, None).await?)
    }
}

// === impl Files ===

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        std::fs::read(path).map_err(|error| Error::unexpected(format!("cannot read {path}: {error}")))
    }
}

// === impl Servers ===

impl HttpSend for Servers {
    async fn http_send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let error = |error: &dyn fmt::Display| Error::unexpected(format!("no answer from AWS: {error}"));
        let url: &Uri = request.uri();
        // Roles of the container and the machine are asked for on the link itself, over http.
        let proxy = self.proxy.clone().filter(|_| url.scheme_str() == Some("https"));
        let client = HttpClient::new(url, &Tls::default(), proxy).map_err(|cause| error(&cause))?;
        let response =
            client.send(request.map(Full::from)).await.map_err(|cause| error(&format!("{cause:#}")))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|cause| error(&cause))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers")
    }
}
