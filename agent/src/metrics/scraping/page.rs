//! One target's scrapes: page in, samples out, and what the scrape says of itself.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Shared, State};
use crate::metrics::discover::Target;
use crate::metrics::exposition::Dialect;
use crate::metrics::scrape::Client;
use crate::metrics::series::{Counts, Limit, SeriesCache, TargetLabels};
use crate::metrics::write_request::STALE;

/// The series that a scrape makes itself, as Prometheus calls them.
const OWN: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// What scrapes one target.
pub(super) struct Scraper {
    shared: Arc<Shared>,
    target: Target,
    /// Indices of the outputs that get its samples.
    outputs: Vec<usize>,
    namespace: String,
    client: Client,
    series: SeriesCache,
    own: [Vec<u8>; OWN.len()],
    /// Of the newest samples: no later ones may have the same, or an earlier one, whatever the clock does.
    last_time: Option<i64>,
    /// A page had times of its own.
    is_timed: bool,
    /// Series that the gauge of all targets has of this one.
    counted: usize,
    /// What has kept new series out in the newest scrape.
    limited: Option<Limit>,
}

// === impl Scraper ===

impl Scraper {
    /// Of a pod in this namespace.
    pub(super) fn new(shared: Arc<Shared>, target: Target, namespace: &str, outputs: Vec<usize>) -> Self {
        let labels = TargetLabels {
            labels: target.labels.clone(),
            honor: target.honor_labels,
            config: shared.config.clone(),
        };
        let metrics = &shared.config.metrics;
        let body_limit = usize::try_from(metrics.body_limit).unwrap_or(usize::MAX);
        Scraper {
            client: Client::new(metrics.timeout, body_limit, shared.tls.clone()),
            own: OWN.map(|name| labels.encode_own(name)),
            series: SeriesCache::new(labels, namespace, shared.limits.clone()),
            shared,
            target,
            outputs,
            last_time: None,
            is_timed: false,
            namespace: namespace.to_owned(),
            counted: 0,
            limited: None,
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// One scrape.
    pub(super) async fn scrape(&mut self) {
        let (begun, time) = (Instant::now(), self.next_time());
        let (mut page, mut room) = self.shared.pages.take(&self.namespace);
        let result = self.client.scrape(&self.target, &mut page, &mut room).await;
        let result = result.map_err(|error| error.to_string());
        let result = result.and_then(|_| {
            let counts = self.series.read(&page, Dialect::of_page(&page));
            counts.map_err(|fault| fault.to_string())
        });
        let duration = begun.elapsed().as_secs_f64();
        self.shared.metrics.scraped(result.is_ok(), page.len(), duration);
        drop(room);
        self.shared.pages.give_back(page);
        self.pass_on(time, duration, result.as_ref().ok().copied());
        self.count_dropped(result.as_ref().map(|counts| counts.dropped).unwrap_or_default());
        self.count_series();
        let counts = result.as_ref().map(|counts| counts.passed).unwrap_or_default();
        self.shared.states.set(
            &self.target.key,
            State {
                last_scrape: Some(time),
                last_error: result.err(),
                samples: counts,
                series: self.series.len(),
            },
        );
    }

    /// Passes the samples of a page on, marks for series that have ended, and what the scrape says of itself: all of it
    /// together, so that a receiver gets a scrape whole.
    fn pass_on(&mut self, time: i64, duration: f64, counts: Option<Counts>) {
        let mut stale = Vec::new();
        let is_whole = counts.is_some();
        self.series.end_vanished(is_whole, |labels| stale.push(labels.to_vec()));
        let counts = counts.unwrap_or_default();
        self.is_timed |= counts.timed;
        self.shared.metrics.samples(counts.passed);
        let own = [
            f64::from(u8::from(is_whole)),
            duration,
            counts.scraped as f64,
            counts.passed as f64,
            counts.added as f64,
        ];
        let total = if is_whole { counts.passed } else { 0 } + stale.len() + OWN.len();
        for index in &self.outputs {
            let samples = self
                .series
                .samples()
                .map(|(labels, point)| (labels, point.value, point.timestamp.unwrap_or(time)));
            let marks = stale.iter().map(|labels| (labels.as_slice(), STALE, time));
            let own = self.own.iter().zip(own).map(|(labels, value)| (labels.as_slice(), value, time));
            self.shared.outputs[*index].add(total, self.is_timed, samples.chain(marks).chain(own));
        }
    }

    fn count_dropped(&mut self, dropped: [usize; Limit::ALL.len()]) {
        self.shared.metrics.series_dropped(dropped);
        let limit = Limit::ALL.into_iter().find(|limit| dropped[*limit as usize] > 0);
        if self.limited != limit
            && let Some(limit) = limit
        {
            tracing::warn!(
                url = self.target.url(),
                limit = limit.name(),
                series = dropped[limit as usize],
                "there is no place for new series of a target; they are dropped, and the others go on"
            );
        }
        self.limited = limit;
    }

    fn count_series(&mut self) {
        let before = std::mem::replace(&mut self.counted, self.series.len());
        self.shared.metrics.series(self.counted as i64 - before as i64);
    }

    /// The target is gone: all of its series end.
    pub(super) fn end(&mut self) {
        if self.last_time.is_none() {
            return;
        }
        let mut stale = self.own.to_vec();
        self.series.end_vanished(false, |labels| stale.push(labels.to_vec()));
        let time = self.next_time();
        for index in &self.outputs {
            let marks = stale.iter().map(|labels| (labels.as_slice(), STALE, time));
            self.shared.outputs[*index].add(stale.len(), self.is_timed, marks);
        }
    }

    /// Milliseconds since the epoch, later than the time before.
    fn next_time(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let time = self.last_time.map_or(now, |last| now.max(last.saturating_add(1)));
        self.last_time = Some(time);
        time
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.shared.metrics.series(-(self.counted as i64));
        self.shared.states.remove(&self.target.key);
    }
}
