//! Values on their way into the bytes of a chunk.

mod json;
mod msgpack;

pub use json::{JsonLines, plain_length};
pub use msgpack::Forward;

use crate::logs::split::Time;

/// Takes values in the order in which they stand in a record and writes them to a buffer.
pub trait ValueSink {
    /// The key of the next value in a map.
    fn key(&mut self, key: &str);
    /// A text.
    fn str(&mut self, text: &str);
    /// A text that comes in pieces: `str_begin`, any number of `str_push`, `str_end`.
    fn str_begin(&mut self);
    /// A piece of the text.
    fn str_push(&mut self, piece: &str);
    /// The text is whole.
    fn str_end(&mut self);
    /// A signed integer.
    fn i64(&mut self, number: i64);
    /// An integer above the signed range.
    fn u64(&mut self, number: u64);
    /// A floating-point number.
    fn f64(&mut self, number: f64);
    /// True or false.
    fn bool(&mut self, value: bool);
    /// Nothing.
    fn null(&mut self);
    /// A map of keys and values begins.
    fn map_begin(&mut self);
    /// The innermost map ends.
    fn map_end(&mut self);
    /// A list begins.
    fn array_begin(&mut self);
    /// The innermost list ends.
    fn array_end(&mut self);
}

/// Part of a record that is the same for every line of a container, encoded once.
#[derive(Debug, Default, Clone)]
pub struct Fragment {
    entries: u32,
    bytes: Vec<u8>,
}

/// How whole records are written.
pub trait Format {
    /// Takes the entries of one record.
    type Sink<'a>: ValueSink
    where
        Self: 'a;

    /// Begins a record behind what is in the buffer: its time, then the fragment. Top-level entries follow.
    fn begin<'a>(&'a mut self, buffer: &'a mut Vec<u8>, time: Time, fragment: &Fragment) -> Self::Sink<'a>;

    /// Ends the record.
    fn end(sink: Self::Sink<'_>);

    /// Encodes top-level entries that do not change from line to line.
    fn fragment(&mut self, write: impl FnOnce(&mut Self::Sink<'_>)) -> Fragment;
}

// === impl Fragment ===

impl Fragment {
    /// Bytes of the fragment.
    #[allow(clippy::len_without_is_empty, reason = "every record says whose it is: none is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}
