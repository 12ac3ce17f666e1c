//! A pod whose app writes log files by itself, and the sidecar beside it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agent::Agent;

/// The pod `web` of the namespace `ns`: a temporary directory with the app's `logs/`, the sidecar's `data/` and `podinfo/`.
pub struct Pod {
    directory: tempfile::TempDir,
}

/// One log file.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Written lines so far: the sequence number of the next.
    pub next: u64,
    writer: String,
}

// === impl Pod ===

impl Default for Pod {
    fn default() -> Self {
        Self::new()
    }
}

impl Pod {
    /// One without log files, labels and annotations.
    pub fn new() -> Self {
        let pod = Pod { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(pod.path().join("logs")).unwrap();
        fs::create_dir(pod.path().join("podinfo")).unwrap();
        pod.describe("labels", &[("app", "web")]);
        pod.describe("annotations", &[]);
        pod
    }

    /// The temporary directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below the directory of logs.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.path().join("logs").join(name)
    }

    /// Begins a log file, or goes on with it.
    pub fn log(&self, name: &str, writer: &str) -> LogFile {
        let path = self.log_path(name);
        LogFile { file: append(&path), path, next: 0, writer: writer.to_owned() }
    }

    /// Writes `labels` or `annotations` as the kubelet does for the Downward API: whole, by swapping a link.
    pub fn describe(&self, what: &str, entries: &[(&str, &str)]) {
        let directory = self.path().join("podinfo");
        let text: String = entries.iter().map(|(key, value)| format!("{key}={value:?}\n")).collect();
        let version = tempfile::Builder::new().prefix("..").tempdir_in(&directory).unwrap().keep();
        fs::write(version.join(what), text).unwrap();
        let data = directory.join(format!("..data-{what}"));
        let fresh = directory.join("..fresh");
        std::os::unix::fs::symlink(&version, &fresh).unwrap();
        fs::rename(&fresh, &data).unwrap();
        let _ = std::os::unix::fs::symlink(data.join(what), directory.join(what));
    }

    /// What the injector would say: globs below the directory of logs, further keys of `logs` and of the whole.
    pub fn config(&self, globs: &[&str], logs: &str, rest: &str) -> String {
        let directory = self.path().display();
        let globs: Vec<String> = globs.iter().map(|glob| format!("'{directory}/logs/{glob}'")).collect();
        format!(
            "data_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
             logs:\n  files: [{}]\n{logs}{rest}",
            globs.join(", ")
        )
    }

    /// Starts the sidecar as the injector would.
    pub fn start(&self, binary: &str, config: &str) -> Agent {
        Agent::start_sidecar(&mut self.command(binary, config, "20s"))
    }

    /// The same with another grace period.
    pub fn start_with_grace(&self, binary: &str, config: &str, grace_period: &str) -> Agent {
        Agent::start_sidecar(&mut self.command(binary, config, grace_period))
    }

    /// Runs one that is to end by itself: its exit code and what it has logged.
    pub fn run(&self, binary: &str, config: &str) -> (i32, String) {
        Agent::run_command(&mut self.command(binary, config, "20s"))
    }

    fn command(&self, binary: &str, config: &str, grace_period: &str) -> Command {
        let mut command = Command::new(binary);
        command
            .args(["sidecar", "--grace-period", grace_period, "--pod-info"])
            .arg(self.path().join("podinfo"));
        let variables = [
            ("CONFIG", config),
            ("NAMESPACE", "ns"),
            ("POD", "web"),
            ("POD_UID", "uid-web"),
            ("POD_IP", "10.0.0.9"),
            ("NODE", "node-1"),
        ];
        command.envs(variables.map(|(name, value)| (format!("SIDELIGHT_{name}"), value)));
        command
    }
}

// === impl LogFile ===

impl LogFile {
    /// Writes `count` numbered lines of about `bytes` bytes each, as one write.
    pub fn lines(&mut self, count: u64, bytes: usize) {
        let text: String = (0..count).map(|_| self.numbered(bytes) + "\n").collect();
        self.raw(&text);
    }

    /// The text of the next numbered line, of about `bytes` bytes; it is for the caller to write it.
    pub fn numbered(&mut self, bytes: usize) -> String {
        let number = format!("{}:{}", self.writer, self.next);
        self.next += 1;
        crate::numbered(&number, bytes)
    }

    /// Writes a text as it is.
    pub fn raw(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Renames the file and begins a new one under its name; gives the old one's path.
    pub fn rotate(&mut self, name: &str) -> PathBuf {
        let rotated = self.path.with_file_name(name);
        fs::rename(&self.path, &rotated).unwrap();
        self.file = append(&self.path);
        rotated
    }

    /// copytruncate, without the truncation: gives the copy's path.
    pub fn copy(&self, name: &str) -> PathBuf {
        let copy = self.path.with_file_name(name);
        fs::copy(&self.path, &copy).unwrap();
        copy
    }

    /// Cuts the file to nothing and goes on writing at its start.
    pub fn truncate(&self) {
        self.file.set_len(0).unwrap();
    }

    /// Removes the file; what is written later goes into it all the same.
    pub fn delete(&self) {
        fs::remove_file(&self.path).unwrap();
    }
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}
