//! How a page is read: line by line, each with the series that stood at its place before.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Counts, Dropped, Exemplar, Family, Point, SeriesCache};
use crate::metrics::exposition::protobuf::Written;
use crate::metrics::exposition::{self, Dialect, Fault, Line, PageFault};

/// Milliseconds: a sample that is so much older than the one before is no repetition.
const SET_BACK: i64 = 300_000;

impl SeriesCache {
    /// Reads a page that was written out.
    ///
    /// # Errors
    /// As [`SeriesCache::read`].
    pub(crate) fn read_written(&mut self, page: Written) -> Result<Counts, PageFault> {
        self.begin_page();
        self.incoming = page.histograms.into();
        let counts = self.read_lines(&page.text, Dialect::OpenMetrics);
        // What belongs to samples that are not passed on.
        self.incoming = VecDeque::new();
        counts
    }

    /// Reads a page. Of a series that stands there twice, the first sample counts.
    ///
    /// # Errors
    /// The first line that is wrong. Then nothing of the page counts, and every series ends.
    pub fn read(&mut self, page: &[u8], dialect: Dialect) -> Result<Counts, PageFault> {
        self.begin_page();
        self.read_lines(page, dialect)
    }

    fn begin_page(&mut self) {
        self.scrape = self.scrape.wrapping_add(1);
        self.forget_page();
        self.points.reserve(self.order.len());
        self.added.clear();
        self.refused = None;
        self.starts.begin_page();
    }

    fn read_lines(&mut self, page: &[u8], dialect: Dialect) -> Result<Counts, PageFault> {
        let (mut counts, mut family) = (Counts::default(), Family::default());
        for (number, line) in page.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match self.read_line(line, dialect, &mut family, &mut counts) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(Fault { at, what }) => {
                    return Err(PageFault { line: number + 1, column: Some(at + 1), what: what.to_owned() });
                }
            }
        }
        (counts.passed, counts.added) = (self.points.len(), self.added.len());
        Ok(counts)
    }

    /// Breaks at the end of the page.
    fn read_line<'a>(
        &mut self,
        line: &'a [u8],
        dialect: Dialect,
        family: &mut Family<'a>,
        counts: &mut Counts,
    ) -> Result<ControlFlow<()>, Fault> {
        if let Some(point) = self.expected(line) {
            counts.scraped += 1;
            self.add_point(point, None, dialect, counts);
            return Ok(ControlFlow::Continue(()));
        }
        let sample = match Line::read(line, dialect)? {
            Line::Sample(sample) => sample,
            Line::Eof => return Ok(ControlFlow::Break(())),
            comment => {
                family.heed(&comment);
                return Ok(ControlFlow::Continue(()));
            }
        };
        let no_number = Fault { at: sample.series.len() + 1, what: "this is no number" };
        let value = sample.value().ok_or(no_number)?;
        counts.scraped += 1;
        match self.slot_of(sample.series, dialect, family)? {
            Ok(slot) => {
                let point = Point { slot, value, timestamp: sample.timestamp, is_repeated: false };
                self.add_point(point, sample.exemplar.as_ref(), dialect, counts);
            }
            Err(Dropped::Relabelled) => {}
            Err(Dropped::Above(limit)) => counts.dropped[limit as usize] += 1,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The sample of a line that has the series of this place on the page before, and nothing behind its value.
    fn expected(&self, line: &[u8]) -> Option<Point> {
        let slot = *self.order.get(self.points.len())?;
        let known = self.slots[slot as usize].text;
        let (text, value) = line.split_at_checked(known.length as usize)?;
        let value = value.strip_prefix(b" ")?;
        if self.known_as(text) != known {
            return None;
        }
        Some(Point { slot, value: exposition::number(value)?, timestamp: None, is_repeated: false })
    }

    fn add_point(
        &mut self,
        point: Point,
        exemplar: Option<&exposition::Exemplar<'_>>,
        dialect: Dialect,
        counts: &mut Counts,
    ) {
        let histogram = self.histogram_of(counts.scraped - 1);
        let known = &mut self.slots[point.slot as usize];
        if std::mem::replace(&mut known.scrape, self.scrape) == self.scrape {
            return;
        }
        counts.timed |= point.timestamp.is_some();
        known.ends_unmarked = point.timestamp.is_some() && self.labels.pods.is_none();
        let dates_others = known.dates_others;
        let point = Point { is_repeated: self.is_repeated(&point), ..point };
        counts.repeated += usize::from(point.is_repeated);
        if dates_others {
            let table = self.labels.symbols.lock();
            self.starts.date(&self.slots, &self.points, point, !self.added.is_empty(), &table);
        }
        if let Some(exemplar) = exemplar.and_then(|found| Exemplar::read(found, dialect)) {
            self.exemplars.push((self.points.len(), exemplar));
        }
        if let Some(histogram) = histogram {
            self.histograms.push((self.points.len(), histogram));
        }
        self.points.push(point);
    }

    /// Whether a sample with a time of its own came before: cAdvisor looks at containers less often than it is asked. A time
    /// that is much older than the newest is none of these: the node's clock was set back.
    fn is_repeated(&self, point: &Point) -> bool {
        let (newest, time) = (self.newest.get(point.slot as usize), point.timestamp);
        newest
            .zip(time)
            .is_some_and(|(newest, time)| time <= *newest && newest.saturating_sub(time) < SET_BACK)
    }

    /// The page is whole, and will be passed on: the next one's samples are compared with its times.
    pub(super) fn keep_times(&mut self) {
        if self.newest.is_empty() {
            return;
        }
        for point in &self.points {
            self.newest[point.slot as usize] = match point.timestamp {
                _ if point.is_repeated => continue,
                Some(time) => time,
                None => i64::MIN,
            };
        }
    }

    /// The histogram of a sample of the page; those of samples before it, which were not wanted, go.
    fn histogram_of(&mut self, sample: usize) -> Option<Box<[u8]>> {
        while self.incoming.front().is_some_and(|(of, _)| *of < sample) {
            self.incoming.pop_front();
        }
        let is_its = self.incoming.front().is_some_and(|(of, _)| *of == sample);
        if is_its { self.incoming.pop_front().map(|(_, histogram)| histogram) } else { None }
    }
}
