//! Copies of files that are about to be truncated, as logrotate's copytruncate makes them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Generation;
use crate::logs::source::Source;

/// As much of two files is compared as tells whether one is a copy of the other.
const COMPARED_BYTES: usize = 64 << 10;

/// The copy of a file.
#[derive(Debug)]
pub(super) struct Copy {
    source: Arc<Source>,
    inode: (u64, u64),
    seen: Instant,
}

impl Generation {
    /// Whether the file was truncated: it is shorter than it was, or begins with another line. Whoever has noticed it once will
    /// not take it for the old one again, however it grows.
    pub fn is_truncated(&self) -> bool {
        if self.truncated.load(Ordering::Relaxed) {
            return true;
        }
        let Some(source) = self.source().filter(|source| !source.is_gzip()) else { return false };
        if self.identity().is_none() || (!self.has_shrunk(&source) && self.begins_as_identified(&source)) {
            return false;
        }
        self.ends_at(self.size());
        self.truncated.store(true, Ordering::Relaxed);
        true
    }

    /// Whether a file that begins with the same line is a copy of this one. If this one is truncated already, the copy is whole
    /// and has all that was ever seen here.
    pub fn is_copied_in(&self, other: &Source) -> bool {
        let Some(source) = self.source() else { return false };
        let has_all = || other.stat().is_ok_and(|(size, _)| size >= self.size());
        let read = |source: &Source| {
            let mut bytes = vec![0; COMPARED_BYTES];
            let read = source.read_at(&mut bytes, 0).unwrap_or(0);
            bytes.truncate(read);
            bytes
        };
        // The copy first: what is written meanwhile may be in both.
        let (others, own) = (read(other), read(&source));
        // Asked last: it may be truncated at any time.
        if self.is_truncated() { has_all() } else { own.starts_with(&others) }
    }

    /// This is the newest copy of the file.
    pub fn set_copy(&self, source: Arc<Source>, inode: (u64, u64)) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Copy { source, inode, seen: Instant::now() });
    }

    /// How long there has been a copy, if there is one.
    pub fn copied_for(&self) -> Option<Duration> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|copy| copy.seen.elapsed())
    }

    /// The file was truncated: from now on the copy is read in its place. Gives the size of the copy; none where there is
    /// none.
    pub fn go_on_in_copy(&self) -> Option<u64> {
        let Copy { source, inode, .. } = self.copy.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let (size, _) = source.stat().ok()?;
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
        *self.inode.lock().unwrap_or_else(PoisonError::into_inner) = inode;
        self.size.store(size, Ordering::Relaxed);
        self.end.store(u64::MAX, Ordering::Relaxed);
        self.truncated.store(false, Ordering::Relaxed);
        Some(size)
    }
}
