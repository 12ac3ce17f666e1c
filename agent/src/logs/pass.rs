//! One pass over the files of one container for one output: lines in, records into the open chunk.
//!
//! Everything is plain code on the reader's thread. A pass ends when it has read its share, when the files end, or
//! when there is no room; then the positions say exactly what was taken.

mod ending;
mod line;
mod long_line;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::account::DropReason;
use crate::config::READ_WINDOW;
use crate::logs::container::Container;
use crate::logs::cursor::Cursor;
use crate::logs::encode::Format;
use crate::logs::generation::Generation;
use crate::logs::join::{Assembled, Extent, MAX_GROUP_LINES, OpenRecord, Window};
use crate::logs::lane::{Blocked, Lane};
use crate::logs::metrics::LogMetrics;
use crate::logs::pass::line::Split;
use crate::logs::record::{Record, RecordEncoder};
use crate::logs::settings::Settings;
use crate::logs::source::Source;
use crate::logs::split::{Line, Splitter, Stream, Time};

/// A multiline group ends when it has not grown for this long, by the clock or by the time of its lines.
const GROUP_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Nobody writes the older files any more.
    pub settled: bool,
    /// The agent ends, and with it the files of a sidecar.
    pub finishing: bool,
    /// The time of this sweep.
    pub now: Instant,
}

// === impl Buffers ===

impl Default for Buffers {
    fn default() -> Self {
        Buffers { window: vec![0; READ_WINDOW], reread: Vec::new(), assembled: Assembled::default() }
    }
}

// === impl Pass ===

impl<F: Format> Pass<'_, F> {
    /// Reads on, at most about one window.
    pub fn run(&mut self, generations: &[Arc<Generation>], buffers: &mut Buffers) -> Outcome {
        let mut left = READ_WINDOW;
        if self.container.path.is_plain() {
            self.cursor.splitter = Splitter::plain(Time::now());
        }
        for (index, generation) in generations.iter().enumerate() {
            let Some(source) = generation.source() else { continue };
            self.cursor.current = Some(generation.clone());
            let before = generation.read(self.lane.output);
            let outcome = self.file(generation, &source, &mut left, buffers);
            let read = generation.read(self.lane.output);
            if read != before {
                self.lane.advance(generation, self.cursor.watermark(generation, read));
            }
            match outcome {
                Ok(Outcome::End) => {}
                Ok(outcome) => return outcome,
                Err(error) => self.unreadable(generation, &source, &error),
            }
            if self.close_finished(generations, index, &source, buffers).is_err() {
                return Outcome::Blocked;
            }
        }
        Outcome::End
    }

    /// A gzip file that is damaged ends where it is: nobody will mend it. Any other error may pass.
    fn unreadable(&mut self, generation: &Generation, source: &Source, error: &io::Error) {
        let read = generation.read(self.lane.output);
        let is_damaged = source.is_gzip() && error.raw_os_error().is_none();
        let next = if is_damaged { "what is behind is lost" } else { "trying again" };
        if is_damaged {
            generation.ends_at(read);
            self.metrics.parse_failures.gzip.inc();
        }
        let problem = format!("cannot read {} at {read}: {error}; {next}", generation.path().display());
        if self.container.set_problem(Some(problem.clone())) {
            tracing::error!(problem, "a log file cannot be read");
        }
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
            if read > 0 {
                generation.grown_to(offset + read as u64);
            }
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
            if self.close_timed_out(generation, source, buffers).is_err() {
                return Ok(Outcome::Blocked);
            }
            if generation.read(output) == offset && read == buffers.window.len() {
                if self.long_line(generation, source, buffers)?.is_err() {
                    return Ok(Outcome::Blocked);
                }
            } else if read < room || readable == read {
                return Ok(Outcome::End);
            }
            *left = left.saturating_sub(usize::try_from(generation.read(output) - offset).unwrap_or(0));
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
            result = if self.is_skipping(window.generation) {
                self.end_skip(window.generation, at);
                Ok(())
            } else {
                self.line(window, at, line, reread, assembled)
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
        let line = match self.split(window.generation, at, line) {
            Split::Line(line) => line,
            Split::Raw => return self.raw(window.generation, at, line),
            Split::Done => return Ok(()),
        };
        let stream = line.stream as usize;
        if self.cursor.open[stream].is_some() && self.continues(window, at, &line, reread, assembled)? {
            return Ok(());
        }
        let group = self.settings.multiline.as_ref().and_then(|recognizer| recognizer.first(&line.content));
        if line.partial || group.is_some() {
            let mut open = OpenRecord::new(&line, group, self.now);
            open.extend(window.generation, at, &line, self.now);
            self.cursor.open[stream] = Some(open);
            return Ok(());
        }
        self.alone(window.generation, at, &line, false)
    }

    /// Sends a line that is a record by itself.
    fn alone(
        &mut self,
        generation: &Arc<Generation>,
        at: Extent,
        line: &Line<'_>,
        truncated: bool,
    ) -> Result<(), Blocked> {
        self.room(generation, at.start, line.content.len())?;
        let record = Record {
            time: line.time,
            stream: line.stream,
            content: &line.content,
            truncated,
            raw: false,
            source: at.end - at.start,
            origin: (generation, at.start),
        };
        self.encode(generation, record);
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
            let has_place = open.lines < MAX_GROUP_LINES
                && open.content < self.max_record as u64
                // When a plain line was written, nobody knows: the clock alone ends its group.
                && (self.container.path.is_plain() || line.time.since(open.last) < GROUP_TIMEOUT);
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
            open.extend(window.generation, at, line, now);
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
        let Some(open) = &self.cursor.open[stream as usize] else { return Ok(()) };
        let (source, content) = (open.source, open.content);
        let first = open.origin().map(|(first, start)| (first.clone(), start));
        match open.assemble(window, self.max_record, reread, assembled) {
            Ok(()) => {
                let kept = assembled.content.len() as u64;
                let cut = if assembled.truncated { content.saturating_sub(kept) } else { 0 };
                let record = Record {
                    time: open.time,
                    stream,
                    content: &assembled.content,
                    truncated: assembled.truncated || open.cut,
                    raw: false,
                    source: source - cut,
                    origin: first
                        .as_ref()
                        .map_or((window.generation, read), |(first, start)| (first, *start)),
                };
                self.encode(window.generation, record);
                if cut > 0 {
                    self.lane.drop_bytes(window.generation, DropReason::Truncated, 0, cut);
                }
            }
            Err(error) => {
                tracing::error!(path = %window.generation.path().display(), %error, bytes = source,
                    "the lines of a record cannot be read again");
                self.lane.drop_bytes(window.generation, DropReason::Poison, 1, source);
            }
        }
        // Only now: if encoding it panics, it must still be there to be read again.
        let closed = self.cursor.open[stream as usize].take();
        let starts = closed.iter().flat_map(OpenRecord::starts);
        for (older, _) in starts.filter(|(older, _)| !Arc::ptr_eq(older, window.generation)) {
            self.lane.advance(older, self.cursor.watermark(older, older.read(self.lane.output)));
        }
        Ok(())
    }

    /// Sends a line without a head as it is.
    fn raw(&mut self, generation: &Arc<Generation>, at: Extent, line: &[u8]) -> Result<(), Blocked> {
        self.room(generation, at.start, line.len())?;
        let record = Record {
            time: self.cursor.last_time,
            stream: Stream::Stdout,
            content: line,
            truncated: false,
            raw: true,
            source: at.end - at.start,
            origin: (generation, at.start),
        };
        self.encode(generation, record);
        Ok(())
    }

    fn encode(&mut self, generation: &Arc<Generation>, mut record: Record<'_>) {
        let cut = record.content.len().saturating_sub(self.max_record);
        record.content = &record.content[..record.content.len() - cut];
        record.truncated |= cut > 0;
        record.source -= cut as u64;
        self.encoder.encode(
            self.lane,
            generation,
            self.settings,
            &mut self.cursor.record,
            record,
            self.metrics,
        );
        // What is counted comes last: a record that panics is read again, and counted then.
        if cut > 0 {
            self.lane.drop_bytes(generation, DropReason::Truncated, 0, cut as u64);
        }
    }

    /// Makes room for a record of `content` bytes; everything of the file before `read` was taken.
    fn room(&mut self, generation: &Arc<Generation>, read: u64, content: usize) -> Result<(), Blocked> {
        let tag = &self.settings.outputs[self.lane.output].1;
        let file = self.container.path.file.as_ref().map_or(0, String::len);
        let bytes = content.min(self.max_record) + self.cursor.record.overhead() + file;
        if self.lane.has_room(tag, bytes) {
            return Ok(());
        }
        if self.lane.is_open() && self.lane.open_bytes() > 0 {
            self.lane.advance(generation, self.cursor.watermark(generation, read));
            self.lane.close();
        }
        self.lane.open(tag)
    }
}
