//! What travels: a whole chunk, or a piece of one whose receiver refuses something in it.
//!
//! A chunk that fails again and again while others are taken is cut in halves, and the failing half again, until one
//! record is left. That one is dropped, loudly.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use crate::delivery::chunk::{Chunk, Compression, RecordMark, new_id};

/// Failures of a whole chunk before it is suspected, and of a single record before it is dropped.
const PATIENCE: u32 = 5;
/// Failures of a piece before it is cut further: it is under suspicion already.
const PATIENCE_WITH_A_PIECE: u32 = 2;

/// What is sent as one message.
#[derive(Debug)]
pub(super) struct Parcel {
    content: Content,
    /// Connections that ended while this was the oldest that they had sent.
    failures: u32,
    /// Whether any byte of it has gone out.
    pub(super) was_sent: bool,
    /// Acknowledgements of the output when it, or the chunk that it is a piece of, failed for the first time.
    acknowledged_before: Option<u64>,
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
        Parcel {
            content: Content::Whole(Box::new(chunk)),
            failures: 0,
            was_sent: false,
            acknowledged_before: None,
        }
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
        self.failures > 1 || self.is_piece()
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

    /// The parcels of a connection that failed, oldest first; the first is the suspect, if the connection failed
    /// `after_sending` it. Gives what is to be sent again, the suspect last, so that it is seen whether others fail.
    pub(super) fn after_failure(&mut self, mut parcels: Vec<Parcel>, after_sending: bool) -> Vec<Parcel> {
        let Some(first) = parcels.first_mut().filter(|first| after_sending && first.was_sent) else {
            return parcels;
        };
        let acknowledged_before = *first.acknowledged_before.get_or_insert(self.acknowledged);
        first.failures += 1;
        let others_were_taken = self.acknowledged > acknowledged_before;
        let is_last = first.records() == 1;
        let patience = if first.is_piece() && !is_last { PATIENCE_WITH_A_PIECE } else { PATIENCE };
        let stays_whole = first.failures < patience || (is_last && !others_were_taken);
        if first.is_suspect() {
            let suspect = parcels.remove(0);
            parcels.extend(if stays_whole { vec![suspect] } else { self.cut(suspect) });
        }
        parcels
    }

    /// Halves a parcel; one record alone is dropped.
    fn cut(&mut self, parcel: Parcel) -> Vec<Parcel> {
        let acknowledged_before = parcel.acknowledged_before;
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
        halves.into_iter().filter_map(|records| self.piece(cut, records, acknowledged_before)).collect()
    }

    fn piece(&self, cut: u64, records: Range<usize>, acknowledged_before: Option<u64>) -> Option<Parcel> {
        let Cut { chunk, entries, .. } = self.cuts.get(&cut)?;
        let entries = entries.get(bytes_of(&chunk.marks, &records))?.to_vec();
        let content = Content::Piece { cut, id: new_id(), tag: chunk.tag.clone(), records, entries };
        Some(Parcel { content, failures: 0, was_sent: false, acknowledged_before })
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
