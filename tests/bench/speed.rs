//! CPU time and memory of every subject over the same files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;

use crate::node::Node;
use crate::process::Cost;
use crate::receiver::{Protocol, Receiver};
use crate::stats::{interval, median};
use crate::subject::{Agent, Compression, Subject};
use crate::tally::Look;
use crate::{corpus, peers, step};

/// A change is a regression when the interval lies wholly below.
const REGRESSION: f64 = 0.97;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records of the corpus.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Rounds; every subject runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another agent, to which every row of the agent is compared.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Only rows with this text in their title, and the floors that they need; may be repeated.
    #[arg(long)]
    only: Vec<String>,
}

enum Setting {
    Floor { socket: bool, compression: Compression },
    Subject(Subject),
}

/// One row of the table.
struct Row {
    title: String,
    setting: Setting,
    /// The title of the row that this one is compared to.
    floor: &'static str,
    /// Whether it is the base of the row before it.
    base: bool,
    costs: Vec<Cost>,
}

/// Verifies, runs and prints.
///
/// # Errors
/// When a subject ends, or the agent's records do not arrive as they should.
pub(crate) fn run(agent: &Path, options: &Options) -> anyhow::Result<()> {
    let mut rows = chosen(all_rows(agent, options.base.as_deref()), &options.only);
    step(&format!("writing {} records", options.records));
    let node = corpus::write(options.records)?;
    let mut notes = Vec::new();
    for row in &rows {
        let Setting::Subject(subject) = &row.setting else { continue };
        step(&format!("verifying {}", row.title));
        let wrong = verify(subject, &node, options.records)?;
        let text = format!("{}: {wrong} records did not arrive exactly once and whole", row.title);
        ensure!(wrong == 0 || matches!(subject, Subject::Peer(_)), "{text}");
        if wrong > 0 {
            notes.push(text);
        }
    }
    for round in 1..=options.rounds {
        for row in &mut rows {
            step(&format!("round {round}: {}", row.title));
            row.costs.push(match &row.setting {
                Setting::Floor { socket, compression } => run_floor(&node, *socket, *compression)?,
                Setting::Subject(subject) => {
                    let mut run = subject.start(&node, Look::Count)?;
                    run.wait_for(options.records)?;
                    run.process.cost()?
                }
            });
        }
    }
    print_corpus(&node, options.records)?;
    print_table(&rows, options.records);
    print_bases(&rows);
    notes.iter().for_each(|text| println!("\n{text}"));
    peers::print_notes(rows.iter().filter_map(|row| match &row.setting {
        Setting::Subject(subject) => Some(subject),
        Setting::Floor { .. } => None,
    }));
    Ok(())
}

fn all_rows(agent: &Path, base: Option<&Path>) -> Vec<Row> {
    let row = |title: String, floor, setting| Row { title, floor, setting, base: false, costs: Vec::new() };
    let floor = |title: &'static str, socket, compression| {
        row(title.to_owned(), title, Setting::Floor { socket, compression })
    };
    let mut rows = vec![
        floor(NO_SOCKET, false, Compression::None),
        floor("floor", true, Compression::None),
        floor("floor, gzip", true, Compression::Gzip),
        floor("floor, zstd", true, Compression::Zstd),
    ];
    let peers = peers::on_path();
    let mut agents = vec![
        ("parse: none", "none", Compression::None, 1),
        ("parse: none, two outputs", "none", Compression::None, 2),
        ("parse: json", "json", Compression::None, 1),
        ("parse: auto", "auto", Compression::None, 1),
        ("parse: none, gzip", "none", Compression::Gzip, 1),
        ("parse: none, zstd", "none", Compression::Zstd, 1),
    ];
    if peers.iter().any(|peer| peer.compression == Compression::Zstd) {
        agents.push(("parse: json, zstd", "json", Compression::Zstd, 1));
    }
    for (title, parse, compression, outputs) in agents {
        for (binary, is_base) in [(Some(agent), false), (base, true)] {
            let Some(binary) = binary else { continue };
            let subject = Agent { compression, outputs, ..Agent::new(binary, parse) };
            let title = if is_base { format!("base, {title}") } else { title.to_owned() };
            let row = row(title, floor_of(compression), Setting::Subject(Subject::Agent(subject)));
            rows.push(Row { base: is_base, ..row });
        }
    }
    rows.extend(
        peers
            .into_iter()
            .map(|peer| row(peer.title(), floor_of(peer.compression), Setting::Subject(Subject::Peer(peer)))),
    );
    rows
}

const NO_SOCKET: &str = "floor, no socket";

fn floor_of(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "floor",
        Compression::Gzip => "floor, gzip",
        Compression::Zstd => "floor, zstd",
    }
}

fn chosen(rows: Vec<Row>, only: &[String]) -> Vec<Row> {
    let wanted = |row: &Row| only.is_empty() || only.iter().any(|text| row.title.contains(text.as_str()));
    let floors: Vec<&str> = rows.iter().filter(|row| wanted(row)).map(|row| row.floor).collect();
    let needed = |row: &Row| row.title == NO_SOCKET || floors.contains(&row.title.as_str());
    rows.into_iter().filter(|row| wanted(row) || needed(row)).collect()
}

/// Gives how many records did not arrive once and, where they are decoded, under the right pod.
fn verify(subject: &Subject, node: &Node, records: u64) -> anyhow::Result<u64> {
    let look = if subject.protocol() == Protocol::Forward { Look::Verify } else { Look::Numbers };
    let mut run = subject.start(node, look)?;
    run.wait_for(records)?;
    // What comes twice comes late.
    run.settle(Duration::from_secs(1))?;
    Ok(run.wrong(node, records))
}

fn run_floor(node: &Node, socket: bool, compression: Compression) -> anyhow::Result<Cost> {
    let receiver = Receiver::start(Protocol::Forward, Look::Count)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor").arg(node.path().join("pods")).arg(compression.name());
    if socket {
        command.arg(receiver.address().to_string());
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the floor program failed");
    Cost::parse(&String::from_utf8(output.stdout)?)
}

fn print_corpus(node: &Node, records: u64) -> anyhow::Result<()> {
    let mut bytes = 0;
    for (pod, container) in node.all() {
        bytes += std::fs::metadata(node.log(pod, container))?.len();
    }
    println!("{records} records, {} MB in {} files\n", bytes / 1_000_000, node.pods);
    Ok(())
}

fn print_table(rows: &[Row], records: u64) {
    println!(
        "| subject | records per CPU-second | of its floor | 95 % interval | user CPU, of the floor without socket \
         | user s | system s | peak RSS MiB | RssAnon MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let find = |title: &str| rows.iter().find(|row| row.title == title).expect("floors are kept");
    for row in rows {
        let floor = find(row.floor);
        let mib = |bytes: fn(&Cost) -> u64| row.median(|cost| bytes(cost) as f64) / f64::from(1 << 20);
        println!(
            "| {} | {:.2} M | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
            row.title,
            records as f64 / row.median(Cost::cpu) / 1e6,
            floor.median(Cost::cpu) / row.median(Cost::cpu),
            interval_text(&row.ratios(floor)),
            find(NO_SOCKET).median(|cost| cost.user) / row.median(|cost| cost.user),
            row.median(|cost| cost.user),
            row.median(|cost| cost.system),
            mib(|cost| cost.peak_rss),
            mib(|cost| cost.anon),
        );
    }
}

fn print_bases(rows: &[Row]) {
    if !rows.iter().any(|row| row.base) {
        return;
    }
    println!("\n| subject | speed, of the base | 95 % interval | verdict |\n|---|---|---|---|");
    for pair in rows.windows(2).filter(|pair| pair[1].base) {
        let ratios = pair[0].ratios(&pair[1]);
        let verdict = match interval(&ratios) {
            None => "one round says nothing",
            Some(interval) if interval.high < REGRESSION => "regression",
            Some(interval) if interval.low > 1.0 / REGRESSION => "faster",
            Some(_) => "none shown",
        };
        let title = &pair[0].title;
        let ratio = median(ratios.iter().copied());
        println!("| {title} | {ratio:.3} | {} | {verdict} |", interval_text(&ratios));
    }
}

fn interval_text(ratios: &[f64]) -> String {
    interval(ratios)
        .map_or("–".to_owned(), |interval| format!("{:.3} to {:.3}", interval.low, interval.high))
}

// === impl Row ===

impl Row {
    fn median(&self, value: impl Fn(&Cost) -> f64) -> f64 {
        median(self.costs.iter().map(value))
    }

    /// By round, how much faster this row is than another.
    fn ratios(&self, other: &Row) -> Vec<f64> {
        self.costs.iter().zip(&other.costs).map(|(own, other)| other.cpu() / own.cpu()).collect()
    }
}
