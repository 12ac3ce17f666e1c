//! The memory budget: every output has an equal share of its own, so that a stalled one cannot take another's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::wake::Wake;

/// Empty buffers that an output keeps while it has little to do.
const SPARE_BUFFERS: usize = 2;
/// A compressed copy's buffer is kept up to this part of a chunk; nearly all are shorter.
pub(super) const COPY_PART: usize = 4;

/// One output's share of the memory budget, in bytes. Chunks leave one chunk's bytes free: what has to be unpacked when a
/// refused one is taken apart.
#[derive(Debug)]
pub struct Share {
    limit: usize,
    chunk_bytes: usize,
    used: AtomicUsize,
    refused: AtomicBool,
    /// Buffers of a whole chunk.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Those of compressed copies, shorter and few.
    copies: Mutex<Vec<Vec<u8>>>,
    readers: Vec<Arc<Wake>>,
}

/// Bytes taken from a share; given back when dropped.
#[derive(Debug)]
pub struct Credit {
    share: Arc<Share>,
    bytes: usize,
}

// === impl Share ===

impl Share {
    /// A share of `limit` bytes, taken in chunks of `chunk_bytes`; `readers` are woken when bytes come back after a
    /// refusal.
    pub fn new(limit: usize, chunk_bytes: usize, readers: Vec<Arc<Wake>>) -> Arc<Self> {
        Arc::new(Share {
            limit,
            chunk_bytes,
            used: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            spare: Mutex::default(),
            copies: Mutex::default(),
            readers,
        })
    }

    /// Takes a chunk's bytes, or nothing when that would pass the limit; then the readers are woken when bytes come back.
    pub fn try_take(self: &Arc<Self>) -> Option<Credit> {
        if !self.has_taken_chunk() {
            // Bytes that came back before the flag was up would wake nobody: hence the second attempt.
            self.ask_for_wake_up();
            if !self.has_taken_chunk() {
                return None;
            }
        }
        Some(Credit { share: self.clone(), bytes: self.chunk_bytes })
    }

    /// The readers are woken when the next bytes come back.
    pub fn ask_for_wake_up(&self) {
        self.refused.store(true, Ordering::SeqCst);
    }

    fn has_taken_chunk(&self) -> bool {
        let limit = self.limit.saturating_sub(self.chunk_bytes);
        let fits = |used: usize| used.checked_add(self.chunk_bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// An empty buffer for a chunk, the one that was used last if there is one: fresh memory costs a page fault every
    /// 4 KiB, and the last is still in the processor's cache.
    pub fn buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(self.chunk_bytes))
    }

    /// An empty buffer for the compressed copy of a chunk, as long as one before if one is left: what is longer than 128 KiB,
    /// musl's allocator gets from the system each time.
    pub fn copy_buffer(&self) -> Vec<u8> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives back to the system what is not needed while there is little to do.
    pub fn trim(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).truncate(SPARE_BUFFERS);
    }

    /// Bytes of encoded records that a chunk is closed at.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

// === impl Credit ===

impl Credit {
    /// Whether so many bytes may be used for a moment beside what is taken. What is longer than a chunk has passed the limit
    /// before, and may again.
    pub fn has_room(&self, bytes: usize) -> bool {
        bytes > self.share.chunk_bytes || self.share.used() + bytes <= self.share.limit
    }

    /// Readers that wait for a place in the channel may have one now.
    pub fn wake_readers(&self) {
        self.share.give_back(0);
    }

    /// Says how many bytes the closed chunk really takes. A record that is longer than a chunk, or became so when it was
    /// encoded, cannot be divided: for it the limit may be passed, and nobody takes anything before that has come back.
    pub fn set_bytes(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.share.used.fetch_add(bytes - before, Ordering::SeqCst);
        } else {
            self.share.give_back(before - bytes);
        }
    }

    /// Ends the credit and keeps its buffer for the next chunk, if it is one for a whole chunk. Credits and spare
    /// buffers together stay within the limit: a buffer is spare only from when its credit ends, and the next credit
    /// takes it. Of compressed copies a few are kept beside that (`Compression::fixed_bytes`).
    pub fn recycle(self, mut buffer: Vec<u8>) {
        let (capacity, chunk_bytes) = (buffer.capacity(), self.share.chunk_bytes);
        buffer.clear();
        if capacity == chunk_bytes {
            self.share.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        } else if capacity <= chunk_bytes / COPY_PART {
            let mut copies = self.share.copies.lock().unwrap_or_else(PoisonError::into_inner);
            copies.push(buffer);
            copies.truncate(SPARE_BUFFERS);
        }
    }
}

impl Share {
    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.refused.swap(false, Ordering::SeqCst) {
            self.readers.iter().for_each(|reader| reader.wake());
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_refuses_above_its_limit_and_wakes_the_reader_when_bytes_come_back() {
        let wake = Arc::new(Wake::new().unwrap());
        let share = Share::new(16, 6, vec![wake.clone()]);
        let mut credit = share.try_take().unwrap();
        assert!(share.try_take().is_none());
        assert!(!wake.take());
        credit.set_bytes(4);
        assert!(wake.take());
        assert!(share.try_take().is_some());
        drop(credit);
        assert_eq!(share.used(), 0);
    }

    #[test]
    fn the_buffer_of_a_compressed_copy_is_used_again_and_few_are_kept() {
        let share = Share::new(64, 16, Vec::new());
        for capacity in [2, 5, 3, 4] {
            share.try_take().unwrap().recycle(vec![1; capacity]);
        }
        let kept = [share.copy_buffer(), share.copy_buffer(), share.copy_buffer()];
        assert!(kept.iter().all(Vec::is_empty));
        assert_eq!(kept.map(|buffer| buffer.capacity()), [3, 2, 0]);
    }

    #[test]
    fn a_chunk_that_became_longer_is_counted_and_its_buffer_is_not_kept() {
        let share = Share::new(12, 2, Vec::new());
        let mut credit = share.try_take().unwrap();
        credit.set_bytes(9);
        assert_eq!(share.used(), 9);
        assert!(share.try_take().is_none());
        credit.recycle(Vec::with_capacity(9));
        assert_eq!((share.used(), share.buffer().capacity()), (0, 2));
    }
}
