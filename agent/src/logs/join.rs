//! Records of more than one line: partial lines of the runtime, and multiline groups of the application.
//!
//! An open record is a list of ranges, not of bytes: however long it grows, it costs nothing until it closes, and
//! then its lines are read once more. Every line of its stream between a range's ends belongs to it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::config::READ_WINDOW;
use crate::logs::generation::Generation;
use crate::logs::multiline::State;
use crate::logs::source::Source;
use crate::logs::split::{Line, Splitter, Stream, Time};

/// A multiline group ends at this many lines.
pub const MAX_GROUP_LINES: u32 = 500;

/// A record whose end has not been seen.
#[derive(Debug)]
pub struct OpenRecord {
    /// Its stream.
    pub stream: Stream,
    /// Time of its first line.
    pub time: Time,
    /// Time of its last line.
    pub last: Time,
    /// The last line was partial: the next line of the stream belongs to it, whatever it says.
    pub partial: bool,
    /// The end of a partial line is lost.
    pub cut: bool,
    /// The multiline group that it is, if it is one.
    pub group: Option<State>,
    /// Whole lines so far.
    pub lines: u32,
    /// Bytes of content so far.
    pub content: u64,
    /// Source bytes of its lines.
    pub source: u64,
    /// When it last grew.
    pub grown: Instant,
    ranges: Vec<Range>,
}

/// A stretch of one generation, from a line's first byte to behind a line's newline.
#[derive(Debug)]
struct Range {
    generation: Arc<Generation>,
    start: u64,
    end: u64,
}

/// The bytes of a generation that a reader has at hand.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    /// Whose bytes.
    pub generation: &'a Arc<Generation>,
    /// The open file.
    pub source: &'a Arc<Source>,
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Where a line lies in its window: from its first byte to behind its newline.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Offset in the generation.
    pub start: u64,
    /// Offset in the generation.
    pub end: u64,
}

/// What was read when a record closed.
#[derive(Debug, Default)]
pub struct Assembled {
    /// The content, at most the limit.
    pub content: Vec<u8>,
    /// Whether something was cut.
    pub truncated: bool,
}

// === impl OpenRecord ===

impl OpenRecord {
    /// Opens a record with a line that is still to be added.
    pub fn new(line: &Line<'_>, group: Option<State>, now: Instant) -> Self {
        OpenRecord {
            stream: line.stream,
            time: line.time,
            last: line.time,
            partial: false,
            cut: false,
            group,
            lines: 0,
            content: 0,
            source: 0,
            grown: now,
            ranges: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn extend(&mut self, generation: &Arc<Generation>, at: Extent, line: &Line<'_>, now: Instant) {
        match self.ranges.last_mut() {
            Some(range) if Arc::ptr_eq(&range.generation, generation) => range.end = at.end,
            _ => self.ranges.push(Range { generation: generation.clone(), start: at.start, end: at.end }),
        }
        self.last = line.time;
        self.partial = line.partial;
        self.lines += u32::from(!line.partial);
        self.content += line.content.len() as u64;
        self.source += at.end - at.start;
        self.grown = now;
    }

    /// What would have gone on will not.
    pub fn cut(&mut self) {
        self.cut = self.partial;
    }

    /// Its first line: the file and the offset.
    pub fn origin(&self) -> Option<(&Arc<Generation>, u64)> {
        self.starts().next()
    }

    /// Where it begins in each of the generations that it has lines in, oldest first.
    pub fn starts(&self) -> impl Iterator<Item = (&Arc<Generation>, u64)> {
        self.ranges.iter().map(|range| (&range.generation, range.start))
    }

    /// Where it begins in a generation, if it has lines there.
    pub fn start_in(&self, generation: &Arc<Generation>) -> Option<u64> {
        self.ranges.iter().find(|range| Arc::ptr_eq(&range.generation, generation)).map(|range| range.start)
    }

    /// The generations that it has lines in, oldest first.
    pub fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.ranges.iter().map(|range| &range.generation)
    }

    /// Reads its content, at most `limit` bytes, lines joined by newlines. `reread` is room for lines that `window`
    /// does not hold.
    ///
    /// # Errors
    /// The system's, when a range must be read again and cannot be.
    pub fn assemble(
        &self,
        window: Window<'_>,
        limit: usize,
        reread: &mut Vec<u8>,
        out: &mut Assembled,
    ) -> io::Result<()> {
        out.content.clear();
        out.truncated = false;
        let plain = window.generation.container().is_plain();
        let mut joiner = Joiner { stream: self.stream, plain, limit, between: false, out };
        for range in &self.ranges {
            if Arc::ptr_eq(&range.generation, window.generation) && range.start >= window.offset {
                let inside = |offset: u64| usize::try_from(offset - window.offset).unwrap_or(usize::MAX);
                joiner
                    .add_lines(window.bytes.get(inside(range.start)..inside(range.end)).unwrap_or_default());
                continue;
            }
            let source = if Arc::ptr_eq(&range.generation, window.generation) {
                window.source.clone()
            } else {
                range
                    .generation
                    .source()
                    .ok_or_else(|| io::Error::other("a file was closed under an open record"))?
            };
            read_range(&source, range, reread, &mut joiner)?;
        }
        Ok(())
    }
}

fn read_range(
    source: &Source,
    range: &Range,
    buffer: &mut Vec<u8>,
    joiner: &mut Joiner<'_>,
) -> io::Result<()> {
    let mut offset = range.start;
    let mut room = READ_WINDOW;
    while offset < range.end && !joiner.is_full() {
        let wanted = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(room);
        buffer.resize(wanted, 0);
        let read = source.read_at(buffer, offset)?;
        let lines = joiner.add_lines(&buffer[..read]);
        if read == 0 || (lines == 0 && read < wanted) {
            return Err(io::Error::other("a file is shorter than it was"));
        }
        offset += lines as u64;
        // A line longer than the room was cut into by the window: once more with twice the room.
        room = if lines == 0 { room * 2 } else { READ_WINDOW };
    }
    Ok(())
}

/// Puts the content of one stream's lines together.
struct Joiner<'a> {
    stream: Stream,
    /// Lines have no head.
    plain: bool,
    limit: usize,
    /// A whole line was added: a newline belongs before the next.
    between: bool,
    out: &'a mut Assembled,
}

// === impl Joiner ===

impl Joiner<'_> {
    /// Adds the whole lines of `bytes` and says how many bytes they were.
    fn add_lines(&mut self, bytes: &[u8]) -> usize {
        let mut splitter = if self.plain { Splitter::plain(Time::default()) } else { Splitter::default() };
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            let line = splitter.split(&bytes[start..newline]);
            start = newline + 1;
            let Some(line) = line.filter(|line| line.stream == self.stream) else { continue };
            if self.between {
                self.push(b"\n");
            }
            self.push(&line.content);
            self.between = !line.partial;
        }
        start
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.limit - self.out.content.len();
        self.out.truncated |= bytes.len() > room;
        self.out.content.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn is_full(&self) -> bool {
        self.out.truncated
    }
}
