//! How far outputs have come in a generation: those of this run, and others of which a checkpoint says it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use serde_json::{Map, Value};

/// An offset for each stream, and one for lines without a head, which are of none. They differ while a record is open: all
/// that is read again from its start on, after a restart, is what the receiver does not have.
pub type Offsets = [u64; 3];

/// Where that of lines without a head is; the others are at their `Stream as usize`.
pub(super) const HEADLESS: usize = 2;

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
