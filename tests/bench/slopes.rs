//! Memory by the number of containers, workers and outputs.

use std::path::Path;
use std::time::Duration;

use crate::node::Node;
use crate::subject::{Agent, Subject};
use crate::tally::Look;
use crate::{step, writer};

const SETTLE: Duration = Duration::from_secs(5);
/// 20 KB in each file.
const LINES: u64 = 100;

/// 5,000 containers are 500 pods: the most that Kubernetes runs on one node where it is stretched.
const CONTAINERS_IN_A_POD: u64 = 10;

/// Containers, workers, outputs.
const SIZES: [(u64, &str, u64); 6] =
    [(10, "1", 1), (1000, "1", 1), (5000, "1", 1), (1000, "2", 1), (1000, "4", 1), (5000, "1", 2)];

/// Measures each size and prints the table and the slopes.
///
/// # Errors
/// When the agent ends, or a line does not arrive.
pub(crate) fn run(agent: &Path) -> anyhow::Result<()> {
    println!("parse: none, no compression, {LINES} lines of about 250 bytes in each container's file\n");
    println!("| containers | workers | outputs | peak RSS MiB | RSS MiB, settled | RssAnon MiB, settled |");
    println!("|---|---|---|---|---|---|");
    let mut memories = Vec::new();
    for (containers, workers, outputs) in SIZES {
        step(&format!("{containers} containers, {workers} workers, {outputs} outputs"));
        let node = Node::new(containers / CONTAINERS_IN_A_POD, CONTAINERS_IN_A_POD)?;
        for mut writer in writer::for_all(&node)? {
            writer.lines(LINES)?;
        }
        let agent = Agent { workers, outputs, ..Agent::new(agent, "none") };
        let mut run = Subject::Agent(agent).start(&node, Look::Count)?;
        run.wait_for(containers * LINES)?;
        run.settle(SETTLE)?;
        let memory = run.process.memory()?;
        println!(
            "| {containers} | {workers} | {outputs} | {:.1} | {:.1} | {:.1} |",
            memory.peak_rss, memory.rss, memory.anon
        );
        memories.push(memory);
    }
    let per = |large: usize, small: usize, count: f64| {
        let kib = |value: fn(&crate::process::Memory) -> f64| {
            (value(&memories[large]) - value(&memories[small])) * 1024.0 / count
        };
        format!("{:.1} KiB of peak RSS, {:.1} KiB of RssAnon", kib(|m| m.peak_rss), kib(|m| m.anon))
    };
    println!("\nper container, 10 to 5000: {}", per(2, 0, 4990.0));
    println!("per container, 1000 to 5000: {}", per(2, 1, 4000.0));
    println!("per worker, 1 to 4: {}", per(4, 1, 3.0));
    println!("for the second output, 5000 containers: {}", per(5, 2, 1.0));
    Ok(())
}
