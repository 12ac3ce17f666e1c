//! What is known of each target, for whoever asks, and the counters of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::metrics::discover::TargetKey;
use crate::metrics::series::Limit;

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// When it was last scraped, in milliseconds since the epoch.
    pub last_scrape: Option<i64>,
    /// Why the last scrape failed.
    pub last_error: Option<String>,
    /// Samples of the last scrape.
    pub samples: usize,
    /// Series that are alive.
    pub series: usize,
}

/// What is known of all targets. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct States(Arc<Mutex<HashMap<TargetKey, State>>>);

/// Counters of all scrapes.
#[derive(Clone, Debug)]
pub struct ScrapeMetrics {
    scrapes: IntCounterVec,
    samples: IntCounter,
    bytes: IntCounter,
    mistyped: IntCounter,
    duration: Histogram,
    series: IntGauge,
    dropped: [IntCounter; Limit::ALL.len()],
}

// === impl States ===

impl States {
    /// What is known of a target.
    pub fn get(&self, key: &TargetKey) -> Option<State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(in crate::metrics) fn set(&self, key: &TargetKey, state: State) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), state);
    }

    pub(in crate::metrics) fn remove(&self, key: &TargetKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

// === impl ScrapeMetrics ===

impl ScrapeMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let dropped = IntCounterVec::new(
            Opts::new(
                "sidelight_series_dropped_total",
                "Samples of new series for which there was no place, by limit.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let metrics = ScrapeMetrics {
            dropped: Limit::ALL.map(|limit| dropped.with_label_values(&[limit.name()])),
            scrapes: IntCounterVec::new(
                Opts::new("sidelight_scrapes_total", "Scrapes, by whether their page could be read."),
                &["result"],
            )?,
            samples: IntCounter::new(
                "sidelight_scrape_samples_total",
                "Samples of pages that were passed on.",
            )?,
            bytes: IntCounter::new("sidelight_scrape_bytes_total", "Bytes of pages, unpacked.")?,
            mistyped: IntCounter::new(
                "sidelight_scrape_content_type_fallbacks_total",
                "Pages that are not what their content type says, or that have none; they are read as what they are.",
            )?,
            duration: Histogram::with_opts(HistogramOpts::new(
                "sidelight_scrape_duration_seconds",
                "From the request to the last line of the page.",
            ))?,
            series: IntGauge::new("sidelight_series", "Series of all targets that are alive.")?,
        };
        // Present from the start, so that rates are right from the first scrape.
        ["success", "failure"].iter().for_each(|result| drop(metrics.scrapes.with_label_values(&[result])));
        registry.register(Box::new(metrics.scrapes.clone()))?;
        registry.register(Box::new(metrics.samples.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.mistyped.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.series.clone()))?;
        Ok(metrics)
    }

    pub(in crate::metrics) fn scraped(&self, is_success: bool, bytes: usize, seconds: f64) {
        let result = if is_success { "success" } else { "failure" };
        self.scrapes.with_label_values(&[result]).inc();
        self.bytes.inc_by(bytes as u64);
        self.duration.observe(seconds);
    }

    pub(in crate::metrics) fn mistyped(&self) {
        self.mistyped.inc();
    }

    pub(in crate::metrics) fn samples(&self, samples: usize) {
        self.samples.inc_by(samples as u64);
    }

    pub(in crate::metrics) fn series_dropped(&self, dropped: [usize; Limit::ALL.len()]) {
        for (counter, dropped) in self.dropped.iter().zip(dropped) {
            counter.inc_by(dropped as u64);
        }
    }

    pub(in crate::metrics) fn series(&self, change: i64) {
        self.series.add(change);
    }
}
