//! What travels: a whole chunk, or a piece of one whose receiver refuses something in it.
//!
//! A chunk that is refused again and again while others are taken is cut in halves, and the refused half again, until
//! one record is left. That one is dropped, loudly. Where nothing at all is taken, every chunk may hold such a record:
//! then they are cut as well, until a half is taken that holds none.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::chunk::{Chunk, Compression, new_id};

/// Refusals of a chunk, each with others taken since the one before, until it is cut.
const PATIENCE: u32 = 5;
/// Refusals of a piece before it is cut further: it is under suspicion already.
const PATIENCE_WITH_A_PIECE: u32 = 2;
/// Refusals of one record alone until it is dropped. A receiver that is overloaded refuses at random, and takes one of so
/// many tries.
const PATIENCE_WITH_ONE: u32 = 20;
/// How long that must have gone on.
const LAST_DOUBT: Duration = Duration::from_secs(30);
/// Refusals in a row by each receiver, of whatever was sent, from which on each cuts what it has refused. One that is away
/// behind something that accepts its connections costs a message more for each, and there is one in half a minute.
const PATIENCE_IN_THE_DARK: u32 = 6;

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

/// The chunks that are cut, how many parcels were acknowledged, and how many were refused since.
#[derive(Debug)]
pub(super) struct Parcels {
    cuts: HashMap<u64, Cut>,
    next_cut: u64,
    acknowledged: u64,
    refused_in_a_row: u32,
    patience_in_the_dark: u32,
}

/// A chunk in pieces, which have its bytes: its receipt is settled when every record is.
#[derive(Debug)]
struct Cut {
    chunk: Chunk,
    open_records: usize,
    /// Of its records that are open, and of the marks of all.
    bytes: usize,
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
    /// Nothing is cut; for so many receivers.
    pub(super) fn new(receivers: usize) -> Self {
        let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
        Parcels {
            cuts: HashMap::new(),
            next_cut: 0,
            acknowledged: 0,
            refused_in_a_row: 0,
            patience_in_the_dark: PATIENCE_IN_THE_DARK.saturating_mul(receivers),
        }
    }

    /// The receiver has taken a parcel.
    pub(super) fn acknowledged(&mut self, parcel: Parcel) {
        self.acknowledged += 1;
        self.refused_in_a_row = 0;
        match parcel.content {
            Content::Whole(chunk) => chunk.settle(&[]),
            Content::Piece { cut, records, entries, .. } => {
                self.settle_piece(cut, &records, entries.len(), false);
            }
        }
    }

    /// The connection that had sent this parcel before all others failed without acknowledging it: it is the suspect.
    /// Gives what is to be sent again.
    pub(super) fn after_failure(&mut self, mut suspect: Parcel) -> Vec<Parcel> {
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        let refusals = &mut suspect.refusals;
        let first = *refusals.first.get_or_insert_with(Instant::now);
        // Only what is refused while others are taken is refused for what is in it.
        if refusals.count == 0 || self.acknowledged > refusals.acknowledged {
            refusals.count += 1;
            refusals.acknowledged = self.acknowledged;
        }
        let is_convicted = match (suspect.records(), suspect.is_piece()) {
            (1, _) => suspect.refusals.count >= PATIENCE_WITH_ONE && first.elapsed() >= LAST_DOUBT,
            _ if self.is_in_the_dark() => true,
            (_, true) => suspect.refusals.count >= PATIENCE_WITH_A_PIECE,
            (_, false) => suspect.refusals.count >= PATIENCE,
        };
        if is_convicted { self.cut(suspect) } else { vec![suspect] }
    }

    /// Nothing is taken any more: whether a receiver is away, or each parcel holds something that it refuses, only a
    /// smaller one can tell.
    pub(super) fn is_in_the_dark(&self) -> bool {
        self.refused_in_a_row >= self.patience_in_the_dark
    }

    /// Halves a parcel; one record alone is dropped.
    fn cut(&mut self, parcel: Parcel) -> Vec<Parcel> {
        let (cut, records, entries) = match parcel.content {
            Content::Piece { cut, records, entries, .. } => (cut, records, entries),
            // It waits for the memory that it needs when it is unpacked.
            Content::Whole(chunk) if !chunk.credit.may_become(Cut::bytes(&chunk)) => {
                return vec![Parcel { content: Content::Whole(chunk), refusals: parcel.refusals }];
            }
            Content::Whole(mut chunk) => {
                let Some(entries) = uncompressed(&mut chunk) else {
                    tracing::error!(tag = %chunk.tag, "a chunk cannot be unpacked again");
                    return vec![Parcel::whole(*chunk)];
                };
                tracing::warn!(tag = %chunk.tag, records = chunk.marks.len(), "a chunk is refused again and again; looking for the record that is");
                let records = 0..chunk.marks.len();
                self.next_cut += 1;
                self.cuts.insert(self.next_cut, Cut::new(*chunk));
                (self.next_cut, records, entries)
            }
        };
        let Some(Cut { chunk, .. }) = self.cuts.get(&cut) else { return Vec::new() };
        if records.len() == 1 {
            let bytes = entries.len();
            tracing::error!(tag = %chunk.tag, bytes, "a record is dropped: its receiver refuses it alone, and takes others");
            self.settle_piece(cut, &records, bytes, true);
            return Vec::new();
        }
        let middle = records.start + records.len() / 2;
        let end = |record: usize| record.checked_sub(1).map_or(0, |last| chunk.marks[last].end as usize);
        let (first, second) = entries.split_at(end(middle) - end(records.start));
        let piece = |records, entries: &[u8]| {
            let (id, tag, entries) = (new_id(), chunk.tag.clone(), entries.to_vec());
            Parcel {
                content: Content::Piece { cut, id, tag, records, entries },
                refusals: Refusals::default(),
            }
        };
        vec![piece(records.start..middle, first), piece(middle..records.end, second)]
    }

    fn settle_piece(&mut self, cut: u64, records: &Range<usize>, bytes: usize, rejected: bool) {
        let Some(open) = self.cuts.get_mut(&cut) else { return };
        open.settle(records, bytes, rejected);
        if open.open_records == 0
            && let Some(mut whole) = self.cuts.remove(&cut)
        {
            whole.rejected.sort_unstable();
            whole.chunk.settle(&whole.rejected);
        }
    }
}

// === impl Cut ===

impl Cut {
    /// Its pieces hold all of it.
    fn new(mut chunk: Chunk) -> Self {
        let bytes = Self::bytes(&chunk);
        chunk.credit.set_bytes(bytes);
        Cut { open_records: chunk.marks.len(), chunk, bytes, rejected: Vec::new() }
    }

    /// What a chunk takes in pieces: its records, unpacked, and their marks.
    fn bytes(chunk: &Chunk) -> usize {
        chunk.marks.last().map_or(0, |last| last.end as usize) + size_of_val(chunk.marks.as_slice())
    }

    fn settle(&mut self, records: &Range<usize>, bytes: usize, rejected: bool) {
        self.open_records = self.open_records.saturating_sub(records.len());
        self.bytes = self.bytes.saturating_sub(bytes);
        self.chunk.credit.set_bytes(self.bytes);
        if rejected {
            self.rejected.extend(records.clone());
        }
    }
}

/// Takes the entries out of a chunk, as they were encoded.
fn uncompressed(chunk: &mut Chunk) -> Option<Vec<u8>> {
    match chunk.compression {
        Compression::None => {}
        Compression::Gzip => {
            let mut entries = Vec::new();
            flate2::read::GzDecoder::new(&chunk.entries[..]).read_to_end(&mut entries).ok()?;
            chunk.entries = entries;
        }
        Compression::Zstd => chunk.entries = zstd::decode_all(&chunk.entries[..]).ok()?,
    }
    Some(std::mem::take(&mut chunk.entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::account::Accounts;
    use crate::checkpoint::ledger::SharedLane;
    use crate::delivery::chunk::RecordMark;
    use crate::delivery::memory::Share;

    const RECORD: usize = 100;

    fn chunk(records: usize, share: &Arc<Share>) -> Chunk {
        let accounts = Accounts::register(&prometheus::Registry::new()).unwrap();
        let receipt = SharedLane::new(0, accounts.output("out")).reserve(Vec::new());
        let mark = |record: usize| RecordMark { end: ((record + 1) * RECORD) as u32, source: 1 };
        let (marks, entries) = ((0..records).map(mark).collect(), vec![0; records * RECORD]);
        Chunk::new("tag".into(), entries, Compression::None, marks, receipt, share.try_take().unwrap())
    }

    /// Otherwise a few of them fill the output's share, and nothing comes any more by which a receiver that refuses them
    /// could be told from one that is away.
    #[test]
    fn a_chunk_of_which_one_record_is_left_takes_the_memory_of_that_and_of_its_marks() {
        let share = Share::new(1 << 20, 1 << 20, Vec::new());
        let (mut parcels, mut left) = (Parcels::new(1), vec![Parcel::whole(chunk(64, &share))]);
        assert_eq!(share.used(), 1 << 20);
        while left[0].records() > 1 {
            let again = parcels.cut(left.pop().unwrap());
            left = again;
            parcels.acknowledged(left.pop().unwrap());
        }
        assert_eq!(share.used(), RECORD + 64 * size_of::<RecordMark>());
        parcels.acknowledged(left.pop().unwrap());
        assert_eq!(share.used(), 0);
    }
}
