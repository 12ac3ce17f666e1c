//! What the injector counts of itself. No label has a value that a tenant writes.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::template::VERSION;

/// The counters; clones are the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reviews by what became of the pod: injected, skipped, denied, failed.
    pub reviews: IntCounterVec,
    /// Pods that stay as they are, by reason.
    pub skipped: IntCounterVec,
    /// From the review's last byte to the answer.
    pub duration: Histogram,
    /// Requests that were answered with an error of HTTP, by its status.
    pub rejected: IntCounterVec,
    /// When the certificate ends.
    pub not_after: IntGauge,
    /// Events that could not be written.
    pub events_dropped: IntCounter,
    /// Where all of them are.
    pub registry: Arc<Registry>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken: a defect.
    pub fn register() -> prometheus::Result<Self> {
        fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let name = |name: &str, help: &str| Opts::new(format!("sidelight_injector_{name}"), help);
        let registry = Registry::new();
        registry.register(Box::new(sidelight_runtime::process::ProcessCollector::new()))?;
        let build =
            Opts::new("sidelight_build_info", "The version that runs.").const_label("version", VERSION);
        add(&registry, IntGauge::with_opts(build)?)?.set(1);
        let buckets = vec![0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0];
        let duration = HistogramOpts {
            common_opts: name("review_duration_seconds", "From the review's last byte to the answer."),
            buckets,
        };
        Ok(Metrics {
            reviews: add(
                &registry,
                IntCounterVec::new(name("reviews_total", "Reviews by what became of the pod."), &["result"])?,
            )?,
            skipped: add(
                &registry,
                IntCounterVec::new(
                    name("skipped_total", "Pods that stay as they are, by reason."),
                    &["reason"],
                )?,
            )?,
            duration: add(&registry, Histogram::with_opts(duration)?)?,
            rejected: add(
                &registry,
                IntCounterVec::new(
                    name("rejected_total", "Requests that are no reviews, by status."),
                    &["status"],
                )?,
            )?,
            not_after: add(
                &registry,
                IntGauge::with_opts(name(
                    "certificate_not_after_seconds",
                    "When the certificate ends, in seconds since the epoch.",
                ))?,
            )?,
            events_dropped: add(
                &registry,
                IntCounter::with_opts(name("events_dropped_total", "Events that could not be written."))?,
            )?,
            registry: Arc::new(registry),
        })
    }
}
