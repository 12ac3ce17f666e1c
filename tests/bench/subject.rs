//! What is measured: the agent, and other programs that do the same work.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::ValueEnum;

use crate::node::{Node, pod_name};
use crate::peers::Peer;
use crate::process::Process;
use crate::receiver::{Protocol, Receiver};
use crate::tally::Look;

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// Deflate, level 1.
    Gzip,
    /// Zstandard, level 1.
    Zstd,
}

/// Sidelight and its settings.
#[derive(Clone)]
pub(crate) struct Agent {
    /// The program.
    pub(crate) binary: PathBuf,
    /// `logs.parse`.
    pub(crate) parse: &'static str,
    /// `compress` of every output.
    pub(crate) compression: Compression,
    /// Forward outputs, each with a receiver of its own.
    pub(crate) outputs: u64,
    /// Reader threads.
    pub(crate) workers: &'static str,
    /// `flush_interval` of every output.
    pub(crate) flush_interval: &'static str,
    /// `logs.held_deleted`, in bytes.
    pub(crate) held_deleted: u64,
}

/// A program that reads a node's logs and sends them.
#[derive(Clone)]
pub(crate) enum Subject {
    /// Sidelight.
    Agent(Agent),
    /// Another one.
    Peer(Peer),
}

/// A subject that runs, and its receivers.
pub(crate) struct Run {
    /// The program.
    pub(crate) process: Process,
    /// One for each output.
    pub(crate) receivers: Vec<Receiver>,
}

// === impl Compression ===

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

// === impl Agent ===

impl Agent {
    /// One reader without compression, all else as by default.
    pub(crate) fn new(binary: impl Into<PathBuf>, parse: &'static str) -> Self {
        Agent {
            binary: binary.into(),
            parse,
            compression: Compression::None,
            outputs: 1,
            workers: "1",
            flush_interval: "1s",
            held_deleted: 1 << 30,
        }
    }

    fn start(&self, node: &Node, receivers: &[Receiver]) -> anyhow::Result<Process> {
        let data = tempfile::tempdir()?;
        let directory = node.path().display();
        let mut config = format!(
            "node: bench\ndata_dir: {}\nworkers: {}\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
             kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
             logs:\n  root: {directory}/pods\n  parse: {}\n  held_deleted: {}B\n  outputs:\n",
            data.path().display(),
            self.workers,
            self.parse,
            self.held_deleted,
        );
        for (index, receiver) in receivers.iter().enumerate() {
            config.push_str(&format!(
                "  - name: out{index}\n    forward: {{ upstreams: ['{}'], compress: {}, flush_interval: {} }}\n",
                receiver.address(),
                self.compression.name(),
                self.flush_interval,
            ));
        }
        let file = data.path().join("sidelight.yaml");
        std::fs::write(&file, config)?;
        Process::start(Command::new(&self.binary).arg("agent").arg("--config").arg(&file), data)
    }
}

// === impl Subject ===

impl Subject {
    /// How it speaks to its receivers.
    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Subject::Agent(_) => Protocol::Forward,
            Subject::Peer(peer) => peer.protocol(),
        }
    }

    /// Starts it on a node's logs, and receivers for it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(&self, node: &Node, look: Look) -> anyhow::Result<Run> {
        let outputs = if let Subject::Agent(agent) = self { agent.outputs } else { 1 };
        let receivers =
            (0..outputs).map(|_| Receiver::start(self.protocol(), look)).collect::<Result<Vec<_>, _>>()?;
        let process = match self {
            Subject::Agent(agent) => agent.start(node, &receivers)?,
            Subject::Peer(peer) => peer.start(node, &receivers[0])?,
        };
        Ok(Run { process, receivers })
    }
}

// === impl Run ===

impl Run {
    /// Waits until so many records have arrived at every receiver.
    ///
    /// # Errors
    /// When they do not, or the program ends.
    pub(crate) fn wait_for(&mut self, records: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.receivers.iter().any(|receiver| receiver.tally.records() < records) {
            self.process.check()?;
            let fault = self.receivers.iter().find_map(|receiver| receiver.tally.fault());
            ensure!(fault.is_none(), "a message that cannot be read: {}", fault.unwrap());
            if begun.elapsed() > PATIENCE {
                let arrived: Vec<u64> =
                    self.receivers.iter().map(|receiver| receiver.tally.records()).collect();
                bail!("only {arrived:?} of {records} records arrived in {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets it run for a while.
    ///
    /// # Errors
    /// When it ends.
    pub(crate) fn settle(&mut self, time: Duration) -> anyhow::Result<()> {
        std::thread::sleep(time);
        self.process.check()
    }

    /// How many of a node's records, evenly spread over its pods, did not arrive exactly once and whole.
    pub(crate) fn wrong(&self, node: &Node, records: u64) -> u64 {
        let wrong =
            |receiver: &Receiver| receiver.tally.wrong((0..node.pods).map(pod_name), records / node.pods);
        self.receivers.iter().map(wrong).sum()
    }
}
