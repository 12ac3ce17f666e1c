//! One pass over the files of one container for one output: lines in, records into the open chunk.
//!
//! Everything is plain code on the reader's thread. A pass ends when it has read its share, when the files end, or
//! when there is no room; then the positions say exactly what was taken.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::account::DropReason;
use crate::config::READ_WINDOW;
use crate::logs::container::Container;
use crate::logs::encode::Format;
use crate::logs::generation::Generation;
use crate::logs::join::{Assembled, Extent, MAX_GROUP_LINES, OpenRecord, Window};
use crate::logs::lane::{Blocked, Lane};
use crate::logs::metrics::LogMetrics;
use crate::logs::record::{Record, RecordEncoder};
use crate::logs::settings::Settings;
use crate::logs::source::Source;
use crate::logs::split::{Line, Splitter, Stream, Time};

/// A multiline group ends when it has not grown for this long.
const GROUP_TIMEOUT: Duration = Duration::from_secs(1);
/// Room in a line for its head, beside `max_record` of content.
const HEAD_ROOM: usize = 1 << 10;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The files end here for now.
    End,
    /// There is more to read.
    More,
    /// There is no room for the next record.
    Blocked,
}

/// What one output keeps about one container between passes.
#[derive(Debug, Default)]
pub struct Cursor {
    open: [Option<OpenRecord>; 2],
    splitter: Splitter,
    /// Time of the last line with a head, for those without.
    last_time: Time,
    /// The line that starts here is longer than a record may be; it is being skipped to its end.
    skipping: Option<u64>,
    /// The file that the pass is in.
    current: Option<Arc<Generation>>,
    /// Lines that begin before this offset of `current` are sent raw: one of them made the pass panic.
    raw_before: u64,
    /// Bytes that were counted as read and are read once more.
    again: u64,
    /// What the encoder keeps for this container.
    pub record: crate::logs::record::Kept,
}

/// Buffers of one reader, used by every pass.
#[derive(Debug)]
pub struct Buffers {
    window: Vec<u8>,
    reread: Vec<u8>,
    assembled: Assembled,
}

/// One pass.
pub struct Pass<'a, F> {
    /// The container.
    pub container: &'a Container,
    /// Its settings.
    pub settings: &'a Settings,
    /// What this output keeps about it.
    pub cursor: &'a mut Cursor,
    /// Where records go.
    pub lane: &'a mut Lane,
    /// How they are encoded.
    pub encoder: &'a mut RecordEncoder<F>,
    /// Counters.
    pub metrics: &'a LogMetrics,
    /// The longest record, in bytes of content.
    pub max_record: usize,
    /// The time of this sweep.
    pub now: Instant,
}

// === impl Buffers ===

impl Default for Buffers {
    fn default() -> Self {
        Buffers { window: vec![0; READ_WINDOW], reread: Vec::new(), assembled: Assembled::default() }
    }
}

// === impl Cursor ===

impl Cursor {
    /// Whether a record is open.
    pub fn is_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Source bytes of the open records.
    pub fn open_bytes(&self) -> u64 {
        self.open.iter().flatten().map(|open| open.source).sum()
    }

    /// Whether an open record has lines in this file: then it must stay open.
    pub fn needs(&self, generation: &Arc<Generation>) -> bool {
        self.open.iter().flatten().any(|open| open.start_in(generation).is_some())
    }

    /// From where a file must be read again after a restart, if everything before `read` was taken.
    fn watermark(&self, generation: &Arc<Generation>, read: u64) -> u64 {
        let open = self.open.iter().flatten().filter_map(|open| open.start_in(generation));
        open.chain(self.skipping).fold(read, u64::min)
    }

    /// Forgets the open records after a panic: their lines, and the one that was being read, are read again as raw
    /// text. False when that is what was being done: then the line is poison.
    pub fn retreat(&mut self, output: usize) -> bool {
        let Some(generation) = self.current.clone() else { return false };
        let read = generation.read(output);
        if read < self.raw_before {
            return false;
        }
        let from = self.watermark(&generation, read);
        self.raw_before = read + 1;
        self.again += read - from;
        generation.set_read(output, from);
        self.open = [None, None];
        true
    }

    /// Of `bytes` that were read, those that were not counted before.
    pub fn count_fresh(&mut self, bytes: u64) -> u64 {
        let again = bytes.min(self.again);
        self.again -= again;
        bytes - again
    }

    /// The file that the last pass was in.
    pub fn current(&self) -> Option<&Arc<Generation>> {
        self.current.as_ref()
    }
}

// === impl Pass ===

impl<F: Format> Pass<'_, F> {
    /// Reads on, at most about one window.
    pub fn run(&mut self, generations: &[Arc<Generation>], buffers: &mut Buffers) -> Outcome {
        let mut left = READ_WINDOW;
        for (index, generation) in generations.iter().enumerate() {
            let Some(source) = generation.source() else { continue };
            if self.cursor.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, generation)) {
                self.cursor.current = Some(generation.clone());
                self.cursor.raw_before = 0;
            }
            let before = generation.read(self.lane.output);
            let outcome = self.file(generation, &source, &mut left, buffers);
            self.lane.advance_if_moved(generation, before, self.cursor);
            match outcome {
                Ok(Outcome::End) => {}
                Ok(outcome) => return outcome,
                Err(error) => {
                    let problem = format!("cannot read {}: {error}", generation.path().display());
                    if self.container.set_problem(Some(problem.clone())) {
                        tracing::error!(problem, "a log file cannot be read; trying again");
                    }
                    return Outcome::End;
                }
            }
            if self.close_finished(generations, index, &source, buffers).is_err() {
                return Outcome::Blocked;
            }
        }
        Outcome::End
    }

    fn file(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        left: &mut usize,
        buffers: &mut Buffers,
    ) -> io::Result<Outcome> {
        loop {
            let output = self.lane.output;
            let offset = generation.read(output);
            let readable = usize::try_from(generation.end().saturating_sub(offset)).unwrap_or(usize::MAX);
            let room = buffers.window.len().min(readable);
            let read = source.read_at(&mut buffers.window[..room], offset)?;
            generation.grown_to(offset + read as u64);
            if offset == 0
                && generation.identity().is_none()
                && generation.identify(&buffers.window[..read]).is_none()
            {
                return Ok(Outcome::End);
            }
            let Buffers { window, reread, assembled } = buffers;
            let bytes = &window[..read];
            let window_at = Window { generation, source, offset, bytes };
            if self.lines(window_at, reread, assembled).is_err() {
                return Ok(Outcome::Blocked);
            }
            let taken = usize::try_from(generation.read(output) - offset).unwrap_or(0);
            if taken == 0 && read == buffers.window.len() {
                if self.long_line(generation, source, buffers)?.is_err() {
                    return Ok(Outcome::Blocked);
                }
                continue;
            }
            if read < room || readable == read {
                return Ok(Outcome::End);
            }
            *left = left.saturating_sub(taken);
            if *left == 0 {
                return Ok(Outcome::More);
            }
        }
    }

    fn lines(
        &mut self,
        window: Window<'_>,
        reread: &mut Vec<u8>,
        assembled: &mut Assembled,
    ) -> Result<(), Blocked> {
        let output = self.lane.output;
        let (mut start, mut count) = (0, 0);
        let mut result = Ok(());
        for newline in memchr::memchr_iter(b'\n', window.bytes) {
            let at = Extent { start: window.offset + start as u64, end: window.offset + newline as u64 + 1 };
            let line = &window.bytes[start..newline];
            result = match self.cursor.skipping {
                Some(_) => {
                    self.end_skip(window.generation, at);
                    Ok(())
                }
                None => self.line(window, at, line, reread, assembled),
            };
            if result.is_err() {
                break;
            }
            start = newline + 1;
            count += 1;
            window.generation.set_read(output, at.end);
        }
        self.metrics.lines_read.inc_by(count);
        window.generation.set_last_record(output, self.cursor.last_time.seconds);
        result
    }

    fn line(
        &mut self,
        window: Window<'_>,
        at: Extent,
        line: &[u8],
        reread: &mut Vec<u8>,
        assembled: &mut Assembled,
    ) -> Result<(), Blocked> {
        let split = self.cursor.splitter.split(line).filter(|_| at.start >= self.cursor.raw_before);
        let Some(line) = split else {
            self.metrics.parse_failures.head.inc();
            return self.raw(window.generation, at, line);
        };
        self.cursor.last_time = line.time;
        if self.settings.excludes(line.stream) {
            self.lane.drop_bytes(window.generation, DropReason::Filter, 1, at.end - at.start);
            return Ok(());
        }
        let stream = line.stream as usize;
        if self.cursor.open[stream].is_some() && self.continues(window, at, &line, reread, assembled)? {
            return Ok(());
        }
        let group = self.settings.multiline.as_ref().and_then(|recognizer| recognizer.first(&line.content));
        if line.partial || group.is_some() {
            let mut open = OpenRecord::new(line.stream, line.time, group, self.now);
            open.extend(window.generation, at, line.partial, line.content.len(), self.now);
            self.cursor.open[stream] = Some(open);
            return Ok(());
        }
        self.room(window.generation, at.start, line.content.len())?;
        let record = Record {
            time: line.time,
            stream: line.stream,
            content: &line.content,
            truncated: false,
            source: at.end - at.start,
            start: at.start,
        };
        self.encode(window.generation, record);
        Ok(())
    }

    /// Whether the line belongs to the open record of its stream; one that ends with it or before it is encoded.
    fn continues(
        &mut self,
        window: Window<'_>,
        at: Extent,
        line: &Line<'_>,
        reread: &mut Vec<u8>,
        assembled: &mut Assembled,
    ) -> Result<bool, Blocked> {
        let stream = line.stream as usize;
        let now = self.now;
        let Some(open) = &mut self.cursor.open[stream] else { return Ok(false) };
        let belongs = if open.partial {
            true
        } else {
            let has_place = open.lines < MAX_GROUP_LINES && open.content < self.max_record as u64;
            match (&mut open.group, &self.settings.multiline) {
                (Some(state), Some(recognizer)) => has_place && recognizer.next(state, &line.content),
                _ => false,
            }
        };
        if belongs {
            let ends = !line.partial && open.group.is_none();
            if ends {
                let bytes = usize::try_from(open.content).unwrap_or(usize::MAX);
                self.room(window.generation, at.start, bytes.saturating_add(line.content.len()))?;
            }
            let Some(open) = &mut self.cursor.open[stream] else { return Ok(false) };
            open.extend(window.generation, at, line.partial, line.content.len(), now);
            if !ends {
                return Ok(true);
            }
        }
        self.close(line.stream, window, at.start, reread, assembled)?;
        Ok(belongs)
    }

    /// Encodes the open record of a stream. `read` is up to where the window's file has been taken.
    fn close(
        &mut self,
        stream: Stream,
        window: Window<'_>,
        read: u64,
        reread: &mut Vec<u8>,
        assembled: &mut Assembled,
    ) -> Result<(), Blocked> {
        let Some(open) = &self.cursor.open[stream as usize] else { return Ok(()) };
        self.room(window.generation, read, usize::try_from(open.content).unwrap_or(usize::MAX))?;
        let Some(open) = self.cursor.open[stream as usize].take() else { return Ok(()) };
        if let Err(error) = open.assemble(window, self.max_record, reread, assembled) {
            tracing::error!(path = %window.generation.path().display(), %error, bytes = open.source, "the lines of a record cannot be read again");
            self.lane.drop_bytes(window.generation, DropReason::Poison, 1, open.source);
            return Ok(());
        }
        let kept = u64::try_from(assembled.content.len()).unwrap_or(open.content);
        let cut = if assembled.truncated { open.content.saturating_sub(kept) } else { 0 };
        if cut > 0 {
            self.lane.drop_bytes(window.generation, DropReason::Truncated, 0, cut);
        }
        for older in open.generations().filter(|older| !Arc::ptr_eq(older, window.generation)) {
            self.lane.advance(older, self.cursor.watermark(older, older.read(self.lane.output)));
        }
        let record = Record {
            time: open.time,
            stream,
            content: &assembled.content,
            truncated: assembled.truncated,
            source: open.source - cut,
            start: open.start_in(window.generation).unwrap_or(read),
        };
        self.encode(window.generation, record);
        Ok(())
    }

    /// Sends a line without a head as it is.
    fn raw(&mut self, generation: &Arc<Generation>, at: Extent, line: &[u8]) -> Result<(), Blocked> {
        let content = &line[..line.len().min(self.max_record)];
        let cut = (line.len() - content.len()) as u64;
        self.room(generation, at.start, content.len())?;
        if cut > 0 {
            self.lane.drop_bytes(generation, DropReason::Truncated, 0, cut);
        }
        let record = Record {
            time: self.cursor.last_time,
            stream: Stream::Stdout,
            content,
            truncated: cut > 0,
            source: at.end - at.start - cut,
            start: at.start,
        };
        self.encoder.encode_raw(
            self.lane,
            generation,
            self.settings,
            &mut self.cursor.record,
            record,
            self.metrics,
        );
        Ok(())
    }

    fn encode(&mut self, generation: &Arc<Generation>, mut record: Record<'_>) {
        if record.content.len() > self.max_record {
            let cut = (record.content.len() - self.max_record) as u64;
            self.lane.drop_bytes(generation, DropReason::Truncated, 0, cut);
            record.content = &record.content[..self.max_record];
            record.truncated = true;
            record.source -= cut;
        }
        self.encoder.encode(
            self.lane,
            generation,
            self.settings,
            &mut self.cursor.record,
            record,
            self.metrics,
        );
    }

    /// Makes room for a record of `content` bytes; everything of the file before `read` was taken.
    fn room(&mut self, generation: &Arc<Generation>, read: u64, content: usize) -> Result<(), Blocked> {
        let tag = &self.settings.outputs[self.lane.output].1;
        let bytes = content.min(self.max_record) + self.cursor.record.overhead();
        if self.lane.has_room(tag, bytes) {
            return Ok(());
        }
        if self.lane.is_open() && self.lane.open_bytes() > 0 {
            self.lane.advance(generation, self.cursor.watermark(generation, read));
            self.lane.close();
        }
        self.lane.open(tag)
    }

    /// A line longer than the window: read it in a longer one, and when it is longer than a record may be, send its
    /// start and skip the rest.
    fn long_line(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> io::Result<Result<(), Blocked>> {
        let output = self.lane.output;
        let offset = generation.read(output);
        if self.cursor.skipping.is_some() {
            let bytes = buffers.window.len() as u64;
            self.lane.drop_bytes(generation, DropReason::Truncated, 0, bytes);
            generation.set_read(output, offset + bytes);
            return Ok(Ok(()));
        }
        let longest = self.max_record + HEAD_ROOM;
        if buffers.window.len() < longest {
            buffers.window.resize(longest.max(READ_WINDOW), 0);
            return Ok(Ok(()));
        }
        let read = source.read_at(&mut buffers.window, offset)?;
        let Buffers { window, reread, assembled } = buffers;
        let at = Extent { start: offset, end: offset + read as u64 };
        let bytes = &window[..read];
        if self.line(Window { generation, source, offset, bytes }, at, bytes, reread, assembled).is_err() {
            return Ok(Err(Blocked));
        }
        self.cursor.skipping = Some(offset);
        generation.set_read(output, at.end);
        buffers.window.truncate(READ_WINDOW);
        buffers.window.shrink_to_fit();
        Ok(Ok(()))
    }

    fn end_skip(&mut self, generation: &Generation, at: Extent) {
        self.cursor.skipping = None;
        self.lane.drop_bytes(generation, DropReason::Truncated, 0, at.end - at.start);
    }

    /// At the end of a file: closes records that will not grow any more.
    fn close_finished(
        &mut self,
        generations: &[Arc<Generation>],
        index: usize,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let generation = &generations[index];
        let newer = generations.get(index + 1);
        let restarted = newer.is_some_and(|newer| newer.restart > generation.restart);
        let ended = restarted || (newer.is_none() && self.container.is_gone());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(open) = &self.cursor.open[stream as usize] else { continue };
            let timed_out = !open.partial && self.now.duration_since(open.grown) >= GROUP_TIMEOUT;
            if !(ended || timed_out) {
                continue;
            }
            let read = generation.read(self.lane.output);
            let window = Window { generation, source, offset: u64::MAX, bytes: &[] };
            self.close(stream, window, read, &mut buffers.reread, &mut buffers.assembled)?;
            self.lane.advance(generation, self.cursor.watermark(generation, read));
        }
        if ended || newer.is_some_and(|newer| newer.size() > 0) {
            return self.torn_end(generation, source, ended || !generation.is_listed(), buffers);
        }
        Ok(())
    }

    /// Bytes behind the last newline of a file that nobody writes any more are a torn line.
    fn torn_end(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        is_final: bool,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let output = self.lane.output;
        let offset = generation.read(output);
        let rest = generation.size().min(generation.end()).saturating_sub(offset);
        if rest == 0 || !is_final || generation.identity().is_none() {
            return Ok(());
        }
        let room = usize::try_from(rest).unwrap_or(usize::MAX).min(buffers.window.len());
        let Ok(read) = source.read_at(&mut buffers.window[..room], offset) else { return Ok(()) };
        if read == 0 || memchr::memchr(b'\n', &buffers.window[..read]).is_some() {
            return Ok(());
        }
        let at = Extent { start: offset, end: offset + read as u64 };
        self.metrics.parse_failures.head.inc();
        self.raw(generation, at, &buffers.window[..read])?;
        generation.set_read(output, at.end);
        self.lane.advance(generation, self.cursor.watermark(generation, at.end));
        Ok(())
    }
}

impl Lane {
    /// Moves the file's position if the pass has taken anything of it.
    fn advance_if_moved(&mut self, generation: &Arc<Generation>, before: u64, cursor: &Cursor) {
        let read = generation.read(self.output);
        if read != before {
            self.advance(generation, cursor.watermark(generation, read));
        }
    }
}
