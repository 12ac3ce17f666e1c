//! Requests on disk: for a receiver that is away for longer than memory lasts, and for a restart.
//!
//! A folder of segments, files that are written from front to back; each has the number of its first request as its name. The oldest one goes when there is no room. `sent` says how far the receiver has answered. Nothing is
//! synced: what a process wrote survives its end, however it comes, and not that of the machine.
//!
//! Every request says how many samples came before it; so the samples of what is damaged can be counted.

mod record;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::queue::Request;
use record::Head;

/// A spool has about so many segments: what goes at once when there is no room is one of them.
const SEGMENTS: u64 = 16;
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;
const SUFFIX: &str = ".requests";
const SENT: &str = "sent";

/// The requests of one output.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    limit: u64,
    segments: VecDeque<Segment>,
    /// How far the receiver has answered.
    sent: File,
    /// Where the first request that waits stands in the first segment.
    offset: u64,
    /// Samples before that request, ever.
    samples_before: u64,
    /// The number of the next request that comes, and the samples before it.
    next: u64,
    samples: u64,
    /// Samples that could not be read back, until somebody asks.
    damaged: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Samples before its first request, and before what comes behind it.
    samples: std::ops::Range<u64>,
}

// === impl Spool ===

impl Spool {
    /// Opens the spool in this folder, which may hold so many bytes; makes it if there is none.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let sent =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(SENT))?;
        let mut spool = Spool {
            folder: folder.to_owned(),
            limit,
            segments: segments(folder)?,
            offset: 0,
            sent,
            samples_before: 0,
            next: 0,
            samples: 0,
            damaged: 0,
        };
        spool.recover(record::read_sent(&spool.sent).unwrap_or(0))?;
        Ok(spool)
    }

    /// Goes on where an earlier process has ended, which has sent all before this number.
    fn recover(&mut self, sent: u64) -> io::Result<()> {
        self.next = sent;
        if let Some(last) = self.segments.back_mut() {
            self.next = sent.max(last.cut_to_whole()? + 1);
            self.samples = last.samples.end;
        }
        let mut behind = self.samples;
        for segment in self.segments.iter_mut().rev() {
            segment.samples.end = behind;
            behind = segment.samples.start;
        }
        self.samples_before = behind;
        while let Some(head) = self.head().filter(|head| head.number < sent) {
            self.pass(&head);
        }
        // Gaps between what was sent are of no interest any more.
        self.damaged = 0;
        Ok(())
    }

    /// It may hold so many bytes from now on.
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// The number of the next request that is pushed.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Samples that wait.
    pub(super) fn samples(&self) -> u64 {
        self.samples.saturating_sub(self.samples_before)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The number of the oldest request that waits, and when it was closed, in milliseconds since the epoch.
    pub(super) fn oldest(&self) -> Option<(u64, i64)> {
        self.head().map(|head| (head.number, head.time))
    }

    /// Samples that could not be read back since the last call.
    pub(super) fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Adds a request; gives how many samples had to go to make room.
    ///
    /// # Errors
    /// The system's; then nothing is added.
    pub(super) fn push(&mut self, request: &Request) -> io::Result<u64> {
        let record = record::encode(request, self.samples);
        let length = record.len() as u64;
        let segment_bytes = (self.limit / SEGMENTS).max(LEAST_SEGMENT_BYTES).min(self.limit);
        if self.segments.back().is_none_or(|segment| segment.bytes + length > segment_bytes) {
            let path = self.folder.join(format!("{:020}{SUFFIX}", request.number));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let samples = self.samples..self.samples;
            self.segments.push_back(Segment { path, file, bytes: 0, samples });
        }
        let Some(segment) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = segment.file.write_all_at(&record, segment.bytes) {
            // A part of it may be there; it is written over.
            self.drop_empty();
            return Err(error);
        }
        segment.bytes += length;
        segment.samples.end += request.samples;
        self.samples += request.samples;
        self.next = request.number + 1;
        let mut gone = 0;
        while self.bytes() > self.limit && self.segments.len() > 1 {
            gone += self.end_segment();
        }
        Ok(gone)
    }

    /// A segment that could not be begun is none.
    fn drop_empty(&mut self) {
        if self.segments.back().is_some_and(|segment| segment.bytes == 0)
            && let Some(segment) = self.segments.pop_back()
        {
            let _ = fs::remove_file(segment.path);
        }
    }

    /// The oldest request. What cannot be read back is passed, and counted as damaged.
    pub(super) fn first(&mut self) -> Option<Request> {
        loop {
            let Some(head) = self.head() else {
                self.segments.front()?;
                // The rest of the segment cannot be told apart.
                self.damaged += self.end_segment();
                continue;
            };
            self.damaged += head.samples_before.saturating_sub(self.samples_before);
            self.samples_before = self.samples_before.max(head.samples_before);
            let segment = self.segments.front()?;
            if let Some(request) = record::read(&segment.file, self.offset, &head) {
                return Some(request);
            }
            self.damaged += head.samples;
            self.pass(&head);
        }
    }

    /// The receiver has answered to the oldest request. False when that is another one by now.
    pub(super) fn done(&mut self, number: u64) -> bool {
        let Some(head) = self.head().filter(|head| head.number == number) else { return false };
        self.pass(&head);
        let _ = self.sent.write_all_at(&record::sent(number + 1), 0);
        true
    }

    /// The head of the oldest request.
    fn head(&self) -> Option<Head> {
        let segment = self.segments.front()?;
        Head::read(&segment.file, self.offset, segment.bytes)
    }

    fn pass(&mut self, head: &Head) {
        self.offset += head.whole();
        self.samples_before = head.samples_before + head.samples;
        if self.segments.front().is_some_and(|segment| self.offset >= segment.bytes) {
            // There is something between it and the next one only if that is damaged.
            self.damaged += self.end_segment();
        }
    }

    /// The first segment goes; gives how many samples waited in it.
    fn end_segment(&mut self) -> u64 {
        let Some(segment) = self.segments.pop_front() else { return 0 };
        let _ = fs::remove_file(&segment.path);
        self.offset = 0;
        let waited = segment.samples.end.saturating_sub(self.samples_before);
        self.samples_before = self.samples_before.max(segment.samples.end);
        waited
    }
}

/// The segments of a folder, in their order. What has another name is not ours.
fn segments(folder: &Path) -> io::Result<VecDeque<Segment>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX)) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    let mut segments = VecDeque::new();
    for path in paths {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = file.metadata()?.len();
        // One without a whole first head says nothing of what it held; the next one tells how much that was.
        let Some(head) = Head::read(&file, 0, bytes) else {
            tracing::warn!(path = %path.display(), bytes, "a segment of a spool cannot be read back");
            let _ = fs::remove_file(&path);
            continue;
        };
        let samples = head.samples_before..head.samples_before;
        segments.push_back(Segment { path, file, bytes, samples });
    }
    Ok(segments)
}

// === impl Segment ===

impl Segment {
    /// Cuts off what an interrupted write has left, or what cannot be told apart behind a damaged head, and counts the samples
    /// of the others; gives the number of the last request.
    fn cut_to_whole(&mut self) -> io::Result<u64> {
        let (mut end, mut number) = (0, 0);
        while let Some(head) = Head::read(&self.file, end, self.bytes) {
            end += head.whole();
            number = head.number;
            self.samples.end = head.samples_before + head.samples;
        }
        if end < self.bytes {
            let (path, bytes) = (self.path.display(), self.bytes - end);
            tracing::warn!(%path, bytes, "the end of a spool cannot be read back");
            self.file.set_len(end)?;
            self.bytes = end;
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
