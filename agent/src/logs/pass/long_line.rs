//! Lines that are longer than the window, and longer than a record may be.

use std::io;
use std::sync::Arc;

use super::line::Split;
use super::{Buffers, Pass};
use crate::checkpoint::account::DropReason;
use crate::config::READ_WINDOW;
use crate::logs::encode::Format;
use crate::logs::generation::Generation;
use crate::logs::join::{Extent, Window};
use crate::logs::lane::Blocked;
use crate::logs::source::Source;

/// Room in a line for its head, beside `max_record` of content.
const HEAD_ROOM: usize = 1 << 10;

impl<F: Format> Pass<'_, F> {
    /// A line longer than the window: it is read in a longer one, and when it is longer than a record may be, its start
    /// is sent and the rest skipped.
    pub(super) fn long_line(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        buffers: &mut Buffers,
    ) -> io::Result<Result<(), Blocked>> {
        let output = self.lane.output;
        let offset = generation.read(output);
        if self.is_skipping(generation) {
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
        let at = Extent { start: offset, end: offset + read as u64 };
        if self.start_of_line(generation, source, at, buffers).is_err() {
            return Ok(Err(Blocked));
        }
        self.cursor.skipping = Some((generation.clone(), offset));
        generation.set_read(output, at.end);
        buffers.window.truncate(READ_WINDOW);
        buffers.window.shrink_to_fit();
        Ok(Ok(()))
    }

    /// Sends the start of a line, cut: it joins nothing, and nothing joins it.
    fn start_of_line(
        &mut self,
        generation: &Arc<Generation>,
        source: &Arc<Source>,
        at: Extent,
        buffers: &mut Buffers,
    ) -> Result<(), Blocked> {
        let Buffers { window, reread, assembled } = buffers;
        let bytes = &window[..usize::try_from(at.end - at.start).unwrap_or(usize::MAX).min(window.len())];
        let line = match self.split(generation, at, bytes) {
            Split::Line(line) => line,
            Split::Raw => return self.raw(generation, at, bytes),
            Split::Done => return Ok(()),
        };
        self.close(
            line.stream,
            Window { generation, source, offset: at.start, bytes },
            at.start,
            reread,
            assembled,
        )?;
        self.alone(generation, at, &line, true)
    }

    /// Whether the file stands inside a line of which the start was sent.
    pub(super) fn is_skipping(&self, generation: &Arc<Generation>) -> bool {
        self.cursor.skipping.as_ref().is_some_and(|(skipped, _)| Arc::ptr_eq(skipped, generation))
    }

    pub(super) fn end_skip(&mut self, generation: &Generation, at: Extent) {
        self.cursor.skipping = None;
        self.lane.drop_bytes(generation, DropReason::Truncated, 0, at.end - at.start);
    }
}
