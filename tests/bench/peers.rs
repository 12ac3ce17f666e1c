//! Other programs that do the same work, when they are on the PATH: the CRI heads, partial lines, metadata in every record,
//! positions on disk, and an acknowledgement for what was sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::http;
use crate::node::Node;
use crate::process::Process;
use crate::receiver::{Protocol, Receiver};
use crate::subject::{Agent, Compression, Subject};

/// A program with its settings.
#[derive(Clone)]
pub(crate) struct Peer {
    program: Program,
    path: PathBuf,
    /// How it compresses.
    pub(crate) compression: Compression,
    /// Whether it parses JSON: Fluent Bit's `Merge_Log`. vlagent always does, the Collector never.
    merge_log: bool,
    /// Fluent Bit's `Flush`: how long records wait for others.
    flush: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    FluentBit,
    Vlagent,
    Otelcol,
    Vector,
}

const PROGRAMS: [Program; 4] = [Program::FluentBit, Program::Vlagent, Program::Otelcol, Program::Vector];

/// The settings of every program that is found.
pub(crate) fn on_path() -> Vec<Peer> {
    let peers = PROGRAMS.into_iter().filter_map(|program| Some((program, find(program.name())?)));
    let settings = |(program, path): (Program, PathBuf)| {
        program.settings().iter().map(move |(compression, merge_log)| Peer {
            program,
            path: path.clone(),
            compression: *compression,
            merge_log: *merge_log,
            // So often that Mem_Buf_Limit does not slow it down.
            flush: "0.2",
        })
    };
    peers.flat_map(settings).collect()
}

/// The agent with some settings, then the first setting of every program that is found; of these, what has `only` in its
/// title. Fluent Bit's records wait for `flush` seconds.
pub(crate) fn beside(agents: Vec<(&str, Agent)>, flush: &'static str, only: &str) -> Vec<(String, Subject)> {
    let mut peers = on_path();
    peers.dedup_by_key(|peer| peer.program);
    let peers = peers.into_iter().map(|peer| (peer.title(), Subject::Peer(Peer { flush, ..peer })));
    let agents = agents.into_iter().map(|(title, agent)| (title.to_owned(), Subject::Agent(agent)));
    agents.chain(peers).filter(|(title, _)| title.contains(only)).collect()
}

/// Prints, for those that ran, the version and how the work differs from the agent's.
pub(crate) fn print_notes<'a>(subjects: impl Iterator<Item = &'a Subject>) {
    let mut peers: Vec<&Peer> = subjects
        .filter_map(|subject| if let Subject::Peer(peer) = subject { Some(peer) } else { None })
        .collect();
    peers.dedup_by_key(|peer| peer.program);
    for peer in peers {
        let output = Command::new(&peer.path).arg("--version").output();
        let version =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let version = version.lines().next().unwrap_or_default().trim();
        println!("\n{} ({version}): {}", peer.program.name(), peer.program.difference());
    }
}

/// The program of this name on the PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| path.is_file())
}

// === impl Program ===

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::FluentBit => "fluent-bit",
            Program::Vlagent => "vlagent",
            Program::Otelcol => "otelcol",
            Program::Vector => "vector",
        }
    }

    fn settings(self) -> &'static [(Compression, bool)] {
        match self {
            Program::FluentBit => {
                &[(Compression::None, false), (Compression::Gzip, false), (Compression::None, true)]
            }
            Program::Vlagent => &[(Compression::Zstd, true)],
            Program::Otelcol | Program::Vector => &[(Compression::None, false), (Compression::Gzip, false)],
        }
    }

    fn difference(self) -> &'static str {
        match self {
            Program::FluentBit => {
                "tail with multiline.parser cri and a position database, kubernetes filter with a pod API on loopback, \
                 forward with Require_ack_response; Mem_Buf_Limit 24M. Its acknowledgements move no position."
            }
            Program::Vlagent => {
                "Kubernetes collector with a pod API on loopback, its own protocol over HTTP, always zstd, always parses \
                 JSON: compare with `parse: json, zstd`. It has no Forward. Positions move when records are in its own \
                 queue, which may be on disk. Records are found again by their text, their metadata are not verified."
            }
            Program::Otelcol => {
                "filelog with the container operator and file_storage, OTLP over HTTP. Metadata are those of the path \
                 only, which is less work. It has no Forward. Records are found again by their text."
            }
            Program::Vector => {
                "file source with checkpoints, heads by a regex, partial lines by `reduce`, JSON lines over HTTP, \
                 acknowledged. Its own source for Kubernetes reads /var/log/pods and nothing else; so metadata are those of \
                 the path only, which is less work. It has no Forward. Records are found again by their text."
            }
        }
    }
}

// === impl Peer ===

impl Peer {
    /// What its row is called.
    pub(crate) fn title(&self) -> String {
        let mut title = self.program.name().to_owned();
        if self.merge_log && self.program == Program::FluentBit {
            title.push_str(", Merge_Log");
        }
        if self.compression != Compression::None {
            title = format!("{title}, {}", self.compression.name());
        }
        title
    }

    pub(crate) fn protocol(&self) -> Protocol {
        if self.program == Program::FluentBit { Protocol::Forward } else { Protocol::Http }
    }

    /// Starts it on a node's logs.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(&self, node: &Node, receiver: &Receiver) -> anyhow::Result<Process> {
        let data = tempfile::tempdir()?;
        let mut command = Command::new(&self.path);
        command.stdout(Stdio::null());
        match self.program {
            Program::FluentBit => {
                fs::write(data.path().join("token"), "bench")?;
                let file = data.path().join("fluent-bit.conf");
                fs::write(&file, self.fluent_bit(node, receiver, data.path())?)?;
                command.arg("-q").arg("-c").arg(file);
            }
            Program::Vlagent => {
                let file = data.path().join("kubeconfig");
                fs::write(&file, kubeconfig(node)?)?;
                command
                    .env("KUBECONFIG", file)
                    .args(["-kubernetesCollector", "-loggerLevel=ERROR", "-httpListenAddr=127.0.0.1:0"])
                    .arg("-remoteWrite.retryMaxTime=5s")
                    .arg(format!("-kubernetesCollector.logsPath={}/containers", node.path().display()))
                    .arg(format!("-tmpDataPath={}", data.path().display()))
                    .arg(format!("-remoteWrite.url=http://{}/insert/native", receiver.address()));
            }
            Program::Otelcol => {
                let file = data.path().join("otelcol.yaml");
                fs::write(&file, self.otelcol(node, receiver, data.path()))?;
                command.arg("--config").arg(file);
            }
            Program::Vector => {
                let file = data.path().join("vector.yaml");
                fs::write(&file, self.vector(node, receiver, data.path()))?;
                command.arg("--quiet").arg("--config").arg(file);
            }
        }
        Process::start(&mut command, data)
    }

    fn fluent_bit(&self, node: &Node, receiver: &Receiver, data: &Path) -> anyhow::Result<String> {
        let links = node.path().join("containers").display().to_string();
        let on = |on| if on { "On" } else { "Off" };
        let compress = if self.compression == Compression::Gzip { "    Compress gzip\n" } else { "" };
        Ok(format!(
            "[SERVICE]\n    Flush {flush}\n    Log_Level error\n    scheduler.base 1\n    scheduler.cap 5\n\
             [INPUT]\n    Name tail\n    Path {links}/*.log\n    Tag kube.*\n    multiline.parser cri\n    \
             Read_from_Head On\n    Refresh_Interval 1\n    DB {data}/tail.db\n    Mem_Buf_Limit 24M\n\
             [FILTER]\n    Name kubernetes\n    Match kube.*\n    Kube_URL http://{api}\n    Kube_Token_File {data}/token\n    \
             Kube_Tag_Prefix kube.{prefix}.\n    Merge_Log {merge_log}\n    Keep_Log {keep_log}\n\
             [OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {port}\n    \
             Require_ack_response On\n    Retry_Limit no_limits\n{compress}",
            flush = self.flush,
            data = data.display(),
            api = http::serve_api(node)?,
            prefix = links.trim_start_matches('/').replace('/', "."),
            merge_log = on(self.merge_log),
            keep_log = on(!self.merge_log),
            port = receiver.address().port(),
        ))
    }

    fn otelcol(&self, node: &Node, receiver: &Receiver, data: &Path) -> String {
        format!(
            "extensions:\n  file_storage: {{ directory: {data} }}\n\
             receivers:\n  filelog:\n    include: ['{directory}/pods/*/*/*.log']\n    start_at: beginning\n    \
             include_file_path: true\n    storage: file_storage\n    operators: [{{ type: container }}]\n\
             exporters:\n  otlphttp:\n    logs_endpoint: http://{address}/v1/logs\n    compression: {compression}\n    \
             sending_queue: {{ block_on_overflow: true }}\n    retry_on_failure: {{ max_elapsed_time: 0s }}\n\
             service:\n  extensions: [file_storage]\n  telemetry: {{ metrics: {{ level: none }}, logs: {{ level: error }} }}\n  \
             pipelines:\n    logs: {{ receivers: [filelog], exporters: [otlphttp] }}\n",
            data = data.display(),
            directory = node.path().display(),
            address = receiver.address(),
            compression = self.compression.name(),
        )
    }

    fn vector(&self, node: &Node, receiver: &Receiver, data: &Path) -> String {
        format!(
            "data_dir: {data}\n\
             sources:\n  files:\n    type: file\n    include: ['{directory}/pods/*/*/*.log']\n    read_from: beginning\n    \
             glob_minimum_cooldown_ms: 1000\n\
             transforms:\n  \
             heads: {{ type: remap, inputs: [files], source: {VECTOR_FIELDS:?} }}\n  \
             records:\n    type: reduce\n    inputs: [heads]\n    group_by: [file, stream]\n    ends_when: .tag == \"F\"\n    \
             merge_strategies: {{ log: concat_raw }}\n\
             sinks:\n  out:\n    type: http\n    inputs: [records]\n    uri: http://{address}/\n    compression: {compression}\n    \
             encoding: {{ codec: json }}\n    framing: {{ method: newline_delimited }}\n    \
             acknowledgements: {{ enabled: true }}\n    healthcheck: {{ enabled: false }}\n",
            data = data.display(),
            directory = node.path().display(),
            address = receiver.address(),
            compression = self.compression.name(),
        )
    }
}

/// Head and path into fields, as Vector's remap language has it.
const VECTOR_FIELDS: &str = concat!(
    r". |= parse_regex!(.message, r'^(?P<time>\S+) (?P<stream>\S+) (?P<tag>[FP]) (?P<log>.*)$')",
    "; del(.message); ",
    r".kubernetes = parse_regex!(.file, r'/(?P<namespace_name>[^_/]+)_(?P<pod_name>[^_/]+)_(?P<pod_id>[^/]+)/(?P<container_name>[^/]+)/[^/]+$')",
);

fn kubeconfig(node: &Node) -> anyhow::Result<String> {
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters: [{{ name: bench, cluster: {{ server: 'http://{}' }} }}]\n\
         users: [{{ name: bench, user: {{}} }}]\n\
         contexts: [{{ name: bench, context: {{ cluster: bench, user: bench }} }}]\n",
        http::serve_api(node)?
    ))
}
