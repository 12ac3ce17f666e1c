//! Counters of the log path that belong to no output.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the log path. Cheap to clone; readers add up a window before they touch them.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// Lines read, each once for every output that takes it.
    pub lines_read: IntCounter,
    /// Bytes read, each once for every output that takes it.
    pub bytes_read: IntCounter,
    /// Lines that were sent raw because something in them was wrong, by kind.
    pub parse_failures: ParseFailures,
    /// Containers whose records went out without metadata.
    pub metadata_partial: IntCounter,
    /// Watches that could not be set, and overflows of the kernel's queue.
    pub watch_failures: IntCounter,
    /// Bytes of deleted files that are held open for what is unread.
    pub deleted_bytes_held: IntGauge,
}

/// `log_parse_failures_total` by kind.
#[derive(Clone, Debug)]
pub struct ParseFailures {
    /// A line without a valid CRI or Docker head.
    pub head: IntCounter,
    /// Bytes that are not UTF-8; they became U+FFFD.
    pub utf8: IntCounter,
    /// Text that its parser did not take.
    pub format: IntCounter,
    /// A gzip file that is damaged; what is behind the damage is lost.
    pub gzip: IntCounter,
    /// A line whose processing panicked; it was sent raw.
    pub panic: IntCounter,
}

// === impl LogMetrics ===

impl LogMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("sidelight_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let failures = IntCounterVec::new(
            Opts::new(
                "sidelight_log_parse_failures_total",
                "Lines sent raw, or with replaced bytes, by what was wrong.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        let held = IntGauge::new(
            "sidelight_log_deleted_bytes_held",
            "Unread bytes of deleted files that are held open.",
        )?;
        registry.register(Box::new(held.clone()))?;
        Ok(LogMetrics {
            lines_read: counter(
                "log_lines_read_total",
                "Lines read from log files, once for every output that takes them.",
            )?,
            bytes_read: counter(
                "log_bytes_read_total",
                "Bytes read from log files, once for every output that takes them.",
            )?,
            parse_failures: ParseFailures {
                head: failures.with_label_values(&["head"]),
                utf8: failures.with_label_values(&["utf8"]),
                format: failures.with_label_values(&["format"]),
                gzip: failures.with_label_values(&["gzip"]),
                panic: failures.with_label_values(&["panic"]),
            },
            metadata_partial: counter(
                "metadata_partial_total",
                "Containers whose records went out before Kubernetes had said anything about them.",
            )?,
            watch_failures: counter(
                "log_watch_failures_total",
                "inotify watches that could not be set, and queue overflows.",
            )?,
            deleted_bytes_held: held,
        })
    }
}
