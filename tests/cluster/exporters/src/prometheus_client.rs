//! The crate `prometheus-client`, Prometheus's own: OpenMetrics, with typed labels.

use std::sync::atomic::AtomicU64;

use ::prometheus_client::encoding::text::encode;
use ::prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use ::prometheus_client::metrics::counter::Counter;
use ::prometheus_client::metrics::family::Family;
use ::prometheus_client::metrics::gauge::Gauge;
use ::prometheus_client::metrics::histogram::Histogram;
use ::prometheus_client::metrics::info::Info;
use ::prometheus_client::registry::{Registry, Unit};

use crate::{BUCKETS, DURATION, DURATIONS, PAGES, QUEUE, REQUESTS, Result, Service};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Method {
    Get,
    Post,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: Method,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Duration {
    method: Method,
}

pub(crate) struct Metrics {
    registry: Registry,
    pages: Counter,
    requests: Family<Request, Counter>,
    queue: Gauge,
    load: Gauge<f64, AtomicU64>,
    durations: Family<Duration, Histogram, fn() -> Histogram>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            pages: Counter::default(),
            requests: Family::default(),
            queue: Gauge::default(),
            load: Gauge::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "build",
            "What this is",
            Info::new([("version", "1.2.3"), ("features", "a,\"b\"")]),
        );
        registry.register("pages_served", PAGES, metrics.pages.clone());
        registry.register("http_requests", REQUESTS, metrics.requests.clone());
        registry.register("queue_depth", QUEUE, metrics.queue.clone());
        registry.register("queue_load", "The part of the queue that is in use", metrics.load.clone());
        registry.register_with_unit(
            "http_request_duration",
            DURATION,
            Unit::Seconds,
            metrics.durations.clone(),
        );
        metrics
    }
}

impl Service for Metrics {
    /// What web frameworks say of a string; its users often leave it at that.
    fn content_type(&self) -> &str {
        "text/plain; charset=utf-8"
    }

    fn page(&mut self, waiting: u32) -> Result<String> {
        self.pages.inc();
        self.requests.get_or_create(&Request { method: Method::Get, status: 200 }).inc_by(2);
        self.requests.get_or_create(&Request { method: Method::Post, status: 500 }).inc();
        self.queue.set(waiting.into());
        self.load.set(f64::from(waiting) / 7.0);
        for duration in DURATIONS {
            self.durations.get_or_create(&Duration { method: Method::Get }).observe(duration);
        }
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}
