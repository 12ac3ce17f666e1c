//! A place in a line or in a part of one.

use memchr::memchr2;

use super::{Dialect, Fault};

/// Reads bytes from front to back.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) dialect: Dialect,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], dialect: Dialect) -> Self {
        Reader { bytes, at: 0, dialect }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault::new(self.at, what))
    }

    /// Only the text format has more between two tokens than the one space.
    pub(super) fn skip_blanks(&mut self) {
        while self.dialect == Dialect::Text && matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Passes this byte.
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return self.fault(what);
        }
        self.at += 1;
        Ok(())
    }

    /// Passes a text in quotes, and gives what is between them, with its escapes.
    pub(super) fn quoted(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        self.at += 1;
        loop {
            match memchr2(b'"', b'\\', self.rest()) {
                Some(offset) if self.rest()[offset] == b'\\' => {
                    self.at = (self.at + offset + 2).min(self.bytes.len());
                }
                Some(offset) => {
                    self.at += offset + 1;
                    return Ok(&self.bytes[start + 1..self.at - 1]);
                }
                None => return Err(Fault::new(start, "a quotation mark is not closed")),
            }
        }
    }
}
