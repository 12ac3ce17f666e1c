//! Every byte ends in one counter: per output, in bytes of the source files,
//! `read = delivered + dropped{reason} + in flight`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Why records were not delivered. The names are label values of `log_source_bytes_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Above the operator's or the pod's rate.
    Rate,
    /// Not in the pod's sample.
    Sample,
    /// A rule of `logs.drop` matched.
    Filter,
    /// The part of a record beyond `max_record`.
    Truncated,
    /// A deleted file was given up because all deleted files together passed `held_deleted`.
    HeldDeleted,
    /// The file's last link went while no agent ran.
    LostUnlinked,
    /// The receiver refused this one record again and again.
    Rejected,
    /// The record made its own processing fail, raw as well.
    Poison,
}

impl DropReason {
    /// All, in the order of their counters.
    pub const ALL: [DropReason; 8] = [
        DropReason::Rate,
        DropReason::Sample,
        DropReason::Filter,
        DropReason::Truncated,
        DropReason::HeldDeleted,
        DropReason::LostUnlinked,
        DropReason::Rejected,
        DropReason::Poison,
    ];

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Rate => "rate",
            DropReason::Sample => "sample",
            DropReason::Filter => "filter",
            DropReason::Truncated => "truncated",
            DropReason::HeldDeleted => "held_deleted",
            DropReason::LostUnlinked => "lost_unlinked",
            DropReason::Rejected => "rejected",
            DropReason::Poison => "poison",
        }
    }
}

/// The counters of all outputs and namespaces; parts take their own once and keep them.
#[derive(Clone, Debug)]
pub struct Accounts {
    read: IntCounterVec,
    delivered: IntCounterVec,
    dropped: IntCounterVec,
    records_delivered: IntCounterVec,
    records_dropped: IntCounterVec,
    records_retried: IntCounterVec,
    namespace_delivered: IntCounterVec,
    namespace_dropped: IntCounterVec,
}

/// One output's counters.
#[derive(Debug)]
pub struct OutputAccount {
    read: IntCounter,
    /// Bytes that an earlier pipeline has read and not settled: they are read again, and not counted twice.
    again: AtomicU64,
    delivered: IntCounter,
    dropped: [IntCounter; DropReason::ALL.len()],
    records_delivered: IntCounter,
    records_dropped: [IntCounter; DropReason::ALL.len()],
    records_retried: IntCounter,
}

/// One namespace's counters, summed over outputs.
#[derive(Clone, Debug)]
pub struct NamespaceAccount {
    delivered: IntCounter,
    dropped: IntCounter,
}

// === impl Accounts ===

impl Accounts {
    /// Registers the counters.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let vec = IntCounterVec::new(Opts::new(format!("sidelight_{name}"), help), labels)?;
                registry.register(Box::new(vec.clone()))?;
                Ok(vec)
            };
        Ok(Accounts {
            read: counters(
                "log_source_bytes_read_total",
                "Bytes of log files read for an output; reading again is not counted twice.",
                &["output"],
            )?,
            delivered: counters(
                "log_source_bytes_delivered_total",
                "Bytes of log files whose records the receiver has acknowledged.",
                &["output"],
            )?,
            dropped: counters(
                "log_source_bytes_dropped_total",
                "Bytes of log files that were given up, by reason.",
                &["output", "reason"],
            )?,
            records_delivered: counters(
                "log_records_delivered_total",
                "Records that the receiver has acknowledged.",
                &["output"],
            )?,
            records_dropped: counters(
                "log_records_dropped_total",
                "Records that were given up, by reason.",
                &["output", "reason"],
            )?,
            records_retried: counters(
                "log_records_retried_total",
                "Records that were sent again.",
                &["output"],
            )?,
            namespace_delivered: counters(
                "log_namespace_bytes_delivered_total",
                "Bytes of log files delivered, by namespace, summed over outputs.",
                &["namespace"],
            )?,
            namespace_dropped: counters(
                "log_namespace_bytes_dropped_total",
                "Bytes of log files given up, by namespace, summed over outputs.",
                &["namespace"],
            )?,
        })
    }

    /// The counters of the output `name`, all present from the start so that rates are right from the first event.
    pub fn output(&self, name: &str) -> Arc<OutputAccount> {
        Arc::new(OutputAccount {
            read: self.read.with_label_values(&[name]),
            again: AtomicU64::new(0),
            delivered: self.delivered.with_label_values(&[name]),
            dropped: DropReason::ALL.map(|reason| self.dropped.with_label_values(&[name, reason.name()])),
            records_delivered: self.records_delivered.with_label_values(&[name]),
            records_dropped: DropReason::ALL
                .map(|reason| self.records_dropped.with_label_values(&[name, reason.name()])),
            records_retried: self.records_retried.with_label_values(&[name]),
        })
    }

    /// The counters of a namespace.
    pub fn namespace(&self, name: &str) -> NamespaceAccount {
        NamespaceAccount {
            delivered: self.namespace_delivered.with_label_values(&[name]),
            dropped: self.namespace_dropped.with_label_values(&[name]),
        }
    }
}

// === impl OutputAccount ===

impl OutputAccount {
    /// A pipeline begins: what the one before has left in flight, it reads again.
    pub fn begin(&self) {
        self.again.store(u64::try_from(self.bytes_in_flight()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Bytes were read that this pipeline had not read before.
    pub fn read(&self, bytes: u64) {
        let rest = |again: u64| Some(again.saturating_sub(bytes));
        let again = self.again.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).unwrap_or(0);
        self.read.inc_by(bytes.saturating_sub(again));
    }

    /// The receiver has acknowledged.
    pub fn deliver(&self, namespace: &NamespaceAccount, records: u64, bytes: u64) {
        self.records_delivered.inc_by(records);
        self.delivered.inc_by(bytes);
        namespace.delivered.inc_by(bytes);
    }

    /// Records were given up. What is only shortened is no record dropped: `records` is 0 then.
    pub fn give_up(&self, namespace: &NamespaceAccount, reason: DropReason, records: u64, bytes: u64) {
        self.records_dropped[reason as usize].inc_by(records);
        self.dropped[reason as usize].inc_by(bytes);
        namespace.dropped.inc_by(bytes);
    }

    /// Records were sent again.
    pub fn retry(&self, records: u64) {
        self.records_retried.inc_by(records);
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes delivered so far.
    pub fn bytes_delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// Records delivered so far.
    pub fn records_delivered(&self) -> u64 {
        self.records_delivered.get()
    }

    /// Bytes given up so far, by reason.
    pub fn bytes_dropped(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.dropped[reason as usize].get()))
    }

    /// Bytes of this pipeline that are neither delivered nor dropped. Below nothing: a defect, or the counters moved
    /// while they were read.
    pub fn bytes_in_flight(&self) -> i64 {
        let ended = self.bytes_delivered() + self.bytes_dropped().map(|(_, bytes)| bytes).sum::<u64>();
        let [read, ended, again] = [self.bytes_read(), ended, self.again.load(Ordering::Relaxed)]
            .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        read - ended - again
    }
}
