//! What has arrived, counted by number.

use std::collections::BTreeMap;

use super::Received;
use super::message::{is_undamaged, sequence};

/// What has arrived.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) records: Vec<Received>,
    /// How often each sequence number arrived, by writer: counted as they come, for those who wait for them.
    pub(super) sequences: BTreeMap<String, BTreeMap<u64, u64>>,
    /// Numbered lines that are not what was written.
    damaged: Vec<(String, u64, String)>,
}

/// What became of the lines 0 to `sent` of one writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines that were written.
    pub sent: u64,
    /// Of these, lines that arrived.
    pub delivered: u64,
    /// How many came more than once, each time counted.
    pub repeated: u64,
}

/// A record with a numbered line.
pub(super) struct Numbered {
    writer: String,
    number: u64,
    /// What has arrived, if it is not what was written.
    damaged: Option<String>,
}

// === impl Numbered ===

impl Numbered {
    /// None for a record without a number, and for the start of one line that is marked as cut: the whole
    /// is still to come.
    pub(super) fn of(received: &Received) -> Option<Self> {
        let (writer, number) = sequence(&received.record)?;
        let is_undamaged = is_undamaged(&received.record);
        let is_part = || {
            let text = received.record["log"].as_str().unwrap_or_default();
            received.record["sidelight"]["truncated"].as_bool() == Some(true)
                && text.matches("seq=").count() == 1
        };
        if !is_undamaged && is_part() {
            return None;
        }
        let damaged = (!is_undamaged).then(|| received.record.to_string());
        Some(Numbered { writer, number, damaged })
    }
}

// === impl Arrivals ===

impl Arrivals {
    pub(super) fn add(&mut self, numbered: Vec<Numbered>) {
        for Numbered { writer, number, damaged } in numbered {
            self.damaged.extend(damaged.map(|record| (writer.clone(), number, record)));
            *self.sequences.entry(writer).or_default().entry(number).or_default() += 1;
        }
    }

    pub(super) fn assert_undamaged(&self, writer: &str) {
        if let Some((_, number, record)) = self.damaged.iter().find(|(of, ..)| of == writer) {
            panic!("line {number} of {writer} is damaged: {record}");
        }
    }

    pub(super) fn tally(&self, writer: &str, sent: u64) -> Tally {
        self.assert_undamaged(writer);
        let lines = self.sequences.get(writer);
        let times = || lines.into_iter().flatten();
        assert!(times().all(|(number, _)| *number < sent), "lines of {writer} that were never written");
        let repeated = times().map(|(_, times)| times - 1).sum();
        Tally { sent, delivered: times().count() as u64, repeated }
    }

    pub(super) fn missing(&self, writer: &str, sent: u64) -> Vec<u64> {
        let lines = self.sequences.get(writer);
        (0..sent).filter(|number| !lines.is_some_and(|lines| lines.contains_key(number))).collect()
    }
}
