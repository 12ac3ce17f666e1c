//! The series of one target, from scrape to scrape.
//!
//! Exporters print their series in the same order each time. So the series of a line is almost always that of the same
//! line in the scrape before: it is compared with that one, and only where that fails looked up. A text is known by its
//! length and a seeded hash: two texts have the same 64 bits by no chance that counts, and whoever had a way to make such
//! texts would mix up series of his own.
//! Labels are taken apart and joined with the target's once, when a series is new. A series that a scrape does not have any
//! more is stale.

mod exemplar;
mod family;
mod labels;
mod limits;
mod page;
mod starts;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::metrics::exposition::{self, Dialect, Fault, Series};
pub use crate::metrics::series::exemplar::Exemplar;
use crate::metrics::series::family::Family;
pub use crate::metrics::series::family::Metadata;
pub use crate::metrics::series::labels::{LabelSymbols, SeriesLabels, TargetLabels};
pub use crate::metrics::series::limits::{Limit, Limits};
use crate::metrics::series::starts::Starts;
use crate::metrics::symbols::Symbol;

/// Bytes of the texts of a series' own labels.
const MAX_LABEL_BYTES: usize = 64 << 10;
/// When so many new series of a page were refused, the others are refused without being looked at: a page may have millions.
const MAX_REFUSED: usize = 1_000;

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
    aliases: HashMap<Text, u32>,
    /// Texts of series that a rule drops, each with the newest scrape that had it.
    relabelled: HashMap<Text, u32>,
    hasher: RandomState,
    /// By sample of the newest whole page.
    order: Vec<u32>,
    /// Of the page that is being read.
    points: Vec<Point>,
    /// Of the same page, each with the index of its point.
    exemplars: Vec<(usize, Exemplar)>,
    histograms: Vec<(usize, Box<[u8]>)>,
    /// Histograms that stand beside the page, each with the number of its sample.
    incoming: VecDeque<(usize, Box<[u8]>)>,
    starts: Starts,
    /// Where samples have times of their own and end with a mark: the newest time that was passed on, by slot.
    newest: Vec<i64>,
    /// The times of the marks of the newest page, by the text of their series.
    ended: HashMap<Text, i64>,
    /// New with that page.
    added: Vec<u32>,
    /// How many new series of that page were refused, and for which limit last.
    refused: Option<(Limit, usize)>,
    scrape: u32,
}

/// A sample of the page that is being read.
#[derive(Clone, Copy, Debug)]
struct Point {
    slot: u32,
    value: f64,
    timestamp: Option<i64>,
    /// It was passed on with an earlier page.
    is_repeated: bool,
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
    /// The native histogram whose count the value is: a `Histogram` of remote write 2.0, without times.
    pub histogram: Option<&'a [u8]>,
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
    /// Samples that are left out of those, for an earlier page had them.
    pub repeated: usize,
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

/// What is kept of the text of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Text {
    hash: u64,
    length: u32,
}

#[derive(Debug)]
struct Slot {
    /// As it stood on the page that had it first.
    text: Text,
    /// None when the slot is free.
    labels: Option<SeriesLabels>,
    /// The newest scrape that had it.
    scrape: u32,
    /// Nobody is told that it has ended: its newest sample had a time of its own.
    ends_unmarked: bool,
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
            hasher: RandomState::default(),
            order: Vec::new(),
            points: Vec::new(),
            exemplars: Vec::new(),
            histograms: Vec::new(),
            incoming: VecDeque::new(),
            starts: Starts::default(),
            newest: Vec::new(),
            ended: HashMap::new(),
            added: Vec::new(),
            refused: None,
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

    /// The samples of the page that was read last.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut exemplars = self.exemplars.iter().peekable();
        let mut histograms = self.histograms.iter().peekable();
        self.points.iter().enumerate().filter_map(move |(index, point)| {
            let exemplar = exemplars.next_if(|(at, _)| *at == index);
            let histogram = histograms.next_if(|(at, _)| *at == index);
            if point.is_repeated {
                return None;
            }
            Some(Sample {
                labels: self.slots[point.slot as usize].labels.as_ref()?,
                value: point.value,
                timestamp: point.timestamp,
                start: self.starts.of(point.slot),
                exemplar: exemplar.map(|(_, exemplar)| exemplar),
                histogram: histogram.map(|(_, histogram)| &**histogram),
            })
        })
    }

    /// Ends the series that the newest page does not have, or all of them when it was not whole: `stale` gets the labels of
    /// those that have to be marked, and where their samples have times of their own, when.
    pub fn end_vanished(&mut self, is_whole: bool, mut stale: impl FnMut(SeriesLabels, Option<i64>)) {
        let added = std::mem::take(&mut self.added);
        let scrape = self.scrape;
        let remembered = self.relabelled.len();
        self.relabelled.retain(|_, seen| *seen == scrape);
        self.limits.forget(remembered - self.relabelled.len(), &self.namespace);
        self.order.clear();
        self.ended.clear();
        if is_whole {
            self.keep_times();
            self.order.extend(self.points.iter().map(|point| point.slot));
            if self.order.len() == self.len() {
                return;
            }
        } else {
            self.forget_page();
            // Nobody has been told of those.
            added.iter().for_each(|new| self.slots[*new as usize].ends_unmarked = true);
        }
        self.starts.forget();
        let (before, slots, free) = (self.len(), &mut self.slots, &mut self.free);
        let (newest, ended) = (&self.newest, &mut self.ended);
        self.by_labels.retain(|slot| {
            let known = &mut slots[*slot as usize];
            if is_whole && known.scrape == scrape {
                return true;
            }
            if let Some(labels) = known.labels.take()
                && !known.ends_unmarked
            {
                // Right behind its last sample: it may come back with a time before this scrape.
                let last = newest.get(*slot as usize).copied().filter(|last| *last > i64::MIN);
                let mark = last.map(|last| last.saturating_add(1));
                ended.extend(mark.map(|mark| (known.text, mark)));
                stale(labels, mark);
            }
            free.push(*slot);
            false
        });
        self.by_text.retain(|slot| slots[*slot as usize].labels.is_some());
        self.aliases.retain(|_, slot| slots[*slot as usize].labels.is_some());
        self.limits.give_back(before - self.by_labels.len(), &self.namespace);
    }

    /// Whether series go on when a page cannot be read: the times of the next one may be those of the page before, and no sample
    /// may come behind a mark.
    pub fn outlive_failures(&self) -> bool {
        self.labels.pods.is_some()
    }

    /// The samples of the page are passed on, and their memory is for the next target's.
    pub fn forget_page(&mut self) {
        self.points = Vec::new();
        self.exemplars = Vec::new();
        self.histograms = Vec::new();
    }

    /// Where the page before had a series at this place, it is most likely the same.
    fn slot_of(
        &mut self,
        text: &[u8],
        dialect: Dialect,
        family: &Family<'_>,
    ) -> Result<Result<u32, Dropped>, Fault> {
        let known = self.known_as(text);
        let is_it = |slot: &u32| self.slots[*slot as usize].text == known;
        let expected = self.order.get(self.points.len()).copied().filter(is_it);
        let elsewhere = || self.by_text.find(known.hash, is_it).copied();
        if let Some(slot) = expected.or_else(elsewhere).or_else(|| self.aliases.get(&known).copied()) {
            return Ok(Ok(slot));
        }
        if let Some(seen) = self.relabelled.get_mut(&known) {
            *seen = self.scrape;
            return Ok(Err(Dropped::Relabelled));
        }
        // Those that are known by their labels only are found below.
        if self.aliases.len() < self.len()
            && let Some((limit, MAX_REFUSED..)) = self.refused
        {
            return Ok(Err(Dropped::Above(limit)));
        }
        let series = Series::read(text, dialect)?;
        Ok(self.add(known, &series, family))
    }

    /// A text that is new: of a new series, or another one of a known.
    fn add(&mut self, text: Text, series: &Series<'_>, family: &Family<'_>) -> Result<u32, Dropped> {
        // A request goes to the receiver with the samples of others in it.
        let bytes = |(name, value): &exposition::Label<'_>| name.len() + value.len();
        if series.name.len() + series.labels.iter().map(bytes).sum::<usize>() > MAX_LABEL_BYTES {
            return Err(Dropped::Above(Limit::Labels));
        }
        let Some(labels) = self.labels.of(series, family) else {
            // The others are read anew each time.
            if self.limits.remember(&self.namespace) {
                self.relabelled.insert(text, self.scrape);
            }
            return Err(Dropped::Relabelled);
        };
        let is_it = |slot: &u32| plain(&self.slots, *slot) == &*labels.plain;
        if let Some(slot) = self.by_labels.find(self.hasher.hash_one(&*labels.plain), is_it).copied() {
            // An exporter that writes the same series in ever another way is read slowly, and takes no more memory for it.
            if self.aliases.len() < self.len() {
                self.aliases.insert(text, slot);
            }
            return Ok(slot);
        }
        if let Err(limit) = self.limits.take(self.len(), &self.namespace) {
            return Err(self.refuse(limit));
        }
        Ok(self.begin(Slot {
            text,
            labels: Some(labels),
            scrape: self.scrape.wrapping_sub(1),
            ends_unmarked: false,
            dates_others: family.dates_others(&series.name),
        }))
    }

    fn refuse(&mut self, limit: Limit) -> Dropped {
        let refused = self.refused.map_or(0, |(_, refused)| refused);
        self.refused = Some((limit, refused + 1));
        Dropped::Above(limit)
    }

    fn known_as(&self, text: &[u8]) -> Text {
        Text { hash: self.hasher.hash_one(text), length: u32::try_from(text.len()).unwrap_or(u32::MAX) }
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
        if self.outlive_failures() {
            self.newest.resize(self.slots.len(), i64::MIN);
            // What comes back with the next page may be as old as its mark.
            let mark = self.ended.get(&self.slots[index as usize].text);
            self.newest[index as usize] = mark.copied().unwrap_or(i64::MIN);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let by_text = |slot: &u32| slots[*slot as usize].text.hash;
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

#[cfg(test)]
mod tests;
