//! What the demo shows: a quiet live view in a terminal, plain lines when piped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rmpv::Value;

use super::receiver::Received;
use super::samples::Samples;

/// A plain line so often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// A record is cut to this for the view.
const WIDTH: usize = 110;

/// Lines longer than the terminal are cut: wrapped, they would be more lines than are drawn over (DECAWM).
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

/// The view and what it last showed.
pub(super) struct View {
    is_terminal: bool,
    drawn_lines: usize,
    last: Instant,
    last_records: u64,
}

// === impl View ===

impl View {
    pub(super) fn new() -> Self {
        View {
            is_terminal: std::io::stdout().is_terminal(),
            drawn_lines: 0,
            last: Instant::now(),
            last_records: 0,
        }
    }

    pub(super) fn begin(&self, directory: &Path, receiver: SocketAddr, samples: &str) {
        write(&format!(
            "An embedded node in {}: four pods write logs and count them on a page,\n\
             the pipeline reads both. A Forward receiver on {receiver} acknowledges and counts, and one of remote\n\
             write at {samples}. Ctrl-C ends it.\n\n",
            directory.display()
        ));
    }

    /// Shows how it goes; false when nobody reads that any more.
    pub(super) fn progress(&mut self, written: u64, received: &Received, samples: &Samples) -> bool {
        let elapsed = self.last.elapsed();
        if !self.is_terminal && elapsed < PLAIN_INTERVAL {
            return true;
        }
        let arrived = received.arrived();
        let rate =
            received.records.saturating_sub(self.last_records) as f64 / elapsed.as_secs_f64().max(0.001);
        self.last = Instant::now();
        self.last_records = received.records;
        let status = format!(
            "written {written:>7}   arrived {arrived:>7}   on the way {:>5}   {rate:>6.0} records/s   {:>5} samples",
            written.saturating_sub(arrived),
            samples.count
        );
        if !self.is_terminal {
            let newest = received.newest.values().filter_map(|records| records.back());
            let records: String =
                newest.map(|(tag, record)| format!("  {}\n", self.record(tag, record))).collect();
            return write(&format!("{status}\n{records}"));
        }
        let mut frame = String::new();
        if self.drawn_lines > 0 {
            let _ = write!(frame, "\u{1b}[{}A\u{1b}[J", self.drawn_lines);
        }
        let _ = writeln!(frame, "{NO_WRAP}\u{1b}[1m{status}\u{1b}[0m");
        self.drawn_lines = 1;
        for (tag, record) in received.newest.values().flatten() {
            let _ = writeln!(frame, "  {}", self.record(tag, record));
            self.drawn_lines += 1;
        }
        frame.push_str(WRAP);
        write(&frame)
    }

    /// Says what came of it; true if every line arrived, and the newest sample of each pod.
    pub(super) fn end(
        &self,
        expected: &BTreeMap<String, u64>,
        received: &Received,
        samples: &Samples,
    ) -> bool {
        let mut text = String::from("\npod                  written  arrived  missing  newest sample\n");
        for (writer, lines) in expected {
            let arrived = received.arrived_of(writer, *lines);
            let counted = samples.counted(writer).map_or("none".to_owned(), |value| value.to_string());
            let _ = writeln!(
                text,
                "{writer:<20} {lines:>7}  {arrived:>7}  {:>7}  {counted:>13}",
                lines - arrived
            );
        }
        let missing = received.missing(expected);
        let verdict = match (missing, expected.is_empty()) {
            (0, false) => "every line arrived",
            (0, true) => "NOTHING WAS WRITTEN",
            _ => "LINES ARE MISSING",
        };
        let _ = writeln!(text, "{verdict}; {} came twice", received.duplicates);
        let have_counted = samples.have_counted(expected);
        let verdict = if have_counted { "as counted" } else { "NOT AS COUNTED" };
        let _ = writeln!(
            text,
            "{} samples of {} series; the newest of each pod {verdict}",
            samples.count,
            samples.newest.len()
        );
        write(&text);
        missing == 0 && have_counted && !expected.is_empty()
    }

    fn record(&self, tag: &str, record: &Value) -> String {
        let kubernetes = &record["kubernetes"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let level = text(&record["level"]);
        let message = record["message"].as_str().or(record["log"].as_str()).unwrap_or_default();
        let message: String = message.replace('\n', " ⏎ ").chars().take(WIDTH).collect();
        let owner = format!("{}/{}", text(&kubernetes["namespace_name"]), text(&kubernetes["owner_name"]));
        if !self.is_terminal {
            return format!("{tag}  {owner}  {level:<5}  {message}");
        }
        let colour = match level.as_str() {
            "error" => 31,
            "warn" => 33,
            "" => 35,
            _ => 32,
        };
        format!("\u{1b}[36m{owner:<18}\u{1b}[0m \u{1b}[{colour}m{level:<5}\u{1b}[0m {message}")
    }
}

/// False when nobody reads any more.
fn write(text: &str) -> bool {
    std::io::stdout().lock().write_all(text.as_bytes()).is_ok()
}
