//! A node's log directory, written as containerd and the kubelet do.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// containerd's `max_container_log_line_size`.
pub const MAX_LINE: usize = 16 << 10;

/// The node: a temporary directory with `pods/` and whatever a test puts beside it.
pub struct Node {
    directory: tempfile::TempDir,
}

/// One container's log.
pub struct Log {
    /// Its directory.
    pub directory: PathBuf,
    file: File,
    restarts: u32,
    rotations: u32,
    nanos: u64,
    /// Written lines so far: the sequence number of the next.
    pub next: u64,
    /// What sequence numbers begin with.
    pub writer: String,
    /// Bytes written so far, in all files.
    written: u64,
    /// How many there were before each numbered line.
    starts: Vec<u64>,
}

// === impl Node ===

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// An empty node.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("pods")).unwrap();
        Node { directory }
    }

    /// The temporary directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The files in the checkpoint that an agent with its data here has left; in the one before, while it renames them.
    pub fn saved_files(&self) -> Vec<Value> {
        let read = |name: &str| fs::read_to_string(self.path().join("data").join(name)).ok();
        let text = read("checkpoints").or_else(|| read("checkpoints.previous")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["first_line"].is_string()).collect()
    }

    /// Starts a container: namespace `ns`, container `app`, UID `uid-POD`.
    pub fn container(&self, pod: &str) -> Log {
        self.container_in("ns", pod)
    }

    /// Starts a container of another namespace.
    pub fn container_in(&self, namespace: &str, pod: &str) -> Log {
        let directory = self.path().join("pods").join(format!("{namespace}_{pod}_uid-{pod}")).join("app");
        fs::create_dir_all(&directory).unwrap();
        let file = append(&directory.join("0.log"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Log {
            directory,
            file,
            restarts: 0,
            rotations: 0,
            nanos: now.as_nanos() as u64,
            next: 0,
            writer: pod.to_owned(),
            written: 0,
            starts: Vec::new(),
        }
    }

    /// Writes a v1 List of pods beside the logs, at once and whole.
    pub fn write_pods(&self, pods: &[Value]) {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": pods });
        fs::write(self.path().join("pods.json.new"), list.to_string()).unwrap();
        fs::rename(self.path().join("pods.json.new"), self.path().join("pods.json")).unwrap();
    }
}

/// A pod of `container` as the API serves it, of the Deployment `POD-owner`.
pub fn pod(name: &str, annotations: &Value) -> Value {
    serde_json::json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "labels": { "app": name, "pod-template-hash": "abc12" },
            "annotations": annotations,
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-owner-abc12"), "uid": "r", "controller": true }],
        },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "app", "image": "registry.example/app:1" }] },
        "status": { "podIP": "10.0.0.9", "containerStatuses": [{ "name": "app", "containerID": "containerd://c0ffee", "imageID": "sha256:1", "restartCount": 0 }] },
    })
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

// === impl Log ===

impl Log {
    /// Writes `count` numbered lines of about `bytes` bytes each.
    pub fn lines(&mut self, count: u64, bytes: usize) {
        for _ in 0..count {
            let text = self.numbered(bytes);
            self.line("stdout", &text);
        }
    }

    /// The text of the next numbered line, of about `bytes` bytes; it is for the caller to write it.
    pub fn numbered(&mut self, bytes: usize) -> String {
        let number = format!("{}:{}", self.writer, self.next);
        self.next += 1;
        self.starts.push(self.written);
        crate::numbered(&number, bytes)
    }

    /// Bytes in the files from the beginning of each of these lines to that of the next numbered one.
    pub fn bytes_of(&self, numbers: &[u64]) -> u64 {
        let start = |line: usize| self.starts.get(line).copied().unwrap_or(self.written);
        numbers.iter().map(|number| start(*number as usize + 1) - start(*number as usize)).sum()
    }

    /// Numbered lines that begin at or behind so many bytes, counted over all its files.
    pub fn lines_from(&self, bytes: u64) -> u64 {
        self.starts.iter().filter(|start| **start >= bytes).count() as u64
    }

    /// Writes one line, cut into partial ones where containerd cuts it.
    pub fn line(&mut self, stream: &str, text: &str) {
        let pieces: Vec<&[u8]> =
            if text.is_empty() { vec![b""] } else { text.as_bytes().chunks(MAX_LINE).collect() };
        for (n, piece) in pieces.iter().enumerate() {
            self.piece(stream, n + 1 < pieces.len(), piece);
        }
    }

    /// Writes one CRI line.
    pub fn piece(&mut self, stream: &str, partial: bool, content: &[u8]) {
        let tag = if partial { 'P' } else { 'F' };
        self.nanos += 1000;
        let mut bytes = format!("{} {stream} {tag} ", self.time()).into_bytes();
        bytes.extend_from_slice(content);
        bytes.push(b'\n');
        self.raw(&bytes);
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.written += bytes.len() as u64;
    }

    /// The time of the newest line.
    pub fn time(&self) -> String {
        rfc3339(self.nanos)
    }

    /// The next lines are so much later than the newest.
    pub fn advance(&mut self, time: Duration) {
        self.nanos += time.as_nanos() as u64;
    }

    /// The next lines are so much earlier than the newest.
    pub fn go_back(&mut self, time: Duration) {
        self.nanos -= time.as_nanos() as u64;
    }

    /// Removes the file and begins a new one under its name.
    pub fn replace(&mut self) {
        fs::remove_file(self.path()).unwrap();
        self.file = append(&self.path());
    }

    /// Renames the file and begins a new one, as the kubelet and the runtime do; gives the old one's path.
    pub fn rotate(&mut self) -> PathBuf {
        self.rotations += 1;
        let rotated = self.directory.join(format!("{}.log.20260101-{:06}", self.restarts, self.rotations));
        fs::rename(self.path(), &rotated).unwrap();
        self.file = append(&self.path());
        rotated
    }

    /// The container is started again: it writes a file of its own.
    pub fn restart(&mut self) {
        self.restarts += 1;
        self.file = append(&self.path());
    }

    /// Compresses a rotated file, as the kubelet does: through a temporary file, then the original is removed.
    pub fn gzip(&self, rotated: &Path) -> PathBuf {
        let name = rotated.display().to_string();
        let temporary = PathBuf::from(format!("{name}.tmp"));
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&temporary).unwrap(), flate2::Compression::default());
        encoder.write_all(&fs::read(rotated).unwrap()).unwrap();
        encoder.finish().unwrap();
        let compressed = PathBuf::from(format!("{name}.gz"));
        fs::rename(&temporary, &compressed).unwrap();
        fs::remove_file(rotated).unwrap();
        compressed
    }

    /// Cuts the file to nothing and goes on writing at its start.
    pub fn truncate(&mut self) {
        self.file.set_len(0).unwrap();
    }

    /// Removes the whole pod's directory.
    pub fn delete_pod(&self) {
        fs::remove_dir_all(self.directory.parent().unwrap()).unwrap();
    }

    /// The current file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.restarts))
    }
}

/// Nanoseconds since the epoch as Go's RFC3339Nano writes them: trailing zeros trimmed.
pub fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let second = seconds % 86_400;
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{dot}{fraction}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day since the epoch. The year begins in March, so that a leap day is its last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), text);
        }
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.5Z");
    }
}
