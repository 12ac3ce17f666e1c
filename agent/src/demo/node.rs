//! The embedded node: a log directory as the kubelet keeps it, and four pods that write into it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sidelight_runtime::admin::{Handle, Response, Server};
use sidelight_runtime::process;

use crate::logs::layout::pod_directory;
use crate::logs::split::Time;

/// containerd's `max_container_log_line_size`: longer lines are cut into partial ones.
const MAX_LINE: usize = 16 << 10;
/// A small `containerLogMaxSize`, so that the demo shows rotation.
const ROTATE_AT: u64 = 256 << 10;
/// `containerLogMaxFiles`.
const MAX_FILES: usize = 5;

/// What each pod counts on its page.
pub(super) const LINES_WRITTEN: &str = "demo_lines_written_total";

/// One pod: namespace, Deployment, container, and how it writes.
struct PodKind {
    namespace: &'static str,
    owner: &'static str,
    container: &'static str,
    pause: Duration,
    lines: fn(&str, u64) -> (&'static str, Vec<String>),
}

const PODS: [PodKind; 4] = [
    PodKind {
        namespace: "shop",
        owner: "checkout",
        container: "api",
        pause: Duration::from_millis(4),
        lines: tracing_json,
    },
    PodKind {
        namespace: "shop",
        owner: "cart",
        container: "web",
        pause: Duration::from_millis(7),
        lines: tracing_text,
    },
    PodKind {
        namespace: "payments",
        owner: "ledger",
        container: "worker",
        pause: Duration::from_millis(900),
        lines: panics,
    },
    PodKind {
        namespace: "batch",
        owner: "report",
        container: "export",
        pause: Duration::from_millis(150),
        lines: long_lines,
    },
];

/// The node's directory; it goes when this does.
pub(super) struct Node {
    directory: PathBuf,
    /// Lines that each pod has written, by owner.
    lines: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Serves the pages of all pods.
    _exporter: Handle,
}

/// The pods while they write.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    expected: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

// === impl Node ===

impl Node {
    pub(super) fn create() -> io::Result<Self> {
        let name = format!("sidelight-demo-{}-{}", std::process::id(), now().nanos);
        let directory = std::env::temp_dir().join(name);
        // Ours alone, and new: what stands there already is somebody else's.
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        fs::create_dir(directory.join("pods"))?;
        let lines = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let exporter = Server::bind("127.0.0.1:0")?;
        let port = exporter.local_addr()?.port();
        let counted = lines.clone();
        let exporter = exporter.spawn("exporter", Arc::new(move |request| page(&request.path, &counted)))?;
        let items: Vec<_> = PODS.iter().map(|kind| pod(kind, port)).collect();
        fs::write(
            directory.join("pods.json"),
            serde_json::to_vec(&json!({"kind": "List", "items": items}))?,
        )?;
        Ok(Node { directory, lines, _exporter: exporter })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration for this node, as an operator would write it.
    pub(super) fn config(&self, receiver: SocketAddr, samples: &str) -> String {
        let directory = self.directory.display();
        format!(
            "node: demo-node\ndata_dir: '{directory}/data'\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
             kubernetes: {{ source: file, file: '{directory}/pods.json' }}\n\
             logs:\n  root: '{directory}/pods'\n  parse: auto\n  outputs:\n  - forward:\n      upstreams: ['{receiver}']\n      flush_interval: 200ms\n\
             metrics:\n  interval: 1s\n  timeout: 1s\n  outputs:\n  - remote_write: {{ url: '{samples}', flush_interval: 200ms }}\n"
        )
    }

    /// Starts the pods.
    pub(super) fn start(&self) -> Writers {
        let (stop, written, expected) = (Arc::default(), Arc::default(), self.lines.clone());
        let threads = PODS.iter().map(|kind| {
            let directory = self
                .directory
                .join("pods")
                .join(pod_directory(kind.namespace, &pod_name(kind), &uid(kind)))
                .join(kind.container);
            let (stop, written, expected) = (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&expected));
            std::thread::spawn(move || write(kind, &directory, &stop, &written, &expected))
        });
        let threads = threads.collect();
        Writers { stop, written, expected, threads }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

// === impl Writers ===

impl Writers {
    /// Lines written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the pods and says how many lines each has written.
    ///
    /// # Errors
    /// When one of them could not write.
    pub(super) fn stop(self) -> io::Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a pod panicked")))?;
        }
        Ok(self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn pod_name(kind: &PodKind) -> String {
    format!("{}-5d4f7c9b8-x7k2p", kind.owner)
}

fn uid(kind: &PodKind) -> String {
    let number = PODS.iter().position(|other| other.owner == kind.owner).unwrap_or_default();
    format!("6f1d2c3b-0000-4000-8000-{number:012}")
}

/// The page of the pod whose path this is.
fn page(path: &str, lines: &Mutex<BTreeMap<String, u64>>) -> Response {
    let lines =
        lines.lock().unwrap_or_else(PoisonError::into_inner).get(path.trim_start_matches('/')).copied();
    let page = format!(
        "# HELP {LINES_WRITTEN} Lines that the pod has written.\n# TYPE {LINES_WRITTEN} counter\n{LINES_WRITTEN} {}\n",
        lines.unwrap_or(0)
    );
    Response::new(process::CONTENT_TYPE, page)
}

fn pod(kind: &PodKind, port: u16) -> serde_json::Value {
    json!({
           "metadata": {
               "name": pod_name(kind), "namespace": kind.namespace, "uid": uid(kind),
               "annotations": { "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": port.to_string(), "sidelight.dev/metrics.path": format!("/{}", kind.owner) },
               "labels": { "app.kubernetes.io/name": kind.owner, "pod-template-hash": "5d4f7c9b8" },
               "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{}-5d4f7c9b8", kind.owner), "uid": "r", "controller": true }],
           },
           "spec": { "nodeName": "demo-node", "containers": [{ "name": kind.container, "image": format!("registry.example/{}:1.4.2", kind.owner) }] },
    "status": { "phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [{ "name": kind.container, "containerID": "containerd://3f1c", "imageID": "sha256:9a", "restartCount": 0 }] },
       })
}

fn write(
    kind: &PodKind,
    directory: &Path,
    stop: &AtomicBool,
    written: &AtomicU64,
    expected: &Mutex<BTreeMap<String, u64>>,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join("0.log");
    let mut file = File::options().create(true).append(true).open(&path)?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (stream, lines) = (kind.lines)(kind.owner, number);
        lines.iter().try_for_each(|line| write_cri(&mut file, stream, line))?;
        written.fetch_add(1, Ordering::Relaxed);
        expected.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.owner.to_owned(), number + 1);
        if file.metadata()?.len() >= ROTATE_AT {
            file = rotate(directory, &path)?;
        }
        std::thread::sleep(kind.pause);
    }
    Ok(())
}

/// As containerd writes a line: cut at 16 KiB, each piece with its own head.
fn write_cri(file: &mut File, stream: &str, line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    loop {
        let (piece, after) = rest.split_at(rest.len().min(MAX_LINE));
        let tag = if after.is_empty() { 'F' } else { 'P' };
        let mut bytes = format!("{} {stream} {tag} ", now()).into_bytes();
        bytes.extend_from_slice(piece);
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        if after.is_empty() {
            return Ok(());
        }
        rest = after;
    }
}

/// As the kubelet rotates: rename, new file, the oldest deleted.
fn rotate(directory: &Path, path: &Path) -> io::Result<File> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    fs::rename(path, directory.join(format!("0.log.{}-{:06}", stamp.as_secs(), stamp.subsec_micros())))?;
    let mut rotated: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    rotated.sort();
    for oldest in rotated.iter().take(rotated.len().saturating_sub(MAX_FILES - 1)) {
        fs::remove_file(oldest)?;
    }
    File::options().create(true).append(true).open(path)
}

fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(now.as_secs()).unwrap_or_default(), nanos: now.subsec_nanos() }
}

/// tracing-subscriber's JSON.
fn tracing_json(writer: &str, number: u64) -> (&'static str, Vec<String>) {
    let level = if number % 50 == 49 { "WARN" } else { "INFO" };
    let line = format!(
        r#"{{"timestamp":"{}","level":"{level}","fields":{{"message":"order placed","seq":"{writer}:{number}","order_id":{},"total":{}.5}},"target":"checkout::orders","span":{{"name":"request","method":"POST"}},"spans":[{{"name":"request","method":"POST"}}]}}"#,
        now(),
        7000 + number,
        number % 90,
    );
    ("stdout", vec![line])
}

/// tracing-subscriber's text, in colours.
fn tracing_text(writer: &str, number: u64) -> (&'static str, Vec<String>) {
    let line = format!(
        "\u{1b}[2m{}\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m \u{1b}[1mrequest\u{1b}[0m\u{1b}[1m{{\u{1b}[0m\u{1b}[3mmethod\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"GET\"\u{1b}[1m}}\u{1b}[0m\u{1b}[2m:\u{1b}[0m \u{1b}[2mcart::http\u{1b}[0m\u{1b}[2m:\u{1b}[0m served seq={writer}:{number} \u{1b}[3mstatus\u{1b}[0m\u{1b}[2m=\u{1b}[0m200",
        now()
    );
    ("stdout", vec![line])
}

/// A panic with its backtrace.
fn panics(writer: &str, number: u64) -> (&'static str, Vec<String>) {
    let lines = [
        "thread 'worker' (4211) panicked at src/ledger.rs:88:17:".to_owned(),
        format!("balance would be negative seq={writer}:{number}"),
        "stack backtrace:".to_owned(),
        "   0: rust_begin_unwind".to_owned(),
        "             at /rustc/library/std/src/panicking.rs:697:5".to_owned(),
        "   1: ledger::apply".to_owned(),
        "             at ./src/ledger.rs:88:17".to_owned(),
        "note: run with `RUST_BACKTRACE=full` for a verbose backtrace.".to_owned(),
    ];
    ("stderr", lines.to_vec())
}

/// Lines of 40 KiB, which the runtime cuts into three.
fn long_lines(writer: &str, number: u64) -> (&'static str, Vec<String>) {
    ("stdout", vec![format!("seq={writer}:{number} row {}", "0123456789abcdef".repeat(2560))])
}
