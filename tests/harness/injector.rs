//! The real injector: started, asked, stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::agent::{Collected, get};
use crate::control_plane::ControlPlane;
use crate::{PATIENCE, eventually};

/// A running injector. It is killed when this goes.
pub struct Injector {
    child: Child,
    log: Collected,
}

// === impl Injector ===

impl Injector {
    /// Starts `binary` with this configuration, written to `directory`, and waits for its listeners. These are on free ports.
    pub fn start(binary: &str, directory: &Path, plane: &ControlPlane, config: &str) -> Self {
        Self::start_through(&[binary], directory, plane, config)
    }

    /// The same with a command whose last word is the binary, such as `taskset`.
    pub fn start_through(command: &[&str], directory: &Path, plane: &ControlPlane, config: &str) -> Self {
        let file = directory.join("injector.yaml");
        let listeners = "listen: '127.0.0.1:0'\nadmin: { listen: '127.0.0.1:0' }\n";
        std::fs::write(&file, format!("{listeners}{config}")).unwrap();
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .args(["serve", "--config", file.to_str().unwrap()])
            .env("KUBECONFIG", plane.kubeconfig(directory))
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Collected::from(child.stderr.take().unwrap());
        let injector = Injector { child, log };
        eventually("the injector's listeners", || injector.find("address=").is_some());
        injector
    }

    /// Waits until reviews may come.
    #[must_use]
    pub fn ready(self) -> Self {
        eventually("the injector is ready", || self.is_ready());
        self
    }

    /// Whether reviews may come.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").0 == 200
    }

    fn find(&self, key: &str) -> Option<SocketAddr> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("waiting for reviews"))?;
        line.split(key).nth(1)?.split_whitespace().next()?.parse().ok()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where reviews go.
    pub fn address(&self) -> SocketAddr {
        self.find("address=").unwrap()
    }

    /// Asks the admin listener: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.find("admin=").unwrap().to_string(), path)
    }

    /// The value of a metric; `name` with its labels, as the page has it.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code once it has ended, -1 if by a signal. One that does not end is a failed test.
    pub fn wait(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < PATIENCE, "the injector does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Injector {
    /// What it has told goes to the output of the test, which is shown when the test fails.
    #[allow(clippy::print_stderr, reason = "the test runner keeps it")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        eprintln!("the injector's log:\n{}", self.log());
    }
}
