//! The series of one target, from scrape to scrape.
//!
//! Exporters print their series in the same order each time. So the series of a line is almost always that of the same
//! line in the scrape before: it is compared with that one's text, byte by byte, and only where that fails looked up.
//! Labels are taken apart and joined with the target's once, when a series is new. A series that a scrape does not have any
//! more is stale.

mod exemplar;
mod family;
mod labels;
mod limits;
mod starts;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::metrics::exposition::{self, Dialect, Fault, Line, PageFault, Series};
pub use crate::metrics::series::exemplar::Exemplar;
use crate::metrics::series::family::Family;
pub use crate::metrics::series::family::Metadata;
pub use crate::metrics::series::labels::{LabelSymbols, SeriesLabels, TargetLabels};
pub use crate::metrics::series::limits::{Limit, Limits};
use crate::metrics::series::starts::Starts;
use crate::metrics::symbols::Symbol;

/// The series of one target.
#[derive(Debug)]
pub struct SeriesCache {
    labels: TargetLabels,
    namespace: String,
    limits: Arc<Limits>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots by their text.
    by_text: HashTable<u32>,
    /// Slots by their labels: what a series is.
    by_labels: HashTable<u32>,
    /// Slots by further texts that stand for the same labels.
    aliases: HashMap<Box<[u8]>, u32>,
    /// Hashes of the texts of series that a rule drops, each with the newest scrape that had it. With keys that nobody
    /// knows, two texts have the same 128 bits by no chance that counts.
    relabelled: HashMap<u128, u32>,
    hashes: [RandomState; 2],
    /// By sample of the newest whole page.
    order: Vec<u32>,
    /// Of the page that is being read.
    points: Vec<Point>,
    /// Of the same page, each with the index of its point.
    exemplars: Vec<(usize, Exemplar)>,
    starts: Starts,
    /// New with that page.
    added: Vec<u32>,
    scrape: u32,
}

/// A sample of the page that is being read.
#[derive(Clone, Copy, Debug)]
struct Point {
    slot: u32,
    value: f64,
    timestamp: Option<i64>,
}

/// A sample.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What it is of.
    pub labels: &'a SeriesLabels,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch, where the page gives a time.
    pub timestamp: Option<i64>,
    /// When the counter began, in milliseconds since the epoch, where the page says so.
    pub start: Option<i64>,
    /// Its exemplar.
    pub exemplar: Option<&'a Exemplar>,
}

/// What came of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples on the page.
    pub scraped: usize,
    /// Samples that are passed on.
    pub passed: usize,
    /// Series that were not there before.
    pub added: usize,
    /// Whether a sample that is passed on has a time of its own.
    pub timed: bool,
    /// Samples of new series for which there was no place, by limit.
    pub dropped: [usize; Limit::ALL.len()],
}

/// Why a sample is not passed on.
enum Dropped {
    /// By `metrics.relabel`.
    Relabelled,
    /// There is no place for a new series.
    Above(Limit),
}

#[derive(Debug)]
struct Slot {
    /// As it stood on the page that had it first.
    text: Box<[u8]>,
    /// None when the slot is free.
    labels: Option<SeriesLabels>,
    /// The newest scrape that had it.
    scrape: u32,
    /// Its newest sample had a time of its own: such series end without a mark.
    is_timed: bool,
    /// It says when others began.
    dates_others: bool,
}

impl Drop for SeriesCache {
    fn drop(&mut self) {
        self.limits.give_back(self.len(), &self.namespace);
        self.limits.forget(self.relabelled.len(), &self.namespace);
    }
}

// === impl SeriesCache ===

impl SeriesCache {
    /// None are known yet of this target, which is in this namespace.
    pub fn new(labels: TargetLabels, namespace: &str, limits: Arc<Limits>) -> Self {
        SeriesCache {
            labels,
            namespace: namespace.to_owned(),
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_text: HashTable::new(),
            by_labels: HashTable::new(),
            aliases: HashMap::new(),
            relabelled: HashMap::new(),
            hashes: Default::default(),
            order: Vec::new(),
            points: Vec::new(),
            exemplars: Vec::new(),
            starts: Starts::default(),
            added: Vec::new(),
            scrape: 0,
        }
    }

    /// Series that are alive.
    pub fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// Whether none is alive.
    pub fn is_empty(&self) -> bool {
        self.by_labels.is_empty()
    }

    /// Reads a page. Of a series that stands there twice, the first sample counts.
    ///
    /// # Errors
    /// The first line that is wrong. Then nothing of the page counts, and every series ends.
    pub fn read(&mut self, page: &[u8], dialect: Dialect) -> Result<Counts, PageFault> {
        self.scrape = self.scrape.wrapping_add(1);
        self.points.clear();
        self.exemplars.clear();
        self.added.clear();
        self.starts.begin_page();
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
                self.add_point(Point { slot, value, timestamp: sample.timestamp }, &sample, dialect, counts)
            }
            Err(Dropped::Relabelled) => {}
            Err(Dropped::Above(limit)) => counts.dropped[limit as usize] += 1,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add_point(
        &mut self,
        point: Point,
        sample: &exposition::Sample<'_>,
        dialect: Dialect,
        counts: &mut Counts,
    ) {
        let known = &mut self.slots[point.slot as usize];
        if std::mem::replace(&mut known.scrape, self.scrape) == self.scrape {
            return;
        }
        known.is_timed = point.timestamp.is_some();
        counts.timed |= known.is_timed;
        if known.dates_others {
            self.starts.date(&self.slots, &self.points, point, !self.added.is_empty());
        }
        if let Some(exemplar) = sample.exemplar.as_ref().and_then(|found| Exemplar::read(found, dialect)) {
            self.exemplars.push((self.points.len(), exemplar));
        }
        self.points.push(point);
    }

    /// The samples of the page that was read last.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut exemplars = self.exemplars.iter().peekable();
        self.points.iter().enumerate().filter_map(move |(index, point)| {
            let exemplar = exemplars.next_if(|(at, _)| *at == index);
            Some(Sample {
                labels: self.slots[point.slot as usize].labels.as_ref()?,
                value: point.value,
                timestamp: point.timestamp,
                start: self.starts.of(point.slot),
                exemplar: exemplar.map(|(_, exemplar)| exemplar),
            })
        })
    }

    /// Ends the series that the newest page does not have, or all of them when it was not whole: `stale` gets the labels of
    /// those that have to be marked.
    pub fn end_vanished(&mut self, is_whole: bool, mut stale: impl FnMut(SeriesLabels)) {
        let added = std::mem::take(&mut self.added);
        let scrape = self.scrape;
        let remembered = self.relabelled.len();
        self.relabelled.retain(|_, seen| *seen == scrape);
        self.limits.forget(remembered - self.relabelled.len(), &self.namespace);
        self.order.clear();
        if is_whole {
            self.order.extend(self.points.iter().map(|point| point.slot));
            if self.order.len() == self.len() {
                return;
            }
        } else {
            self.points.clear();
            self.exemplars.clear();
            // Nobody has been told of those.
            added.iter().for_each(|new| self.slots[*new as usize].is_timed = true);
        }
        self.starts.forget();
        let (before, slots, free) = (self.len(), &mut self.slots, &mut self.free);
        self.by_labels.retain(|slot| {
            let known = &mut slots[*slot as usize];
            if is_whole && known.scrape == scrape {
                return true;
            }
            if let Some(labels) = known.labels.take()
                && !known.is_timed
            {
                stale(labels);
            }
            known.text = Box::default();
            free.push(*slot);
            false
        });
        self.by_text.retain(|slot| slots[*slot as usize].labels.is_some());
        self.aliases.retain(|_, slot| slots[*slot as usize].labels.is_some());
        self.limits.give_back(before - self.by_labels.len(), &self.namespace);
    }

    /// Where the page before had a series at this place, it is most likely the same.
    fn slot_of(
        &mut self,
        text: &[u8],
        dialect: Dialect,
        family: &Family<'_>,
    ) -> Result<Result<u32, Dropped>, Fault> {
        let is_it = |slot: &u32| *self.slots[*slot as usize].text == *text;
        let expected = self.order.get(self.points.len()).copied().filter(is_it);
        let known = || self.by_text.find(self.hashes[0].hash_one(text), is_it).copied();
        if let Some(slot) = expected.or_else(known).or_else(|| self.aliases.get(text).copied()) {
            return Ok(Ok(slot));
        }
        if let Some(seen) = self.relabelled.get_mut(&hash(&self.hashes, text)) {
            *seen = self.scrape;
            return Ok(Err(Dropped::Relabelled));
        }
        let series = Series::read(text, dialect)?;
        Ok(self.add(text, &series, family))
    }

    /// A text that is new: of a new series, or another one of a known.
    fn add(&mut self, text: &[u8], series: &Series<'_>, family: &Family<'_>) -> Result<u32, Dropped> {
        let Some(labels) = self.labels.of(series, family) else {
            // The others are read anew each time.
            if self.limits.remember(&self.namespace) {
                self.relabelled.insert(hash(&self.hashes, text), self.scrape);
            }
            return Err(Dropped::Relabelled);
        };
        let is_it = |slot: &u32| plain(&self.slots, *slot) == &*labels.plain;
        if let Some(slot) = self.by_labels.find(self.hashes[0].hash_one(&*labels.plain), is_it).copied() {
            // An exporter that writes the same series in ever another way is read slowly, and takes no more memory for it.
            if self.aliases.len() < self.len() {
                self.aliases.insert(text.into(), slot);
            }
            return Ok(slot);
        }
        self.limits.take(self.len(), &self.namespace).map_err(Dropped::Above)?;
        Ok(self.begin(Slot {
            text: text.into(),
            labels: Some(labels),
            scrape: self.scrape.wrapping_sub(1),
            is_timed: false,
            dates_others: family.dates_others(&series.name),
        }))
    }

    fn begin(&mut self, slot: Slot) -> u32 {
        let index = match self.free.pop() {
            Some(free) => {
                self.slots[free as usize] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let (slots, hasher) = (&self.slots, &self.hashes[0]);
        let by_text = |slot: &u32| hasher.hash_one(&*slots[*slot as usize].text);
        let by_labels = |slot: &u32| hasher.hash_one(plain(slots, *slot));
        self.by_text.insert_unique(by_text(&index), index, by_text);
        self.by_labels.insert_unique(by_labels(&index), index, by_labels);
        self.added.push(index);
        index
    }
}

fn plain(slots: &[Slot], slot: u32) -> &[Symbol] {
    slots[slot as usize].labels.as_ref().map_or(&[], |labels| &labels.plain)
}

fn hash(states: &[RandomState; 2], text: &[u8]) -> u128 {
    let [high, low] = states.each_ref().map(|state| u128::from(state.hash_one(text)));
    high << 64 | low
}

#[cfg(test)]
mod tests;
