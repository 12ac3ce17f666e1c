//! The real binary: started, asked, stopped, killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, eventually};

/// The agent looks once a second whether its own account is balanced, and shows only a difference that stays.
const TWO_LOOKS: Duration = Duration::from_millis(2_200);

/// A running agent. It is killed when this goes.
pub struct Agent {
    child: Child,
    log: Collected,
    stdout: Collected,
    gone: Arc<AtomicBool>,
}

/// Who asks a running agent from another thread.
#[derive(Clone)]
pub(crate) struct Probe {
    /// Its process.
    pub(crate) process: u32,
    log: Arc<Mutex<String>>,
    gone: Arc<AtomicBool>,
}

/// What has come out of a pipe so far.
pub(crate) struct Collected {
    pub(crate) text: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

// === impl Agent ===

impl Agent {
    /// Starts `binary` with this configuration, written to `directory`, and waits for its admin listeners.
    pub fn start(binary: &str, directory: &Path, config: &str) -> Self {
        Self::start_with_grace(binary, directory, config, "20s")
    }

    /// The same with another grace period.
    pub fn start_with_grace(binary: &str, directory: &Path, config: &str, grace_period: &str) -> Self {
        Self::spawn(&[binary], directory, config, grace_period).started()
    }

    /// The same by way of a command that executes what stands behind it, such as `env` or `prlimit`.
    pub fn start_through(command: &[&str], binary: &str, directory: &Path, config: &str) -> Self {
        let command: Vec<&str> = command.iter().copied().chain([binary]).collect();
        Self::spawn(&command, directory, config, "20s").started()
    }

    /// The same without waiting for anything.
    pub fn launch(binary: &str, directory: &Path, config: &str) -> Self {
        Self::launch_with_grace(binary, directory, config, "20s")
    }

    /// The same with another grace period.
    pub fn launch_with_grace(binary: &str, directory: &Path, config: &str, grace_period: &str) -> Self {
        Self::spawn(&[binary], directory, config, grace_period)
    }

    /// Whether its admin servers are up.
    pub fn is_up(&self) -> bool {
        self.address("listen=").is_some()
    }

    fn started(self) -> Self {
        eventually("the agent's admin servers", || self.is_up());
        self
    }

    /// Runs one that is to end by itself: its exit code and what it has logged.
    pub fn run(binary: &str, directory: &Path, config: &str) -> (i32, String) {
        Self::spawn(&[binary], directory, config, "20s").ended()
    }

    fn ended(mut self) -> (i32, String) {
        let code = self.wait();
        eventually("the end of its log", || self.log.thread.is_finished());
        (code, self.log())
    }

    fn spawn(command: &[&str], directory: &Path, config: &str, grace_period: &str) -> Self {
        let file = directory.join("sidelight.yaml");
        std::fs::write(&file, config).unwrap();
        let mut agent = Command::new(command[0]);
        agent.args(&command[1..]).args(["agent", "--config", file.to_str().unwrap()]);
        Self::execute(agent.args(["--grace-period", grace_period]))
    }

    /// Starts a sidecar by this command, and waits for its admin listeners.
    pub(crate) fn start_sidecar(command: &mut Command) -> Self {
        Self::execute(command).started()
    }

    /// Runs a command that is to end by itself: its exit code and what it has logged.
    pub(crate) fn run_command(command: &mut Command) -> (i32, String) {
        Self::execute(command).ended()
    }

    fn execute(command: &mut Command) -> Self {
        let mut child = command
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Collected::from(child.stderr.take().unwrap());
        let stdout = Collected::from(child.stdout.take().unwrap());
        Agent { child, log, stdout, gone: Arc::default() }
    }

    /// Replaces its configuration file, whole and at once; it is for the agent to notice.
    pub fn reconfigure(&self, directory: &Path, config: &str) {
        std::fs::write(directory.join("sidelight.yaml.new"), config).unwrap();
        std::fs::rename(directory.join("sidelight.yaml.new"), directory.join("sidelight.yaml")).unwrap();
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text.lock().unwrap().clone()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    fn address(&self, key: &str) -> Option<String> {
        address(&self.log.text.lock().unwrap(), key)
    }

    pub(crate) fn probe(&self) -> Probe {
        Probe { process: self.child.id(), log: self.log.text.clone(), gone: self.gone.clone() }
    }

    /// The address of its API listener.
    pub fn api_address(&self) -> String {
        self.address("api=").unwrap()
    }

    /// Where others scrape, once they can.
    pub fn pull_address(&self) -> String {
        let find = || {
            let log = self.log();
            let line = log.lines().rfind(|line| line.contains("others can scrape"))?;
            Some(line.split("pull=").nth(1)?.trim_matches('"').to_owned())
        };
        eventually("others can scrape", || find().is_some());
        find().unwrap()
    }

    /// Asks the network listener: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.address("listen=").unwrap(), path)
    }

    /// Asks the API listener.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = get(&self.api_address(), path);
        if status == 200 { serde_json::from_str(&body).unwrap() } else { Value::Null }
    }

    /// The value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        let lines = body.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// What the API tells of an output.
    pub fn output(&self, name: &str) -> Value {
        let outputs = self.api("/api/v1/outputs");
        let outputs = outputs["outputs"].as_array().cloned().unwrap_or_default();
        outputs.into_iter().find(|output| output["name"] == name).unwrap_or_default()
    }

    /// What `explain` says of a pod's only container.
    pub fn explain(&self, pod: &str) -> Value {
        self.api(&format!("/api/v1/explain?pod={pod}"))["logs"][0].take()
    }

    /// Waits until every byte that was read is delivered or dropped, then checks that the account is balanced.
    pub fn settle(&self) {
        let is_settled = |output: &Value| output["in_flight"] == 0 && output["lag_bytes"] == 0;
        let outputs = || self.api("/api/v1/outputs")["outputs"].as_array().cloned().unwrap_or_default();
        eventually("everything delivered", || {
            let outputs = outputs();
            !outputs.is_empty() && outputs.iter().all(is_settled)
        });
        assert_eq!(self.metric("sidelight_log_source_bytes_in_flight"), 0.0, "{}", self.log());
        self.assert_balanced();
    }

    /// Checks that every byte that was read is in one counter, by the agent's own reckoning and by ours. Nothing may move
    /// meanwhile.
    pub fn assert_balanced(&self) {
        std::thread::sleep(TWO_LOOKS);
        assert_eq!(self.metric("sidelight_log_source_bytes_unaccounted"), 0.0, "{}", self.log());
        let counted = self.metric("sidelight_log_source_bytes_delivered_total")
            + self.metric("sidelight_log_source_bytes_dropped_total")
            + self.metric("sidelight_log_source_bytes_in_flight");
        let read = self.metric("sidelight_log_source_bytes_read_total");
        assert_eq!(read, counted, "read = delivered + dropped + in flight");
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.gone.store(true, Ordering::SeqCst);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// Its exit code once it has ended, -1 if by a signal. One that does not end is a failed test.
    fn wait(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.gone.store(true, Ordering::SeqCst);
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < PATIENCE, "the agent does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The most memory that it has had until now, without the pages of its program, in bytes.
    ///
    /// Source: proc(5), `status`.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
        };
        (kilobytes("VmHWM:") - kilobytes("RssFile:")) << 10
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

// === impl Probe ===

impl Probe {
    /// Whether the agent has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Its metrics, if it answers.
    pub(crate) fn metrics(&self) -> Option<String> {
        let address = address(&self.log.lock().unwrap(), "listen=")?;
        let (status, metrics) = get(&address, "/metrics");
        (status == 200).then_some(metrics)
    }
}

impl Drop for Agent {
    /// What it has told goes to the output of the test, which is shown when the test fails.
    #[allow(clippy::print_stderr, reason = "the test runner keeps it")]
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        if std::thread::panicking()
            && let Some(address) = self.address("api=")
        {
            for path in ["/api/v1/outputs", "/api/v1/files"] {
                eprintln!("{path}: {}", get(&address, path).1);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        eprintln!("the agent's log:\n{}", self.log());
    }
}

// === impl Collected ===

impl Collected {
    /// Line by line, for as long as the pipe gives any.
    pub(crate) fn from(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut sink = sink.lock().unwrap();
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        Collected { text, thread }
    }
}

/// Where one of the admin servers listens, if the log says so yet.
fn address(log: &str, key: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("admin servers are up"))?;
    Some(line.split(key).nth(1)?.split_whitespace().next()?.to_owned())
}

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
