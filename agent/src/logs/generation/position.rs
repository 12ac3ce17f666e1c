//! How far outputs have come in a generation: those of this run, and others of which a checkpoint says it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::logs::split::Stream;

/// An offset for each stream, and one for lines without a head, which are of none. They differ while a record is open: all
/// that is read again from its start on, after a restart, is what the receiver does not have.
pub type Offsets = [u64; 3];

/// Where that of lines without a head is; the others are at their `Stream as usize`.
pub(super) const HEADLESS: usize = 2;

/// Up to where records are counted as events, by stream: they are, whatever the number of outputs, once.
#[derive(Debug, Default)]
pub(super) struct CountedEvents([AtomicU64; 3]);

/// How far one output has come.
#[derive(Debug)]
pub(super) struct Position {
    /// Whether the output takes this container's lines at all; what it does not take is no backlog of its.
    pub(super) taken: AtomicBool,
    pub(super) read: AtomicU64,
    /// Up to where bytes were counted as read: what is read again is not counted twice.
    pub(super) counted: AtomicU64,
    pub(super) acked: [AtomicU64; 3],
    /// Seconds since the epoch of the newest record read; 0: none.
    pub(super) last_record: AtomicI64,
}

/// What another run has saved of a generation and this one does not know; it is written back as it was.
#[derive(Clone, Debug, Default)]
pub struct Unknown {
    /// Of outputs that this run does not have, up to where every line is acknowledged.
    pub outputs: BTreeMap<String, u64>,
    /// Of those, for each stream where that is not the same.
    pub streams: BTreeMap<String, Offsets>,
    /// Fields.
    pub fields: Map<String, Value>,
}

// === impl CountedEvents ===

impl CountedEvents {
    /// Whether a record that begins here is new; it is not any more. Only the reader of the file asks.
    pub(super) fn is_new(&self, stream: Option<Stream>, start: u64) -> bool {
        let counted = &self.0[stream.map_or(HEADLESS, |stream| stream as usize)];
        let is_new = start >= counted.load(Ordering::Relaxed);
        if is_new {
            counted.store(start + 1, Ordering::Relaxed);
        }
        is_new
    }

    /// Those before these offsets are not.
    pub(super) fn skip_to(&self, offsets: Offsets) {
        for (counted, offset) in self.0.iter().zip(offsets) {
            counted.fetch_max(offset, Ordering::Relaxed);
        }
    }

    pub(super) fn offsets(&self) -> Offsets {
        self.0.each_ref().map(|counted| counted.load(Ordering::Relaxed))
    }
}

// === impl Position ===

impl Position {
    pub(super) fn new() -> Self {
        Position {
            taken: AtomicBool::new(true),
            read: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            acked: Default::default(),
            last_record: AtomicI64::new(0),
        }
    }
}
