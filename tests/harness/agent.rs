//! The real binary: started, asked, stopped, killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::eventually;

/// A running agent. It is killed when this goes.
pub struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
}

// === impl Agent ===

impl Agent {
    /// Starts `binary` with this configuration, written to `directory`; `admin` listeners take free ports.
    pub fn start(binary: &str, directory: &Path, config: &str) -> Self {
        let file = directory.join("sidelight.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(binary)
            .args(["agent", "--config", file.to_str().unwrap(), "--grace-period", "20s"])
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, sink) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut sink = sink.lock().unwrap();
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        let agent = Agent { child, log };
        eventually("the agent's admin servers", || agent.address("listen=").is_some());
        agent
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn address(&self, key: &str) -> Option<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("admin servers are up"))?;
        Some(line.split(key).nth(1)?.split_whitespace().next()?.to_owned())
    }

    /// The address of its API listener.
    pub fn api_address(&self) -> String {
        self.address("api=").unwrap()
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

    /// Waits until every byte that was read is delivered or dropped, then checks that the account is balanced.
    pub fn settle(&self) {
        let is_settled = |output: &Value| output["in_flight"] == 0 && output["lag_bytes"] == 0;
        let outputs = || self.api("/api/v1/outputs")["outputs"].as_array().cloned().unwrap_or_default();
        eventually("everything delivered", || {
            let outputs = outputs();
            !outputs.is_empty() && outputs.iter().all(is_settled)
        });
        for output in ["sidelight_log_source_bytes_unaccounted", "sidelight_log_source_bytes_in_flight"] {
            assert_eq!(self.metric(output), 0.0, "{output}\n{}", self.log());
        }
        let ended = self.metric("sidelight_log_source_bytes_delivered_total")
            + self.metric("sidelight_log_source_bytes_dropped_total");
        assert_eq!(self.metric("sidelight_log_source_bytes_read_total"), ended, "read = delivered + dropped");
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            std::io::stderr().write_all(self.log().as_bytes()).unwrap();
        }
    }
}

fn get(address: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
