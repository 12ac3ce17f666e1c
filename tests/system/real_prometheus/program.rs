//! Programs of others, on the loopback interface.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sidelight_tests::eventually;

use crate::real_receivers::receiver::folder;

/// A program that ends with the test.
pub(crate) struct Program {
    child: Child,
    pub(crate) port: u16,
}

// === impl Program ===

impl Program {
    /// Starts it on a free port, and waits until it answers there with a page that says `ready`; `arguments` makes what
    /// stands behind its name.
    fn start(
        name: impl AsRef<OsStr>,
        arguments: impl Fn(u16) -> Vec<String>,
        (path, ready): (&str, &str),
    ) -> Self {
        let name = name.as_ref();
        let spawn = || {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new(name);
            let child = command.args(arguments(port)).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let child =
                child.unwrap_or_else(|error| panic!("cannot start {name:?}: {error}; .ci/run installs it"));
            Program { child, port }
        };
        let mut program = spawn();
        eventually(&format!("{name:?} is ready"), || {
            // Between the choice of a port and its use another test may have taken it.
            if program.child.try_wait().unwrap().is_some() {
                program = spawn();
            }
            program.try_get(path).is_ok_and(|page| page.contains(ready))
        });
        program
    }

    pub(crate) fn prometheus(directory: &Path) -> Self {
        Self::prometheus_with(directory, "global: { scrape_interval: 1h }\n")
    }

    pub(crate) fn prometheus_with(directory: &Path, text: &str) -> Self {
        let config = directory.join("prometheus.yml");
        std::fs::write(&config, text).unwrap();
        Self::ready("prometheus", &config, directory, &[])
    }

    /// The one that `tests/receivers/build` has built.
    pub(crate) fn newer_prometheus(directory: &Path) -> Self {
        Self::newer_prometheus_by(&folder("prometheus").join("prometheus.yml"), directory)
    }

    /// The same with another configuration.
    pub(crate) fn newer_prometheus_with(directory: &Path, text: &str) -> Self {
        let config = directory.join("prometheus.yml");
        std::fs::write(&config, text).unwrap();
        Self::newer_prometheus_by(&config, directory)
    }

    fn newer_prometheus_by(config: &Path, directory: &Path) -> Self {
        let features = ["--enable-feature=exemplar-storage,created-timestamp-zero-ingestion"];
        Self::ready(folder("prometheus").join("prometheus"), config, directory, &features)
    }

    fn ready(name: impl AsRef<OsStr>, config: &Path, directory: &Path, further: &[&str]) -> Self {
        let arguments = |port| {
            let mut arguments = vec![
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", directory.join("prometheus").display()),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--web.enable-remote-write-receiver".to_owned(),
            ];
            arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
            arguments
        };
        // It listens before it answers queries.
        Self::start(name, arguments, ("/-/ready", "is Ready"))
    }

    pub(crate) fn victoria_metrics(directory: &Path) -> Self {
        let data = directory.join("victoria");
        let arguments = |port| {
            vec![
                format!("-storageDataPath={}", data.display()),
                format!("-httpListenAddr=127.0.0.1:{port}"),
                // It shows samples only when they are older than that.
                "-search.latencyOffset=0s".to_owned(),
            ]
        };
        Self::start("victoria-metrics", arguments, ("/health", "OK"))
    }

    pub(crate) fn node_exporter() -> Self {
        let arguments = |port| vec![format!("--web.listen-address=127.0.0.1:{port}")];
        Self::start("prometheus-node-exporter", arguments, ("/", "Node Exporter"))
    }

    /// The body of an answer to GET.
    pub(crate) fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap()
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// The vector that a query gives at this moment.
    pub(crate) fn query(&self, query: &str) -> Vec<Value> {
        self.ask(query, "")
    }

    /// The vector that it gives at a moment, in milliseconds since the epoch.
    pub(crate) fn query_at(&self, query: &str, time: i64) -> Vec<Value> {
        self.ask(query, &format!("&time={}.{:03}", time / 1000, time % 1000))
    }

    fn ask(&self, query: &str, parameters: &str) -> Vec<Value> {
        let encoded = query.bytes().fold(String::new(), |mut encoded, byte| {
            let _ = write!(encoded, "%{byte:02X}");
            encoded
        });
        let answer = self.get(&format!("/api/v1/query?query={encoded}{parameters}"));
        let mut answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        answer["data"]["result"].as_array_mut().map(std::mem::take).unwrap_or_else(|| panic!("{answer}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
