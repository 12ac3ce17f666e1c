//! The configuration: read, validated as a whole, and from then on taken as right by every part.

mod memory;
mod metrics;
pub mod mistakes;
mod read;
pub mod section;
mod sidecar;
pub mod variables;

pub use metrics::{
    BasicAuth, Kubelet, MetricOutput, MetricSelect, Metrics, Normalize, OAuth2, Protocol, Pull, PullAuth,
    PullTls, RemoteWrite, SigV4,
};
pub use sidecar::{FileGlob, KnownContainer, KnownPod, KnownPort};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use sidelight_contract::annotations::{Allow, Multiline, Parse};
use sidelight_contract::glob::GlobList;

use crate::config::mistakes::Purpose;
use crate::config::section::{format_duration, format_size};
use crate::config::variables::Environment;
use crate::delivery::chunk::Compression;
use crate::delivery::secret::Secret;
use crate::logs::rules::{DropRule, LabelSelector};

/// A valid configuration. Sizes are bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// Checkpoints and what Kubernetes said, kept over restarts.
    pub data_dir: PathBuf,
    /// Payload in memory, all outputs together.
    #[serde(serialize_with = "size")]
    pub memory_budget: u64,
    /// Reader threads.
    pub workers: usize,
    /// The two admin listeners.
    pub admin: Admin,
    /// Where pod metadata comes from.
    pub kubernetes: Kubernetes,
    /// What pods may say about themselves.
    pub annotations: Annotations,
    /// The way of a log line.
    pub logs: Logs,
    /// The way of a sample.
    pub metrics: Metrics,
    /// Whether it is for one pod, from inside.
    #[serde(skip)]
    pub sidecar: bool,
    /// Files that secrets and certificates were read from; watched for changes.
    #[serde(skip)]
    pub watched_files: Vec<PathBuf>,
}

/// The two admin listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// `/metrics`, `/livez`, `/readyz`.
    pub listen: String,
    /// Status API and page.
    pub api: String,
}

/// Where pod metadata comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Kubernetes {
    /// The source.
    pub source: MetadataSource,
    /// `source: file`: a v1 List of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How long a file is held back for its pod's labels.
    #[serde(serialize_with = "duration")]
    pub metadata_wait: Duration,
    /// In a sidecar: what the injector knew of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<KnownPod>,
}

/// Where pod metadata comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataSource {
    /// The API server.
    Cluster,
    /// A file.
    File,
    /// Only what the path says.
    None,
}

/// What pods may say about themselves.
#[derive(Clone, Debug, Serialize)]
pub struct Annotations {
    /// Which of our annotations pods may use.
    #[serde(serialize_with = "allow")]
    pub allow: Allow,
    /// There, pods cannot leave themselves out.
    #[serde(serialize_with = "globs")]
    pub mandatory_namespaces: GlobList,
    /// Whether the exclude marks of Fluent Bit and Vector count.
    pub honour_others: bool,
}

/// The way of a log line.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct Logs {
    pub select: Select,
    #[serde(serialize_with = "globs")]
    pub namespaces: GlobList,
    #[serde(skip_serializing_if = "is_unset")]
    pub root: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileGlob>,
    pub read_from: ReadFrom,
    #[serde(serialize_with = "size")]
    pub max_record: u64,
    #[serde(serialize_with = "size")]
    pub held_deleted: u64,
    pub kubelet: KubeletRotation,
    #[serde(serialize_with = "display")]
    pub parse: Parse,
    pub parse_into: String,
    pub keep_log: bool,
    #[serde(serialize_with = "display")]
    pub multiline: Multiline,
    pub labels: Labels,
    pub labels_dedot: bool,
    pub annotations: Vec<String>,
    pub namespace_labels: bool,
    pub add: BTreeMap<String, serde_json::Value>,
    pub redact: Vec<String>,
    pub drop: Vec<DropRule>,
    pub rate: Rate,
    pub events: bool,
    pub outputs: Vec<Output>,
    /// Top-level keys that records have for themselves, those of `add` among them.
    #[serde(skip)]
    pub taken_keys: Vec<String>,
}

/// Which containers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// All but those that opt out.
    All,
    /// Those that opt in.
    Annotated,
}

/// Where an output's first start begins in the files that exist then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    /// At their first byte.
    Beginning,
    /// At their end.
    End,
    /// At records that are younger than this.
    #[serde(serialize_with = "duration", untagged)]
    Since(Duration),
}

/// The kubelet's rotation, for the retention metric.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KubeletRotation {
    /// `containerLogMaxSize`.
    #[serde(serialize_with = "size")]
    pub max_size: u64,
    /// `containerLogMaxFiles`.
    pub max_files: u64,
}

/// Which pod labels are copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Labels {
    /// All of them, or none.
    Every(bool),
    /// These.
    Named(Vec<String>),
}

/// Records a second by record time; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rate {
    /// For each container.
    pub container: u64,
    /// For each namespace on this node.
    pub namespace: u64,
}

/// One output.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// Unique; checkpoints are kept by it.
    pub name: String,
    /// What this output gets.
    #[serde(rename = "match")]
    pub matching: Match,
    /// The receiver.
    #[serde(flatten)]
    pub kind: OutputKind,
}

/// What an output gets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Match {
    /// Namespaces.
    #[serde(serialize_with = "globs")]
    pub namespaces: GlobList,
    /// A label selector as kubectl takes it.
    #[serde(serialize_with = "display")]
    pub labels: LabelSelector,
}

/// The kinds of receivers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// A Fluentd Forward receiver.
    Forward(Box<Forward>),
    /// Standard output, one JSON object a line.
    Stdout(Stdout),
}

/// Standard output, one JSON object a line.
#[derive(Clone, Debug, Serialize)]
pub struct Stdout {}

/// A Fluentd Forward receiver.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct Forward {
    pub upstreams: Vec<Upstream>,
    pub tag: String,
    pub ack: bool,
    #[serde(serialize_with = "duration")]
    pub ack_timeout: Duration,
    #[serde(serialize_with = "display")]
    pub compress: Compression,
    #[serde(skip)]
    pub shared_key: Option<Secret>,
    pub username: String,
    #[serde(skip)]
    pub password: Option<Secret>,
    pub tls: Tls,
    #[serde(serialize_with = "duration")]
    pub flush_interval: Duration,
    #[serde(serialize_with = "size")]
    pub chunk_bytes: u64,
}

/// One receiver of an output.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Upstream {
    /// `host:port`, IPv6 in brackets.
    pub address: String,
    /// Its share among its equals.
    pub weight: u32,
    /// Only used while all others are away.
    pub standby: bool,
}

/// TLS towards a receiver; empty file names are unset.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the keys of the contract, described in README.md")]
pub struct Tls {
    pub enabled: bool,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub server_name: Option<String>,
}

// === impl Config ===

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn load(path: &Path, environment: Environment<'_>) -> Result<Self, Vec<String>> {
        Self::parse(&text_of(path)?, environment)
    }

    /// Validates a config's text.
    ///
    /// # Errors
    /// All mistakes, one line each, with the path of the key and what is allowed there.
    pub fn parse(text: &str, environment: Environment<'_>) -> Result<Self, Vec<String>> {
        read::config(text, environment, Purpose::Node).map(|(config, _)| config)
    }

    /// One output's share of the memory budget, in bytes.
    pub fn share(&self) -> u64 {
        self.memory_budget / (self.logs.outputs.len() as u64).max(1)
    }
}

/// The text of a config file.
///
/// # Errors
/// Why it cannot be read.
pub fn text_of(path: &Path) -> Result<String, Vec<String>> {
    std::fs::read_to_string(path).map_err(|error| vec![format!("cannot read {}: {error}", path.display())])
}

/// Bytes that a reader takes from a file at once. Large enough that the system call does not count beside the work
/// on its lines, small enough to stay in a second-level cache.
pub const READ_WINDOW: usize = 256 << 10;

impl Match {
    /// Whether a pod of this namespace, with these labels, is what the output gets.
    pub fn takes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.matches(namespace) && self.labels.matches(labels)
    }
}

impl Output {
    /// How often a reader closes this output's half-full chunk.
    pub fn flush_interval(&self) -> Duration {
        match &self.kind {
            OutputKind::Forward(forward) => forward.flush_interval,
            OutputKind::Stdout(_) => Duration::from_millis(200),
        }
    }

    /// Bytes of entries at which a chunk is closed.
    pub fn chunk_bytes(&self) -> usize {
        match &self.kind {
            OutputKind::Forward(forward) => usize::try_from(forward.chunk_bytes).unwrap_or(usize::MAX),
            OutputKind::Stdout(_) => 64 << 10,
        }
    }

    /// How its chunks are compressed.
    pub fn compression(&self) -> Compression {
        match &self.kind {
            OutputKind::Forward(forward) => forward.compress,
            OutputKind::Stdout(_) => Compression::None,
        }
    }

    /// `forward` or `stdout`.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            OutputKind::Forward(_) => "forward",
            OutputKind::Stdout(_) => "stdout",
        }
    }
}

fn is_unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn size<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_size(*bytes))
}

fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn globs<S: Serializer>(globs: &GlobList, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(globs.rules())
}

fn allow<S: Serializer>(allow: &Allow, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(allow.rules())
}
