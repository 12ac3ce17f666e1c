//! One run of a subject: started fresh, measured when the last record has arrived.

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::receiver::Receiver;
use crate::{Compression, corpus};

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// USER_HZ, in which Linux gives CPU times to programs on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What runs, and how.
pub(crate) enum Setting {
    /// The bare loop.
    Floor {
        /// Whether it sends its chunks.
        socket: bool,
        /// How it packs them.
        compression: Compression,
    },
    /// Sidelight.
    Agent {
        /// `logs.parse`.
        parse: &'static str,
        /// `compress` of every output.
        compression: Compression,
        /// Forward outputs, each with a receiver of its own.
        outputs: u64,
    },
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Seconds of CPU time in the program.
    pub(crate) user: f64,
    /// Seconds of CPU time in the kernel.
    pub(crate) system: f64,
    /// VmHWM in bytes.
    pub(crate) peak_rss: u64,
}

// === impl Cost ===

impl Cost {
    /// What a process has used so far, all its threads together (proc(5), `stat` and `status`).
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name, in parentheses, may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(Cost {
            user: fields[11].parse::<f64>()? / TICKS_PER_SECOND,
            system: fields[12].parse::<f64>()? / TICKS_PER_SECOND,
            peak_rss: peak.trim().trim_end_matches(" kB").parse::<u64>()? << 10,
        })
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut numbers = text.split_whitespace();
        let mut next = || numbers.next().context("too few numbers");
        Ok(Cost { user: next()?.parse()?, system: next()?.parse()?, peak_rss: next()?.parse()? })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.system, self.peak_rss)
    }
}

/// Runs a subject over the corpus.
///
/// # Errors
/// When it fails or does not end.
pub(crate) fn run(agent: &Path, corpus: &Path, setting: &Setting, records: u64) -> anyhow::Result<Cost> {
    match setting {
        Setting::Floor { socket, compression } => run_floor(corpus, *socket, *compression),
        Setting::Agent { .. } => Ok(run_agent(agent, corpus, setting, records, false)?.0),
    }
}

/// Runs the agent with a receiver that looks into every record: all must be there once, under the right pod.
///
/// # Errors
/// When they are not.
pub(crate) fn verify(agent: &Path, corpus: &Path, setting: &Setting, records: u64) -> anyhow::Result<()> {
    if let Setting::Agent { compression: Compression::Gzip | Compression::Zstd, .. } = setting {
        // The verifying receiver reads entries as they are; the system tests unpack.
        return Ok(());
    }
    let (_, receivers) = run_agent(agent, corpus, setting, records, true)?;
    for receiver in receivers {
        for pod in 0..corpus::PODS {
            let wrong = receiver.wrong(&corpus::name(pod), records / corpus::PODS);
            ensure!(wrong == 0, "{wrong} records of pod {pod} did not arrive exactly once");
        }
    }
    Ok(())
}

fn run_floor(corpus: &Path, socket: bool, compression: Compression) -> anyhow::Result<Cost> {
    let receiver = Receiver::start(false)?;
    let compression = format!("{compression:?}").to_lowercase();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor").arg(corpus.join("pods")).arg(compression);
    if socket {
        command.arg(receiver.address().to_string());
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the floor program failed");
    Cost::parse(&String::from_utf8(output.stdout)?)
}

fn run_agent(
    agent: &Path,
    corpus: &Path,
    setting: &Setting,
    records: u64,
    verify: bool,
) -> anyhow::Result<(Cost, Vec<Receiver>)> {
    let Setting::Agent { parse, compression, outputs } = setting else { bail!("not the agent") };
    let receivers = (0..*outputs).map(|_| Receiver::start(verify)).collect::<Result<Vec<_>, _>>()?;
    let data = tempfile::tempdir()?;
    let directory = corpus.display();
    let mut config = format!(
        "node: bench\ndata_dir: {}\nworkers: 1\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs:\n  root: {directory}/pods\n  parse: {parse}\n  outputs:\n",
        data.path().display(),
    );
    for (index, receiver) in receivers.iter().enumerate() {
        let compress = format!("{compression:?}").to_lowercase();
        config.push_str(&format!(
            "  - name: out{index}\n    forward: {{ upstreams: ['{}'], compress: {compress} }}\n",
            receiver.address()
        ));
    }
    let file = data.path().join("sidelight.yaml");
    std::fs::write(&file, config)?;
    let mut child = Running(Command::new(agent).arg("agent").arg("--config").arg(&file).spawn()?);
    let begun = Instant::now();
    while receivers.iter().any(|receiver| receiver.records() < records) {
        if let Some(status) = child.0.try_wait()? {
            bail!("the agent ended: {status}");
        }
        let arrived: Vec<u64> = receivers.iter().map(Receiver::records).collect();
        ensure!(begun.elapsed() < PATIENCE, "only {arrived:?} of {records} records arrived in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((Cost::of_process(child.0.id())?, receivers))
}

/// A child that does not outlive its run.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
