//! What the outputs count.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::Lost;

/// Counters of the remote write outputs.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) samples: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) bytes: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) fallbacks: IntCounterVec,
    dropped: IntCounterVec,
}

/// Why samples are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver will never take them.
    Rejected,
    /// There was no room in memory, nor on disk.
    QueueFull,
    /// There was no room on disk.
    SpoolFull,
    /// They could not be read back from the disk.
    Damaged,
    /// Version 1.0, which the receiver speaks, has no place for them.
    Unsupported,
    /// The agent has ended, and could not keep them.
    Stopped,
    /// Their output is no more.
    OutputRemoved,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str,
                        help: &str,
                        labels: &[&str]|
         -> Result<IntCounterVec, prometheus::Error> {
            let vec =
                IntCounterVec::new(Opts::new(format!("sidelight_remote_write_{name}_total"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        Ok(Metrics {
            samples: counters("samples", "Samples that the receiver has taken.", &["output"])?,
            requests: counters("requests", "Requests that were sent, however they ended.", &["output"])?,
            bytes: counters("bytes", "Bytes of requests that were sent, compressed.", &["output"])?,
            retries: counters("retries", "Requests that were sent again.", &["output"])?,
            fallbacks: counters(
                "fallbacks",
                "How often a receiver turned out not to know version 2.0.",
                &["output"],
            )?,
            dropped: counters(
                "dropped_samples",
                "Samples that were given up, by reason.",
                &["output", "reason"],
            )?,
        })
    }

    /// Samples of an output that were given up for this reason.
    pub fn dropped(&self, output: &str, reason: DropReason) -> IntCounter {
        self.dropped.with_label_values(&[output, reason.name()])
    }

    /// Samples that an output's receiver has taken.
    pub fn delivered(&self, output: &str) -> IntCounter {
        self.samples.with_label_values(&[output])
    }

    /// Counters of what an output's queue drops.
    pub fn lost(&self, output: &str) -> Lost {
        let of = |reason| self.dropped(output, reason);
        Lost {
            queue_full: of(DropReason::QueueFull),
            spool_full: of(DropReason::SpoolFull),
            damaged: of(DropReason::Damaged),
            unsupported: of(DropReason::Unsupported),
        }
    }
}

// === impl DropReason ===

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 7] = [
        DropReason::Rejected,
        DropReason::QueueFull,
        DropReason::SpoolFull,
        DropReason::Damaged,
        DropReason::Unsupported,
        DropReason::Stopped,
        DropReason::OutputRemoved,
    ];

    /// The label value of `dropped_samples_total`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Rejected => "rejected",
            DropReason::QueueFull => "queue_full",
            DropReason::SpoolFull => "spool_full",
            DropReason::Damaged => "damaged",
            DropReason::Unsupported => "unsupported",
            DropReason::Stopped => "stopped",
            DropReason::OutputRemoved => "output_removed",
        }
    }
}
