//! The rate at which the first line is lost, beside a kubelet that rotates and deletes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::kubelet::{Kubelet, Rotation};
use crate::node::Node;
use crate::subject::{Agent, Run, Subject};
use crate::tally::Look;
use crate::writer::{Writer, for_all, write_at, written};
use crate::{peers, step};

/// Checks of the kubelet that a step lasts: enough for a file to be written, rotated, compressed and deleted.
const CHECKS: u32 = 8;
/// For so many of them the receiver is away.
const AWAY: u32 = 6;
/// When nothing new has arrived for so long, what is missing is lost.
const SILENCE: Duration = Duration::from_secs(20);
/// A writer that stays so far behind its rate ends the ramp.
const REACHED: f64 = 0.9;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Divides the kubelet's size (10 MiB), its interval (10 s), the receiver's absence (60 s) and the agent's
    /// `held_deleted` (1 GiB). 1 is the kubelet's defaults; times inside of other programs do not scale.
    #[arg(long, default_value_t = 10)]
    scale: u32,
    /// Containers that write; may be repeated.
    #[arg(long, default_values_t = [1, 10])]
    containers: Vec<u64>,
    /// Whether the receiver is away meanwhile; may be repeated.
    #[arg(long, default_values_t = [false, true], action = clap::ArgAction::Append, num_args = 1)]
    away: Vec<bool>,
    /// The ramp: lines a second, over all containers.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "25000,50000,100000,150000,200000,300000,400000,600000,800000"
    )]
    rates: Vec<u64>,
    /// Only subjects with this text in their title.
    #[arg(long, default_value = "")]
    only: String,
}

/// How a step of the ramp ended.
enum Step {
    /// Every line arrived, at this rate.
    Complete(f64),
    /// So many lines did not.
    Lost(u64),
    /// The writer reached only this rate.
    Limit(f64),
}

/// Takes every subject up every ramp and prints the table.
///
/// # Errors
/// When a subject ends.
pub(crate) fn run(agent: &Path, options: &Options) -> anyhow::Result<()> {
    println!(
        "The kubelet rotates above {} KiB, looks every {} ms, keeps 5 files; a step lasts {CHECKS} of its checks; \
         lines of about 250 bytes, no compression by the agent\n",
        (10 << 10) / options.scale,
        10_000 / options.scale,
    );
    println!(
        "| subject | containers | receiver | highest rate without loss | first rate with loss | lost there |"
    );
    println!("|---|---|---|---|---|---|");
    let agent = Agent {
        workers: "auto",
        held_deleted: (1 << 30) / u64::from(options.scale),
        ..Agent::new(agent, "none")
    };
    let subjects = peers::beside(vec![("sidelight", agent)], "0.2", &options.only);
    for &containers in &options.containers {
        for &away in &options.away {
            for (title, subject) in &subjects {
                let receiver = if away { format!("away {} s", 60 / options.scale) } else { "up".to_owned() };
                print!("| {title} | {containers} | {receiver} ");
                ramp(subject, containers, away, options)?;
            }
        }
    }
    peers::print_notes(subjects.iter().map(|(_, subject)| subject));
    Ok(())
}

fn ramp(subject: &Subject, containers: u64, away: bool, options: &Options) -> anyhow::Result<()> {
    let interval = Duration::from_secs(10) / options.scale;
    let rotation = Rotation { max_size: (10 << 20) / u64::from(options.scale), max_files: 5, interval };
    let node = Node::new(containers, 1)?;
    let mut writers = for_all(&node)?;
    let mut run = subject.start(&node, Look::Numbers)?;
    let _kubelet = Kubelet::start(&writers, rotation);
    let mut highest = 0.0;
    for &rate in &options.rates {
        step(&format!("{rate} lines/s"));
        match write_and_wait(&mut run, &mut writers, rate, away, interval)? {
            Step::Complete(reached) => highest = reached,
            Step::Lost(lost) => {
                println!("| {highest:.0} | {rate} | {lost} |");
                return Ok(());
            }
            Step::Limit(reached) => {
                println!("| {:.0} | none: the writer's limit | 0 |", reached.max(highest));
                return Ok(());
            }
        }
    }
    println!("| {highest:.0} | none: the ramp's end | 0 |");
    Ok(())
}

fn write_and_wait(
    run: &mut Run,
    writers: &mut [Writer],
    rate: u64,
    away: bool,
    interval: Duration,
) -> anyhow::Result<Step> {
    let receiver = &run.receivers[0];
    let begun = written(writers);
    let time = Instant::now();
    receiver.be_away(away);
    write_at(writers, rate, AWAY * interval)?;
    receiver.be_away(false);
    write_at(writers, rate, (CHECKS - AWAY) * interval)?;
    let reached = (written(writers) - begun) as f64 / time.elapsed().as_secs_f64();
    let lost = wait(run, writers)?;
    Ok(match lost {
        0 if reached < REACHED * rate as f64 => Step::Limit(reached),
        0 => Step::Complete(reached),
        lost => Step::Lost(lost),
    })
}

/// Waits until every line has arrived or nothing more comes; gives how many are missing.
fn wait(run: &mut Run, writers: &[Writer]) -> anyhow::Result<u64> {
    let (mut missing, mut progress) = (u64::MAX, Instant::now());
    while missing > 0 && progress.elapsed() < SILENCE {
        run.settle(Duration::from_millis(50))?;
        let tally = &run.receivers[0].tally;
        let now = writers.iter().map(|writer| writer.next - tally.distinct(&writer.pod)).sum();
        if now < missing {
            (missing, progress) = (now, Instant::now());
        }
    }
    Ok(missing)
}
