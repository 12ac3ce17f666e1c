//! The crate `prometheus`, the older one: the text format, with a registry of one's own.

use ::prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TEXT_FORMAT,
    TextEncoder,
};

use crate::{BUCKETS, DURATION, DURATIONS, PAGES, QUEUE, REQUESTS, Result, Service};

pub(crate) struct Metrics {
    registry: Registry,
    pages: IntCounter,
    requests: IntCounterVec,
    queue: IntGauge,
    durations: HistogramVec,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let durations =
            HistogramOpts::new("http_request_duration_seconds", DURATION).buckets(BUCKETS.to_vec());
        let metrics = Metrics {
            registry: Registry::new(),
            pages: IntCounter::new("pages_served_total", PAGES)?,
            requests: IntCounterVec::new(Opts::new("http_requests_total", REQUESTS), &["method", "status"])?,
            queue: IntGauge::new("queue_depth", QUEUE)?,
            durations: HistogramVec::new(durations, &["method"])?,
        };
        metrics.registry.register(Box::new(metrics.pages.clone()))?;
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.queue.clone()))?;
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        Ok(metrics)
    }
}

impl Service for Metrics {
    fn content_type(&self) -> &str {
        TEXT_FORMAT
    }

    fn page(&mut self, waiting: u32) -> Result<String> {
        self.pages.inc();
        self.requests.with_label_values(&["GET", "200"]).inc_by(2);
        self.requests.with_label_values(&["POST", "500"]).inc();
        self.queue.set(waiting.into());
        for duration in DURATIONS {
            self.durations.with_label_values(&["GET"]).observe(duration);
        }
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8(page)?)
    }
}
