//! What travels: a whole chunk, or a piece of one whose receiver refuses something in it.
//!
//! A chunk that is refused again and again while others are taken is cut in halves, and the refused half again, until
//! one record is left. That one is dropped, loudly.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::chunk::{Chunk, Compression, RecordMark, new_id};

/// Refusals of a chunk, each with others taken since the one before, until it is cut.
const PATIENCE: u32 = 5;
/// Refusals of a piece before it is cut further: it is under suspicion already.
const PATIENCE_WITH_A_PIECE: u32 = 2;
/// How long one record alone must have been refused, while others were taken, until it is dropped. A receiver that is
/// overloaded refuses at random: in this time, with a try every few hundred milliseconds, it takes the record.
const LAST_DOUBT: Duration = Duration::from_secs(30);

/// What is sent as one message.
#[derive(Debug)]
pub(super) struct Parcel {
    content: Content,
    refusals: Refusals,
}

/// Connections that ended while a parcel was the oldest that they had sent, and others were taken in between.
#[derive(Clone, Copy, Debug, Default)]
struct Refusals {
    count: u32,
    first: Option<Instant>,
    /// Acknowledgements of the output at the newest one.
    acknowledged: u64,
}

#[derive(Debug)]
enum Content {
    Whole(Box<Chunk>),
    Piece { cut: u64, id: [u8; 16], tag: Arc<str>, records: Range<usize>, entries: Vec<u8> },
}

/// The chunks that are cut, and how many parcels were acknowledged.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    cuts: HashMap<u64, Cut>,
    next_cut: u64,
    acknowledged: u64,
}

/// A chunk in pieces: its receipt is settled when every record is.
#[derive(Debug)]
struct Cut {
    chunk: Chunk,
    entries: Vec<u8>,
    open_records: usize,
    rejected: Vec<usize>,
}

// === impl Parcel ===

impl Parcel {
    pub(super) fn whole(chunk: Chunk) -> Self {
        Parcel { content: Content::Whole(Box::new(chunk)), refusals: Refusals::default() }
    }

    pub(super) fn id(&self) -> &[u8; 16] {
        match &self.content {
            Content::Whole(chunk) => &chunk.id,
            Content::Piece { id, .. } => id,
        }
    }

    pub(super) fn tag(&self) -> &str {
        match &self.content {
            Content::Whole(chunk) => &chunk.tag,
            Content::Piece { tag, .. } => tag,
        }
    }

    pub(super) fn entries(&self) -> &[u8] {
        match &self.content {
            Content::Whole(chunk) => &chunk.entries,
            Content::Piece { entries, .. } => entries,
        }
    }

    pub(super) fn compression(&self) -> Compression {
        match &self.content {
            Content::Whole(chunk) => chunk.compression,
            Content::Piece { .. } => Compression::None,
        }
    }

    /// Whether something in it may be what its receiver refuses.
    pub(super) fn is_suspect(&self) -> bool {
        self.refusals.count > 0 || self.is_piece()
    }

    fn is_piece(&self) -> bool {
        matches!(self.content, Content::Piece { .. })
    }

    pub(super) fn records(&self) -> usize {
        match &self.content {
            Content::Whole(chunk) => chunk.marks.len(),
            Content::Piece { records, .. } => records.len(),
        }
    }
}

// === impl Parcels ===

impl Parcels {
    /// The receiver has taken a parcel.
    pub(super) fn acknowledged(&mut self, parcel: Parcel) {
        self.acknowledged += 1;
        match parcel.content {
            Content::Whole(chunk) => chunk.settle(&[]),
            Content::Piece { cut, records, .. } => self.settle_piece(cut, &records, false),
        }
    }

    /// The connection that had sent this parcel before all others failed without acknowledging it: it is the suspect.
    /// Gives what is to be sent again.
    pub(super) fn after_failure(&mut self, mut suspect: Parcel) -> Vec<Parcel> {
        let refusals = &mut suspect.refusals;
        let first = *refusals.first.get_or_insert_with(Instant::now);
        // Only what is refused while others are taken is refused for what is in it.
        if refusals.count == 0 || self.acknowledged > refusals.acknowledged {
            refusals.count += 1;
            refusals.acknowledged = self.acknowledged;
        }
        let is_convicted = match (suspect.records(), suspect.is_piece()) {
            (1, _) => suspect.refusals.count >= PATIENCE && first.elapsed() >= LAST_DOUBT,
            (_, true) => suspect.refusals.count >= PATIENCE_WITH_A_PIECE,
            (_, false) => suspect.refusals.count >= PATIENCE,
        };
        if is_convicted { self.cut(suspect) } else { vec![suspect] }
    }

    /// Halves a parcel; one record alone is dropped.
    fn cut(&mut self, parcel: Parcel) -> Vec<Parcel> {
        let (cut, records) = match parcel.content {
            Content::Piece { cut, records, .. } => (cut, records),
            Content::Whole(chunk) => {
                let Some(entries) = uncompressed(&chunk) else {
                    tracing::error!(tag = %chunk.tag, "a chunk cannot be unpacked again");
                    return vec![Parcel::whole(*chunk)];
                };
                tracing::warn!(tag = %chunk.tag, records = chunk.marks.len(), "a chunk is refused again and again; looking for the record that is");
                let records = 0..chunk.marks.len();
                self.next_cut += 1;
                self.cuts.insert(
                    self.next_cut,
                    Cut { open_records: records.len(), chunk: *chunk, entries, rejected: Vec::new() },
                );
                (self.next_cut, records)
            }
        };
        if records.len() == 1 {
            if let Some(open) = self.cuts.get(&cut) {
                let bytes = bytes_of(&open.chunk.marks, &records).len();
                tracing::error!(tag = %open.chunk.tag, bytes, "a record is dropped: its receiver refuses it alone, and takes others");
            }
            self.settle_piece(cut, &records, true);
            return Vec::new();
        }
        let middle = records.start + records.len() / 2;
        let halves = [records.start..middle, middle..records.end];
        halves.into_iter().filter_map(|records| self.piece(cut, records)).collect()
    }

    fn piece(&self, cut: u64, records: Range<usize>) -> Option<Parcel> {
        let Cut { chunk, entries, .. } = self.cuts.get(&cut)?;
        let entries = entries.get(bytes_of(&chunk.marks, &records))?.to_vec();
        let content = Content::Piece { cut, id: new_id(), tag: chunk.tag.clone(), records, entries };
        Some(Parcel { content, refusals: Refusals::default() })
    }

    fn settle_piece(&mut self, cut: u64, records: &Range<usize>, rejected: bool) {
        let Some(open) = self.cuts.get_mut(&cut) else { return };
        open.open_records = open.open_records.saturating_sub(records.len());
        if rejected {
            open.rejected.extend(records.clone());
        }
        if open.open_records == 0
            && let Some(mut whole) = self.cuts.remove(&cut)
        {
            whole.rejected.sort_unstable();
            whole.chunk.settle(&whole.rejected);
        }
    }
}

fn bytes_of(marks: &[RecordMark], records: &Range<usize>) -> Range<usize> {
    let start = records.start.checked_sub(1).map_or(0, |before| marks[before].end as usize);
    start..marks[records.end - 1].end as usize
}

fn uncompressed(chunk: &Chunk) -> Option<Vec<u8>> {
    match chunk.compression {
        Compression::None => Some(chunk.entries.clone()),
        Compression::Gzip => {
            let mut entries = Vec::new();
            flate2::read::GzDecoder::new(&chunk.entries[..]).read_to_end(&mut entries).ok()?;
            Some(entries)
        }
        Compression::Zstd => zstd::decode_all(&chunk.entries[..]).ok(),
    }
}
