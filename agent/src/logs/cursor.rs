//! What one output keeps about one container between passes.

use std::sync::Arc;

use crate::logs::generation::{Generation, Offsets};
use crate::logs::join::OpenRecord;
use crate::logs::record::Kept;
use crate::logs::split::{Splitter, Time};

/// One output's place in one container's log.
#[derive(Debug, Default)]
pub struct Cursor {
    /// By stream.
    pub(super) open: [Option<OpenRecord>; 2],
    pub(super) splitter: Splitter,
    /// Time of the last line with a head, for those without.
    pub(super) last_time: Time,
    /// The line that starts here is longer than a record may be; it is being skipped to its end.
    pub(super) skipping: Option<(Arc<Generation>, u64)>,
    /// The file that the pass is in.
    pub(super) current: Option<Arc<Generation>>,
    /// Lines before this place are sent raw: one of them made the pass panic.
    raw_until: Option<(Arc<Generation>, u64)>,
    /// What the encoder keeps for this container.
    pub record: Kept,
}

// === impl Cursor ===

impl Cursor {
    /// Whether a record is open.
    pub fn is_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Source bytes of the open records.
    pub fn open_bytes(&self) -> u64 {
        self.open.iter().flatten().map(|open| open.source).sum()
    }

    /// From where the lines of each stream must be read again after a restart, if everything before `read` was taken.
    pub(super) fn watermark(&self, generation: &Arc<Generation>, read: u64) -> Offsets {
        let skipping = self.skipping.iter().find(|(skipped, _)| Arc::ptr_eq(skipped, generation));
        let taken = skipping.map_or(read, |(_, start)| read.min(*start));
        let [stdout, stderr] = self.open.each_ref().map(|open| {
            open.as_ref().and_then(|open| open.start_in(generation)).map_or(taken, |start| taken.min(start))
        });
        [stdout, stderr, taken]
    }

    /// Whether the line that starts here is to be sent raw.
    pub(super) fn is_raw(&mut self, generation: &Arc<Generation>, start: u64) -> bool {
        let Some((last, until)) = &self.raw_until else { return false };
        let passed = Arc::ptr_eq(last, generation) && start >= *until;
        if passed {
            self.raw_until = None;
        }
        !passed
    }

    /// Forgets the open records after a panic: their lines, and the one that was being read, are read again as raw
    /// text. False when that is what was being done: then the line is poison.
    pub fn retreat(&mut self, output: usize) -> bool {
        let Some(generation) = self.current.clone() else { return false };
        let read = generation.read(output);
        if self
            .raw_until
            .as_ref()
            .is_some_and(|(last, until)| Arc::ptr_eq(last, &generation) && read < *until)
        {
            return false;
        }
        for (older, start) in self.open.iter().flatten().flat_map(OpenRecord::starts) {
            older.set_read(output, older.read(output).min(start));
        }
        self.open = [None, None];
        self.raw_until = Some((generation, read + 1));
        true
    }

    /// Takes the open records that have lines in a file whose bytes are gone.
    pub(super) fn abandon(&mut self, generation: &Arc<Generation>) -> Vec<OpenRecord> {
        let has_lines =
            |open: &mut OpenRecord| open.starts().any(|(other, _)| Arc::ptr_eq(other, generation));
        self.skipping.take_if(|(skipped, _)| Arc::ptr_eq(skipped, generation));
        self.open.iter_mut().filter_map(|open| open.take_if(has_lines)).collect()
    }

    /// The file that the last pass was in.
    pub fn current(&self) -> Option<&Arc<Generation>> {
        self.current.as_ref()
    }
}
