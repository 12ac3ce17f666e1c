//! The series of one target, from scrape to scrape.
//!
//! Exporters print their series in the same order each time. So the series of a line is almost always that of the same
//! line in the scrape before: it is compared with that one's text, byte by byte, and only where that fails looked up.
//! Labels are taken apart, joined with the target's and encoded once, when a series is new. A series that a scrape does not
//! have any more is stale.

mod labels;
mod limits;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::metrics::exposition::{Dialect, Fault, Line, PageFault, Series};
pub use crate::metrics::series::labels::{Encoded, TargetLabels};
pub use crate::metrics::series::limits::{Limit, Limits};

/// The series of one target.
#[derive(Debug)]
pub struct SeriesCache {
    labels: TargetLabels,
    namespace: String,
    limits: Arc<Limits>,
    slots: Vec<Slot>,
    /// By the text of the series as it stands on the page. Several texts may stand for the same labels.
    by_text: HashMap<Arc<[u8]>, u32>,
    /// By encoded labels: what a series is.
    by_labels: HashMap<Arc<[u8]>, u32>,
    /// Hashes of the texts of series that a rule drops, each with the newest scrape that had it. With keys that nobody
    /// knows, two texts have the same 128 bits by no chance that counts.
    relabelled: HashMap<u128, u32>,
    hashes: [RandomState; 2],
    free: Vec<u32>,
    /// By sample of the newest whole page.
    order: Vec<u32>,
    /// Of the page that is being read.
    points: Vec<Point>,
    /// New with that page.
    added: Vec<u32>,
    scrape: u32,
}

/// What a page says of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    slot: u32,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch, where the page gives a time.
    pub timestamp: Option<i64>,
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
    /// As it stood on the newest page.
    text: Arc<[u8]>,
    /// Name and labels, encoded for write requests.
    labels: Encoded,
    /// The newest scrape that had it.
    scrape: u32,
    /// Its newest sample had a time of its own: such series end without a mark.
    is_timed: bool,
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
            by_text: HashMap::new(),
            by_labels: HashMap::new(),
            relabelled: HashMap::new(),
            hashes: Default::default(),
            free: Vec::new(),
            order: Vec::new(),
            points: Vec::new(),
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
        self.added.clear();
        let mut counts = Counts::default();
        for (number, line) in page.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let fault = |fault: Fault| PageFault {
                line: number + 1,
                column: Some(fault.at + 1),
                what: fault.what.to_owned(),
            };
            let sample = match Line::read(line, dialect).map_err(fault)? {
                Line::Sample(sample) => sample,
                Line::Eof => break,
                _ => continue,
            };
            let value = sample
                .value()
                .ok_or(Fault { at: sample.series.len() + 1, what: "this is no number" })
                .map_err(fault)?;
            counts.scraped += 1;
            let slot = match self.slot_of(sample.series, dialect).map_err(fault)? {
                Ok(slot) => slot,
                Err(Dropped::Relabelled) => continue,
                Err(Dropped::Above(limit)) => {
                    counts.dropped[limit as usize] += 1;
                    continue;
                }
            };
            let known = &mut self.slots[slot as usize];
            if std::mem::replace(&mut known.scrape, self.scrape) != self.scrape {
                known.is_timed = sample.timestamp.is_some();
                counts.timed |= known.is_timed;
                self.points.push(Point { slot, value, timestamp: sample.timestamp });
            }
        }
        (counts.passed, counts.added) = (self.points.len(), self.added.len());
        Ok(counts)
    }

    /// The samples of the page that was read last, each with its encoded labels.
    pub fn samples(&self) -> impl Iterator<Item = (&Encoded, Point)> {
        self.points.iter().map(|point| (&self.slots[point.slot as usize].labels, *point))
    }

    /// Ends the series that the newest page does not have, or all of them when it was not whole: `stale` gets the labels of
    /// those that have to be marked.
    pub fn end_vanished(&mut self, is_whole: bool, mut stale: impl FnMut(Encoded)) {
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
            // Nobody has been told of those.
            added.iter().for_each(|new| self.slots[*new as usize].is_timed = true);
        }
        let (before, slots, free) = (self.len(), &mut self.slots, &mut self.free);
        self.by_labels.retain(|_, slot| {
            let known = &mut slots[*slot as usize];
            if is_whole && known.scrape == scrape {
                return true;
            }
            let labels = std::mem::take(&mut known.labels);
            if !known.is_timed {
                stale(labels);
            }
            known.text = Arc::default();
            free.push(*slot);
            false
        });
        self.by_text.retain(|_, slot| !slots[*slot as usize].labels.plain.is_empty());
        self.limits.give_back(before - self.by_labels.len(), &self.namespace);
    }

    /// Where the page before had a series at this place, it is most likely the same.
    fn slot_of(&mut self, text: &[u8], dialect: Dialect) -> Result<Result<u32, Dropped>, Fault> {
        let expected = self.order.get(self.points.len()).copied();
        let is_it = |slot: &u32| *self.slots[*slot as usize].text == *text;
        if let Some(slot) = expected.filter(is_it).or_else(|| self.by_text.get(text).copied()) {
            return Ok(Ok(slot));
        }
        if let Some(seen) = self.relabelled.get_mut(&hash(&self.hashes, text)) {
            *seen = self.scrape;
            return Ok(Err(Dropped::Relabelled));
        }
        let series = Series::read(text, dialect)?;
        Ok(self.add(text, &series))
    }

    /// A text that is new: of a new series, or another one of a known.
    fn add(&mut self, text: &[u8], series: &Series<'_>) -> Result<u32, Dropped> {
        let Some(labels) = self.labels.encode(series) else {
            // The others are read anew each time.
            if self.limits.remember(&self.namespace) {
                self.relabelled.insert(hash(&self.hashes, text), self.scrape);
            }
            return Err(Dropped::Relabelled);
        };
        let text: Arc<[u8]> = text.into();
        let slot = match self.by_labels.get(&labels.plain) {
            Some(slot) => {
                self.slots[*slot as usize].text = text.clone();
                *slot
            }
            None => {
                self.limits.take(self.len(), &self.namespace).map_err(Dropped::Above)?;
                self.begin(text.clone(), labels)
            }
        };
        // An exporter that writes the same series in ever another way is read slowly, and takes no more memory for it.
        if self.by_text.len() <= 2 * self.by_labels.len() {
            self.by_text.insert(text, slot);
        }
        Ok(slot)
    }

    fn begin(&mut self, text: Arc<[u8]>, labels: Encoded) -> u32 {
        let plain = labels.plain.clone();
        let slot = Slot { text, labels, scrape: self.scrape.wrapping_sub(1), is_timed: false };
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
        self.by_labels.insert(plain, index);
        self.added.push(index);
        index
    }
}

fn hash(states: &[RandomState; 2], text: &[u8]) -> u128 {
    let [high, low] = states.each_ref().map(|state| u128::from(state.hash_one(text)));
    high << 64 | low
}

#[cfg(test)]
mod tests;
