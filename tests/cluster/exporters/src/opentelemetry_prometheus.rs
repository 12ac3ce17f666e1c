//! The crate `opentelemetry-prometheus`: instruments of OpenTelemetry, served by the crate `prometheus`.

use ::opentelemetry::KeyValue;
use ::opentelemetry::metrics::{Counter, Histogram, MeterProvider, UpDownCounter};
use ::opentelemetry_sdk::Resource;
use ::opentelemetry_sdk::metrics::SdkMeterProvider;
use ::prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};

use crate::{BUCKETS, DURATION, DURATIONS, PAGES, QUEUE, REQUESTS, Result, Service};

pub(crate) struct Metrics {
    registry: Registry,
    /// The instruments live as long as it does.
    _provider: SdkMeterProvider,
    pages: Counter<u64>,
    requests: Counter<u64>,
    queue: UpDownCounter<i64>,
    waiting: i64,
    durations: Histogram<f64>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let exporter = ::opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let resource = Resource::builder().with_service_name("exporter").build();
        let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(exporter).build();
        let meter = provider.meter("exporter");
        Ok(Metrics {
            registry,
            pages: meter.u64_counter("pages.served").with_description(PAGES).build(),
            requests: meter.u64_counter("http.server.requests").with_description(REQUESTS).build(),
            queue: meter.i64_up_down_counter("queue.depth").with_description(QUEUE).build(),
            waiting: 0,
            durations: meter
                .f64_histogram("http.server.request.duration")
                .with_description(DURATION)
                .with_unit("s")
                .with_boundaries(BUCKETS.to_vec())
                .build(),
            _provider: provider,
        })
    }
}

impl Service for Metrics {
    fn content_type(&self) -> &str {
        TEXT_FORMAT
    }

    fn page(&mut self, waiting: u32) -> Result<String> {
        let method = |method: &'static str| KeyValue::new("http.request.method", method);
        let status = |status| KeyValue::new("http.response.status_code", status);
        self.pages.add(1, &[]);
        self.requests.add(2, &[method("GET"), status(200)]);
        self.requests.add(1, &[method("POST"), status(500)]);
        self.queue.add(i64::from(waiting) - self.waiting, &[]);
        self.waiting = waiting.into();
        for duration in DURATIONS {
            self.durations.record(duration, &[method("GET")]);
        }
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8(page)?)
    }
}
