//! What has been acknowledged: per lane the prefix, in order.
//!
//! A lane is one output of one reader. The reader reserves a slot for every chunk it closes, in reading order; the
//! slots may be settled in any order, but a position is committed only when every slot before it is settled too. So
//! the committed position of a file is never beyond a line that its receiver has not taken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::account::{DropReason, OutputAccount};
use crate::delivery::chunk::RecordMark;
use crate::logs::generation::{Generation, Offsets};

/// The pure part: slots in order, each settled once, handed back as soon as the prefix is complete.
#[derive(Debug)]
pub struct Lane<T> {
    first: u64,
    slots: VecDeque<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    payload: T,
    settled: bool,
}

// === impl Lane ===

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Lane { first: 0, slots: VecDeque::new() }
    }
}

impl<T> Lane<T> {
    /// Appends a slot and gives its number.
    pub fn reserve(&mut self, payload: T) -> u64 {
        self.slots.push_back(Slot { payload, settled: false });
        self.first + self.slots.len() as u64 - 1
    }

    /// What the slot `number` holds, while it is not yet part of the committed prefix.
    pub fn get(&self, number: u64) -> Option<&T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get(index).map(|slot| &slot.payload)
    }

    /// Marks the slot `number` as settled and hands the payloads of the prefix that is now complete to `commit`.
    pub fn settle(&mut self, number: u64, mut commit: impl FnMut(T)) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else { return };
        slot.settled = true;
        while self.slots.front().is_some_and(|slot| slot.settled) {
            if let Some(slot) = self.slots.pop_front() {
                self.first += 1;
                commit(slot.payload);
            }
        }
    }

    /// Whether everything is committed.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// The share of one file in a chunk.
#[derive(Debug, Clone)]
pub struct Part {
    /// The file.
    pub generation: Arc<Generation>,
    /// From where to read each stream again once this is committed: the start of its open record, else the read offset.
    pub watermark: Offsets,
    /// Records of this part; the parts' records follow each other in the chunk.
    pub records: u32,
    /// Source bytes of those records.
    pub bytes: u64,
}

/// A lane as readers and deliveries share it. The lock is taken once a chunk.
#[derive(Debug)]
pub struct SharedLane {
    output: usize,
    account: Arc<OutputAccount>,
    lane: Mutex<Lane<Vec<Part>>>,
    /// Slots committed so far: whoever saves positions sees from it that some have moved.
    commits: AtomicU64,
    /// Source bytes that the reader has taken and not yet put into a slot.
    reading: AtomicU64,
}

/// The right to settle one slot. Dropped unused, the slot stays open and its lines are read again after a restart.
#[derive(Debug)]
pub struct Receipt {
    lane: Arc<SharedLane>,
    number: u64,
}

// === impl SharedLane ===

impl SharedLane {
    /// A lane of the output with this index.
    pub fn new(output: usize, account: Arc<OutputAccount>) -> Arc<Self> {
        Arc::new(SharedLane {
            output,
            account,
            lane: Mutex::default(),
            commits: AtomicU64::new(0),
            reading: AtomicU64::new(0),
        })
    }

    /// Reserves the next slot.
    pub fn reserve(self: &Arc<Self>, parts: Vec<Part>) -> Receipt {
        let number = self.lane.lock().unwrap_or_else(PoisonError::into_inner).reserve(parts);
        Receipt { lane: self.clone(), number }
    }

    /// Slots committed so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// The reader holds so many source bytes in its open chunk and in open records.
    pub fn set_reading(&self, bytes: u64) {
        self.reading.store(bytes, Ordering::Relaxed);
    }

    /// Source bytes that are read and not settled: in slots, in the open chunk, in open records.
    pub fn bytes_in_flight(&self) -> u64 {
        self.open_bytes() + self.reading.load(Ordering::Relaxed)
    }

    /// Source bytes in slots that are not yet settled.
    fn open_bytes(&self) -> u64 {
        let lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let unsettled = lane.slots.iter().filter(|slot| !slot.settled);
        unsettled.flat_map(|slot| &slot.payload).map(|part| part.bytes).sum()
    }
}

// === impl Receipt ===

impl Receipt {
    /// Counts the chunk's records as delivered, those at the indices `rejected` (ascending) as dropped, and commits
    /// what is now acknowledged without a gap.
    pub fn settle(self, marks: &[RecordMark], rejected: &[usize]) {
        let SharedLane { output, account, lane, commits, .. } = &*self.lane;
        let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = lane.get(self.number) {
            settle_parts(parts, marks, rejected, account);
        }
        lane.settle(self.number, |parts| {
            for part in parts {
                part.generation.commit(*output, part.watermark);
            }
            commits.fetch_add(1, Ordering::Release);
        });
    }
}

fn settle_parts(parts: &[Part], marks: &[RecordMark], rejected: &[usize], account: &OutputAccount) {
    let mut rejected = rejected.iter().copied().peekable();
    let mut next = 0;
    for part in parts {
        next += part.records as usize;
        let (mut refused_records, mut refused_bytes) = (0, 0);
        while let Some(index) = rejected.next_if(|index| *index < next) {
            refused_records += 1;
            refused_bytes += marks.get(index).map_or(0, |mark| u64::from(mark.source));
        }
        let namespace = part.generation.namespace_account();
        account.deliver(namespace, u64::from(part.records) - refused_records, part.bytes - refused_bytes);
        if refused_records > 0 {
            account.give_up(namespace, DropReason::Rejected, refused_records, refused_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_is_committed_only_behind_a_settled_prefix(order in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut lane = Lane::default();
            for n in 0..20u64 {
                prop_assert_eq!(lane.reserve(n), n);
            }
            let mut settled = Vec::new();
            let mut committed = Vec::new();
            for n in order {
                settled.push(n);
                lane.settle(n, |n| committed.push(n));
                let prefix = (0..20).take_while(|n| settled.contains(n)).collect::<Vec<_>>();
                prop_assert_eq!(&committed, &prefix);
            }
            prop_assert!(lane.is_empty());
        }
    }

    #[test]
    fn settling_a_slot_twice_or_an_unknown_one_changes_nothing() {
        let mut lane = Lane::default();
        let first = lane.reserve('a');
        let second = lane.reserve('b');
        lane.settle(second, |_| unreachable!("the first is still open"));
        lane.settle(second, |_| unreachable!("the first is still open"));
        lane.settle(99, |_| unreachable!("no such slot"));
        let mut committed = String::new();
        lane.settle(first, |c| committed.push(c));
        lane.settle(first, |c| committed.push(c));
        assert_eq!(committed, "ab");
    }
}
