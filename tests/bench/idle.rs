//! What files take that nobody writes to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::node::Node;
use crate::subject::Agent;
use crate::tally::Look;
use crate::{peers, step, writer};

/// After the last line, before the measurement begins.
const SETTLE: Duration = Duration::from_secs(15);
const LINES: u64 = 10;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Pods.
    #[arg(long, default_value_t = 100)]
    pods: u64,
    /// Containers of each pod, each with one file.
    #[arg(long, default_value_t = 10)]
    containers: u64,
    /// How long to measure; with strace once more.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only subjects with this text in their title.
    #[arg(long, default_value = "")]
    only: String,
}

/// Measures one subject after the other and prints the table.
///
/// # Errors
/// When a subject ends, or a line does not arrive.
pub(crate) fn run(agent: &Path, options: &Options) -> anyhow::Result<()> {
    let node = Node::new(options.pods, options.containers)?;
    for mut writer in writer::for_all(&node)? {
        writer.lines(LINES)?;
    }
    let files = options.pods * options.containers;
    println!("{files} idle files of {} idle pods, for {} s\n", options.pods, options.seconds);
    println!(
        "| subject | cores | RSS MiB | RssAnon MiB | context switches/s | system calls/s | most of them |"
    );
    println!("|---|---|---|---|---|---|---|");
    let subjects = peers::beside(vec![("sidelight", Agent::new(agent, "none"))], "1", &options.only);
    for (title, subject) in &subjects {
        step(&format!("measuring {title}"));
        let mut run = subject.start(&node, Look::Count)?;
        run.wait_for(files * LINES)?;
        run.settle(SETTLE)?;
        let before = run.process.activity()?;
        run.settle(Duration::from_secs(options.seconds))?;
        let rates = run.process.activity()?.since(&before);
        let memory = run.process.memory()?;
        let (calls, most) = system_calls(run.process.id(), options.seconds)?;
        println!(
            "| {title} | {:.5} | {:.1} | {:.1} | {:.1} | {calls} | {most} |",
            rates.cores, memory.rss, memory.anon, rates.switches,
        );
    }
    peers::print_notes(subjects.iter().map(|(_, subject)| subject));
    Ok(())
}

/// System calls a second of all threads, and the commonest of them.
fn system_calls(process: u32, seconds: u64) -> anyhow::Result<(String, String)> {
    let counts = tempfile::NamedTempFile::new()?;
    let strace = Command::new("timeout")
        .args([
            "-s",
            "INT",
            &seconds.to_string(),
            "strace",
            "-c",
            "-f",
            "-U",
            "calls,name",
            "-S",
            "calls",
            "-o",
        ])
        .arg(counts.path())
        .args(["-p", &process.to_string()])
        .stderr(Stdio::null())
        .status()?;
    let table = std::fs::read_to_string(counts.path())?;
    if table.is_empty() {
        return Ok((format!("no strace ({strace})"), String::new()));
    }
    let rows: Vec<(u64, &str)> = table
        .lines()
        .filter_map(|line| {
            let (calls, name) = line.trim().split_once(' ')?;
            Some((calls.parse().ok()?, name.trim()))
        })
        .collect();
    let total = rows.iter().find(|(_, name)| *name == "total").map_or(0, |(calls, _)| *calls);
    let most: Vec<String> = rows.iter().take(3).map(|(calls, name)| format!("{name} {calls}")).collect();
    Ok((format!("{:.1}", total as f64 / seconds as f64), most.join(", ")))
}
