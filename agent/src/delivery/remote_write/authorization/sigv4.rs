//! AWS Signature Version 4, for Amazon's Prometheus. The key is the config's, else what AWS's own programs find first: the
//! environment, the service account's web identity, the container's role, a profile, the machine's role. It is one of them and
//! stays it: with the next best, another role would sign, and its requests would be refused for good.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Request, Response, Uri};
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential,
    ECSCredentialProvider, EnvCredentialProvider, IMDSv2CredentialProvider, ProfileCredentialProvider,
    RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{Context, Env, Error, FileRead, HttpSend, ProvideCredentialDyn, Result, Signer};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::config::{self, Tls};
use crate::delivery::http::{HttpClient, Proxy};
use crate::delivery::secret::Secret;

/// What Amazon's Prometheus is called in a signature.
const SERVICE: &str = "aps";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// Of an answer with a key.
const MAX_ANSWER: usize = 1 << 20;
/// For a key.
const PATIENCE: Duration = Duration::from_secs(10);
/// A key that is refused is looked for anew no more often than that: mostly it is right, and may not.
const RENEWAL: Duration = Duration::from_secs(60);

/// Who signs.
pub(in crate::delivery::remote_write) struct SigV4 {
    config: config::SigV4,
    proxy: Option<Proxy>,
    /// With the key, and when that was last looked for anew.
    signer: Mutex<(Signer<Credential>, Option<Instant>)>,
}

/// Where a key is had.
type Keys = Arc<dyn ProvideCredentialDyn<Credential = Credential>>;

/// The process's environment; what is no UTF-8 there is not there.
#[derive(Debug)]
struct Environment;

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
        let proxy = Proxy::of(proxy_url)?;
        let signer = Mutex::new((signer(config, proxy.clone()), None));
        Ok(SigV4 { config: config.clone(), proxy, signer })
    }

    /// Signs a request with the headers that it has. What a proxy may change is better added later.
    pub(super) async fn sign(&self, head: &mut Parts, body: &Bytes) -> anyhow::Result<()> {
        let digest = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        head.headers.insert(CONTENT_SHA256, HeaderValue::try_from(digest)?);
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let signed = timeout(PATIENCE, signer.sign(head, None)).await;
        Ok(signed.with_context(|| format!("no key within {} s", PATIENCE.as_secs()))??)
    }

    /// The key is not accepted: it may have been replaced in its file. Whether it is looked for anew.
    pub(super) fn renew(&self) -> bool {
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        if signer.1.is_some_and(|renewed| renewed.elapsed() < RENEWAL) {
            return false;
        }
        *signer = (self::signer(&self.config, self.proxy.clone()), Some(Instant::now()));
        true
    }
}

fn signer(config: &config::SigV4, proxy: Option<Proxy>) -> Signer<Credential> {
    let context =
        Context::new().with_file_read(Files).with_http_send(Servers { proxy }).with_env(Environment);
    let keys = keys(config);
    let signer = RequestSigner::new(SERVICE, &config.region);
    if config.role_arn.is_empty() {
        return Signer::new(context, keys, signer);
    }
    let of_role = Signer::new(context.clone(), keys, RequestSigner::new("sts", &config.region));
    let keys = AssumeRoleCredentialProvider::new(config.role_arn.clone(), of_role);
    let keys = keys.with_region(config.region.clone()).with_regional_sts_endpoint();
    Signer::new(context, keys, signer)
}

fn keys(config: &config::SigV4) -> Keys {
    let has = |name: &str| Environment.var(name).is_some_and(|value| !value.is_empty());
    if let Some(key) = &config.secret_key {
        return Arc::new(StaticCredentialProvider::new(&config.access_key, key.reveal()));
    }
    if !config.profile.is_empty() {
        return Arc::new(ProfileCredentialProvider::new().with_profile(&config.profile));
    }
    if has("AWS_ACCESS_KEY_ID") {
        return Arc::new(EnvCredentialProvider::new());
    }
    if has("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let web_identity = AssumeRoleWithWebIdentityCredentialProvider::new();
        return Arc::new(web_identity.with_region(config.region.clone()).with_regional_sts_endpoint());
    }
    if has("AWS_CONTAINER_CREDENTIALS_FULL_URI") || has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Arc::new(ECSCredentialProvider::new());
    }
    let is_at_home =
        |file: &str| Environment.home_dir().is_some_and(|home| home.join(".aws").join(file).exists());
    if is_at_home("credentials")
        || is_at_home("config")
        || has("AWS_PROFILE")
        || has("AWS_SHARED_CREDENTIALS_FILE")
        || has("AWS_CONFIG_FILE")
    {
        return Arc::new(ProfileCredentialProvider::new());
    }
    Arc::new(IMDSv2CredentialProvider::new())
}

// === impl Environment ===

impl Env for Environment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var_os(name)?.into_string().ok()
    }

    fn vars(&self) -> HashMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
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
