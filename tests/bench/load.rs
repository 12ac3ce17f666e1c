//! What a given load takes, and how long a line is on its way.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::node::Node;
use crate::process::Activity;
use crate::receiver::Protocol;
use crate::stats::quantile;
use crate::subject::{Agent, Subject};
use crate::tally::Look;
use crate::{peers, step, writer};

/// Lines before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(5);

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Lines a second, over all containers.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Containers, one for each pod.
    #[arg(long, default_value_t = 100)]
    containers: u64,
    /// How long to measure.
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
    let Options { rate, containers, seconds, .. } = options;
    println!(
        "{rate} lines/s over {containers} containers for {seconds} s, workers: 1, parse: none, no compression\n"
    );
    println!(
        "| subject | cores | peak RSS MiB | RssAnon MiB | context switches/s | written to received: p50 ms | p99 ms \
         | cores of writer and receiver |\n|---|---|---|---|---|---|---|---|"
    );
    let agent = |flush_interval| Agent { flush_interval, ..Agent::new(agent, "none") };
    let agents = vec![
        ("sidelight, flush_interval: 1s", agent("1s")),
        ("sidelight, flush_interval: 100ms", agent("100ms")),
    ];
    let subjects = peers::beside(agents, "1", &options.only);
    for (title, subject) in &subjects {
        step(&format!("measuring {title}"));
        measure(title, subject, options)?;
    }
    peers::print_notes(subjects.iter().map(|(_, subject)| subject));
    Ok(())
}

fn measure(title: &str, subject: &Subject, options: &Options) -> anyhow::Result<()> {
    let node = Node::new(options.containers, 1)?;
    let mut writers = writer::for_all(&node)?;
    let look = if subject.protocol() == Protocol::Forward { Look::Times } else { Look::Numbers };
    let mut run = subject.start(&node, look)?;
    writer::write_at(&mut writers, options.rate, WARM_UP)?;
    run.receivers[0].tally.take_ages();
    let (before, own) = (run.process.activity()?, Activity::own()?);
    let reached = writer::write_at(&mut writers, options.rate, Duration::from_secs(options.seconds))?;
    ensure!(reached > 0.95 * options.rate as f64, "the writer reached only {reached:.0} lines/s");
    let rates = run.process.activity()?.since(&before);
    let own = Activity::own()?.since(&own);
    run.wait_for(writer::written(&writers))?;
    let mut ages = run.receivers[0].tally.take_ages();
    ages.sort_by(f64::total_cmp);
    let memory = run.process.memory()?;
    let age = |share| quantile(&ages, share).map_or("–".to_owned(), |age| format!("{:.0}", age * 1e3));
    println!(
        "| {title} | {:.4} | {:.1} | {:.1} | {:.0} | {} | {} | {:.2} |",
        rates.cores,
        memory.peak_rss,
        memory.anon,
        rates.switches,
        age(0.5),
        age(0.99),
        own.cores,
    );
    Ok(())
}
