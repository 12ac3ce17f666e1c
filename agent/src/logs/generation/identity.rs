//! What tells one generation from another, whatever its file is called.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::logs::source::Source;

/// Bytes of the first line that identify a generation. A CRI line begins with its time in nanoseconds, so far less
/// would do; a bound is needed for lines without end.
pub const IDENTITY_BYTES: usize = 1 << 10;

/// A hash of a generation's first line (with its newline), at most its first KiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(u64);

// === impl Identity ===

impl Identity {
    /// The identity that `start`, the first bytes of a file, gives; none before the first newline is written.
    pub fn of(start: &[u8]) -> Option<Self> {
        let start = &start[..start.len().min(IDENTITY_BYTES)];
        let line = match memchr::memchr(b'\n', start) {
            Some(newline) => &start[..=newline],
            None if start.len() == IDENTITY_BYTES => start,
            None => return None,
        };
        Some(Identity::digest(line))
    }

    /// The identity of a file.
    pub fn of_file(source: &Source) -> Option<Self> {
        let mut start = [0; IDENTITY_BYTES];
        // A file that cannot be read has none: whoever reads it says why.
        let read = source.read_at(&mut start, 0).unwrap_or(0);
        Identity::of(&start[..read])
    }

    pub(super) fn digest(line: &[u8]) -> Self {
        let digest = Sha256::digest(line);
        Identity(digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// The hash, for sampling.
    pub fn hash(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Identity {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_identity_before_its_first_line_is_whole() {
        assert_eq!(Identity::of(b""), None);
        assert_eq!(Identity::of(b"2026 stdout F half"), None);
        let whole = Identity::of(b"2026 stdout F half\n");
        assert!(whole.is_some());
        assert_eq!(whole, Identity::of(b"2026 stdout F half\nand more\n"));
        assert_ne!(whole, Identity::of(b"2026 stdout F HALF\n"));
        assert_eq!(whole.unwrap().to_string().parse(), Ok(whole.unwrap()));
    }

    #[test]
    fn a_first_line_without_end_is_identified_by_its_first_kib() {
        let long = vec![b'x'; 5000];
        assert_eq!(Identity::of(&long), Identity::of(&long[..IDENTITY_BYTES]));
        assert_eq!(Identity::of(&long[..IDENTITY_BYTES - 1]), None);
    }
}
