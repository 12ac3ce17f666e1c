//! The crates `metrics` and `metrics-exporter-prometheus`: macros, and the text format. What has no buckets becomes a
//! summary.

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use ::metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{BUCKETS, DURATION, DURATIONS, PAGES, QUEUE, REQUESTS, Result, Service};

const HISTOGRAM: &str = "http_request_duration_seconds";

pub(crate) struct Metrics(PrometheusHandle);

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(HISTOGRAM.to_owned()), &BUCKETS)?
            .install_recorder()?;
        describe_counter!("pages_served_total", PAGES);
        describe_counter!("http_requests_total", REQUESTS);
        describe_gauge!("queue_depth", QUEUE);
        describe_histogram!(HISTOGRAM, DURATION);
        Ok(Metrics(handle))
    }
}

impl Service for Metrics {
    /// That of its own HTTP listener.
    fn content_type(&self) -> &str {
        "text/plain"
    }

    fn page(&mut self, waiting: u32) -> Result<String> {
        counter!("pages_served_total").increment(1);
        counter!("http_requests_total", "method" => "GET", "status" => "200").increment(2);
        counter!("http_requests_total", "method" => "POST", "status" => "500").increment(1);
        gauge!("queue_depth").set(waiting);
        for duration in DURATIONS {
            histogram!(HISTOGRAM, "method" => "GET").record(duration);
            histogram!("job_duration_seconds", "job" => "mail").record(duration);
        }
        self.0.run_upkeep();
        Ok(self.0.render())
    }
}
