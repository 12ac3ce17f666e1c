//! A write request while it is filled, in either version of the protocol.

mod v1;
mod v2;

use crate::delivery::remote_write::Version;
use crate::metrics::series::{Exemplar, Metadata};
use crate::metrics::symbols::{Symbol, SymbolTable};

/// What says that a series has ended (`model/value/value.go` of Prometheus): a NaN that no computation gives.
pub const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// A sample as an output gets it. Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Names and values in turn, sorted by name.
    pub labels: &'a [Symbol],
    /// What is known of the series.
    pub metadata: Metadata,
    /// The value.
    pub value: f64,
    /// When that was.
    pub timestamp: i64,
    /// When the counter began.
    pub start: Option<i64>,
    /// Its exemplar.
    pub exemplar: Option<&'a Exemplar>,
    /// The native histogram that stands for the value: a `Histogram` of 2.0, without times.
    pub histogram: Option<&'a [u8]>,
}

/// Samples, encoded as they come.
#[derive(Debug)]
pub struct WriteRequest {
    message: Message,
    samples: usize,
}

#[derive(Debug)]
enum Message {
    V1(v1::Message),
    V2(v2::Message),
}

// === impl WriteRequest ===

impl WriteRequest {
    /// An empty one.
    pub fn new(version: Version) -> Self {
        let message = match version {
            Version::V1 => Message::V1(v1::Message::default()),
            Version::V2 => Message::V2(v2::Message::default()),
        };
        WriteRequest { message, samples: 0 }
    }

    /// In which version it is.
    pub fn version(&self) -> Version {
        match self.message {
            Message::V1(_) => Version::V1,
            Message::V2(_) => Version::V2,
        }
    }

    /// Adds a sample, as a time series of its own. False when the version has no place for it: 1.0 has none for native
    /// histograms.
    pub fn add(&mut self, sample: &Sample<'_>, table: &SymbolTable) -> bool {
        match &mut self.message {
            Message::V1(_) if sample.histogram.is_some() => return false,
            Message::V1(message) => message.add(sample, table),
            Message::V2(message) => message.add(sample, table),
        }
        self.samples += 1;
        true
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        match &self.message {
            Message::V1(message) => message.bytes.len(),
            Message::V2(message) => message.bytes(),
        }
    }

    /// Ends it; nothing may be added before it is cleared.
    pub fn finish(&mut self) -> &[u8] {
        match &mut self.message {
            Message::V1(message) => &message.bytes,
            Message::V2(message) => message.finish(),
        }
    }

    /// Begins anew, with the same memory.
    pub fn clear(&mut self) {
        match &mut self.message {
            Message::V1(message) => message.bytes.clear(),
            Message::V2(message) => message.clear(),
        }
        self.samples = 0;
    }
}
