//! What will not go on: records that have not grown, and files that nobody writes any more.

use std::sync::Arc;

use super::line::Split;
use super::{Buffers, GROUP_TIMEOUT, Pass};
use crate::logs::encode::Format;
use crate::logs::generation::Generation;
use crate::logs::join::{Extent, OpenRecord, Window};
use crate::logs::lane::Blocked;
use crate::logs::source::Source;
use crate::logs::split::Stream;

impl<F: Format> Pass<'_, F> {
    /// Closes multiline groups that have not grown for a while.
    pub(super) fn close_timed_out(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let now = self.now;
        self.close_those(generation, source, buffers, |open| {
            !open.partial && now.duration_since(open.grown) >= GROUP_TIMEOUT
        })
    }

    fn close_those(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        buffers: &mut Buffers,
        is_over: impl Fn(&OpenRecord) -> bool,
    ) -> Result<(), Blocked> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.cursor.open[stream as usize].as_ref().is_some_and(&is_over) {
                continue;
            }
            let read = generation.read(self.lane.output);
            // Nothing is at hand: what it needs is read again.
            let window = Window { generation, source, offset: u64::MAX, bytes: &[] };
            self.close(stream, window, read, &mut buffers.reread, &mut buffers.assembled)?;
            self.lane.advance(generation, self.cursor.watermark(generation, read));
        }
        Ok(())
    }

    /// At the end of a file: closes what will not grow any more.
    pub(super) fn close_finished(
        &mut self,
        generations: &[Arc<Generation>],
        index: usize,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let generation = &generations[index];
        let newer = generations.get(index + 1);
        let is_behind_gap = newer.is_some_and(|newer| newer.is_behind_gap());
        // One that goes on in a newer file, or began there, is not at its end here.
        let ends_here = |open: &OpenRecord| {
            open.generations()
                .last()
                .is_some_and(|last| !generations[index + 1..].iter().any(|newer| Arc::ptr_eq(newer, last)))
        };
        if is_behind_gap {
            self.cursor.open.iter_mut().flatten().filter(|open| ends_here(open)).for_each(OpenRecord::cut);
        }
        // A sidecar's files go when it ends; whoever reads the node's will find them again.
        let is_last_read = self.finishing && self.container.path.is_plain();
        let is_over = match newer {
            Some(newer) => newer.restart > generation.restart || is_behind_gap,
            None => is_last_read || self.container.is_gone() || self.settings.has_ended(generation),
        };
        if is_over {
            self.close_those(generation, source, buffers, ends_here)?;
        }
        let is_complete = newer.is_some_and(|newer| newer.size() > 0) && (source.is_gzip() || self.settled);
        if is_over || is_complete || is_last_read {
            return self.torn_end(generation, source, buffers);
        }
        Ok(())
    }

    /// Without a head nothing tells whether a line is whole: it is a record like others.
    fn unfinished_line(
        &mut self,
        generation: &Arc<Generation>,
        at: Extent,
        text: &[u8],
    ) -> Result<(), Blocked> {
        match self.split(generation, at, text) {
            Split::Line(line) => self.alone(generation, at, &line, false),
            Split::Raw => self.raw(generation, at, text),
            Split::Done => Ok(()),
        }
    }

    /// Bytes behind the last newline of a file that nobody writes any more are a torn line.
    fn torn_end(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let output = self.lane.output;
        let offset = generation.read(output);
        let rest = generation.size().min(generation.end()).saturating_sub(offset);
        let room = usize::try_from(rest).unwrap_or(usize::MAX).min(buffers.window.len());
        let Ok(read) = source.read_at(&mut buffers.window[..room], offset) else { return Ok(()) };
        let torn = &buffers.window[..read];
        if torn.is_empty() || memchr::memchr(b'\n', torn).is_some() {
            return Ok(());
        }
        let at = Extent { start: offset, end: offset + read as u64 };
        if offset == 0 {
            generation.identify_torn(torn);
        }
        if self.is_skipping(generation) {
            self.end_skip(generation, at);
        } else if self.container.path.is_plain() {
            self.unfinished_line(generation, at, torn)?;
        } else if !self.is_acked(generation, at, None) {
            self.metrics.parse_failures.head.inc();
            self.raw(generation, at, torn)?;
        }
        generation.set_read(output, at.end);
        self.lane.advance(generation, self.cursor.watermark(generation, at.end));
        Ok(())
    }
}
