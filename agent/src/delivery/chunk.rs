//! A chunk: the encoded records of one tag on their way to one receiver, and what is settled when they arrive.

use std::sync::Arc;

use crate::checkpoint::ledger::Receipt;
use crate::delivery::memory::Credit;

/// How a chunk's entries are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As encoded.
    #[default]
    None,
    /// One gzip member.
    Gzip,
    /// One zstd frame.
    Zstd,
}

/// Where one record ends in the uncompressed entries, and how many bytes of source files it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMark {
    /// Offset behind the record's last byte in the uncompressed entries.
    pub end: u32,
    /// Bytes of the source files: heads, newlines and all fragments included.
    pub source: u32,
}

/// The encoded records of one tag, closed by a reader, owned by a delivery until its receiver has answered.
///
/// A chunk that is dropped without [`Chunk::settle`] stays unacknowledged: its lines are read again after a restart.
#[derive(Debug)]
pub struct Chunk {
    /// Random, kept when the same bytes are sent again.
    pub id: [u8; 16],
    /// The Forward tag.
    pub tag: Arc<str>,
    /// Records in the output's encoding, one behind the other, compressed as `compression` says.
    pub entries: Vec<u8>,
    /// How `entries` is compressed.
    pub compression: Compression,
    /// One mark a record, in order: `marks.len()` is the record count.
    pub marks: Vec<RecordMark>,
    pub(crate) receipt: Receipt,
    pub(crate) credit: Credit,
}

impl Chunk {
    /// A chunk with a new id; its credit is for what it takes from here on.
    pub fn new(
        tag: Arc<str>,
        entries: Vec<u8>,
        compression: Compression,
        marks: Vec<RecordMark>,
        receipt: Receipt,
        mut credit: Credit,
    ) -> Self {
        // Of what compresses well, the marks are more.
        credit.set_bytes(entries.capacity().max(size_of_val(&marks[..])));
        Chunk { id: new_id(), tag, entries, compression, marks, receipt, credit }
    }

    /// The receiver has taken the chunk, but for the records at the indices `rejected` (ascending): those are
    /// counted as dropped, the others as delivered, and the lane may commit what lies before.
    pub fn settle(self, rejected: &[usize]) {
        self.receipt.settle(&self.marks, rejected);
        self.credit.recycle(self.entries);
    }
}

/// A random 128-bit id.
pub fn new_id() -> [u8; 16] {
    let mut id = [0; 16];
    // Without a random source, and there always is one, an id that repeats is better than no delivery.
    let _ = getrandom::fill(&mut id);
    id
}
