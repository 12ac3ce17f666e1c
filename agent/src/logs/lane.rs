//! The one open chunk of one output and one reader.

use std::sync::Arc;

use tokio::sync::mpsc::{OwnedPermit, Sender};

use crate::checkpoint::account::{DropReason, OutputAccount};
use crate::checkpoint::ledger::{Part, SharedLane};
use crate::config::READ_WINDOW;
use crate::delivery::chunk::{Chunk, Compression, RecordMark};
use crate::delivery::compression::Compressor;
use crate::delivery::memory::{Credit, Share};
use crate::logs::generation::{Generation, Offsets};

/// There is no room: the output's share of memory is used up, or too many chunks wait for their receiver. The reader
/// is woken when that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked;

/// The open chunk of one output and one reader, and how it is closed.
#[derive(Debug)]
pub struct Lane {
    /// Index of the output.
    pub output: usize,
    /// The output's counters.
    pub account: Arc<OutputAccount>,
    /// Encoded records.
    pub buffer: Vec<u8>,
    marks: Vec<RecordMark>,
    parts: Vec<Part>,
    tag: Arc<str>,
    room: Option<(OwnedPermit<Chunk>, Credit)>,
    compressor: Compressor,
    chunks: Sender<Chunk>,
    share: Arc<Share>,
    ledger: Arc<SharedLane>,
}

// === impl Lane ===

impl Lane {
    /// A lane of the output with this index.
    pub fn new(
        output: usize,
        compression: Compression,
        chunks: Sender<Chunk>,
        share: Arc<Share>,
        account: Arc<OutputAccount>,
    ) -> Self {
        Lane {
            output,
            ledger: SharedLane::new(output, account.clone()),
            account,
            buffer: Vec::new(),
            marks: Vec::new(),
            parts: Vec::new(),
            tag: Arc::from(""),
            room: None,
            compressor: Compressor::new(compression),
            chunks,
            share,
        }
    }

    /// The slots of this lane.
    pub fn ledger(&self) -> &Arc<SharedLane> {
        &self.ledger
    }

    /// Whether a record of about `bytes` fits behind what is there.
    pub fn has_room(&self, tag: &Arc<str>, bytes: usize) -> bool {
        self.room.is_some()
            && self.buffer.len() + bytes <= self.share.chunk_bytes()
            && (Arc::ptr_eq(&self.tag, tag) || self.tag == *tag)
    }

    /// Opens a chunk; the one before must be closed. The first record always fits.
    ///
    /// # Errors
    /// `Blocked` while there is no room.
    pub fn open(&mut self, tag: &Arc<str>) -> Result<(), Blocked> {
        if self.room.is_none() {
            let place = self.place()?;
            let credit = self.share.try_take().ok_or(Blocked)?;
            self.room = Some((place, credit));
        }
        if self.buffer.capacity() == 0 {
            self.buffer = self.share.buffer();
        }
        self.tag = tag.clone();
        Ok(())
    }

    /// A place in the channel. When it is full, the chunks in it hold credits, and the first that comes back wakes the
    /// reader; one that came back before that was asked for has made a place: hence the second attempt.
    fn place(&self) -> Result<OwnedPermit<Chunk>, Blocked> {
        self.chunks.clone().try_reserve_owned().or_else(|_| {
            self.share.ask_for_wake_up();
            self.chunks.clone().try_reserve_owned().map_err(|_| Blocked)
        })
    }

    /// Whether a chunk could be opened, or is open.
    pub fn is_open(&self) -> bool {
        self.room.is_some()
    }

    /// A record was encoded; it stands for `source` bytes of the file.
    pub fn add_record(&mut self, generation: &Arc<Generation>, source: u64) {
        let end = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.marks.push(RecordMark { end, source: u32::try_from(source).unwrap_or(u32::MAX) });
        let part = self.part(generation);
        part.records += 1;
        part.bytes += source;
    }

    /// The lines of each stream before `watermark` are in this chunk or in one before, or dropped.
    pub fn advance(&mut self, generation: &Arc<Generation>, watermark: Offsets) {
        self.part(generation).watermark = watermark;
    }

    /// Counts a line that the receiver has, as an earlier run has left it: it stands behind one that must be read again.
    pub fn pass_over(&self, generation: &Generation, bytes: u64) {
        self.account.deliver(generation.namespace_account(), 0, bytes);
    }

    /// Counts what is given up of the file.
    pub fn drop_bytes(&self, generation: &Generation, reason: DropReason, records: u64, bytes: u64) {
        self.account.give_up(generation.namespace_account(), reason, records, bytes);
    }

    /// Takes back what was encoded behind the last whole record.
    pub fn rollback(&mut self) {
        self.buffer.truncate(self.marks.last().map_or(0, |mark| mark.end as usize));
    }

    /// Drops the line at which the output stands: it makes its own processing fail, raw as well.
    pub fn drop_poison(&mut self, generation: &Arc<Generation>) {
        let Some(source) = generation.source() else { return };
        let start = generation.read(self.output);
        let mut end = start;
        let mut window = vec![0; READ_WINDOW];
        loop {
            let read = source.read_at(&mut window, end).unwrap_or(0);
            let newline = memchr::memchr(b'\n', &window[..read]);
            end += newline.map_or(read, |newline| newline + 1) as u64;
            if newline.is_some() || read == 0 {
                break;
            }
        }
        tracing::error!(path = %generation.path().display(), offset = start, bytes = end - start,
            "a line is dropped as poison");
        self.drop_bytes(generation, DropReason::Poison, 1, end - start);
        generation.set_read(self.output, end);
        self.advance(generation, [end; 3]);
    }

    /// Source bytes of the records in the open chunk.
    pub fn open_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Everything there was is read: sends the chunk, and gives back memory that a backlog has needed.
    pub fn flush(&mut self) {
        self.close();
        self.share.trim();
    }

    /// Sends the chunk; one without records only moves the positions.
    pub fn close(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        let receipt = self.ledger.reserve(std::mem::take(&mut self.parts));
        if self.marks.is_empty() {
            receipt.settle(&[], &[]);
            return;
        }
        let Some((permit, credit)) = self.room.take() else { return };
        let count = self.marks.len();
        let marks = std::mem::replace(&mut self.marks, Vec::with_capacity(count));
        let (entries, compression) = self.compressor.compress(&mut self.buffer, || self.share.copy_buffer());
        // Of a record longer than a chunk, where what is sent is a compressed copy.
        self.buffer.shrink_to(self.share.chunk_bytes());
        permit.send(Chunk::new(self.tag.clone(), entries, compression, marks, receipt, credit));
    }

    fn part(&mut self, generation: &Arc<Generation>) -> &mut Part {
        let is_last = self.parts.last().is_some_and(|part| Arc::ptr_eq(&part.generation, generation));
        if !is_last {
            // Until it is advanced, nothing of the file may be taken for read.
            let watermark = generation.acked_by_stream(self.output);
            self.parts.push(Part { generation: generation.clone(), watermark, records: 0, bytes: 0 });
        }
        self.parts.last_mut().expect("one was pushed")
    }
}
