//! One fault: watched while it lasts, and a row of the table of faults when it is survived.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::agent::{Agent, Probe};
use crate::forward_server::{ForwardServer, Tally};

/// Names the file that rows are appended to; without it, they are only checked.
const TABLE: &str = "SIDELIGHT_FAULT_TABLE";

/// How often an agent is asked for its memory and what it has dropped.
const LOOK: Duration = Duration::from_millis(50);

/// Lines that were written: who must get them, whose they are, how many.
pub type Sent<'a> = (&'a ForwardServer, &'a str, u64);

/// A fault under test.
pub struct Fault {
    name: String,
    observed: Arc<Mutex<Observed>>,
}

/// What became of the lines, and what it took.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Of all writers and receivers together.
    pub tally: Tally,
    /// Source bytes given up, by output and reason, of all agents that were watched.
    pub dropped: Dropped,
}

/// Source bytes by output and reason.
pub type Dropped = BTreeMap<(String, String), u64>;

#[derive(Default)]
struct Observed {
    /// By process, what it has said last.
    dropped: BTreeMap<u32, Dropped>,
    /// The same by namespace, of all outputs together.
    dropped_of: BTreeMap<(u32, String), u64>,
    /// The most that was seen, in bytes.
    memory_used: u64,
    memory_budget: u64,
}

// === impl Fault ===

impl Fault {
    /// A fault by the name that the table gives it.
    pub fn new(name: &str) -> Self {
        Fault { name: name.to_owned(), observed: Arc::default() }
    }

    /// Looks at the agent for as long as it runs.
    pub fn watch(&self, agent: Agent) -> Agent {
        let (probe, observed) = (agent.probe(), self.observed.clone());
        std::thread::spawn(move || {
            while !probe.is_gone() {
                look(&probe, &observed);
                std::thread::sleep(LOOK);
            }
        });
        agent
    }

    /// Looks at it now.
    pub fn look(&self, agent: &Agent) {
        look(&agent.probe(), &self.observed);
    }

    /// Source bytes given up so far, by output and reason.
    pub fn dropped(&self) -> Dropped {
        let mut sum = Dropped::new();
        for (key, bytes) in self.observed.lock().unwrap().dropped.values().flatten() {
            *sum.entry(key.clone()).or_default() += bytes;
        }
        sum
    }

    /// Source bytes of a namespace given up so far, of all outputs together.
    pub fn dropped_of(&self, namespace: &str) -> u64 {
        let observed = self.observed.lock().unwrap();
        observed.dropped_of.iter().filter(|((_, of), _)| of == namespace).map(|(_, bytes)| bytes).sum()
    }

    /// Checks that the account is balanced and that every line has arrived; gives how many came more than once.
    pub fn survived(&self, agent: &Agent, sent: &[Sent<'_>]) -> u64 {
        agent.settle();
        sent.iter().for_each(|(server, writer, lines)| {
            server.assert_complete(writer, *lines);
        });
        self.row(agent, sent).tally.repeated
    }

    /// The same where lines may be dropped: it is for the test to say how many.
    pub fn survived_with_losses(&self, agent: &Agent, sent: &[Sent<'_>]) -> Row {
        agent.settle();
        let row = self.row(agent, sent);
        let is_counted = row.tally.delivered == row.tally.sent || !row.dropped.is_empty();
        assert!(is_counted, "lines are missing, and no reason says why: {row:?}");
        row
    }

    /// Checks the memory, and writes the row.
    fn row(&self, agent: &Agent, sent: &[Sent<'_>]) -> Row {
        self.look(agent);
        let mut row = Row { dropped: self.dropped(), ..Row::default() };
        for (server, writer, lines) in sent {
            let tally = server.tally(writer, *lines);
            row.tally.sent += tally.sent;
            row.tally.delivered += tally.delivered;
            row.tally.repeated += tally.repeated;
        }
        let observed = self.observed.lock().unwrap();
        let (used, budget) = (observed.memory_used, observed.memory_budget);
        assert!(budget > 0 && used <= budget, "memory: {used} of {budget} bytes were used");
        row.add_to_table(&self.name, used, budget);
        row
    }
}

// === impl Row ===

impl Row {
    /// Source bytes that were given up for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.iter().filter(|((_, of), _)| of == reason).map(|(_, bytes)| bytes).sum()
    }

    /// Adds it to the table, if one is made. `used` and `budget` are bytes of memory.
    pub fn add_to_table(&self, name: &str, used: u64, budget: u64) {
        if let Some(path) = std::env::var_os(TABLE) {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(self.render(name, used, budget).as_bytes()).unwrap();
        }
    }

    /// A row of a table in Markdown.
    fn render(&self, name: &str, used: u64, budget: u64) -> String {
        let mut reasons = BTreeMap::<&str, u64>::new();
        for ((_, reason), bytes) in &self.dropped {
            *reasons.entry(reason).or_default() += bytes;
        }
        let mut dropped = String::new();
        for (reason, bytes) in reasons {
            let comma = if dropped.is_empty() { "" } else { ", " };
            let _ = write!(dropped, "{comma}{reason} {bytes} B");
        }
        let dropped = if dropped.is_empty() { "0" } else { &dropped };
        let Tally { sent, delivered, repeated } = self.tally;
        let (used, budget) = (used as f64 / 1048576.0, budget as f64 / 1048576.0);
        format!("| {name} | {sent} | {delivered} | {dropped} | {repeated} | {used:.1} of {budget:.0} MiB |\n")
    }
}

/// Asks an agent; one that does not answer has nothing new to say.
fn look(probe: &Probe, observed: &Mutex<Observed>) {
    let Some(metrics) = probe.metrics() else { return };
    let mut observed = observed.lock().unwrap();
    for line in metrics.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let value = value.parse::<f64>().unwrap_or(0.0) as u64;
        let label = |name: &str| {
            let value = series.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
            value.split('"').next().unwrap_or_default().to_owned()
        };
        match series.split('{').next() {
            Some("sidelight_memory_used_bytes") => observed.memory_used = observed.memory_used.max(value),
            Some("sidelight_memory_budget_bytes") => observed.memory_budget = value,
            Some("sidelight_log_source_bytes_dropped_total") if value > 0 => {
                let agent = observed.dropped.entry(probe.process).or_default();
                agent.insert((label("output"), label("reason")), value);
            }
            Some("sidelight_log_namespace_bytes_dropped_total") if value > 0 => {
                observed.dropped_of.insert((probe.process, label("namespace")), value);
            }
            _ => {}
        }
    }
}
