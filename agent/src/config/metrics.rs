//! `metrics`: what is scraped, and where its samples go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sidelight_contract::glob::GlobList;

use super::{Match, Tls, duration, globs, size};
use crate::delivery::secret::Secret;
use crate::metrics::relabel::Rule;

/// The way of a sample.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct Metrics {
    pub select: MetricSelect,
    pub prometheus_io: bool,
    #[serde(serialize_with = "globs")]
    pub namespaces: GlobList,
    #[serde(serialize_with = "duration")]
    pub interval: Duration,
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    pub job: String,
    pub labels: Vec<String>,
    #[serde(serialize_with = "size")]
    pub body_limit: u64,
    pub series_limit: u64,
    #[serde(serialize_with = "percent")]
    pub series_limit_namespace: u64,
    pub series_limit_total: u64,
    #[serde(serialize_with = "globs")]
    pub honor_labels_namespaces: GlobList,
    pub relabel: Vec<Rule>,
    pub normalize: Normalize,
    pub native_histograms: bool,
    pub containers: bool,
    pub kubelet: Kubelet,
    pub external_labels: BTreeMap<String, String>,
    pub pull: Pull,
    pub outputs: Vec<MetricOutput>,
}

/// Where samples go.
#[derive(Clone, Debug, Serialize)]
pub struct MetricOutput {
    /// Unique.
    pub name: String,
    /// What this output gets.
    #[serde(rename = "match")]
    pub matching: Match,
    /// The receiver.
    pub remote_write: RemoteWrite,
}

/// A receiver of Prometheus's remote write.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct RemoteWrite {
    pub url: String,
    pub protocol: Protocol,
    #[serde(serialize_with = "names")]
    pub headers: BTreeMap<String, Secret>,
    pub basic_auth: Option<BasicAuth>,
    #[serde(skip)]
    pub bearer_token: Option<Secret>,
    pub oauth2: Option<OAuth2>,
    pub sigv4: Option<SigV4>,
    #[serde(skip)]
    pub proxy_url: Option<Secret>,
    pub tls: Tls,
    pub relabel: Vec<Rule>,
    #[serde(serialize_with = "duration")]
    pub flush_interval: Duration,
    #[serde(serialize_with = "size")]
    pub spool: u64,
}

/// Whether dialects are given one set of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Names stay as they are.
    None,
    /// Those of Rust's web frameworks.
    Rust,
}

/// Which pages of the kubelet are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kubelet {
    /// None.
    None,
    /// Processor time and memory of containers, pods and the node.
    Resource,
    /// All that cAdvisor knows of the node's control groups.
    Cadvisor,
    /// Both.
    All,
}

/// Scraping by others.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct Pull {
    /// Empty: nobody can scrape.
    pub listen: String,
    pub auth: PullAuth,
    pub tls: Option<PullTls>,
}

/// Who may scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullAuth {
    /// Everybody.
    None,
    /// Who has a token of Kubernetes.
    Token,
    /// Who has a certificate.
    Mtls,
}

/// TLS of the server.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct PullTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub client_ca_file: Option<PathBuf>,
}

/// The version of remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// 2.0, and 1.0 with a receiver that does not know it.
    #[serde(rename = "auto")]
    Auto,
    /// 1.0
    #[serde(rename = "1.0")]
    V1,
    /// 2.0
    #[serde(rename = "2.0")]
    V2,
}

/// A user and its password.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct BasicAuth {
    pub username: String,
    #[serde(skip)]
    pub password: Option<Secret>,
}

/// Where a token is had, by OAuth 2.0's client credentials.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct OAuth2 {
    pub client_id: String,
    #[serde(skip)]
    pub client_secret: Option<Secret>,
    pub token_url: String,
    pub scopes: Vec<String>,
    #[serde(serialize_with = "names")]
    pub endpoint_params: BTreeMap<String, Secret>,
    #[serde(skip)]
    pub proxy_url: Option<Secret>,
    pub tls: Tls,
}

/// Who signs a request to AWS; without a key, what AWS's own programs find.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct SigV4 {
    pub region: String,
    pub access_key: String,
    #[serde(skip)]
    pub secret_key: Option<Secret>,
    pub profile: String,
    pub role_arn: String,
}

/// Which pods are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricSelect {
    /// Those that ask for it.
    Annotated,
    /// None.
    None,
}

fn percent<S: Serializer>(share: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{share}%"))
}

/// What a header says may be a secret.
fn names<S: Serializer>(headers: &BTreeMap<String, Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.keys())
}
