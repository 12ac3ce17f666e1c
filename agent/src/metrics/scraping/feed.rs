//! The series of one page, from scrape to scrape, on their way to the outputs that get them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use crate::metrics::exposition::{Dialect, PageFault, protobuf};
use crate::metrics::series::{Counts, Limit, SeriesCache, SeriesLabels, TargetLabels};
use crate::metrics::write_request::{STALE, Sample};

/// One page, again and again.
pub(super) struct Feed {
    shared: Arc<Shared>,
    /// Where the page comes from, for the log.
    origin: String,
    /// Indices of the outputs that get its samples.
    outputs: Vec<usize>,
    series: SeriesCache,
    /// A page had times of its own.
    is_timed: bool,
    /// Series that the gauge of all has of this one.
    counted: usize,
    /// What has kept new series out on the newest page.
    limited: Option<Limit>,
}

/// Times of samples: no later ones may have the same, or an earlier one, whatever the system's clock does.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<i64>,
}

/// Milliseconds since the epoch.
pub(in crate::metrics) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Clock ===

impl Clock {
    /// Whether nobody has asked it yet.
    pub(super) fn is_new(&self) -> bool {
        self.last.is_none()
    }

    /// Milliseconds since the epoch, later than the time before.
    pub(super) fn next(&mut self) -> i64 {
        self.next_at(now())
    }

    fn next_at(&mut self, now: i64) -> i64 {
        let time = self.last.map_or(now, |last| now.max(last.saturating_add(1)));
        self.last = Some(time);
        time
    }
}

// === impl Feed ===

impl Feed {
    /// Pages of a pod in this namespace, whose series get these labels.
    pub(super) fn new(
        shared: Arc<Shared>,
        origin: String,
        labels: TargetLabels,
        namespace: &str,
        outputs: Vec<usize>,
    ) -> Self {
        Feed {
            series: SeriesCache::new(labels, namespace, shared.limits.clone()),
            shared,
            origin,
            outputs,
            is_timed: false,
            counted: 0,
            limited: None,
        }
    }

    /// Series that are alive.
    pub(super) fn series(&self) -> usize {
        self.series.len()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub(super) fn read(&mut self, page: &[u8]) -> Result<Counts, PageFault> {
        self.series.read(page, Dialect::of_page(page))
    }

    /// Reads a page in protobuf.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read_protobuf(&mut self, page: &[u8]) -> Result<Counts, String> {
        let limit = usize::try_from(self.shared.config.metrics.body_limit).unwrap_or(usize::MAX);
        let page = protobuf::written(page, limit).map_err(|error| error.to_string())?;
        self.series.read_written(page).map_err(|fault| fault.to_string())
    }

    /// Whether somebody gets the native histograms of its pages.
    pub(super) fn takes_histograms(&self) -> bool {
        self.shared.config.metrics.native_histograms
            && self.outputs.iter().any(|output| self.shared.outputs[*output].takes_histograms())
    }

    /// Passes on the samples of the page that was read, if it could be, marks for series that have ended, and samples that
    /// are not on the page: all of it together, so that a receiver gets a scrape whole.
    pub(super) fn pass_on(&mut self, time: i64, counts: Option<Counts>, own: &[(&SeriesLabels, f64)]) {
        let goes_on = counts.is_none() && self.series.outlive_failures();
        self.send(time, counts, own, goes_on);
    }

    fn send(&mut self, time: i64, counts: Option<Counts>, own: &[(&SeriesLabels, f64)], goes_on: bool) {
        let mut stale = Vec::new();
        if goes_on {
            self.series.forget_page();
        } else {
            let mark = |labels, last: Option<i64>| stale.push((labels, last.unwrap_or(time)));
            self.series.end_vanished(counts.is_some(), mark);
        }
        let counts = counts.unwrap_or_default();
        self.is_timed |= counts.timed;
        self.shared.metrics.samples(counts.passed - counts.repeated);
        let total = counts.passed + stale.len() + own.len();
        for index in &self.outputs {
            let samples = self.series.samples().filter_map(|sample| {
                let timestamp = sample.timestamp.unwrap_or(time);
                let plain = of_output(sample.labels, *index, sample.value, timestamp)?;
                let (start, exemplar, histogram) = (sample.start, sample.exemplar, sample.histogram);
                Some(Sample { start, exemplar, histogram, ..plain })
            });
            let marks = stale.iter().filter_map(|(labels, time)| of_output(labels, *index, STALE, *time));
            let own = own.iter().filter_map(|(labels, value)| of_output(labels, *index, *value, time));
            let all = own.chain(samples).chain(marks);
            let output = &self.shared.outputs[*index];
            if output.has_rules {
                // Rules may make series equal. Two samples of one would have the receiver reject the whole request.
                let mut seen = HashSet::new();
                output.add(total, self.is_timed, all.filter(|sample| seen.insert(sample.labels)));
            } else {
                output.add(total, self.is_timed, all);
            }
        }
        self.series.forget_page();
        self.count_dropped(counts.dropped);
        self.count_series();
    }

    /// There are no more pages: all series end, and those of `own`.
    pub(super) fn end(&mut self, time: i64, own: &[SeriesLabels]) {
        let own: Vec<_> = own.iter().map(|labels| (labels, STALE)).collect();
        self.send(time, None, &own, false);
    }

    fn count_dropped(&mut self, dropped: [usize; Limit::ALL.len()]) {
        self.shared.metrics.series_dropped(dropped);
        let limit = Limit::ALL.into_iter().find(|limit| dropped[*limit as usize] > 0);
        if self.limited != limit
            && let Some(limit) = limit
        {
            tracing::warn!(
                origin = self.origin,
                limit = limit.name(),
                series = dropped[limit as usize],
                "there is no place for new series of a page; they are dropped, and the others go on"
            );
        }
        self.limited = limit;
    }

    fn count_series(&mut self) {
        let before = std::mem::replace(&mut self.counted, self.series.len());
        self.shared.metrics.series(self.counted as i64 - before as i64);
    }
}

/// A sample as an output gets it; none where its rules drop the series.
fn of_output(labels: &SeriesLabels, output: usize, value: f64, timestamp: i64) -> Option<Sample<'_>> {
    let metadata = labels.metadata;
    let labels = labels.for_output(output)?;
    Some(Sample { labels, metadata, value, timestamp, start: None, exemplar: None, histogram: None })
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.metrics.series(-(self.counted as i64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rise_whatever_the_clock_does() {
        let mut clock = Clock::default();
        let times = [5_000, 5_000, 1_000, 1_500, 20_000, 19_000].map(|now| clock.next_at(now));
        assert_eq!(times, [5_000, 5_001, 5_002, 5_003, 20_000, 20_001]);
    }
}
