//! A write request of remote write 1.0 while it is filled.
//!
//! Source: the specification of remote write 1.0, and `prompb/remote.proto` of Prometheus.

use super::protobuf::{length_delimited, varint, varint_len};

/// What says that a series has ended (`model/value/value.go` of Prometheus): a NaN that no computation gives.
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Samples, encoded as they come: `WriteRequest.timeseries`.
#[derive(Debug, Default)]
pub struct WriteRequest {
    bytes: Vec<u8>,
    samples: usize,
}

// === impl WriteRequest ===

impl WriteRequest {
    /// Adds a sample: `labels` as [`crate::metrics::series::Encoded`] has them, the time in milliseconds since the epoch.
    pub fn add(&mut self, labels: &[u8], value: f64, timestamp: i64) {
        // Negative times take ten bytes, as the wire format wants it.
        let time = timestamp.cast_unsigned();
        let sample = 1 + 8 + 1 + varint_len(time);
        length_delimited(&mut self.bytes, 1, labels.len() + 1 + varint_len(sample as u64) + sample);
        self.bytes.extend_from_slice(labels);
        length_delimited(&mut self.bytes, 2, sample);
        self.bytes.push(1 << 3 | 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self.bytes.push(2 << 3);
        varint(&mut self.bytes, time);
        self.samples += 1;
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins anew, with the same memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.samples = 0;
    }
}
