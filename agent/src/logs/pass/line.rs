//! What is to be done with a line, by its head.

use std::sync::Arc;

use super::Pass;
use crate::checkpoint::account::DropReason;
use crate::logs::encode::Format;
use crate::logs::generation::Generation;
use crate::logs::join::Extent;
use crate::logs::split::{Line, Stream};

/// What a line turns out to be.
pub(super) enum Split<'a> {
    /// One with a head.
    Line(Line<'a>),
    /// It is torn, or to be sent raw.
    Raw,
    /// It is not to be sent, and counted.
    Done,
}

impl<F: Format> Pass<'_, F> {
    /// Reads the line's head, and says what is to be done with it.
    pub(super) fn split<'l>(
        &mut self,
        generation: &Arc<Generation>,
        at: Extent,
        line: &'l [u8],
    ) -> Split<'l> {
        if self.cursor.is_raw(generation, at.start) {
            self.metrics.parse_failures.head.inc();
            return Split::Raw;
        }
        let line = self.cursor.splitter.split(line);
        if let Some(line) = &line {
            self.cursor.last_time = line.time;
        }
        if self.is_acked(generation, at, line.as_ref().map(|line| line.stream)) {
            return Split::Done;
        }
        let Some(line) = line else {
            self.metrics.parse_failures.head.inc();
            return Split::Raw;
        };
        if self.settings.excludes(line.stream) {
            self.lane.drop_bytes(generation, DropReason::Filter, 1, at.end - at.start);
            return Split::Done;
        }
        Split::Line(line)
    }

    /// Whether the receiver has the line, from before a restart: it is only read again for the sake of the other stream.
    pub(super) fn is_acked(&self, generation: &Generation, at: Extent, stream: Option<Stream>) -> bool {
        let is_acked = generation.is_acked(self.lane.output, stream, at.start);
        if is_acked {
            self.lane.pass_over(generation, at.end - at.start);
        }
        is_acked
    }
}
