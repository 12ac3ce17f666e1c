//! Measures the log path: speed against its floor, and what it takes at a given load, when idle, by size, and before a line is
//! lost; what scraping takes; and what the injector's reviews take. `tests/README.md` says how to read the tables.
//!
//! ```text
//! cargo build --release && cargo run --release -p sidelight-tests --bin bench
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers: its output is its purpose"
)]

mod corpus;
mod echo;
mod floor;
mod forward;
mod http;
mod idle;
mod kubelet;
mod load;
mod loss;
mod node;
mod peers;
mod process;
mod receiver;
mod reviews;
mod scrape;
mod slopes;
mod speed;
mod stats;
mod subject;
mod tally;
mod writer;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::process::Cost;
use crate::subject::Compression;

/// Runs every subject in turn, several rounds, and prints the medians; or one of the commands.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Section>,
    /// The agent.
    #[arg(long, global = true, default_value = "target/release/sidelight")]
    agent: PathBuf,
    #[command(flatten)]
    speed: speed::Options,
}

#[derive(Subcommand)]
enum Section {
    /// CPU time, memory and latency at a given load.
    Load(load::Options),
    /// CPU time, memory and system calls with files that nobody writes to.
    Idle(idle::Options),
    /// Memory by containers, workers and outputs.
    Slopes,
    /// The rate at which the first line is lost.
    Loss(loss::Options),
    /// CPU time and memory of scraping and remote write.
    Scrape(scrape::Options),
    /// CPU time, latency and memory of the injector's admission reviews.
    Reviews(reviews::Options),
    /// A bare server over TLS that answers everything with so many bytes, for comparison.
    Echo { certificate: PathBuf, key: PathBuf, answer: usize },
    /// One run of the floor program, measured from outside.
    Floor {
        pods: PathBuf,
        compression: Compression,
        /// Without one, chunks are thrown away.
        address: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let agent = &arguments.agent;
    match arguments.command {
        None => speed::run(agent, &arguments.speed),
        Some(Section::Load(options)) => load::run(agent, &options),
        Some(Section::Idle(options)) => idle::run(agent, &options),
        Some(Section::Slopes) => slopes::run(agent),
        Some(Section::Loss(options)) => loss::run(agent, &options),
        Some(Section::Scrape(options)) => scrape::run(agent, &options),
        Some(Section::Reviews(options)) => reviews::run(&options),
        Some(Section::Echo { certificate, key, answer }) => echo::run(&certificate, &key, answer),
        Some(Section::Floor { pods, compression, address }) => {
            let lines = floor::run(&pods, address.as_deref(), compression)?;
            println!("{} {lines}", Cost::of_process(std::process::id())?);
            Ok(())
        }
    }
}

/// Progress of a long run.
#[allow(clippy::print_stderr, reason = "the table alone is on standard output")]
pub(crate) fn step(text: &str) {
    eprintln!("{text}");
}
