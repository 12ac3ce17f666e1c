//! Measures the log path against its floor: CPU time and memory of the agent's process, as ratios within one run.
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
mod floor;
mod receiver;
mod subject;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::subject::{Cost, Setting};

/// Runs every subject in turn, several rounds, and prints the medians.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Records of the corpus.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Rounds; every subject runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The agent.
    #[arg(long, default_value = "target/release/sidelight")]
    agent: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// One run of the floor program, measured from outside.
    Floor {
        pods: PathBuf,
        compression: Compression,
        /// Without one, chunks are thrown away.
        address: Option<String>,
    },
}

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

/// One row of the table.
struct Row {
    title: &'static str,
    setting: Setting,
    /// The row that this one is compared to.
    floor: usize,
    costs: Vec<Cost>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Floor { pods, compression, address }) = arguments.command {
        let lines = floor::run(&pods, address.as_deref(), compression)?;
        println!("{} {lines}", Cost::of_process(std::process::id())?);
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    eprintln_step(&format!("writing {} records to {}", arguments.records, directory.path().display()));
    corpus::write(directory.path(), arguments.records)?;
    let mut rows = rows();
    for row in rows.iter().filter(|row| matches!(row.setting, Setting::Agent { .. })) {
        eprintln_step(&format!("verifying {}", row.title));
        subject::verify(&arguments.agent, directory.path(), &row.setting, arguments.records)?;
    }
    for round in 1..=arguments.rounds {
        for row in &mut rows {
            eprintln_step(&format!("round {round}: {}", row.title));
            row.costs.push(subject::run(
                &arguments.agent,
                directory.path(),
                &row.setting,
                arguments.records,
            )?);
        }
    }
    print_table(&rows, arguments.records, directory.path());
    Ok(())
}

fn rows() -> Vec<Row> {
    let row = |title, floor, setting| Row { title, setting, floor, costs: Vec::new() };
    let agent = |parse, compression, outputs| Setting::Agent { parse, compression, outputs };
    vec![
        row("floor, no socket", 0, Setting::Floor { socket: false, compression: Compression::None }),
        row("floor", 1, Setting::Floor { socket: true, compression: Compression::None }),
        row("floor, gzip", 2, Setting::Floor { socket: true, compression: Compression::Gzip }),
        row("floor, zstd", 3, Setting::Floor { socket: true, compression: Compression::Zstd }),
        row("parse: none", 1, agent("none", Compression::None, 1)),
        row("parse: none, two outputs", 1, agent("none", Compression::None, 2)),
        row("parse: json", 1, agent("json", Compression::None, 1)),
        row("parse: auto", 1, agent("auto", Compression::None, 1)),
        row("parse: none, gzip", 2, agent("none", Compression::Gzip, 1)),
        row("parse: none, zstd", 3, agent("none", Compression::Zstd, 1)),
    ]
}

fn print_table(rows: &[Row], records: u64, corpus: &Path) {
    let files =
        std::fs::read_dir(corpus.join("pods")).unwrap().map(|pod| pod.unwrap().path().join("app/0.log"));
    let bytes: u64 = files.map(|file| std::fs::metadata(file).unwrap().len()).sum();
    println!("{records} records, {} MB in {} files\n", bytes / 1_000_000, corpus::PODS);
    println!("| subject | records per CPU-second | of its floor | user s | system s | peak RSS MiB |");
    println!("|---|---|---|---|---|---|");
    let per_second =
        |row: &Row| records as f64 / median(row.costs.iter().map(|cost| cost.user + cost.system));
    for row in rows {
        println!(
            "| {} | {:.2} M | {:.2} | {:.2} | {:.2} | {:.1} |",
            row.title,
            per_second(row) / 1e6,
            per_second(row) / per_second(&rows[row.floor]),
            median(row.costs.iter().map(|cost| cost.user)),
            median(row.costs.iter().map(|cost| cost.system)),
            median(row.costs.iter().map(|cost| cost.peak_rss as f64)) / f64::from(1 << 20),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[allow(clippy::print_stderr, reason = "progress of a long run")]
fn eprintln_step(text: &str) {
    eprintln!("{text}");
}
