//! What travels: a whole chunk, or a piece of one whose receiver refuses something in it.
//!
//! A chunk that is refused again and again while others are taken is cut in halves, and the refused half again, until
//! one record is left. That one is dropped, loudly. Where nothing at all is taken, every chunk may hold such a record:
//! then they are cut as well, until a half is taken that holds none.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::chunk::{Chunk, Compression, new_id};
use crate::delivery::compression::Compressor;

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
    Piece(Box<Piece>),
}

/// Some records of a cut chunk.
#[derive(Debug)]
struct Piece {
    cut: u64,
    id: [u8; 16],
    tag: Arc<str>,
    records: Range<usize>,
    entries: Vec<u8>,
    compression: Compression,
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
    /// Of the pieces that are open.
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
            Content::Piece(piece) => &piece.id,
        }
    }

    pub(super) fn tag(&self) -> &str {
        match &self.content {
            Content::Whole(chunk) => &chunk.tag,
            Content::Piece(piece) => &piece.tag,
        }
    }

    pub(super) fn entries(&self) -> &[u8] {
        match &self.content {
            Content::Whole(chunk) => &chunk.entries,
            Content::Piece(piece) => &piece.entries,
        }
    }

    pub(super) fn compression(&self) -> Compression {
        match &self.content {
            Content::Whole(chunk) => chunk.compression,
            Content::Piece(piece) => piece.compression,
        }
    }

    /// Whether something in it may be what its receiver refuses.
    pub(super) fn is_suspect(&self) -> bool {
        self.refusals.count > 0 || self.is_piece()
    }

    fn is_piece(&self) -> bool {
        matches!(self.content, Content::Piece(_))
    }

    pub(super) fn records(&self) -> usize {
        match &self.content {
            Content::Whole(chunk) => chunk.marks.len(),
            Content::Piece(piece) => piece.records.len(),
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
            Content::Piece(piece) => self.settle(&piece, false),
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
        let refusals = parcel.refusals;
        let mut piece = match parcel.content {
            Content::Whole(chunk) => self.open(*chunk),
            Content::Piece(piece) => *piece,
        };
        let Some(cut) = self.cuts.get_mut(&piece.cut) else { return Vec::new() };
        if piece.records.len() == 1 {
            let bytes = cut.unpacked_bytes(&piece.records);
            tracing::error!(tag = %piece.tag, bytes, "a record is dropped: its receiver refuses it alone, and takes others");
            self.settle(&piece, true);
            return Vec::new();
        }
        match cut.halve(&mut piece) {
            Ok(halves) => halves
                .map(|half| Parcel { content: Content::Piece(Box::new(half)), refusals: Refusals::default() })
                .into(),
            Err(error) => {
                tracing::debug!(tag = %piece.tag, %error, "a refused piece stays whole");
                vec![Parcel { content: Content::Piece(Box::new(piece)), refusals }]
            }
        }
    }

    /// Makes one piece of a whole chunk.
    fn open(&mut self, mut chunk: Chunk) -> Piece {
        tracing::warn!(tag = %chunk.tag, records = chunk.marks.len(), "a chunk is refused again and again; looking for the record that is");
        self.next_cut += 1;
        let piece = Piece {
            cut: self.next_cut,
            id: chunk.id,
            tag: chunk.tag.clone(),
            records: 0..chunk.marks.len(),
            entries: std::mem::take(&mut chunk.entries),
            compression: chunk.compression,
        };
        self.cuts.insert(self.next_cut, Cut::new(chunk, &piece));
        piece
    }

    fn settle(&mut self, piece: &Piece, rejected: bool) {
        let Some(open) = self.cuts.get_mut(&piece.cut) else { return };
        open.settle(piece, rejected);
        if open.open_records == 0
            && let Some(mut whole) = self.cuts.remove(&piece.cut)
        {
            whole.rejected.sort_unstable();
            whole.chunk.settle(&whole.rejected);
        }
    }
}

// === impl Cut ===

impl Cut {
    /// The piece holds all of it.
    fn new(chunk: Chunk, piece: &Piece) -> Self {
        let bytes = piece.entries.capacity();
        Cut { open_records: chunk.marks.len(), chunk, bytes, rejected: Vec::new() }
    }

    /// Of these records, as they were encoded.
    fn unpacked_bytes(&self, records: &Range<usize>) -> usize {
        self.start(records.end) - self.start(records.start)
    }

    fn start(&self, record: usize) -> usize {
        record.checked_sub(1).map_or(0, |last| self.chunk.marks[last].end as usize)
    }

    /// Both halves are compressed again: so what is left of a chunk never takes more than the chunk did, but for what a
    /// smaller one compresses worse.
    ///
    /// # Errors
    /// There is no memory to unpack it; others, which are in smaller pieces or will be taken, make room.
    fn halve(&mut self, piece: &mut Piece) -> io::Result<[Piece; 2]> {
        let Range { start, end } = piece.records;
        let middle = start + piece.records.len() / 2;
        let unpacked = self.unpacked_bytes(&piece.records);
        let first_bytes = self.unpacked_bytes(&(start..middle));
        // What is not compressed is cut where it lies: only the second half is moved.
        let needed = if piece.compression == Compression::None { unpacked - first_bytes } else { unpacked };
        if !self.chunk.credit.has_room(needed) {
            return Err(io::Error::other("there is no memory to unpack it"));
        }
        let before = piece.entries.capacity();
        piece.compression.unpack(&mut piece.entries, unpacked)?;
        let mut entries = std::mem::take(&mut piece.entries);
        let halves = if piece.compression == Compression::None {
            let second = entries.split_off(first_bytes);
            entries.shrink_to_fit();
            [entries, second].map(|half| (half, Compression::None))
        } else {
            let mut compressor = Compressor::new(piece.compression);
            let (first, second) = entries.split_at(first_bytes);
            [compressor.copy(first), compressor.copy(second)]
        };
        let after: usize = halves.iter().map(|(entries, _)| entries.capacity()).sum();
        self.set_bytes(self.bytes + after - before);
        let [first, second] = halves;
        let half = |records, (entries, compression)| Piece {
            cut: piece.cut,
            id: new_id(),
            tag: piece.tag.clone(),
            records,
            entries,
            compression,
        };
        Ok([half(start..middle, first), half(middle..end, second)])
    }

    fn settle(&mut self, piece: &Piece, rejected: bool) {
        self.open_records = self.open_records.saturating_sub(piece.records.len());
        self.set_bytes(self.bytes - piece.entries.capacity());
        if rejected {
            self.rejected.extend(piece.records.clone());
        }
    }

    /// As of a whole chunk, the marks count where they are more than what is left of the records: they stay until all is
    /// settled, and else as many chunks could be kept as the little that is left allows.
    fn set_bytes(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.chunk.credit.set_bytes(bytes.max(size_of_val(&self.chunk.marks[..])));
    }
}

#[cfg(test)]
mod tests;
