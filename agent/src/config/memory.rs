//! The memory that a configuration needs.

use super::{Config, Output, READ_WINDOW};

/// Of a series: its labels, its places in the cache, and what the allocator adds, which are about 230 by `bench scrape`; and
/// two texts that no other series has.
const SERIES_BYTES: u64 = 400;
/// Of its labels once more.
const LABELS_BYTES: u64 = 100;

/// Compressed requests that wait for their receiver, for each output of metrics: of a node's pods, and of one pod.
const QUEUE_BYTES: [usize; 2] = [16 << 20, 2 << 20];

/// The request that is being filled, room to compress it, and what is made of it for the disk or for version 1.0.
const PACKING_BYTES: usize = 16 << 20;
/// The same for the series of one pod, which are fewer.
const PACKING_BYTES_OF_A_POD: usize = 4 << 20;

impl Config {
    /// The memory that this config needs, part by part, in bytes; the sum is the expected peak.
    pub fn memory_needs(&self) -> Vec<(&'static str, u64)> {
        let (workers, outputs) = (self.workers as u64, self.logs.outputs.len() as u64);
        let packing = if self.sidecar { PACKING_BYTES_OF_A_POD } else { PACKING_BYTES };
        let encoder = |output: &Output| output.compression().fixed_bytes(output.chunk_bytes() as u64);
        vec![
            ("program and allocator", 6 << 20),
            (
                "reader buffers (window and scratch, each worker)",
                workers * (READ_WINDOW as u64 + 2 * self.logs.max_record),
            ),
            (
                "compression (each worker and output, and one for refused chunks)",
                (workers + 1) * self.logs.outputs.iter().map(encoder).sum::<u64>(),
            ),
            ("payload (memory_budget)", self.memory_budget),
            ("connections (each output)", outputs * (256 << 10)),
            (
                "samples that wait or are packed (each output of metrics)",
                self.metrics.outputs.len() as u64 * (self.queue_bytes() + packing) as u64,
            ),
            ("series (metrics.series_limit_total, for outputs and for pull)", self.series_bytes()),
        ]
    }

    /// Compressed requests that wait in memory for their receiver, for each output of metrics, in bytes.
    pub fn queue_bytes(&self) -> usize {
        QUEUE_BYTES[usize::from(self.sidecar)]
    }

    /// What all series need when there are as many as may be.
    fn series_bytes(&self) -> u64 {
        let outputs = &self.metrics.outputs;
        let with_rules =
            outputs.iter().filter(|output| !output.remote_write.relabel.is_empty()).count() as u64;
        // Of those that others ask for, there are as many again.
        let ways = [!outputs.is_empty(), !self.metrics.pull.listen.is_empty()];
        let ways = ways.iter().filter(|is_there| **is_there).count() as u64;
        ways * self.metrics.series_limit_total * (SERIES_BYTES + with_rules * LABELS_BYTES)
    }
}
